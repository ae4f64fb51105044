"""Measures the pictures of methods, the FID of each method, and attributes of the faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from authface_data.faces.pose import head_pose
from authface_data.images.open import PICTURE_ERRORS
from authface_data.quality import skin_tone
from authface_train.evaluation.fid import Fid, ReferenceSet
from authface_train.evaluation.image_pairs import find_pictures, match_pictures, read_picture
from authface_train.evaluation.metrics import METRICS, ImageMetrics, load_descriptor
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.progress import track

DEGRADED = "degraded"
"""Method name that is reserved for the degraded pictures themselves."""

logger = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """Measurements of some methods.

    Attributes:
        scores: One row per method and picture: `method`, `name`, `path`, `reference`, and one
            column per metric.
        metrics: Names of the measured metrics, in the order of tables.
        fid: Method to FID.
        fid_reference: The pictures that FID is measured against.
        missing: Metrics whose weights are missing, with the instruction how to get them.
        unmatched: One message per picture without a partner.
        notes: One message per picture and conversion, such as "grey expanded to RGB".
        failed: One message per picture that could not be measured completely.
        faces: One row per name: `name`, `ita_deg` (skin tone), `yaw_deg` (pose) of the clean face.
            None if faces were not measured.
    """

    scores: pd.DataFrame
    metrics: list[str]
    fid: dict[str, float] = field(default_factory=dict)
    fid_reference: ReferenceSet | None = None
    missing: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    faces: pd.DataFrame | None = None

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of evaluation."""
        return list(dict.fromkeys(self.scores["method"]))

    def values(self, method: str, metric: str) -> np.ndarray:
        """Values of a metric over the pictures of a method.

        Args:
            method: Name of the method.
            metric: Name of the metric.

        Returns:
            (n,) float64, without the pictures that have no value.
        """
        scores = self.scores.loc[self.scores["method"] == method, metric]
        return scores.dropna().to_numpy(float)


@dataclass(frozen=True)
class _Picture:
    """A picture to measure, and its clean partner if there is one."""

    method: str
    name: str
    path: Path
    reference: Path | None


def evaluate(
    methods: Mapping[str, Path],
    *,
    reference: Path | None,
    fid_reference: ReferenceSet | None,
    suffix: str | None = None,
    prompts: Mapping[Path, str] | None = None,
    metrics: Sequence[str],
    weights_dir: str | None,
    device: str,
) -> Evaluation:
    """Measure the pictures of some methods.

    Args:
        methods: Method to the folder of its pictures. `DEGRADED` names the degraded pictures.
        reference: Folder of the clean pictures, matched by name.
        fid_reference: Pictures that FID is measured against; necessary for `fid`.
        suffix: Text that a method appended to the names of its pictures.
        prompts: File of a picture to the prompt that it was generated from, for `hpsv2`.
        metrics: Names of metrics (see `select_metrics`).
        weights_dir: Folder of downloaded weights.
        device: Device of the networks, such as "cpu" or "cuda".

    Raises:
        UserError: If a folder holds no pictures, shares no name with the reference, or if no
            picture could be measured.
    """
    image_metrics = ImageMetrics(metrics, weights_dir, device)
    evaluation = Evaluation(
        scores=pd.DataFrame(),
        metrics=[name for name in metrics if name in image_metrics.metrics],
        missing=dict(image_metrics.missing),
    )
    pictures = _list_pictures(methods, reference, suffix, evaluation)
    rows = []
    for picture in track(pictures, "evaluate", unit="pictures"):
        prompt = (prompts or {}).get(picture.path)
        row = _measure_picture(image_metrics, picture, prompt, evaluation)
        if row is not None:
            rows.append(row)
    if not rows:
        raise UserError(f"no picture could be measured: {'; '.join(evaluation.failed[:3])}")
    evaluation.scores = pd.DataFrame(rows)
    evaluation.notes = list(dict.fromkeys(evaluation.notes))

    if "fid" in metrics:
        assert fid_reference is not None
        _measure_fid(evaluation, fid_reference, weights_dir, device)
    return evaluation


def measure_faces(evaluation: Evaluation, weights_dir: str | None) -> None:
    """Measure skin tone (ITA) and yaw of the clean faces, and set `evaluation.faces`.

    Args:
        evaluation: An evaluation with reference pictures.
        weights_dir: Folder of downloaded weights.

    Raises:
        MissingResourceError: If the weights of the face descriptor are missing.
    """
    descriptor = load_descriptor(weights_dir)
    with_reference = evaluation.scores.dropna(subset=["reference"])
    references = dict(zip(with_reference["name"], with_reference["reference"], strict=True))
    rows = []
    for name, path in track(references.items(), "faces", total=len(references), unit="pictures"):
        picture, _ = read_picture(Path(path))
        face = descriptor.locate_and_describe(picture)
        yaw_deg = None
        if face is not None:
            yaw_deg = head_pose(face.landmarks68_px, face.landmarks5_px).yaw_deg
        is_square = picture.shape[0] == picture.shape[1]
        ita_deg = skin_tone.score(picture) if is_square else None
        rows.append({"name": name, "ita_deg": ita_deg, "yaw_deg": yaw_deg})
    evaluation.faces = pd.DataFrame(rows, columns=["name", "ita_deg", "yaw_deg"])


