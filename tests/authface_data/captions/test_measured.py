"""Measured tags: each rule on pictures made to meet it, and on a real face."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.captions.measured import measured_tags
from authface_data.captions.tokens import count
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.workspace import Workspace


def row(**changes):
    five = [(190, 240), (322, 240), (256, 310), (200, 380), (312, 380)]
    face = {
        "qsize_px": 500.0, "width": 1000, "height": 1500, "yaw_deg": 0.0, "roll_deg": 0.0, "landmarks_crop_px": five,
        "focal_length_mm": None, "aperture": None, "iso": None,
    }  # fmt: skip
    return {**face, **changes}


def grey(level=120):
    rng = np.random.default_rng(0)
    return np.repeat(np.clip(rng.normal(level, 6, (512, 512, 1)), 0, 255).astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        ({"qsize_px": 900}, "close-up"),
        ({"qsize_px": 500}, "head and shoulders"),
        ({"qsize_px": 250}, "half-length"),
        ({"qsize_px": 90}, "full-length"),
        ({"yaw_deg": -4}, "front view"),
        ({"yaw_deg": -35}, "three-quarter view"),
        ({"yaw_deg": 70}, "profile view"),
        ({"roll_deg": -14}, "tilted head"),
        ({"aperture": 1.8}, "f/1.8"),
        ({"focal_length_mm": 85.0}, "85mm lens"),
        ({"iso": 400}, "ISO 400"),
    ],
)
def test_facts_become_tags(changes, tag):
    assert tag in measured_tags(row(**changes), grey())
    other = {key: row()[key] for key in changes}
    if changes != {"qsize_px": 500} and changes != {"yaw_deg": -4}:
        assert tag not in measured_tags(row(**other), grey())


def test_between_the_bounds_it_abstains():
    tags = measured_tags(row(yaw_deg=17), grey())
    assert not {"front view", "three-quarter view", "profile view"} & set(tags)


def test_light_colour_and_key():
    assert "black and white" in measured_tags(row(), grey())
    assert "low-key" in measured_tags(row(), grey(30))
    assert "high-key" in measured_tags(row(), grey(220))
    assert "even light" in measured_tags(row(), grey())
    lit = np.clip(grey().astype(float) * np.linspace(1.9, 0.3, 512)[None, :, None], 0, 255).astype(np.uint8)
    assert "light from the left" in measured_tags(row(), lit)
    assert "light from the right" in measured_tags(row(), lit[:, ::-1])
    warm = grey().astype(int) + [25, 0, -40]
    assert "warm colours" in measured_tags(row(), np.clip(warm, 0, 255).astype(np.uint8))
    assert "cool colours" in measured_tags(row(), np.clip(warm[..., ::-1], 0, 255).astype(np.uint8))


def test_a_blurred_background_is_told_from_a_sharp_one(filled):
    faces = pd.read_parquet(filled / "manifests/faces")
    crop = np.asarray(Image.open(filled / faces.loc[faces["pad_fraction"].idxmin(), "crop_path"]))
    even = crop.copy()
    even[:110] = np.random.default_rng(0).integers(0, 255, (110, 512, 3))
    assert "blurred background" not in measured_tags(row(), even)
    even[:110] = 128
    assert "blurred background" in measured_tags(row(), even)


def test_every_kept_face_has_a_counted_caption(filled):
    captions = Store(Workspace(filled), CAPTIONS).read().to_pylist()
    assert len(captions) == 4
    for caption in captions:
        assert caption["caption"] == ", ".join(caption["measured_tags"]) != ""
        assert caption["token_count"] == count(caption["caption"]) <= 77
        assert caption["semantic_tags"] == []


def test_tokens_are_clips():
    """Ids and counts of CLIP's own tokenizer: <start> a photo of a cat <end>."""
    from authface_data.captions import tokens

    assert tokens._tokenizer()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert count("") == 2
    assert count("word " * 100) == 102  # not truncated: the cut must never fall silently
