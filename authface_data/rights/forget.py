"""Forgetting: photographs are removed from every file of the workspace and never collected again.

The plan is written to `.forgetting.json` first. Then tombstones are added, rows are removed from
the manifests, and all other files are cleaned. Repeating the command finishes an interrupted run;
until then no other command writes to the workspace.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from authface_data.gates import apply_gates
from authface_data.images.hashes import hash_pixels
from authface_data.images.open import PICTURE_ERRORS, Photo
from authface_data.rights.workspace_sweep import REPLACEMENT, Traces, WorkspaceSweep
from authface_data.sources.unsplash.stored_names import PHOTO_ID_PREFIX as UNSPLASH_PREFIX
from manifests.decisions import face_decisions, record_decisions
from manifests.run_register import find_trained_runs
from manifests.schema import (
    CAPTIONS,
    DECISIONS,
    FACES,
    MANIFESTS,
    PHOTOS,
    SCORES,
    TOMBSTONES,
    VERDICTS,
    Manifest,
)
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.parsing import parse_json_object
from manifests.tombstones import Tombstones, add_tombstones
from manifests.verdicts import ALL_GATES, DUPLICATE_PREFIX
from manifests.workspace import FORGETTING, Workspace

ID_COLUMNS: dict[str, str] = {
    PHOTOS.name: "photo_id",
    FACES.name: "photo_id",
    SCORES.name: "face_id",
    CAPTIONS.name: "face_id",
    VERDICTS.name: "id",
    DECISIONS.name: "id",
}
"""Manifest -> its column that names the photograph or the face."""
URL_COLUMNS = ("source_url", "download_location")
HANDED_OVER_NOTE = "a near-duplicate was dropped"
"""Note of a drop that stays in force after the photograph it was made about is forgotten."""


@dataclass
class ForgetPlan:
    """What to forget. Stored as JSON while it is executed, so field names must not change."""

    photo_ids: list[str]
    photo_hashes: list[str] = field(default_factory=list)
    """SHA-256 of the photographs' files."""
    photo_pixels: list[str] = field(default_factory=list)
    """Hashes of the photographs' pixels."""
    crop_hashes: list[str] = field(default_factory=list)
    """SHA-256 of the crops' files."""
    crop_pixels: list[str] = field(default_factory=list)
    """Hashes of the crops' pixels."""
    urls: list[str] = field(default_factory=list)
    """URLs of the photographs that no other photograph shares."""
    paths: list[str] = field(default_factory=list)
    """Paths of photographs and crops in the workspace."""
    others: list[str] = field(default_factory=list)
    """photo_ids that stay and begin like one of `photo_ids`."""
    why: str | None = None
    """The user's reason, stored with the tombstones. Ids and hashes in it are replaced."""

    def traces(self) -> Traces:
        """What identifies the photographs in files."""
        file_hashes = [*self.photo_hashes, *self.crop_hashes]
        pixel_hashes = [*self.photo_pixels, *self.crop_pixels]
        return Traces(
            ids=self.photo_ids,
            other_ids=set(self.others),
            strings=[*file_hashes, *pixel_hashes, *self.urls],
            file_hashes=set(file_hashes),
            pixel_hashes=set(pixel_hashes),
            paths=set(self.paths),
        )


@dataclass(frozen=True)
class Preview:
    """What a plan would do. Printed as JSON, so field names are part of the interface."""

    photo_ids: list[str]
    rows: dict[str, int]
    """Manifest -> number of rows that would be removed."""
    files: dict[str, str]
    """Path of a file -> what would be done to it."""
    runs: list[str]
    """Runs whose models were trained on the photographs: paths in the workspace, and absolute ones
    of folders outside."""
    unreadable_runs: list[str]
    """Registered run folders that have moved or are gone; their models may have been trained on the
    photographs."""
    already: list[str]
    """Requested ids that were forgotten earlier."""
    alike: list[str]
    """photo_ids of near-duplicates that would stay."""


