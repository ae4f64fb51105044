"""Reasons of verdicts in a photographer's words."""

import numpy as np
import pyarrow as pa
import pytest
from review_workspace import fill_review_workspace

from authface_data.report.reasons import (
    WORDINGS,
    describe_joined_reasons,
    describe_reason,
    describe_verdict,
)
from authface_data.review.faces import faces_to_review
from authface_data.review.table import to_csv
from manifests.names import check_measurement
from manifests.settings import Settings, load_settings, preset_names, preset_text


@pytest.mark.parametrize(
    ("reason", "value", "text"),
    [
        ("qsize_px < 224", 174.2, "face too small: 174 px, 224 needed"),
        ("qsize_px < 224", 223.8, "face too small: 223.8 px, 224 needed"),
        ("qsize_px < 224", None, "face too small: 224 px needed"),
        ("pad_fraction > 0.05", 0.12, "face cut off by the edge: 12 %, 5 % at most"),
        ("pad_fraction > 0.05", 0.0504, "face cut off by the edge: 5.04 %, 5 % at most"),
        ("pad_fraction > 0.05", None, "face cut off by the edge: 5 % at most"),
        ("sharpness < 0.3", 0.12, "not sharp: 0.12, 0.3 needed"),
        ("left_eye_visible != 1", 0.0, "left eye hidden"),
        ("visible_regions != 3", 2.0, "an eye or the mouth hidden"),
        ("abs_yaw_deg > 60", 71.8, "head turned too far to the side: 72°, 60° at most"),
        ("no musiq", None, "overall quality by MUSIQ not measured"),
        ("topiq_nr < 1e-05", 0.0, "topiq_nr too low: 0.00, 1e-05 needed"),
        ("topiq_nr > 3", 5.0, "topiq_nr too high: 5.00, 3 at most"),
        ("duplicate_of:fs_1", 2.0, "duplicate of another photograph: fs_1"),
        ("no_face", None, "no face found"),
        ("a reason of a later version", 1.0, "a reason of a later version"),
    ],
)
def test_reasons_have_values_and_limits(reason, value, text):
    assert describe_reason(reason, value) == text


def test_verdict_keeps_the_rule_for_the_tooltip():
    row = {"gate": "top", "reason": "not among the best 9 by musiq", "value": 51.4, "threshold": 60}
    described = describe_verdict({**row, "threshold": 60.0})
    assert described.text == "not among the 9 best by overall quality by MUSIQ: 51, 60 needed"
    assert described.rule == "top: not among the best 9 by musiq"


def test_joined_reasons_take_the_values_of_their_rows():
    values = {
        "qsize_px": np.array([300.0, 100.0, np.nan, 223.6, 223.8, 100.2]),
        "upscaled": np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    }
    small = "qsize_px < 224"
    reasons = [None, f"{small}; no_face", small, small, f"upscaled != 0; {small}", small]
    described = describe_joined_reasons(pa.chunked_array([reasons]), values.__getitem__)
    assert described.to_pylist() == [
        "",
        "face too small: 100 px, 224 needed; no face found",
        "face too small: 224 px needed",
        "face too small: 223.6 px, 224 needed",
        "face enlarged from a small picture; face too small: 223.8 px, 224 needed",
        "face too small: 100 px, 224 needed",
    ]


def test_review_table_has_the_words(workspace):
    faces = faces_to_review(fill_review_workspace(workspace))
    table = to_csv(faces).decode("utf-8-sig")
    assert "face too small: 290 px, 300 needed" in table
    assert "face too small: 100 px, 300 needed; skin smoothed by retouching: 0.10, 0.5" in table


def test_measurements_of_all_presets_have_words():
    for name in preset_names():
        settings: Settings = load_settings(preset_text(name).encode(), name)
        for gate in settings.gates:
            check_measurement(gate.metric)
            assert gate.metric in WORDINGS, f"{name}: {gate.metric}"
