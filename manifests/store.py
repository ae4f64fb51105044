"""One manifest on disk: append, read, compact.

Parts are plain Parquet files, `part-<number>-<random>.parquet`; later parts supersede earlier ones row by row. A part is
committed by one rename. A compaction replaces several parts: its last new part names, in its Parquet metadata, the
parts that it replaces and the sibling parts still to be renamed into place, so that its own rename commits them all; opening
the manifest finishes what a crash left undone.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.schema import Manifest
from manifests.support.errors import UserError
from manifests.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

PART = re.compile(r"part-(\d{8})-[0-9a-f]{8}\.parquet")
PENDING = ".pending-"
ROWS_PER_PART = 100_000
REPLACES, SIBLINGS = b"authface.replaces", b"authface.siblings"

Drop = Callable[[pa.Table], pa.Array | pa.ChunkedArray]


class Store:
    """The parts of one manifest in one workspace. Opening it completes an interrupted compaction."""

    def __init__(self, workspace: Workspace, manifest: Manifest):
        self.workspace, self.manifest = workspace, manifest
        self.folder = workspace.manifest_folder(manifest.name)
        self._complete_compaction()

    def parts(self) -> list[str]:
        """Paths of the committed parts, oldest first."""
        return [
            f"{self.folder}/{name}"
            for name in self.workspace.list(self.folder)
            if PART.fullmatch(name)
        ]

    # Writing

    def append(self, rows: Iterable[dict]) -> None:
        """Commit rows as one new part. Columns not given are null; an unknown column is a ValueError."""
        rows = list(rows)
        if rows:
            self._commit(self._next_name(), self.table(rows))

    def table(self, rows: Iterable[dict]) -> pa.Table:
        """Rows as a table of this manifest's schema, `created_at` set to now."""
        names, now = set(self.manifest.schema.names), datetime.now(UTC)
        stamped = []
        for row in rows:
            if unknown := set(row) - names:
                raise ValueError(f"{self.manifest.name} has no column {', '.join(sorted(unknown))}")
            stamped.append({**row, "created_at": now})
        return pa.Table.from_pylist(stamped, schema=self.manifest.schema)

    def compact(
        self, drop: Drop | None = None, add: pa.Table | None = None, drops_whole_keys: bool = False
    ) -> int:
        """Merge small parts into parts of about 100,000 rows, without superseded rows. Returns how many rows went.

        drop: given a part, a mask of the rows to remove. add: rows that come in with the same commit. drops_whole_keys: that
        what is removed never leaves an older row of its key behind, which saves comparing what goes anyway.
        Parts that are large and lose no row stay as they are.
        """
        for name in self.workspace.list(self.folder):
            if name.startswith(
                PENDING
            ):  # no committed part names it, or opening would have renamed it
                self.workspace.remove(f"{self.folder}/{name}")
        last = self._last_of_each_key(drop if drops_whole_keys else None)
        rewritten, tables, gone = [], [], 0
        row = 0
        for path in self.parts():
            part = self._read_part(path)
            keep = pa.array(last[row : row + part.num_rows])
            row += part.num_rows
            if drop is not None:
                keep = pc.and_(keep, pc.invert(pc.fill_null(drop(part), False)))
            kept = part.filter(keep)
            if kept.num_rows < part.num_rows or part.num_rows < ROWS_PER_PART // 2:
                rewritten.append(path)
                tables.append(kept)
                gone += part.num_rows - kept.num_rows
        if add is not None:
            tables.append(add)
        elif len(rewritten) < 2 and not gone:
            return 0
        self._replace(rewritten, pa.concat_tables([self.manifest.schema.empty_table(), *tables]))
        return gone

    def _replace(self, old: list[str], table: pa.Table) -> None:
        """Commit a table in place of old parts, all or nothing."""
        slices = [
            table.slice(at, ROWS_PER_PART) for at in range(0, max(table.num_rows, 1), ROWS_PER_PART)
        ]
        names = [self._next_name(ahead) for ahead in range(len(slices))]
        for name, piece in zip(names[:-1], slices[:-1], strict=True):
            self._commit(PENDING + name, piece)
        extra = {
            REPLACES: json.dumps([path.rsplit("/", 1)[-1] for path in old]).encode(),
            SIBLINGS: json.dumps(names[:-1]).encode(),
        }
        self._commit(names[-1], slices[-1], extra)
        self._complete_compaction()

    def _complete_compaction(self) -> None:
        """Rename the siblings and remove the replaced parts of every committed compaction. Safe to repeat or race."""
        present = set(self.workspace.list(self.folder))
        for path in self.parts():
            metadata = self._metadata(path)
            for name in json.loads(metadata.get(SIBLINGS, b"[]")):
                if PENDING + name in present:
                    self.workspace.rename(f"{self.folder}/{PENDING}{name}", f"{self.folder}/{name}")
            for name in json.loads(metadata.get(REPLACES, b"[]")):
                if name in present:
                    self.workspace.remove(f"{self.folder}/{name}")

    def _next_name(self, ahead: int = 0) -> str:
        numbers = [
            int(match[1])
            for name in self.workspace.list(self.folder)
            if (match := PART.fullmatch(name))
        ]
        return f"part-{max(numbers, default=0) + 1 + ahead:08d}-{uuid.uuid4().hex[:8]}.parquet"

    def _commit(self, name: str, table: pa.Table, extra: dict[bytes, bytes] | None = None) -> None:
        metadata = {**(self.manifest.schema.metadata or {}), **(extra or {})}
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink, self.manifest.schema.with_metadata(metadata), compression="zstd"
        ) as writer:
            if table.num_rows:  # an empty row group trips `datasets`
                writer.write_table(table)
        self.workspace.write_bytes(f"{self.folder}/{name}", sink.getvalue().to_pybytes())

    # Reading

    def read(self, columns: list[str] | None = None, only: Drop | None = None) -> pa.Table:
        """All rows, superseded ones left out, in the order they were written. Columns: all, or those named.

        only: given a part, a mask of the rows that are wanted, by the columns of the key alone.
        """
        for _ in range(5):
            try:
                paths = self.parts()
                wanted = (
                    None
                    if columns is None
                    else list(dict.fromkeys([*columns, *_identity(self.manifest)]))
                )
                tables = [self._read_part(path, wanted) for path in paths]
                if only is not None:
                    tables = [table.filter(only(table)) for table in tables]
                break
            except FileNotFoundError:  # a writer compacted between listing and reading
                continue
        else:
            raise OSError(f"{self.folder} kept changing while it was read")
        schema = self.manifest.schema.remove_metadata()
        empty = schema.empty_table() if wanted is None else schema.empty_table().select(wanted)
        table = pa.concat_tables([empty, *tables])
        if len(paths) > 1:
            table = table.filter(pa.array(_is_last(table, self.manifest)))
        return table if columns is None else table.select(list(dict.fromkeys(columns)))

    def read_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The same as a pandas frame."""
        return self.read(columns).to_pandas()

    def distinct(self, column: str) -> set:
        """The values that a column has, of superseded rows as well."""
        return {
            value
            for path in self.parts()
            for value in self._read_part(path, [column])[column].unique().to_pylist()
        }

    def _last_of_each_key(self, without: Drop | None = None) -> np.ndarray:
        """For every row of every part, in order: whether no later row supersedes it. without: rows not worth comparing."""
        columns = _identity(self.manifest)
        tables = [self._read_part(path, columns) for path in self.parts()]
        table = pa.concat_tables(
            [self.manifest.schema.remove_metadata().empty_table().select(columns), *tables]
        )
        if without is None:
            return _is_last(table, self.manifest)
        compared = pc.invert(pc.fill_null(without(table), False)).to_numpy()
        last = np.ones(table.num_rows, bool)
        last[compared] = _is_last(table.filter(pa.array(compared)), self.manifest)
        return last

    def _metadata(self, path: str) -> dict[bytes, bytes]:
        try:
            with self.workspace.open(path) as file:
                return pq.read_schema(file).metadata or {}
        except FileNotFoundError:
            return {}
        except pa.ArrowInvalid as error:
            raise UserError(_damaged(f"{self.workspace.root}/{path}", error)) from error

    def _read_part(self, path: str, columns: list[str] | None = None) -> pa.Table:
        where = f"{self.workspace.root}/{path}"
        try:
            with self.workspace.open(path) as file:
                part = pq.ParquetFile(file)
                check_version(self.manifest, part.schema_arrow.metadata or {}, where)
                table = part.read(columns)
        except pa.ArrowInvalid as error:
            raise UserError(_damaged(where, error)) from error
        table = table.replace_schema_metadata(None)
        return table if columns is None else table.select(columns)


def _damaged(where: str, error: Exception) -> str:
    return f"{where} is damaged ({str(error).splitlines()[0][:80]}): put back a copy, or remove it and make its rows again"


def part_version(metadata: dict[bytes, bytes]) -> int:
    """The schema version that a part was written with."""
    return int(metadata.get(b"authface.version", b"0"))


def check_version(manifest: Manifest, metadata: dict[bytes, bytes], where: str) -> None:
    """Raises UserError for a part that this version of authface cannot read as it is."""
    version = part_version(metadata)
    if version > manifest.version:
        raise UserError(
            f"{where} has schema {manifest.name} v{version}, newer than this authface knows (v{manifest.version}): upgrade"
        )
    if version < manifest.version:
        raise UserError(
            f"{where} has schema {manifest.name} v{version}, now v{manifest.version}: `authface migrate`"
        )


def _identity(manifest: Manifest) -> list[str]:
    """The columns that tell which rows supersede which."""
    return list(dict.fromkeys([*manifest.key, manifest.input_column, "fingerprint"]))


def _is_last(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """Shape (rows,) bool: True where no later row supersedes the row.

    A later row with the same key does. Where an input gives several rows (a photo its faces), they are made together: a
    later row of the input with another fingerprint supersedes all of its earlier ones.
    """
    last = np.zeros(table.num_rows, bool)
    last[_last_rows(table, list(manifest.key))] = True
    if manifest.input_column not in manifest.key and table.num_rows:
        newest = _last_rows(table, [manifest.input_column])
        marks = (
            table.take(pa.array(newest))
            .select([manifest.input_column, "fingerprint"])
            .to_pandas()
            .set_index(manifest.input_column)
        )
        current = table[manifest.input_column].to_pandas().map(marks["fingerprint"])
        last &= (current == table["fingerprint"].to_pandas()).to_numpy(bool)
    return last


def _last_rows(table: pa.Table, columns: list[str]) -> np.ndarray:
    """The number of the last row of every different value of the columns."""
    indexed = table.select(columns).append_column("row", pa.array(np.arange(table.num_rows)))
    return indexed.group_by(columns).aggregate([("row", "max")])["row_max"].to_numpy()