@dataclass(frozen=True)
class ForgetResult:
    """What was done."""

    files: dict[str, int]
    """What was done -> number of files."""
    runs: list[str]
    """Runs whose models were trained on the photographs, as in `Preview.runs`."""
    unreadable_runs: list[str]
    """As in `Preview.unreadable_runs`."""


def plan(workspace: Workspace, ids: Sequence[str], why: str | None) -> tuple[ForgetPlan, list[str]]:
    """Collect everything that identifies the given photographs.

    Photographs with the same pixels are added to the plan.

    Args:
        workspace: The workspace.
        ids: Ids of photographs, of faces (meaning their photographs), or of Unsplash.
        why: A reason to store with the tombstones.

    Returns:
        The plan, and the ids that were forgotten earlier.

    Raises:
        UserError: If an id is unknown.
    """
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    faces = (
        Store(workspace, FACES)
        .read(["face_id", "photo_id", "crop_path", "crop_sha256"])
        .to_pylist()
    )
    verdicts = Store(workspace, VERDICTS).read(["subject", "id"])
    is_photo = pc.equal(verdicts["subject"], "photo")
    known_ids = {*photos, *verdicts.filter(is_photo)["id"].to_pylist()}

    photo_of_face = {face["face_id"]: face["photo_id"] for face in faces}
    requested = [photo_of_face.get(requested_id, requested_id) for requested_id in ids]
    selected, already = _resolve_ids(requested, known_ids, Tombstones(workspace))
    selected = _add_equal_pixels(selected, photos)

    forget_plan = ForgetPlan(selected)
    forget_plan.others = sorted(
        other
        for other in known_ids.difference(selected)
        if any(other.startswith(photo_id) for photo_id in selected)
    )
    url_counts = Counter(row[column] for row in photos.values() for column in URL_COLUMNS)
    for photo_id in selected:
        if photo_id in photos:
            _add_photo(workspace, forget_plan, photos[photo_id], url_counts)
    for face in faces:
        if face["photo_id"] in selected:
            forget_plan.crop_hashes.append(face["crop_sha256"])
            forget_plan.paths.append(face["crop_path"])
            forget_plan.crop_pixels += _hash_pixels_of(workspace, face["crop_path"])
    if why is not None:
        forget_plan.why = _redact_reason(why, forget_plan)
    return forget_plan, already


def _resolve_ids(
    requested: Sequence[str], known_ids: set[str], tombstones: Tombstones
) -> tuple[list[str], list[str]]:
    """Split requested ids into known photo_ids and ids that were forgotten earlier."""
    selected: dict[str, None] = {}
    already = []
    for requested_id in requested:
        candidates = (requested_id, f"{UNSPLASH_PREFIX}{requested_id}")
        photo_id = next((candidate for candidate in candidates if candidate in known_ids), None)
        if photo_id is not None:
            selected[photo_id] = None
        elif any(map(tombstones.contains, candidates)):
            already.append(requested_id)
        else:
            raise UserError(
                f"unknown photograph {requested_id!r}; use an id of photos.photo_id or "
                "faces.face_id, as `authface explain` shows it"
            )
    return list(selected), already


def _add_equal_pixels(selected: Sequence[str], photos: Mapping[str, Mapping]) -> list[str]:
    """The selected photo_ids, and those of photographs with the same pixels as one of them."""
    pixel_hashes = {photos[photo_id]["pixel_hash"] for photo_id in selected if photo_id in photos}
    equal = [
        photo_id
        for photo_id, row in photos.items()
        if row["pixel_hash"] and row["pixel_hash"] in pixel_hashes
    ]
    return list(dict.fromkeys([*selected, *equal]))


