"""The work of `authface filter`: detect, align and score faces, and count what gates keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.engine.processes import share_libraries
from authface_data.engine.run import Engine, Outcomes, run_chain
from authface_data.engine.stage import Chain
from authface_data.faces.orphans import remove_orphans
from authface_data.faces.stage import FacesStage
from authface_data.gates import DUPLICATE_FACES, DUPLICATES, STAGE_VERDICTS, GateResult
from authface_data.images.open import PictureReader
from authface_data.quality.stage import ScoreStage
from manifests.names import QUALITY_MEASURES
from manifests.schema import FACES, PHOTOS, SCORES, VERDICTS
from manifests.settings import Filter
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import POSSIBLE_MINOR
from manifests.workspace import Workspace


def stored_metrics(workspace: Workspace) -> list[str]:
    """The metrics that the workspace has scores of, sorted."""
    return sorted(Store(workspace, SCORES).distinct("metric"))


@dataclass(frozen=True)
class MeasureResult:
    """What `measure_faces` did."""

    outcomes: Outcomes
    """Rows per stage, of detection and of all metrics."""
    photos_per_s: float | None
    """Rate of detection and alignment; None if there was nothing to do."""
    faces_per_s: float | None
    """Rate of the metrics; None if there was nothing to do."""


def measure_faces(
    workspace: Workspace,
    settings: Filter,
    *,
    engine: Engine | None = None,
    retry_failed: bool = False,
    redo: bool = False,
) -> MeasureResult:
    """Detect and align the faces of every photograph, then score every face.

    Args:
        workspace: The workspace; its lock must be held.
        settings: Detector, landmarks, crop size and metrics.
        engine: Where the stages run. Default: on this machine.
        retry_failed: Process rows again that failed before.
        redo: Process rows again that were made with other settings.

    Raises:
        UserError: If the workspace has no photographs, or if rows were made with other settings
            and `redo` is False.
    """
    photos = (
        Store(workspace, PHOTOS)
        .read(["photo_id", "path", "sha256", "aligned", "landmarks68_px"])
        .to_pylist()
    )
    if not photos:
        raise UserError("the workspace has no photographs; run `authface collect` first")

    faces_stage = FacesStage(
        detector=settings.detector,
        landmarks=settings.landmarks,
        size_px=settings.size,
        min_detector_score=settings.min_detector_score,
        detect_long_side_px=settings.detect_long_side_px,
        weights_dir=workspace.weights_dir,
        crop_format=settings.crop_format,
    )
    hash_column = faces_stage.input_hash_column
    photo_inputs = [(row["photo_id"], {**row, hash_column: photo_hash(row)}) for row in photos]
    metrics = dict.fromkeys([*QUALITY_MEASURES, *settings.metrics])
    score_stages = [ScoreStage(metric, workspace.weights_dir) for metric in metrics]
    share_libraries([faces_stage, *score_stages])
    outcomes = run_chain(
        workspace,
        Chain([faces_stage], PictureReader(workspace, "path")),
        photo_inputs,
        title="faces",
        engine=engine,
        retry_failed=retry_failed,
        redo=redo,
    )
    remove_orphans(workspace)

    faces = Store(workspace, FACES).read(["face_id", "crop_path", "crop_sha256", "quad_px"])
    scored = run_chain(
        workspace,
        Chain(score_stages, PictureReader(workspace, "crop_path")),
        [(row["face_id"], row) for row in faces.to_pylist()],
        title="scores",
        engine=engine,
        retry_failed=retry_failed,
        redo=redo,
    )

    photos_per_s = outcomes.rate(faces_stage) if outcomes.seconds else None
    faces_per_s = max(map(scored.rate, score_stages)) if scored.seconds else None
    outcomes.processed.update(scored.processed)
    outcomes.dropped.update(scored.dropped)
    outcomes.failed.update(scored.failed)
    return MeasureResult(outcomes, photos_per_s, faces_per_s)


def photo_hash(photo: Mapping[str, object]) -> str:
    """Hash of what the faces of a photograph depend on.

    Args:
        photo: A row of `photos` with `sha256`, `aligned` and `landmarks68_px`.

    Returns:
        The file's SHA-256. For a picture that its source aligned, a fingerprint of the file and of
        the landmarks that came with it.
    """
    if not photo["aligned"]:
        return str(photo["sha256"])
    return fingerprint(sha256=photo["sha256"], landmarks=photo["landmarks68_px"])


@dataclass(frozen=True)
class FilterSummary:
    """Counts that `authface filter` prints after the gates have run."""

    kept_faces: int
    faces: int
    kept_photos: int
    """Photographs with at least one kept face."""
    photos: int
    duplicate_photos: int
    duplicate_faces: int
    possible_minors: int
    """Faces that a person should check."""
    failed: int
    """Faces and photographs with a failed verdict."""


def summarise(workspace: Workspace, result: GateResult) -> FilterSummary:
    """Count what is kept, flagged and failed.

    Args:
        workspace: The workspace, for the number of photographs and the verdicts of stages.
        result: The result of the gates.
    """
    of_stages = Store(workspace, VERDICTS).read(["id", "verdict"], STAGE_VERDICTS)
    failed_at_stages = of_stages["id"].filter(pc.equal(of_stages["verdict"], "failed"))
    failed_ids = pa.chunked_array([result.failed_ids(), *failed_at_stages.chunks])

    kept = result.in_set
    kept_photo_ids = result.measurements.photo_ids.filter(np.asarray(kept))
    return FilterSummary(
        kept_faces=int(kept.sum()),
        faces=len(result.measurements),
        kept_photos=len(kept_photo_ids.unique()),
        photos=Store(workspace, PHOTOS).count(),
        duplicate_photos=result.count("photo", DUPLICATES, "dropped"),
        duplicate_faces=result.count("face", DUPLICATE_FACES, "dropped"),
        possible_minors=result.count("face", POSSIBLE_MINOR, "kept"),
        failed=len(failed_ids.unique()),
    )
