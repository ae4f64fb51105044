"""The output of `authface explain`: what matters about a photograph and its faces, in groups.

`--json` prints everything that the manifests hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from manifests.support.console import console

if TYPE_CHECKING:
    from authface_data.report.explain import Explanation, FaceExplanation
    from manifests.decisions import DecisionSource
    from manifests.settings import Gate

COLOURS = {"kept": "green", "dropped": "red", "failed": "yellow"}


def print_explanation(explanation: Explanation, gates: Sequence[Gate]) -> None:
    """Print an explanation.

    Args:
        explanation: The explanation.
        gates: The gates of authface.toml, which say what values are needed.
    """
    if explanation.photo is not None:
        _print_photo(explanation.photo)
    for verdict in explanation.verdicts:
        _print_verdict(verdict)
    for face in explanation.faces:
        _print_face(face, gates)
    if explanation.faces:
        console.print()
    if explanation.runs:
        console.print(f"Training runs that used it: {escape(', '.join(explanation.runs))}")
    if explanation.unreadable_runs:
        folders = escape(", ".join(explanation.unreadable_runs))
        console.print(f"Runs that have moved or are gone, which may have used it: {folders}")
    if not explanation.runs and not explanation.unreadable_runs:
        console.print("No training run has used it.")


def _print_photo(photo: Mapping[str, Any]) -> None:
    from manifests.licence_policy import basis_label, photographer_label

    console.print(f"[bold]Photograph {escape(photo['photo_id'])}[/]")
    size = f"{photo['width']} x {photo['height']} px"
    camera = _describe_camera(photo["camera_make"], photo["camera_model"])
    _print_facts("picture", photo["path"], size, photo["description"])
    _print_facts("camera", camera, photo["lens"], photo["taken_at"])
    _print_facts("source", photo["source"], photo["source_url"])
    photographer = photographer_label(photo["photographer_name"])
    _print_facts("credit", photographer, photo["photographer_url"])
    basis = basis_label(photo["licence_basis"])
    _print_facts("licence", photo["licence"], basis, photo["terms_date"])


def _describe_camera(make: str | None, model: str | None) -> str:
    """Maker and model; many cameras repeat their maker in the model ("Canon EOS 5D")."""
    if make and model and model.casefold().startswith(make.split()[0].casefold()):
        return model
    return " ".join(part for part in (make, model) if part)


def _print_face(explanation: FaceExplanation, gates: Sequence[Gate]) -> None:
    face = explanation.face
    states = {True: "[green]kept[/]", False: "[red]dropped[/]", None: "not gated yet"}
    console.print(f"\n[bold]Face {escape(face['face_id'])}[/]: {states[explanation.kept]}")
    for verdict in explanation.verdicts:
        _print_verdict(verdict)
    for decision in explanation.decisions:
        _print_decision(decision)
    in_force = explanation.decision
    if in_force is not None:
        _print_source("decision in force", in_force.decision, in_force.source)
    _print_geometry(face)
    _print_measurements(explanation, gates)
    for caption in explanation.captions:
        _print_facts(f"caption by {caption['captioner']}", caption["caption"])
    for family, source in explanation.edited_tags.items():
        _print_source(f"{family.replace('_', ' ')} in force", "edited", source)


def _print_verdict(row: Mapping[str, Any]) -> None:
    """Print why a gate dropped or flagged a face or photograph.

    A gate that kept it without a remark is in the table of measurements. The verdicts of all gates
    together repeat the others.
    """
    from authface_data.report.reasons import describe_verdict
    from manifests.verdicts import ALL_GATES, ANY_FACE

    if row["gate"] in (ALL_GATES, ANY_FACE) or (row["verdict"] == "kept" and not row["reason"]):
        return
    text = escape(describe_verdict(row).text)
    colour = COLOURS[row["verdict"]]
    console.print(f"  [{colour}]{row['verdict']}[/] by {escape(row['gate'])}: {text}")


def _print_geometry(face: Mapping[str, Any]) -> None:
    angles = [
        f"{name} {round(face[f'{name}_deg'])}°"
        for name in ("yaw", "pitch", "roll")
        if face[f"{name}_deg"] is not None
    ]
    regions = {
        name.replace("_", " "): face[f"{name}_visible"]
        for name in ("left_eye", "right_eye", "mouth")
    }
    hidden = [name for name, is_visible in regions.items() if is_visible is False]
    visibility = f"hidden: {', '.join(hidden)}" if hidden else ""
    if all(regions.values()):
        visibility = "eyes and mouth visible"
    _print_facts("head", ", ".join(angles), visibility)

    size = f"{face['crop_size_px']} px from a face of {face['qsize_px']:.0f} px"
    enlarged = "enlarged" if face["upscaled"] else ""
    outside = face["pad_fraction"] or 0
    padding = f"{100 * outside:.0f} % outside the photograph" if outside >= 0.005 else ""
    _print_facts("crop", face["crop_path"], size, enlarged, padding)

    score = "" if face["score"] is None else f"score {face['score']:.2f}"
    _print_facts("detected by", face["detector"], score, f"landmarks by {face['landmark_backend']}")


def _print_measurements(explanation: FaceExplanation, gates: Sequence[Gate]) -> None:
    from rich.table import Table

    from authface_data.report.explain import list_measurements

    measurements = list_measurements(explanation, gates)
    if not measurements:
        return
    table = Table(
        *("  measurement", "value", "needed", "gate"),
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for row in measurements:
        colour = COLOURS.get(row.verdict or "", "default")
        value = f"[{colour}]{escape(row.value)}[/]"
        table.add_row(f"  {escape(row.noun)}", value, escape(row.needed), escape(row.gate))
    console.print(table)


def _print_decision(row: Mapping[str, Any]) -> None:
    from manifests.captions import caption_text

    tags = caption_text([*(row["semantic_tags"] or []), *(row["photographic_tags"] or [])])
    reviewer = f"{row['reviewer']}, {row['decided_at']:%d %B %Y}"
    _print_facts(reviewer, row["decision"] or "tags edited", row["reason"], row["note"], tags)


def _print_source(name: str, value: str, source: DecisionSource) -> None:
    """Print a decision with the face that it was made about, unless it is the face itself."""
    relation = source.describe_relation()
    if not relation:
        return
    decided = f"by {source.reviewer}, {source.decided_at:%d %B %Y, %H:%M} UTC"
    photo = f"photograph {source.photo_id}" if source.photo_id else ""
    _print_facts(name, value, relation, decided, f"face {source.face_id}", photo)


def _print_facts(name: str, *facts: object) -> None:
    """Print the known facts on one line, or nothing if all are unknown."""
    text = " · ".join(str(fact) for fact in facts if fact not in (None, ""))
    if text:
        console.print(f"  {escape(name)}: {escape(text)}")
