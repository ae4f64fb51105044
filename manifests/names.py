"""Names that authface.toml may contain: detectors, landmarks, captioners and measurements.

The data half has a class or a module for most of them; a test compares the lists.
"""

from __future__ import annotations

import functools
import importlib.util

import pyarrow.types as pt

from manifests.schema import FACES
from manifests.support.text import did_you_mean, excerpt

DETECTORS = ("retinaface", "retinaface-mobile")
LANDMARKS = ("dlib", "mediapipe", "retinaface5")
CAPTIONERS = ("llava", "server", "measured")
CAPTION_ORIGINS = (*CAPTIONERS, "qwen")
"""The captioners, and the origin of captions that AuthFace-HQ brings along."""

QUALITY_MEASURES = (
    "pepper",
    "noise",
    "sharpness",
    "skin",
    "jpeg",
    "banding",
    "exposure",
    "detail",
    "photographic",
    "skin_tone",
    "light",
    "lightness",
)
"""Metrics of `scores` that every `authface filter` computes."""

FACE_COLUMNS = [
    name
    for name, kind in FACES.columns
    if pt.is_floating(kind) or pt.is_integer(kind) or pt.is_boolean(kind)
]
"""Columns of `faces` that hold a number or a flag."""

PHOTO_COLUMNS = ["faces_in_photo", "rank_in_photo"]
"""Number of faces in the photograph, and the rank of the face among them by size (1 = largest)."""

ANGLE_COLUMNS = ["yaw_deg", "pitch_deg", "roll_deg"]
REGION_COLUMNS = ["left_eye_visible", "right_eye_visible", "mouth_visible"]
DERIVED_COLUMNS = [
    *(f"abs_{name}" for name in ANGLE_COLUMNS),
    "visible_regions",
    "relative_sharpness",
]
"""The angles of the head without their signs; how many of `REGION_COLUMNS` are true, 0 to 3; and
the face's `sharpness` divided by that of the sharpest face in its photograph."""

OPTIONAL_COLUMNS = ("score",)
"""Measurements that a face may lack for a good reason. A face that its source has aligned and that
comes with landmarks is not detected, so it has no score of a detector."""

MEASURED_COLUMNS = [*FACE_COLUMNS, *PHOTO_COLUMNS, *DERIVED_COLUMNS]
"""Every measurement that is available without a metric of `scores`."""


@functools.cache
def iqa_metric_names() -> tuple[str, ...]:
    """The names of pyiqa's no-reference metrics, sorted; empty if pyiqa is not installed.

    Only pyiqa's table of metrics is loaded: importing the package takes seconds, because it imports
    torch.
    """
    package = importlib.util.find_spec("pyiqa")
    if package is None or not package.submodule_search_locations:
        return ()
    path = f"{package.submodule_search_locations[0]}/default_model_configs.py"
    spec = importlib.util.spec_from_file_location("_pyiqa_configs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    configs = module.DEFAULT_CONFIGS
    return tuple(sorted(name for name in configs if configs[name]["metric_mode"] == "NR"))


def check_metric(name: str) -> None:
    """Check the name of a metric of `scores`.

    Raises:
        ValueError: If neither authface nor pyiqa has it. Without pyiqa every name passes.
    """
    metrics = iqa_metric_names()
    if metrics and name not in metrics and name not in QUALITY_MEASURES:
        hint = did_you_mean(name, metrics) or (
            "; choose one of pyiqa's no-reference metrics, such as musiq, niqe or piqe"
        )
        raise ValueError(f'unknown metric "{excerpt(name, 80)}"{hint}')


def check_measurement(name: str) -> None:
    """Check the name of a measurement: a metric of `scores` or one of `MEASURED_COLUMNS`.

    Raises:
        ValueError: If there is no such measurement. Without pyiqa every name passes.
    """
    metrics = iqa_metric_names()
    known = [*QUALITY_MEASURES, *MEASURED_COLUMNS, *metrics]
    if metrics and name not in known:
        hint = did_you_mean(name, known) or f"; choose from: {', '.join(known[: -len(metrics)])}"
        raise ValueError(f'unknown measurement "{excerpt(name, 80)}"{hint}')
