"""The facts behind `authface status`: rows, what was kept, why the rest was not, what to run next."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from manifests.schema import MANIFESTS, VERDICTS
from manifests.store import Store
from manifests.verdicts import ALL_GATES, ANY_FACE, kept_faces
from manifests.workspace import Workspace

# Reasons that go on, after a colon, with what differs from row to row.
KINDS = {
    "undecodable": "undecodable file",
    "duplicate_of": "duplicate of another photograph",
    "excluded": "on the list of --exclude-hashes",
    "bad row": "bad row",
    "too_large": "too large",
    "NoTags": "the model gave no tags",
}


@dataclass(frozen=True)
class Status:
    """rows: per manifest. dropped and failed: per subject, reason -> count. captioned: kept faces with a caption in use.
    runs: per run, its stage and last step."""

    workspace: str
    rows: dict[str, int]
    kept_faces: int
    kept_photos: int
    captioned: int
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, dict[str, int]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    next: str = ""


def gather(ws: Workspace) -> Status:
    """Read the manifests and the folder of runs."""
    rows = {
        name: Store(ws, manifest).read(list(manifest.key)).num_rows
        for name, manifest in MANIFESTS.items()
    }
    kept = kept_faces(ws, ["photo_id"])
    captions = Store(ws, MANIFESTS["captions"]).read_pandas(["face_id", "captioner"])
    used = captions[captions["captioner"].isin(ws.settings.captions.use)]
    captioned = int(kept["face_id"].isin(used["face_id"]).sum())
    verdicts = Store(ws, VERDICTS).read_pandas(["subject", "gate", "verdict", "reason"])
    verdicts = verdicts[~verdicts["gate"].isin([ALL_GATES, ANY_FACE])]

    def reasons(kind: str) -> dict[str, dict[str, int]]:
        chosen = verdicts[verdicts["verdict"] == kind]
        return {
            str(subject): dict(
                Counter(
                    f"{row.gate}: {short(row.reason)}" for row in part.itertuples()
                ).most_common()
            )
            for subject, part in chosen.groupby("subject")
        }

    done_runs = runs(ws)
    return Status(
        workspace=str(ws.root),
        rows=rows,
        kept_faces=len(kept),
        kept_photos=int(kept["photo_id"].nunique()),
        captioned=captioned,
        dropped=reasons("dropped"),
        failed=reasons("failed"),
        runs=done_runs,
        next=_next(
            rows, bool((verdicts["gate"] == "faces").any()), len(kept), captioned, done_runs
        ),
    )


def short(reason: str | None) -> str:
    """A reason without what differs from row to row: a file's name, another photograph's id, a server's words."""
    kind, colon, _ = str(reason).partition(":")
    return KINDS.get(kind, str(reason)) if colon else str(reason)


def runs(ws: Workspace) -> dict[str, str]:
    """Every training run of the workspace, in words: its stage, its steps, whether it is finished."""
    found = {}
    for name in ws.list("runs"):
        if ws.exists(f"runs/{name}/run.json"):
            run = json.loads(ws.read_bytes(f"runs/{name}/run.json"))
            done = "finished" if ws.exists(f"runs/{name}/model_index.json") else "not finished"
            found[name] = f"{run['stage']}, {run['settings']['steps']} steps, {done}"
    return found


def _next(
    rows: dict[str, int], looked: bool, kept: int, captioned: int, runs: dict[str, str]
) -> str:
    """The command to run next. looked: whether photographs without a face were found."""
    if not rows["photos"]:
        return "authface collect --source folder --path DIR --licence-basis own"
    if not rows["faces"]:
        return (
            "collect others: no face was found in any photograph" if looked else "authface filter"
        )
    if not kept:
        return "lower a threshold in authface.toml, then authface filter --regate"
    if captioned < kept:
        return "authface caption"
    if not any(
        state.startswith("prior") and state.endswith(", finished") for state in runs.values()
    ):
        return "authface train-prior --preset paper"
    if not any(
        state.startswith("restorer") and state.endswith(", finished") for state in runs.values()
    ):
        return "authface train-restore --preset paper"
    return "authface report"


def show(status: Status, console: Console) -> None:
    """Print as tables."""
    table = Table(title=f"{status.workspace}", title_justify="left")
    table.add_column("manifest")
    table.add_column("rows", justify="right")
    for name, count in status.rows.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(
        f"[bold]{status.kept_faces:,}[/] faces kept, in {status.kept_photos:,} photographs; {status.captioned:,} captioned"
    )
    for title, groups in (("Dropped", status.dropped), ("Failed", status.failed)):
        if not groups:
            continue
        table = Table(title=title, title_justify="left")
        table.add_column("of")
        table.add_column("gate: reason")
        table.add_column("count", justify="right")
        for subject, reasons in groups.items():
            for reason, count in reasons.items():
                table.add_row(subject, escape(reason), f"{count:,}")
        console.print(table)
    for name, state in status.runs.items():
        console.print(f"run {name}: {state}")
    console.print(f"Next: [bold]{status.next}[/]")