def _add_photo(
    workspace: Workspace,
    forget_plan: ForgetPlan,
    photo: Mapping,
    url_counts: Mapping[str, int],
) -> None:
    """Add the hashes, URLs and path of a photograph to a plan."""
    forget_plan.photo_hashes.append(photo["sha256"])
    forget_plan.paths.append(photo["path"])
    if photo["pixel_hash"]:
        forget_plan.photo_pixels.append(photo["pixel_hash"])
    else:
        forget_plan.photo_pixels += _hash_pixels_of(workspace, photo["path"])
    urls = {photo[column] for column in URL_COLUMNS}
    forget_plan.urls += sorted(
        url
        for url in urls
        if url and url.startswith(("http://", "https://")) and url_counts[url] == 1
    )


def _redact_reason(why: str, forget_plan: ForgetPlan) -> str:
    """The reason without ids, hashes and URLs of the photographs."""
    text = forget_plan.traces().redact(why.encode("utf-8", "replace")).decode()
    for photo_id in forget_plan.photo_ids:
        if photo_id.startswith(UNSPLASH_PREFIX):
            unsplash_id = re.escape(photo_id.removeprefix(UNSPLASH_PREFIX))
            text = re.sub(rf"(?<![\w-]){unsplash_id}(?![\w-])", REPLACEMENT, text)
    return text


def _hash_pixels_of(workspace: Workspace, path: str) -> list[str]:
    """The hash of a picture's pixels; empty if the file is missing or cannot be decoded."""
    try:
        return [hash_pixels(Photo(lambda: workspace.read_bytes(path)).pixels())]
    except PICTURE_ERRORS:
        return []


def preview(workspace: Workspace, forget_plan: ForgetPlan, already: Sequence[str]) -> Preview:
    """Describe what a plan would do, without doing it.

    Args:
        workspace: The workspace.
        forget_plan: The plan.
        already: Requested ids that were forgotten earlier.
    """
    traces = forget_plan.traces()
    registered = find_trained_runs(workspace, forget_plan.photo_ids)
    sweep = WorkspaceSweep(workspace, traces, {})
    files = {action.path: action.description for action in sweep.actions()}
    rows = {}
    for name, manifest in MANIFESTS.items():
        if name in ID_COLUMNS:
            mask = _traced_rows(Store(workspace, manifest).read(), manifest, traces)
            count = mask.to_pylist().count(True)
            if count:
                rows[name] = count
    return Preview(
        photo_ids=forget_plan.photo_ids,
        rows=rows,
        files=files,
        runs=[*sweep.runs, *registered.outside],
        unreadable_runs=registered.unreadable,
        already=list(already),
        alike=_near_duplicates(workspace, set(forget_plan.photo_ids)),
    )


def _near_duplicates(workspace: Workspace, photo_ids: set[str]) -> list[str]:
    """Photographs that the last `authface filter` found to be near-duplicates of the given ones."""
    verdicts = Store(workspace, VERDICTS).read_pandas(["subject", "id", "reason"])
    is_duplicate = verdicts["reason"].str.startswith(DUPLICATE_PREFIX, na=False)
    verdicts = verdicts[(verdicts["subject"] == "photo") & is_duplicate]
    alike: set[str] = set()
    for dropped, reason in zip(verdicts["id"], verdicts["reason"], strict=True):
        kept = reason.removeprefix(DUPLICATE_PREFIX)
        if dropped in photo_ids:
            alike.add(kept)
        elif kept in photo_ids:
            alike.add(dropped)
    return sorted(alike - photo_ids)


