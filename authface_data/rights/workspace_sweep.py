"""Finds every file of a workspace that contains or names given photographs, and cleans it.

What is done depends on the kind of file: pictures are removed, tables lose rows, text files lose
lines, and the lineage of a trained model keeps a keyed hash instead of the photograph.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from authface_data.images.hashes import hash_pixels
from authface_data.images.open import IMAGE_SUFFIXES, PICTURE_ERRORS, Photo
from authface_data.sources.unsplash.stored_names import LISTINGS_FOLDER
from authface_data.sources.unsplash.stored_names import PHOTO_ID_PREFIX as UNSPLASH_PREFIX
from manifests.lock import LOCK
from manifests.run_folder import LINEAGE_FILE, RUNS, VALIDATION, VALIDATION_FACES_FILE
from manifests.schema import FACES, MANIFESTS
from manifests.store import PART_NAME, Store
from manifests.support.parsing import parse_json_object
from manifests.workspace import FORGETTING, STRIP_FILE, TEMP, Workspace

COMPOSITE_FILES = (STRIP_FILE, "anatomy.jpg")
"""Pictures in `reports/` that show many faces. The command that made them makes them again."""
CROP_CACHES = ("cache/crops/", "cache/latents/", "cache/descriptors/")
"""Folders whose files hold what was computed from crops, by `crop_sha256`."""
LINE_SUFFIXES = (".md", ".csv", ".txt", ".log", ".jsonl", ".tsv")
IMAGE_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff")
REPLACEMENT = "forgotten"
"""Takes the place of an id, hash or URL in text that stays."""

# What may follow a photo_id: the suffix of a face_id, the short hash in a file name, a separator.
_FACE_OR_FILE_SUFFIX = re.compile(r"(?:_[0-9a-f]{8})?(?:-[0-9a-f]{8})?[_-]?")


@dataclass
class Traces:
    """Everything that identifies the photographs to forget and the crops of their faces."""

    ids: list[str]
    """photo_ids."""
    other_ids: set[str]
    """photo_ids that stay and begin like one of `ids`."""
    strings: list[str]
    """Hashes and URLs that may occur in texts and file names."""
    file_hashes: set[str]
    """SHA-256 of files."""
    pixel_hashes: set[str]
    paths: set[str]
    """Paths of files in the workspace."""

    def __post_init__(self) -> None:
        ids = "|".join(re.escape(photo_id) for photo_id in sorted(self.ids, key=len, reverse=True))
        strings = "|".join(re.escape(string) for string in self.strings)
        # An id begins after a character that no id contains, or after an encoded slash.
        id_pattern = rf"(?:(?<![A-Za-z0-9])|(?<=%2F)|(?<=%2f))(?:{ids})[A-Za-z0-9_-]*"
        string_pattern = rf"(?:{strings})(?![A-Za-z0-9_-])"
        never = "(?!)"
        self._id_pattern = re.compile((id_pattern if ids else never).encode())
        self._string_pattern = re.compile((string_pattern if strings else never).encode())
        self._literals = [text.encode() for text in (*self.ids, *self.strings)]

    def occur_in(self, data: bytes | mmap.mmap) -> bool:
        """Whether a text, a file name or the content of a file names one of the photographs."""
        # Most files hold no trace, and a search for literals is many times faster than a pattern.
        if all(data.find(literal) == -1 for literal in self._literals):
            return False
        if self._string_pattern.search(data) is not None:
            return True
        return any(self._is_id(match[0]) for match in self._id_pattern.finditer(data))

    def redact(self, data: bytes) -> bytes:
        """Replace everything that names one of the photographs by `REPLACEMENT`."""
        replacement = REPLACEMENT.encode()
        data = self._id_pattern.sub(
            lambda match: replacement if self._is_id(match[0]) else match[0], data
        )
        return self._string_pattern.sub(replacement, data)

    def _is_id(self, word: bytes) -> bool:
        """Whether a word that begins like an id is the id, one of its face ids, or a file name."""
        text = word.decode()
        for photo_id in self.ids:
            if _extends(text, photo_id):
                return not any(
                    other.startswith(photo_id) and _extends(text, other) for other in self.other_ids
                )
        return False


def _extends(text: str, photo_id: str) -> bool:
    """Whether a text is a photo_id, one of its face ids, or the name of one of its files."""
    if text == photo_id:
        return True
    is_longer = text.startswith(photo_id)
    return is_longer and _FACE_OR_FILE_SUFFIX.fullmatch(text, len(photo_id)) is not None


@dataclass(frozen=True)
class FileAction:
    """How one file is cleaned."""

    path: str
    """Path in the workspace."""
    description: str
    """What is done, in the past tense: "removed"."""
    run: Callable[[], None]


class WorkspaceSweep:
    """Finds the files of a workspace that must be cleaned.

    After `actions` has been exhausted, `runs` holds the paths of the runs whose lineage contains
    one of the photographs, and `uncleaned` the files that name one but cannot be cleaned.

    Args:
        workspace: The workspace.
        traces: What to look for.
        replacements: photo_id -> its keyed hash, which replaces it in the lineage of a model.
    """

    def __init__(
        self, workspace: Workspace, traces: Traces, replacements: Mapping[str, str]
    ) -> None:
        self.workspace = workspace
        self.traces = traces
        self.replacements = replacements
        self.runs: list[str] = []
        self.uncleaned: list[str] = []
        self._sizes: set[int] = set()
        self._crop_hashes: set[str] = set()
        self._validations: list[str] = []

    def actions(self) -> Iterator[FileAction]:
        """Yield an action for every file that must change. Running the action changes the file."""
        # A copy has the size of the original; other files need not be hashed.
        originals = [path for path in self.traces.paths if self.workspace.exists(path)]
        self._sizes = {self.workspace.size(path) for path in originals}
        faces = Store(self.workspace, FACES).read(["crop_sha256"])
        self._crop_hashes = set(faces["crop_sha256"].to_pylist())
        # Runs come first: pictures in a run that used a photograph may show it.
        validation_folders = [
            f"{RUNS}/{name}/{VALIDATION}" for name in self.workspace.list_names(RUNS)
        ]
        self._validations = [
            folder
            for folder in validation_folders
            if self.workspace.exists(folder) and self._may_be_validated(folder)
        ]
        self.runs = [
            _parent(path)
            for path in self._files()
            if _name(path) == LINEAGE_FILE and self._is_in_lineage(path)
        ]
        for path in self._files():
            action = self._action_for(path)
            if action is not None:
                yield action

    def _files(self) -> Iterator[str]:
        """Every file of the workspace except the manifests and the files of its lock."""
        for path in self.workspace.walk():
            if _name(path) not in (LOCK, FORGETTING) and not _is_manifest_part(path):
                yield path

    def _is_in_lineage(self, path: str) -> bool:
        try:
            with self.workspace.open(path) as file:
                ids = pq.read_table(file, columns=["photo_id"])["photo_id"].to_pylist()
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError):
            return False
        return bool(set(ids) & {*self.traces.ids, *self.replacements.values()})

    def _may_be_validated(self, folder: str) -> bool:
        """Whether the pictures of a run's validation may show one of the photographs.

        They show held-out faces, which are not in the lineage.
        """
        faces = f"{folder}/{VALIDATION_FACES_FILE}"
        # Runs of earlier versions do not list the faces.
        if not self.workspace.exists(faces):
            return True
        return self.traces.occur_in(self.workspace.read_bytes(faces))

    def _action_for(self, path: str) -> FileAction | None:
        """How a file is cleaned, or None if it has no trace of the photographs."""
        removal = self._removal(path)
        if path in self.traces.paths or self.traces.occur_in(os.fsencode(path)):
            return removal
        if self.workspace.is_local and not _is_plain_file(self.workspace.local_path(path)):
            return None
        if self._may_show_faces(path):
            return removal

        # Files in these folders belong to other photographs, which the manifests name.
        belongs_to_other = path.startswith(("photos/", "faces/"))
        if not belongs_to_other and self._is_copy(path):
            return removal
        suffix = _suffix(path)
        if suffix in IMAGE_SUFFIXES:
            is_same_picture = not belongs_to_other and self._shows_traced_pixels(
                lambda: self.workspace.read_bytes(path)
            )
            return removal if is_same_picture else None
        table = self._read_table(path) if suffix == ".parquet" else None
        if table is not None:
            return self._table_action(path, table)
        if path.startswith(f"{LISTINGS_FOLDER}/"):
            return self._listing_action(path)
        return self._text_action(path)

    def _removal(self, path: str) -> FileAction:
        return FileAction(path, "removed", lambda: self.workspace.remove(path))

    def _may_show_faces(self, path: str) -> bool:
        """Whether a file may show a photograph among others, or hold a part of one."""
        suffix = _suffix(path)
        if path.startswith(f"{TEMP}/"):
            return True  # the file of a killed process
        if path.startswith("reports/") and (_name(path) in COMPOSITE_FILES or suffix == ".html"):
            return True
        validated_runs = [_parent(folder) for folder in self._validations]
        if not any(path.startswith(f"{run}/") for run in (*self.runs, *validated_runs)):
            return False
        is_event_file = ".tfevents." in _name(path)
        return (
            suffix in IMAGE_SUFFIXES
            or suffix == ".html"
            or (is_event_file and self._contains_pictures(path))
        )

    def _contains_pictures(self, path: str) -> bool:
        data = self.workspace.read_bytes(path)
        return any(signature in data for signature in IMAGE_SIGNATURES)

    def _is_copy(self, path: str) -> bool:
        """Whether a file has the same bytes as a photograph or crop."""
        if self.workspace.size(path) not in self._sizes:
            return False
        digest = hashlib.sha256(self.workspace.read_bytes(path)).hexdigest()
        return digest in self.traces.file_hashes

    def _shows_traced_pixels(self, read: Callable[[], bytes]) -> bool:
        """Whether a picture has the same pixels as a photograph or crop, in any format."""
        try:
            return hash_pixels(Photo(read).pixels()) in self.traces.pixel_hashes
        except PICTURE_ERRORS:
            return False

    def _read_table(self, path: str) -> pa.Table | None:
        """The table in a Parquet file, or None if the file is not valid Parquet."""
        try:
            with self.workspace.open(path) as file:
                return pq.read_table(file)
        except (pa.ArrowInvalid, OSError):
            return None

    def _table_action(self, path: str, table: pa.Table) -> FileAction | None:
        """Remove rows of a Parquet file, or anonymise them if it is the lineage of a model."""
        is_traced = [self._is_traced(row) for row in table.to_pylist()]
        if not any(is_traced):
            return None
        if _name(path) == LINEAGE_FILE:
            return FileAction(
                path,
                "lineage anonymised",
                lambda: self._anonymise_lineage(table, is_traced, path),
            )
        kept = table.filter(pa.array([not traced for traced in is_traced]))
        return FileAction(path, "rows removed", lambda: self._write_table(path, kept))

    def _is_traced(self, value: object) -> bool:
        """Whether a cell, or anything nested in it, names a photograph or contains its picture."""
        if isinstance(value, str):
            return self.traces.occur_in(value.encode("utf-8", "replace"))
        if isinstance(value, bytes):
            is_file = hashlib.sha256(value).hexdigest() in self.traces.file_hashes
            has_pixels = is_file or self._shows_traced_pixels(lambda: value)
            return has_pixels or self.traces.occur_in(value)
        if isinstance(value, dict):
            return any(map(self._is_traced, value.values()))
        return isinstance(value, list) and any(map(self._is_traced, value))

    def _anonymise_lineage(self, table: pa.Table, is_traced: list[bool], path: str) -> None:
        """Replace the ids of rows by keyed hashes and clear all other columns but `stage`."""
        rows = []
        for row, traced in zip(table.to_pylist(), is_traced, strict=True):
            if traced:
                replacement = self.replacements.get(row.get("photo_id"), REPLACEMENT)
                remaining = {
                    "photo_id": replacement,
                    "face_id": replacement,
                    "stage": row.get("stage"),
                }
                row = {name: remaining.get(name) for name in row}
            rows.append(row)
        self._write_table(path, pa.Table.from_pylist(rows, schema=table.schema))

    def _write_table(self, path: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self.workspace.write_bytes(path, sink.getvalue().to_pybytes())

    def _listing_action(self, path: str) -> FileAction | None:
        """Remove photographs from a stored page of search results; a damaged page is removed."""
        try:
            page: dict[str, Any] = parse_json_object(self.workspace.read_bytes(path))
            kept = [
                row
                for row in page["photos"]
                if f"{UNSPLASH_PREFIX}{row['id']}" not in self.traces.ids
            ]
        except (ValueError, KeyError, TypeError):
            return self._removal(path)
        if len(kept) == len(page["photos"]):
            return None
        data = json.dumps({**page, "photos": kept}).encode()
        return FileAction(path, "rows removed", lambda: self.workspace.write_bytes(path, data))

    def _text_action(self, path: str) -> FileAction | None:
        """Remove lines or ids from a text file. Other files of the cache are removed."""
        if path.startswith(CROP_CACHES) and self._has_unknown_crops(path):
            return self._removal(path)
        if not self._contains_traces(path):
            return None
        suffix = _suffix(path)
        if suffix in (*LINE_SUFFIXES, ".html"):
            return FileAction(path, "lines removed", lambda: self._remove_lines(path))
        if suffix == ".json":
            return FileAction(path, "ids removed", lambda: self._redact(path))
        if path.startswith("cache/"):
            return self._removal(path)
        self.uncleaned.append(path)
        return None

    def _contains_traces(self, path: str) -> bool:
        if not self.workspace.size(path):
            return False  # an empty file cannot be mapped
        if _suffix(path) == ".safetensors":
            # Tensors are gigabytes of numbers; all text is in the header.
            return self.traces.occur_in(self._read_header(path))
        if not self.workspace.is_local:
            return self.traces.occur_in(self.workspace.read_bytes(path))
        local_path = self.workspace.local_path(path)
        with (
            local_path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return self.traces.occur_in(data)

    def _has_unknown_crops(self, path: str) -> bool:
        """Whether a part of a cache holds a crop of no face: it may be an earlier crop of one."""
        try:
            keys = json.loads(json.loads(self._read_header(path))["__metadata__"]["keys"])
            return not self._crop_hashes.issuperset(keys)
        except (ValueError, KeyError, TypeError):
            return True  # damaged

    def _read_header(self, path: str) -> bytes:
        """The header of a safetensors file: JSON, after its length in 8 bytes. A damaged file may
        give less or anything else.
        """
        with self.workspace.open(path) as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(min(length, self.workspace.size(path)))

    def _remove_lines(self, path: str) -> None:
        lines = self.workspace.read_bytes(path).splitlines(keepends=True)
        kept = [line for line in lines if not self.traces.occur_in(line)]
        self.workspace.write_bytes(path, b"".join(kept))

    def _redact(self, path: str) -> None:
        self.workspace.write_bytes(path, self.traces.redact(self.workspace.read_bytes(path)))


def _is_manifest_part(path: str) -> bool:
    parts = path.split("/")
    if len(parts) != 3:
        return False
    folder, manifest, name = parts
    is_manifest = folder == "manifests" and manifest in MANIFESTS
    return is_manifest and PART_NAME.fullmatch(name) is not None


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
