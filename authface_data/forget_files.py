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

import pandas as pd
import pyarrow.parquet as pq

from authface_data.hashes import hash_of_pixels
from authface_data.photo import SUFFIXES, UNDECODABLE, Photo
from manifests.lock import LOCK
from manifests.schema import MANIFESTS
from manifests.store import PART
from manifests.workspace import FORGETTING, Workspace

# Pictures made of many faces, and pages: made anew by the command that made them.
COMPOSITES = ("strip.jpg", "anatomy.jpg")
LINES = (".md", ".csv", ".txt", ".log", ".jsonl", ".tsv")
PICTURES = (b"\x89PNG", b"\xff\xd8\xff")
LINEAGE = "lineage.parquet"

Action = tuple[str, str, Callable[[], None]]


@dataclass
class Marks:
    """What gives a photograph away. ids: of photographs. words: hashes and URLs that may stand in texts and names.
    file_hashes, pixel_hashes: of its files. paths: of its files in the workspace."""

    ids: list[str]
    words: list[str]
    file_hashes: set[str]
    pixel_hashes: set[str]
    paths: set[str]

    def __post_init__(self) -> None:
        # An id ends where no other id could go on: at the end, or before the hash of a face or file.
        ids = "|".join(re.escape(one) for one in self.ids)
        patterns = [rf"(?<![A-Za-z0-9_-])(?:{ids})(?:(?![A-Za-z0-9_-])|(?=[_-][0-9a-f]{{8}}))"] if ids else []
        patterns += [rf"{re.escape(word)}(?![A-Za-z0-9_-])" for word in self.words]
        self.pattern = re.compile("|".join(patterns).encode()) if patterns else re.compile(b"(?!)")

    def names(self, data: bytes | mmap.mmap) -> bool:
        """Whether a text, a file name or a file names the photograph."""
        return self.pattern.search(data) is not None


