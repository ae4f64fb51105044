"""One face's whole story, or a photograph's: where it came from, what was measured and decided, and who learnt from it."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authface_data.gates import RESERVED_NAMES
from manifests.decisions import last_decisions
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, SCORES, VERDICTS, Manifest
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.tombstones import Tombstones
from manifests.verdicts import ALL_GATES
from manifests.workspace import Workspace


def explain(workspace: Workspace, asked: str) -> dict[str, Any]:
    """Everything that the manifests hold of an id. Raises UserError for one that they do not know.

    Keys: `photo` (or None), `faces`, a list of {`face`, `scores`, `verdicts`, `captions`, `decisions`, `kept`}, `verdicts` (of
    the photo), `runs` (names of the runs whose lineage holds it).
    """
    faces = _rows(workspace, FACES, "face_id", [asked]) or _rows(
        workspace, FACES, "photo_id", [asked]
    )
    photo_id = faces[0]["photo_id"] if faces else asked
    photos = _rows(workspace, PHOTOS, "photo_id", [photo_id])
    ids = [face["face_id"] for face in faces]
    verdicts = _rows(workspace, VERDICTS, "id", [photo_id, *ids])
    if not (faces or photos or verdicts):
        raise UserError(_unknown(workspace, asked))
    scores, captions = (
        _rows(workspace, SCORES, "face_id", ids),
        _rows(workspace, CAPTIONS, "face_id", ids),
    )
    decisions, last = _rows(workspace, DECISIONS, "id", ids), last_decisions(workspace)
    told = []
    for face in faces:
        face_id = face["face_id"]
        own = [row for row in verdicts if row["id"] == face_id]
        judged = next((row["verdict"] == "kept" for row in own if row["gate"] == ALL_GATES), None)
        told.append(
            {
                "face": face,
                "scores": [row for row in scores if row["face_id"] == face_id],
                "verdicts": own,
                "captions": [row for row in captions if row["face_id"] == face_id],
                "decisions": sorted(
                    (r for r in decisions if r["id"] == face_id), key=lambda row: row["decided_at"]
                ),
                "kept": {"keep": True, "drop": False}.get(last.get(face_id), judged),
            }
        )
    return {
        "photo": photos[0] if photos else None,
        "verdicts": [row for row in verdicts if row["id"] == photo_id],
        "faces": told,
        "runs": [
            name for name in workspace.list("runs") if _learnt_from(workspace, name, photo_id)
        ],
    }


def _rows(
    workspace: Workspace, manifest: Manifest, column: str, ids: list[str]
) -> list[dict[str, Any]]:
    table = Store(workspace, manifest).read()
    return (
        table.filter(pc.is_in(table[column], pc.cast(ids, table[column].type))).to_pylist()
        if ids
        else []
    )


def _unknown(workspace: Workspace, asked: str) -> str:
    forgotten = Tombstones(workspace)
    if forgotten.holds(asked) or forgotten.holds(asked.rpartition("_")[0]):
        return f"{asked} was forgotten here: nothing of it is left to tell"
    near = [
        one
        for one in Store(workspace, FACES).read(["face_id"])["face_id"].to_pylist()
        if one.startswith(asked)
    ]
    hint = f": did you mean {near[0]}?" if near else " (`authface status` counts what there is)"
    return f"no photograph or face {asked!r} is known here{hint}"


def _learnt_from(workspace: Workspace, run: str, photo_id: str) -> bool:
    path = f"runs/{run}/lineage.parquet"
    if not workspace.exists(path):
        return False
    with workspace.open(path) as file:
        return photo_id in pq.read_table(file, columns=["photo_id"])["photo_id"].to_pylist()


def show(story: dict[str, Any], console: Console) -> None:
    """Print it as a person would tell it."""
    if photo := story["photo"]:
        console.print(f"[bold]Photograph {escape(photo['photo_id'])}[/]")
        size = f"{photo['width']} x {photo['height']} px"
        camera = " ".join(
            str(photo[name]) for name in ("camera_make", "camera_model", "lens") if photo[name]
        )
        _line(console, "picture", photo["path"], size, photo["description"], camera)
        _line(console, "from", photo["source"], photo["source_url"])
        _line(
            console,
            "credit",
            photo["photographer_name"] or "photographer not stated",
            photo["photographer_url"],
        )
        _line(
            console,
            "licence",
            photo["licence"],
            photo["licence_basis"] or "no basis",
            photo["terms_date"],
        )
    for row in story["verdicts"]:
        _verdict(console, row)
    for told in story["faces"]:
        _face(console, told)
    runs = ", ".join(story["runs"])
    console.print(
        f"Learnt from by: {escape(runs)}" if runs else "No training run has learnt from it."
    )


def _face(console: Console, told: dict[str, Any]) -> None:
    face = told["face"]
    kept = {True: "[green]kept[/]", False: "[red]dropped[/]", None: "not judged yet"}[told["kept"]]
    console.print(f"\n[bold]Face {escape(face['face_id'])}[/]: {kept}")
    score = "" if face["score"] is None else f"score {face['score']:.3f}"
    _line(console, "found by", face["detector"], score, f"landmarks by {face['landmark_backend']}")
    angles = ", ".join(f"{name} {face[name + '_deg']:.0f}°" for name in ("yaw", "pitch", "roll"))
    hidden = [
        name.replace("_", " ")
        for name in ("left_eye", "right_eye", "mouth")
        if not face[f"{name}_visible"]
    ]
    _line(
        console,
        "pose",
        angles,
        f"not visible: {', '.join(hidden)}" if hidden else "eyes and mouth visible",
    )
    padding = f"{100 * face['pad_fraction']:.1f} % padding" if face["pad_fraction"] else ""
    enlarged = "enlarged" if face["upscaled"] else ""
    _line(
        console,
        "crop",
        face["crop_path"],
        f"{face['crop_size_px']} px of {face['qsize_px']:.0f} px",
        enlarged,
        padding,
    )
    if told["scores"]:
        table = Table(
            "metric", "value", "version", "on", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for row in sorted(told["scores"], key=lambda row: row["metric"]):
            table.add_row(
                row["metric"], f"{row['value']:.4g}", row["metric_version"], row["device"] or ""
            )
        console.print(table)
    for row in sorted(
        told["verdicts"], key=lambda row: (row["gate"] in RESERVED_NAMES, row["verdict"] == "kept")
    ):
        _verdict(console, row)
    for row in told["captions"]:
        _line(console, f"caption by {row['captioner']}", row["caption"])
    for row in told["decisions"]:
        tags = [*(row["semantic_tags"] or []), *(row["photographic_tags"] or [])]
        what = [row["decision"] or "tags edited", row["reason"], row["note"], ", ".join(tags)]
        _line(console, f"{row['reviewer']}, {row['decided_at']:%d %B %Y}", *what)


def _verdict(console: Console, row: dict[str, Any]) -> None:
    colour = {"kept": "green", "dropped": "red", "failed": "yellow"}[row["verdict"]]
    value = "" if row["value"] is None else f" (it is {row['value']:.4g})"
    why = f": {row['reason']}" if row["reason"] else ""
    console.print(f"  [{colour}]{row['verdict']}[/] at {escape(row['gate'])}{escape(why + value)}")


def _line(console: Console, name: str, *facts: object) -> None:
    said = " · ".join(str(fact) for fact in facts if fact not in (None, ""))
    if said:
        console.print(f"  {escape(name)}: {escape(said)}")
