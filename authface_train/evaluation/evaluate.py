"""Every picture of some methods measured, and what is known of the faces they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from authface_data.faces.descriptor import Descriptor
from authface_data.faces.pose import head_pose
from authface_data.images.upright import DECODE_ERRORS
from authface_data.quality import skin_tone
from authface_train.evaluation.fid import Fid, ReferenceSet
from authface_train.evaluation.image_pairs import matched, pictures_by_name, read
from authface_train.evaluation.metrics import METRICS, ImageMetrics
from manifests.support.errors import MissingResourceError, UserError

DEGRADED = "degraded"


@dataclass
class Evaluation:
    """scores: a row per method and picture: method, name, path, reference, one column per metric. fid: by method.

    missing: what to get for metrics whose weights are not here. unmatched: names that lack a partner, in words. notes: what had
    to be done to pictures. failed: pictures that could not be measured, in words. faces: name -> ITA and yaw of the clean face.
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
        return list(dict.fromkeys(self.scores["method"]))


def evaluate(
    methods: dict[str, Path],
    reference: Path | None,
    fid_reference: ReferenceSet | None,
    names: Sequence[str],
    weights_dir: str | None,
    device: str,
) -> Evaluation:
    """methods: folders of restored pictures by name; the one named DEGRADED is what was given to them.

    Raises UserError for a folder without pictures, or one that shares no picture with the reference.
    """
    measures = ImageMetrics(names, weights_dir, device)
    clean = pictures_by_name(reference) if reference is not None else {}
    found = Evaluation(
        pd.DataFrame(),
        [name for name in names if name in measures.metrics],
        missing=dict(measures.missing),
    )
    work: list[tuple[str, str, Path, Path | None]] = []
    for method, folder in methods.items():
        pictures = pictures_by_name(folder)
        if reference is None:
            work += [(method, name, path, None) for name, path in sorted(pictures.items())]
            continue
        both = matched(pictures, clean)
        if not both.pairs:
            raise UserError(
                f"no picture of {folder} has the name of one in {reference}: pairs are matched by name"
            )
        found.unmatched += [f"{method}: {name} has no reference" for name in both.alone]
        found.unmatched += [f"{method}: nothing restored for {name}" for name in both.partnerless]
        work += [(method, name, path, partner) for name, (path, partner) in both.pairs.items()]
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        for one in progress.track(work, description="evaluate"):
            row = _measured(measures, found, *one)
            if row is not None:
                rows.append(row)
    if not rows:
        raise UserError(f"no picture could be measured: {'; '.join(found.failed[:3])}")
    found.scores, found.notes = pd.DataFrame(rows), list(dict.fromkeys(found.notes))
    if "fid" in names:
        _fid(found, fid_reference, weights_dir, device)
    return found


def _measured(
    measures: ImageMetrics,
    found: Evaluation,
    method: str,
    name: str,
    path: Path,
    partner: Path | None,
) -> dict[str, Any] | None:
    try:
        picture, done = read(path)
        reference, done_to_reference = read(partner) if partner is not None else (None, [])
    except DECODE_ERRORS as error:
        found.failed.append(f"{method}: {name} cannot be decoded ({error})")
        return None
    found.notes += [f"{method}: {name}: {words}" for words in done]
    found.notes += [f"reference: {name}: {words}" for words in done_to_reference]
    if reference is not None and reference.shape != picture.shape:
        sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (picture, reference)]
        found.failed.append(
            f"{method}: {name} is {sizes[0]} and its reference {sizes[1]}: not compared"
        )
    values = measures.of(picture, reference)
    alone = [
        key
        for key, metric in measures.metrics.items()
        if metric.kind == "picture" and values[key] is None
    ]
    if alone:
        found.failed.append(
            f"{method}: {name} ({picture.shape[1]}x{picture.shape[0]}) cannot be measured by {', '.join(alone)}"
        )
    return {
        "method": method,
        "name": name,
        "path": str(path),
        "reference": str(partner) if partner else None,
        **values,
    }


def _fid(
    found: Evaluation, reference: ReferenceSet | None, weights_dir: str | None, device: str
) -> None:
    assert reference is not None
    try:
        fid = Fid(weights_dir, device)
    except MissingResourceError as error:
        found.missing["fid"] = str(error)
        return
    found.fid_reference = reference
    clean = pictures_by_name(reference.folder).values()
    for method, rows in found.scores.groupby("method", sort=False):
        found.fid[str(method)] = fid.of([Path(path) for path in rows["path"]], clean)
    found.metrics = [name for name in METRICS if name in found.metrics or name == "fid"] + [
        name for name in found.metrics if name not in METRICS
    ]


def look_at_faces(found: Evaluation, weights_dir: str | None) -> None:
    """Skin tone (ITA) and yaw of the clean face of each name that has one, into `found.faces`. May raise Missing."""
    descriptor = Descriptor()
    descriptor.setup(weights_dir)
    rows = []
    for name, path in dict(
        found.scores.dropna(subset=["reference"])[["name", "reference"]].to_numpy()
    ).items():
        picture, _ = read(Path(path))
        seen = descriptor.look(picture)
        yaw = None if seen is None else head_pose(seen.landmarks_px, seen.five_px).yaw_deg
        tone = skin_tone.score(picture) if picture.shape[0] == picture.shape[1] else None
        rows.append({"name": name, "ita_deg": tone, "yaw_deg": yaw})
    found.faces = pd.DataFrame(rows, columns=["name", "ita_deg", "yaw_deg"])


def values(found: Evaluation, method: str, metric: str) -> np.ndarray:
    """(n,) of a method's pictures that have the metric."""
    return found.scores.loc[found.scores["method"] == method, metric].dropna().to_numpy(float)