def execute(workspace: Workspace, forget_plan: ForgetPlan) -> ForgetResult:
    """Forget the photographs of a plan. Repeating it finishes an interrupted execution.

    Args:
        workspace: The workspace; its lock must be held.
        forget_plan: The plan.

    Raises:
        PartialFailureError: If files that name a photograph could not be cleaned.
    """
    workspace.write_bytes(FORGETTING, json.dumps(asdict(forget_plan)).encode())
    secrets = [
        *(("id", photo_id) for photo_id in forget_plan.photo_ids),
        *(("file", sha256) for sha256 in forget_plan.photo_hashes),
        *(("pixels", pixels) for pixels in forget_plan.photo_pixels),
    ]
    tombstones = add_tombstones(workspace, secrets, forget_plan.why)

    traces = forget_plan.traces()
    registered = find_trained_runs(workspace, forget_plan.photo_ids)
    _hand_over_drops(workspace, traces)
    gates = Store(workspace, VERDICTS).read(["gate"])["gate"]
    has_gate_verdicts = bool(pc.any(pc.equal(gates, ALL_GATES)).as_py())
    for name, manifest in MANIFESTS.items():
        store = Store(workspace, manifest)
        if name in ID_COLUMNS:
            store.compact(partial(_traced_rows, manifest=manifest, traces=traces))
        elif name == TOMBSTONES.name:
            store.compact()
    if has_gate_verdicts:
        # A photograph that was dropped as a duplicate of a forgotten one may be kept now.
        apply_gates(workspace, workspace.settings.gates)

    replacements = {photo_id: tombstones.keyed_hash(photo_id) for photo_id in forget_plan.photo_ids}
    sweep = WorkspaceSweep(workspace, traces, replacements)
    files: Counter[str] = Counter()
    for action in sweep.actions():
        action.run()
        files[action.description] += 1

    remaining = [action.path for action in WorkspaceSweep(workspace, traces, {}).actions()]
    remaining += sweep.uncleaned
    runs = [*sweep.runs, *registered.outside]
    workspace.remove_local_cache()
    workspace.remove(FORGETTING)
    if remaining:
        models = f". Models trained on them: {', '.join(runs)}" if runs else ""
        raise PartialFailureError(
            f"{len(remaining)} files still name a forgotten photograph and could not be cleaned; "
            f"remove them or edit them by hand: {', '.join(remaining[:5])}{models}"
        )
    return ForgetResult(dict(files), runs, registered.unreadable)


def _hand_over_drops(workspace: Workspace, traces: Traces) -> None:
    """Record the drops that hold for near-duplicates which stay as drops of these faces.

    Otherwise they would return to the set with the decisions about the forgotten photographs.
    """
    rows = []
    for face_id, decision in face_decisions(workspace).items():
        source = decision.source
        stays = not traces.occur_in(face_id.encode())
        if stays and decision.decision == "drop" and traces.occur_in(source.face_id.encode()):
            row = {"id": face_id, "reviewer": source.reviewer, "decision": "drop"}
            rows.append({**row, "note": HANDED_OVER_NOTE, "fingerprint": ""})
    record_decisions(workspace, rows)


def read_interrupted(workspace: Workspace) -> ForgetPlan | None:
    """The plan of an interrupted execution, or None.

    Raises:
        UserError: If the file with the plan is damaged.
    """
    if not workspace.exists(FORGETTING):
        return None
    try:
        plan = parse_json_object(workspace.read_bytes(FORGETTING))
        return TypeAdapter(ForgetPlan).validate_python(plan)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{workspace.root}/{FORGETTING}, the plan of an interrupted forget, is damaged; remove "
            "it and forget the same photographs again"
        ) from error


def _traced_rows(part: pa.Table, manifest: Manifest, traces: Traces) -> pa.Array:
    """(rows,) bool: the rows of a manifest that are about a photograph or name it."""
    columns = [ID_COLUMNS[manifest.name]]
    if manifest.name == VERDICTS.name:
        columns.append("reason")
    if manifest.name == DECISIONS.name:
        columns += ["photo_id", "pixel_hash"]
    rows = part.select(columns).to_pylist()
    texts = [" ".join(text for text in row.values() if text is not None) for row in rows]
    is_traced = [traces.occur_in(text.encode("utf-8", "replace")) for text in texts]
    return pa.array(is_traced, pa.bool_())
