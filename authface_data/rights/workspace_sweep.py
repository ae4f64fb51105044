"""Every file of a workspace that holds a photograph or names it, by kind of file, and what is done to it."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from authface_data.images.hashes import hash_of_pixels
from authface_data.images.open import DECODE_ERRORS, IMAGE_SUFFIXES, Photo
from manifests.lock import LOCK
from manifests.schema import MANIFESTS
from manifests.store import PART
from manifests.workspace import FOLDERS, FORGETTING, Workspace

# Pictures made of many faces, and pages: made anew by the command that made them.
COMPOSITES = ("strip.jpg", "anatomy.jpg")
LINES = (".md", ".csv", ".txt", ".log", ".jsonl", ".tsv")
PICTURES = (b"\x89PNG", b"\xff\xd8\xff")
LINEAGE = "lineage.parquet"

# What follows a photograph's id in the id of a face and in the names of their files.
OF_A_PHOTO = re.compile(r"(?:_[0-9a-f]{8})?(?:-[0-9a-f]{8})?[_-]?")

Action = tuple[str, str, Callable[[], None]]


@dataclass
class Traces:
    """What gives a photograph away. ids: of photographs; others: ids of photographs that stay, some of which may begin alike.
    words: hashes and URLs that may stand in texts and names. file_hashes, pixel_hashes: of its files. paths: of its files
    in the workspace."""

    ids: list[str]
    others: set[str]
    words: list[str]
    file_hashes: set[str]
    pixel_hashes: set[str]
    paths: set[str]

    def __post_init__(self) -> None:
        ids = "|".join(re.escape(one) for one in sorted(self.ids, key=len, reverse=True))
        self._ids = re.compile(
            rf"(?:(?<![A-Za-z0-9])|(?<=%2F)|(?<=%2f))(?:{ids})[A-Za-z0-9_-]*".encode()
            if ids
            else b"(?!)"
        )
        words = "|".join(re.escape(word) for word in self.words)
        self._words = re.compile(rf"(?:{words})(?![A-Za-z0-9_-])".encode() if words else b"(?!)")

    def names(self, data: bytes | mmap.mmap) -> bool:
        """Whether a text, a file name or a file names the photograph."""
        if self._words.search(data) is not None:
            return True
        return any(self._is_ours(found[0]) for found in self._ids.finditer(data))

    def nameless(self, data: bytes) -> bytes:
        """A text with a word in place of what names the photograph."""
        data = self._ids.sub(
            lambda found: b"forgotten" if self._is_ours(found[0]) else found[0], data
        )
        return self._words.sub(b"forgotten", data)

    def _is_ours(self, token: bytes) -> bool:
        """Whether a word that begins like an id is of that photograph: the id itself, a face of it, or a file of either."""
        text = token.decode()
        for one in self.ids:
            if text == one or (text.startswith(one) and OF_A_PHOTO.fullmatch(text, len(one))):
                longer = [
                    other
                    for other in self.others
                    if other.startswith(one) and text.startswith(other)
                ]
                return not any(
                    text == other or OF_A_PHOTO.fullmatch(text, len(other)) for other in longer
                )
        return False


class WorkspaceSweep:
    """Goes through the files of a workspace. keyed: photo_id -> what stands in its place where something must stand.

    runs: after `actions`, the runs whose lineage has it. left: files that could not be cleaned.
    """

    def __init__(self, workspace: Workspace, marks: Traces, keyed: dict[str, str]):
        self.ws, self.marks, self.keyed = workspace, marks, keyed
        self.root = workspace.local("")
        self.runs: list[str] = []
        self.left: list[str] = []

    def actions(self) -> Iterator[Action]:
        """(path, what, how) for every file that must change. Runs come first, for their lineage says what else must go."""
        sizes = {
            path.stat().st_size for name in self.marks.paths if (path := self.root / name).exists()
        }
        lineages = [path for path in self._files() if path.name == LINEAGE]
        self.runs = [
            path.parent.relative_to(self.root).as_posix()
            for path in lineages
            if self._in_lineage(path)
        ]
        for path in self._files():
            relative = path.relative_to(self.root).as_posix()
            found = self._of_file(path, relative, sizes)
            if found is not None:
                yield relative, *found

    def _files(self) -> Iterator[Path]:
        """Every file of the workspace. Its own folders may be links to another disk; what other links lead to is not the
        workspace's, and they are not followed."""
        for top in [
            self.root,
            *(self.root / name for name in FOLDERS if (self.root / name).is_symlink()),
        ]:
            for parent, _, names in os.walk(top):
                for name in sorted(names):
                    path = Path(parent, name)
                    relative = path.relative_to(self.root)
                    is_part = (
                        len(relative.parts) == 3
                        and relative.parts[0] == "manifests"
                        and relative.parts[1] in MANIFESTS
                    )
                    if name in (LOCK, FORGETTING) or (is_part and PART.fullmatch(name)):
                        continue  # the manifests are the stores' affair
                    yield path

    def _in_lineage(self, path: Path) -> bool:
        try:
            ids = pq.read_table(path, columns=["photo_id"])["photo_id"].to_pylist()
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError):
            return False
        return bool(set(ids) & {*self.marks.ids, *self.keyed.values()})

    def _of_file(
        self, path: Path, relative: str, sizes: set[int]
    ) -> tuple[str, Callable[[], None]] | None:
        """What is done to a file, and how; None where it has nothing to do with it."""
        remove = ("removed", lambda: self.ws.remove(relative))
        suffix = path.suffix.lower()
        if relative in self.marks.paths or self.marks.names(os.fsencode(relative)):
            return remove
        if path.is_symlink() or not path.is_file():
            return None
        if relative.startswith(".tmp/"):
            return remove  # half-written, by whoever was killed
        if relative.startswith("reports/") and (path.name in COMPOSITES or suffix == ".html"):
            return remove
        run = next((run for run in self.runs if relative.startswith(f"{run}/")), None)
        if run and (
            suffix in IMAGE_SUFFIXES
            or suffix == ".html"
            or (".tfevents." in path.name and _holds_pictures(path))
        ):
            return remove
        own = relative.startswith(
            ("photos/", "faces/")
        )  # another photograph's, named in the manifests
        if (
            not own
            and path.stat().st_size in sizes
            and hashlib.sha256(path.read_bytes()).hexdigest() in self.marks.file_hashes
        ):
            return remove
        if suffix in IMAGE_SUFFIXES:
            return remove if not own and self._is_picture_of(path.read_bytes) else None
        if suffix == ".parquet" and (table := _table(path)) is not None:
            return self._rows(path, relative, table)
        if relative.startswith("cache/unsplash/listings/"):
            return self._listing(path, relative)
        if not _any_in(path, self.marks):
            return None
        if suffix in (*LINES, ".html"):
            return "lines taken out", lambda: self._without_lines(path, relative)
        if suffix == ".json":
            return "name taken out", lambda: self._without_names(path, relative)
        if relative.startswith("cache/"):
            return remove
        self.left.append(relative)
        return None

    def _is_picture_of(self, read: Callable[[], bytes]) -> bool:
        try:
            return hash_of_pixels(Photo(read).pixels()) in self.marks.pixel_hashes
        except DECODE_ERRORS:
            return False

    def _rows(
        self, path: Path, relative: str, table: pa.Table
    ) -> tuple[str, Callable[[], None]] | None:
        """A table beside the manifests: rows about the photograph go. In a lineage they stay, with nothing but a keyed hash."""
        about = [self._is_about(row) for row in table.to_pylist()]
        if not any(about):
            return None
        if path.name == LINEAGE:
            return "lineage made nameless", lambda: self._nameless(table, about, relative)
        kept = table.filter(pa.array([not one for one in about]))
        return "rows taken out", lambda: self._write_table(relative, kept)

    def _is_about(self, value: Any) -> bool:
        """Whether a cell, or anything in it, names the photograph or holds it."""
        if isinstance(value, str):
            return self.marks.names(value.encode("utf-8", "replace"))
        if isinstance(value, bytes):
            same = hashlib.sha256(value).hexdigest() in self.marks.file_hashes
            return same or self._is_picture_of(lambda: value) or self.marks.names(value)
        if isinstance(value, dict):
            return any(map(self._is_about, value.values()))
        return isinstance(value, list) and any(map(self._is_about, value))

    def _nameless(self, table: pa.Table, about: list[bool], relative: str) -> None:
        rows = table.to_pylist()
        for number, row in enumerate(rows):
            if about[number]:
                keyed = self.keyed.get(row.get("photo_id"), "forgotten")
                said = {"photo_id": keyed, "face_id": keyed, "stage": row.get("stage")}
                rows[number] = {name: said.get(name) for name in row}
        self._write_table(relative, pa.Table.from_pylist(rows, schema=table.schema))

    def _write_table(self, relative: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self.ws.write_bytes(relative, sink.getvalue().to_pybytes())

    def _listing(self, path: Path, relative: str) -> tuple[str, Callable[[], None]] | None:
        try:
            page = json.loads(path.read_text())
            kept = [row for row in page["photos"] if f"us_{row['id']}" not in self.marks.ids]
        except (ValueError, KeyError, TypeError):
            return "removed", lambda: self.ws.remove(relative)
        if len(kept) == len(page["photos"]):
            return None
        data = json.dumps({**page, "photos": kept}).encode()
        return "rows taken out", lambda: self.ws.write_bytes(relative, data)

    def _without_lines(self, path: Path, relative: str) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        self.ws.write_bytes(
            relative, b"".join(line for line in lines if not self.marks.names(line))
        )

    def _without_names(self, path: Path, relative: str) -> None:
        self.ws.write_bytes(relative, self.marks.nameless(path.read_bytes()))


def _table(path: Path) -> pa.Table | None:
    """The table in a file; None where it only has the name of one."""
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError):
        return None


def _any_in(path: Path, marks: Traces) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return marks.names(data)


def _holds_pictures(path: Path) -> bool:
    data = path.read_bytes()
    return any(magic in data for magic in PICTURES)
