"""The status of a workspace: rows, kept faces, why the others were dropped, and the next step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.report.reasons import summarise_reason
from authface_data.sources.skipped_files import read_skipped
from manifests.run_folder import WorkspaceRun, list_runs, resume_command
from manifests.schema import CAPTIONS, MANIFESTS, VERDICTS
from manifests.sources import select_source
from manifests.store import RowFilter, Store, text_array
from manifests.support.errors import UserError
from manifests.support.text import excerpt
from manifests.verdicts import ALL_GATES, ANY_FACE, Verdict, kept_faces
from manifests.workspace import Workspace


class _VerdictKind(NamedTuple):
    """Columns of `verdicts` by which verdicts are counted."""

    subject: str
    gate: str
    verdict: str
    reason: str | None


@dataclass(frozen=True)
class Status:
    """The status of a workspace. The fields are keys of the JSON output.

    Attributes:
        workspace: Root of the workspace.
        rows: Number of rows by manifest.
        kept_faces: Number of kept faces.
        kept_photos: Number of photographs with a kept face.
        captioned: Number of kept faces with a caption in use.
        dropped: Subject -> reason -> number of dropped rows.
        failed: Subject -> reason -> number of failed rows.
        skipped_files: Suffix -> number of files in the collected folders that are no pictures.
        runs: Name of a training run -> its stage, steps and state.
        next: The command to run next.
    """

    workspace: str
    rows: dict[str, int]
    kept_faces: int
    kept_photos: int
    captioned: int
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped_files: dict[str, int] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    next: str = ""


def collect_status(workspace: Workspace) -> Status:
    """Read the status from the manifests and the run folders."""
    rows = {name: Store(workspace, manifest).count() for name, manifest in MANIFESTS.items()}
    kept = kept_faces(workspace, ["photo_id"])
    captions = Store(workspace, CAPTIONS).read(
        ["face_id"], RowFilter.is_in("captioner", workspace.settings.captions.use)
    )
    kept_ids = text_array(kept["face_id"])
    has_caption = pc.is_in(kept_ids, captions["face_id"].unique()).to_numpy(zero_copy_only=False)
    needs_caption = kept.index.isin(select_source(kept, None).index)

    verdicts = _count_verdicts(workspace)
    runs = describe_runs(workspace)
    return Status(
        workspace=str(workspace.root),
        rows=rows,
        kept_faces=len(kept),
        kept_photos=int(kept["photo_id"].nunique()),
        captioned=int(has_caption.sum()),
        dropped=_count_reasons(verdicts, "dropped"),
        failed=_count_reasons(verdicts, "failed"),
        skipped_files=read_skipped(workspace),
        runs=runs,
        next=_next_command(
            rows,
            detector_verdicts={kind.verdict for kind in verdicts if kind.gate == "faces"},
            num_kept=len(kept),
            num_uncaptioned=int((needs_caption & ~has_caption).sum()),
            has_ffhq=not select_source(kept, "ffhq").empty,
            runs=runs,
        ),
    )


def _count_verdicts(workspace: Workspace) -> Counter[_VerdictKind]:
    """Number of verdicts of every kind, in the order of the first one of each kind."""
    columns = list(_VerdictKind._fields)
    combined = (ALL_GATES, ANY_FACE)
    verdicts = Store(workspace, VERDICTS).read(
        columns,
        RowFilter("gate", lambda gates: pc.invert(pc.is_in(gates, pa.array(combined)))),
        encoded=columns,
    )
    counts: Counter[_VerdictKind] = Counter()
    for batch in verdicts.to_batches():  # the dictionaries of two batches differ
        kinds = pa.table(batch).group_by(columns, use_threads=False).aggregate([([], "count_all")])
        for row in kinds.to_pylist():
            counts[_VerdictKind(*(row[name] for name in columns))] += row["count_all"]
    return counts


def _count_reasons(
    verdicts: Mapping[_VerdictKind, int], verdict: Verdict
) -> dict[str, dict[str, int]]:
    """Subject -> "gate: reason" -> number of verdicts, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for kind, count in verdicts.items():
        if kind.verdict == verdict:
            reason = f"{kind.gate}: {summarise_reason(kind.reason)}"
            counts.setdefault(kind.subject, Counter())[reason] += count
    return {subject: dict(counts[subject].most_common()) for subject in sorted(counts)}


def describe_runs(workspace: Workspace) -> dict[str, str]:
    """Describe every training run of the workspace by name, see `describe_run`."""
    descriptions = {}
    for run in list_runs(workspace):
        description = describe_run(run)
        if description is not None:
            descriptions[run.name] = description
    return descriptions


def describe_run(run: WorkspaceRun) -> str | None:
    """Stage, number of steps and state of a run, or None if the folder has no run."""
    try:
        record = run.read_run()
        run.read_notes()
    except UserError as error:
        return str(error)
    if record is None:
        return None
    state = "finished" if run.is_finished() else "not finished"
    steps = record.get("settings", {}).get("steps")
    return f"{excerpt(str(record.get('stage')), 40)}, {excerpt(str(steps), 40)} steps, {state}"


def _next_command(
    rows: Mapping[str, int],
    *,
    detector_verdicts: set[str],
    num_kept: int,
    num_uncaptioned: int,
    has_ffhq: bool,
    runs: Mapping[str, str],
) -> str:
    """The command to run next.

    Args:
        rows: Number of rows by manifest.
        detector_verdicts: Verdicts of the detector about photographs, such as "failed".
        num_kept: Number of kept faces.
        num_uncaptioned: Number of kept faces that need a caption and have none.
        has_ffhq: Whether a kept face comes from FFHQ, as Stage II of the preset `paper` needs.
        runs: Descriptions of the training runs.
    """
    if not rows["photos"]:
        return "authface collect --source folder --path DIR --licence-basis own"
    if not rows["faces"] and "failed" in detector_verdicts:
        return "authface filter --retry failed"
    if not rows["faces"] and detector_verdicts:
        return "collect other photographs: no face was found in any of these"
    if not rows["faces"]:
        return "authface filter"
    if not num_kept:
        return "lower a threshold in authface.toml, then authface filter --regate"
    if num_uncaptioned:
        return "authface caption"
    for stage, command in (("prior", "train-prior"), ("restorer", "train-restore")):
        if not _has_finished(runs, stage):
            interrupted = [name for name in runs if runs[name].startswith(f"{stage}, ")]
            if interrupted:
                return resume_command(stage, interrupted[-1])
            source = " --source workspace" if stage == "restorer" and not has_ffhq else ""
            return f"authface {command} --preset paper{source}"
    return "authface report"


def _has_finished(runs: Mapping[str, str], stage: str) -> bool:
    return any(
        description.startswith(stage) and description.endswith(", finished")
        for description in runs.values()
    )