class Sweep:
    """Goes through the files of a workspace. keyed: photo_id -> what stands in its place where something must stand.

    runs: after `actions`, the runs whose lineage has it. left: files that could not be cleaned.
    """

    def __init__(self, workspace: Workspace, marks: Marks, keyed: dict[str, str] | str):
        self.ws, self.marks = workspace, marks
        self.keyed = keyed if isinstance(keyed, dict) else {}
        self.root = workspace.local("")
        self.runs: list[str] = []
        self.left: list[str] = []

    def actions(self) -> Iterator[Action]:
        """(path, what, how) for every file that must change. Runs come first, for their lineage says what else must go."""
        sizes = {path.stat().st_size for name in self.marks.paths if (path := self.root / name).exists()}
        self.runs = [str(path.parent.relative_to(self.root)) for path in self._lineages() if self._in_lineage(path)]
        for path in self._files():
            relative = path.relative_to(self.root).as_posix()
            found = self._of_file(path, relative, sizes)
            if found is not None:
                yield relative, *found

    def _files(self) -> Iterator[Path]:
        for parent, _, names in os.walk(self.root):
            for name in sorted(names):
                path = Path(parent, name)
                relative = path.relative_to(self.root)
                is_part = len(relative.parts) == 3 and relative.parts[0] == "manifests" and relative.parts[1] in MANIFESTS
                if name in (LOCK, FORGETTING) or (is_part and PART.fullmatch(name)):
                    continue  # the manifests are the stores' affair
                yield path

    def _lineages(self) -> list[Path]:
        return sorted(self.root.glob(f"runs/**/{LINEAGE}"))

    def _in_lineage(self, path: Path) -> bool:
        return bool(set(pd.read_parquet(path, columns=["photo_id"])["photo_id"]) & {*self.marks.ids, *self.keyed.values()})

    def _of_file(self, path: Path, relative: str, sizes: set[int]) -> tuple[str, Callable[[], None]] | None:
        """What is done to a file, and how; None where it has nothing to do with it."""
        remove = ("removed", lambda: self.ws.remove(relative))
        suffix = path.suffix.lower()
        if relative in self.marks.paths or self.marks.names(relative.encode()):
            return remove
        if path.is_symlink():
            return None
        if relative.startswith("reports/") and (path.name in COMPOSITES or suffix == ".html"):
            return remove
        run = next((run for run in self.runs if relative.startswith(f"{run}/")), None)
        if run and (suffix in SUFFIXES or suffix == ".html" or (".tfevents." in path.name and _holds_pictures(path))):
            return remove
        own = relative.startswith(("photos/", "faces/"))  # another photograph's, named in the manifests
        if not own and path.stat().st_size in sizes and hashlib.sha256(path.read_bytes()).hexdigest() in self.marks.file_hashes:
            return remove
        if suffix in SUFFIXES:
            return remove if not own and self._same_pixels(path) else None
        if suffix == ".parquet":
            return self._table(path, relative)
        if relative.startswith("cache/unsplash/listings/"):
            return self._listing(path, relative)
        if not _any_in(path, self.marks):
            return None
        if suffix in LINES:
            return "lines taken out", lambda: self._without_lines(path, relative)
        if suffix in (".json", ".toml"):
            return "name taken out", lambda: self._without_names(path, relative)
        if relative.startswith(("cache/", ".tmp/")):
            return remove
        self.left.append(relative)
        return None

    def _same_pixels(self, path: Path) -> bool:
        try:
            return hash_of_pixels(Photo(path.read_bytes).pixels()) in self.marks.pixel_hashes
        except UNDECODABLE:
            return False

    def _table(self, path: Path, relative: str) -> tuple[str, Callable[[], None]] | None:
        """A table beside the manifests: rows about the photograph go. In a lineage they stay, with nothing but a keyed hash."""
        table = pq.read_table(path)
        about = [any(self.marks.names(text.encode()) for text in _texts(row)) for row in table.to_pylist()]
        if not any(about):
            return None
        if path.name == LINEAGE:
            return "lineage made nameless", lambda: self._nameless(path, relative)
        import pyarrow as pa

        kept = table.filter(pa.array([not one for one in about]))
        return "rows taken out", lambda: self._write_table(relative, kept)

    def _nameless(self, path: Path, relative: str) -> None:
        rows = pq.read_table(path)
        out = []
        for row in rows.to_pylist():
            keyed = self.keyed.get(row.get("photo_id"))
            if keyed is not None:
                row = {**dict.fromkeys(row), "photo_id": keyed, "face_id": keyed, "stage": row.get("stage")}
                row = {name: value for name, value in row.items() if name in rows.schema.names}
            out.append(row)
        import pyarrow as pa

        self._write_table(relative, pa.Table.from_pylist(out, schema=rows.schema))

    def _write_table(self, relative: str, table: Any) -> None:
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self.ws.write_bytes(relative, sink.getvalue().to_pybytes())

    def _listing(self, path: Path, relative: str) -> tuple[str, Callable[[], None]] | None:
        page = json.loads(path.read_text())
        kept = [row for row in page["photos"] if f"us_{row['id']}" not in self.marks.ids]
        if len(kept) == len(page["photos"]):
            return None
        data = json.dumps({**page, "photos": kept}).encode()
        return "rows taken out", lambda: self.ws.write_bytes(relative, data)

    def _without_lines(self, path: Path, relative: str) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        self.ws.write_bytes(relative, b"".join(line for line in lines if not self.marks.names(line)))

    def _without_names(self, path: Path, relative: str) -> None:
        self.ws.write_bytes(relative, self.marks.pattern.sub(b"forgotten", path.read_bytes()))


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """Every text in a row of a table."""
    for value in row.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, str))


def _any_in(path: Path, marks: Marks) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return marks.names(data)


def _holds_pictures(path: Path) -> bool:
    data = path.read_bytes()
    return any(magic in data for magic in PICTURES)