def _list_pictures(
    methods: Mapping[str, Path],
    reference: Path | None,
    suffix: str | None,
    evaluation: Evaluation,
) -> list[_Picture]:
    """List the pictures of all methods. Those without a partner go to `evaluation.unmatched`."""
    found = {method: find_pictures(folder) for method, folder in methods.items()}
    clean = find_pictures(reference) if reference is not None else None
    listed = []
    for method, pictures in found.items():
        if clean is None:
            names = _names_of_degraded(pictures, found.get(DEGRADED, {}), suffix)
            listed += [
                _Picture(method, names.get(path, name), path, None)
                for name, path in sorted(pictures.items())
            ]
            continue
        matched = match_pictures(pictures, clean, suffix)
        if not matched.pairs:
            advice = (
                matched.ambiguous[0]
                if matched.ambiguous
                else "pictures are matched by name (--suffix TEXT is what the method appended)"
            )
            raise UserError(
                f"no picture of {methods[method]} has the name of a picture in {reference}; "
                f"{advice}"
            )
        for name, (path, partner) in matched.pairs.items():
            listed.append(_Picture(method, name, path, partner))
        evaluation.unmatched += [f"{method}: {message}" for message in matched.ambiguous]
        evaluation.unmatched += [
            f"{method}: {name} has no reference" for name in matched.only_first
        ]
        evaluation.unmatched += [
            f"{method}: no restored picture for {name}" for name in matched.only_second
        ]
    return listed


def _names_of_degraded(
    pictures: Mapping[str, Path], degraded: Mapping[str, Path], suffix: str | None
) -> dict[Path, str]:
    """File to the name of its degraded picture, for the pictures that have one."""
    pairs = match_pictures(pictures, degraded, suffix).pairs
    return {path: name for name, (path, _) in pairs.items()}


def _measure_picture(
    image_metrics: ImageMetrics, picture: _Picture, prompt: str | None, evaluation: Evaluation
) -> dict[str, object] | None:
    """The score row of a picture, or None if it cannot be decoded."""
    label = f"{picture.method}: {picture.name}"
    reference_pixels: np.ndarray | None = None
    reference_conversions: list[str] = []
    try:
        pixels, conversions = read_picture(picture.path)
        if picture.reference is not None:
            reference_pixels, reference_conversions = read_picture(picture.reference)
    except PICTURE_ERRORS as error:
        evaluation.failed.append(f"{label} cannot be decoded ({error})")
        return None
    evaluation.notes += [f"{label}: {conversion}" for conversion in conversions]
    evaluation.notes += [
        f"reference: {picture.name}: {conversion}" for conversion in reference_conversions
    ]

    size = _format_size(pixels)
    if reference_pixels is not None and reference_pixels.shape != pixels.shape:
        reference_size = _format_size(reference_pixels)
        evaluation.failed.append(
            f"{label} is {size} and its reference {reference_size}: not compared"
        )
    values = image_metrics.measure(pixels, reference_pixels, prompt)
    if prompt is None and any(metric.kind == "prompt" for metric in image_metrics.metrics.values()):
        evaluation.unmatched.append(f"{label} has no prompt")
    without_value = [
        name
        for name, metric in image_metrics.metrics.items()
        if metric.kind == "picture" and values[name] is None
    ]
    if without_value:
        evaluation.failed.append(f"{label} ({size}) has no value of {', '.join(without_value)}")
    return {
        "method": picture.method,
        "name": picture.name,
        "path": str(picture.path),
        "reference": str(picture.reference) if picture.reference else None,
        **values,
    }


def _format_size(picture: np.ndarray) -> str:
    """Width and height, for example "512x512"."""
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _measure_fid(
    evaluation: Evaluation, reference: ReferenceSet, weights_dir: str | None, device: str
) -> None:
    """Measure FID of each method and insert it at its place among the metrics."""
    if reference.count < 2:
        evaluation.notes.append(f"{reference.folder}: no FID against one picture; it needs two")
        return
    try:
        fid = Fid(find_pictures(reference.folder).values(), weights_dir, device)
    except MissingResourceError as error:
        evaluation.missing["fid"] = str(error)
        return
    evaluation.fid_reference = reference
    for method, rows in evaluation.scores.groupby("method", sort=False):
        pictures = [Path(path) for path in rows["path"]]
        if len(pictures) < 2:
            evaluation.notes.append(f"{method}: no FID of one picture; it needs two")
            continue
        logger.info("fid: %d pictures of %s", len(pictures), method)
        evaluation.fid[str(method)] = fid.compute(pictures)

    measured = {*evaluation.metrics, "fid"}
    known = [name for name in METRICS if name in measured]
    from_pyiqa = [name for name in evaluation.metrics if name not in METRICS]
    evaluation.metrics = known + from_pyiqa
