"""One manifest on disk: append, read and compact.

A manifest is a folder of plain Parquet files, its parts, named `part-<number>-<random>.parquet`.
Rows of later parts supersede earlier rows. A part is committed by one rename, or by one write to an
object store.

A compaction replaces several parts. All new parts but the last are written under a pending name.
The Parquet metadata of the last one lists the parts that it replaces and its pending siblings, so
that its rename commits them all. Opening the manifest completes a compaction that was interrupted
after that commit. In an object store, which has no renames, there is one new part.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.schema import Manifest
from manifests.support.errors import UserError
from manifests.support.text import strip_control
from manifests.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

PART_NAME = re.compile(r"part-(\d{8})-[0-9a-f]{8}\.parquet")
PENDING_PREFIX = ".pending-"
ROWS_PER_PART = 100_000
MAX_READ_ATTEMPTS = 5
MAX_DETAIL_LENGTH = 80

REPAIR_COMMANDS = {
    "photos": "authface collect",
    "faces": "authface filter",
    "scores": "authface filter",
    "verdicts": "authface filter",
    "captions": "authface caption",
}
"""Manifest -> the command that makes its rows again. Rows of other manifests come from people."""

# Keys in the Parquet metadata of the last part of a compaction; the values are JSON lists of names.
REPLACES = b"authface.replaces"
SIBLINGS = b"authface.siblings"
# Number of rows of a part. The checksums of Parquet cover the values, but not this number.
NUM_ROWS = b"authface.rows"

DAMAGE_ERRORS = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
)
"""Exceptions that a damaged Parquet file, or damaged metadata in it, can raise."""

RowMask = Callable[[pa.Table], pa.Array | pa.ChunkedArray]
"""Maps a part to a boolean mask of its rows; a null counts as false."""


class Store:
    """The parts of one manifest in one workspace.

    Opening it completes an interrupted compaction.

    Args:
        workspace: The workspace.
        manifest: The definition of the manifest.
    """

    def __init__(self, workspace: Workspace, manifest: Manifest) -> None:
        self.workspace = workspace
        self.manifest = manifest
        self.folder = workspace.manifest_folder(manifest.name)
        self._complete_compaction()

    def parts(self) -> list[str]:
        """Paths of the committed parts in the workspace, oldest first."""
        names = self.workspace.list_names(self.folder)
        return [f"{self.folder}/{name}" for name in names if PART_NAME.fullmatch(name)]

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Commit rows as one new part.

        Args:
            rows: The rows; missing columns become null. No part is written for no rows.

        Raises:
            ValueError: If a row has an unknown column.
        """
        rows = list(rows)
        if rows:
            self._commit(self._next_part_name(), self.table(rows))

    def table(self, rows: Iterable[Mapping[str, object]]) -> pa.Table:
        """Convert rows to a table of this manifest's schema, with `created_at` set to now.

        Raises:
            ValueError: If a row has an unknown column.
        """
        columns = set(self.manifest.schema.names)
        now = datetime.now(UTC)
        stamped_rows = []
        for row in rows:
            unknown = set(row) - columns
            if unknown:
                raise ValueError(f"{self.manifest.name} has no column {', '.join(sorted(unknown))}")
            stamped_rows.append({**row, "created_at": now})
        return pa.Table.from_pylist(stamped_rows, schema=self.manifest.schema)

    def compact(
        self,
        drop: RowMask | None = None,
        add: pa.Table | None = None,
        drops_whole_keys: bool = False,
    ) -> int:
        """Merge small parts and remove superseded rows, in one atomic commit.

        Parts that are large and lose no row are not rewritten. Nothing is written if there is
        nothing to merge, remove or add.

        Args:
            drop: Mask of rows to remove.
            add: Rows to add with the same commit.
            drops_whole_keys: Promise that `drop` selects every row of a key or none. It saves
                comparing the dropped rows.

        Returns:
            Number of removed rows, superseded ones included.
        """
        self._remove_uncommitted()
        is_last = self._last_of_each_key(drop if drops_whole_keys else None)
        rewritten_parts = []
        tables = []
        num_removed = 0
        first_row = 0
        for path in self.parts():
            part = self._read_part(path)
            keep = pa.array(is_last[first_row : first_row + part.num_rows])
            first_row += part.num_rows
            if drop is not None:
                keep = pc.and_(keep, pc.invert(pc.fill_null(drop(part), False)))
            kept = part.filter(keep)
            is_small = part.num_rows < ROWS_PER_PART // 2
            if kept.num_rows < part.num_rows or is_small:
                rewritten_parts.append(path)
                tables.append(kept)
                num_removed += part.num_rows - kept.num_rows

        if add is not None:
            tables.append(add)
        elif len(rewritten_parts) < 2 and not num_removed:
            return 0
        table = pa.concat_tables([self.manifest.schema.empty_table(), *tables])
        self._replace(rewritten_parts, table)
        return num_removed

    def read(self, columns: list[str] | None = None, only: RowMask | None = None) -> pa.Table:
        """Read all rows that are not superseded, in the order they were written.

        Args:
            columns: Columns to read. Default: all.
            only: Mask of the rows to read. It must depend on key columns only.

        Returns:
            A table of the columns, in the given order.
        """
        part_columns = None
        if columns is not None:
            part_columns = list(dict.fromkeys([*columns, *_identity_columns(self.manifest)]))
        tables = self._read_parts(part_columns, only)

        empty = self.manifest.schema.remove_metadata().empty_table()
        if part_columns is not None:
            empty = empty.select(part_columns)
        table = pa.concat_tables([empty, *tables])
        if len(tables) > 1:
            table = table.filter(pa.array(_is_last(table, self.manifest)))
        return table if columns is None else table.select(list(dict.fromkeys(columns)))

    def read_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Read all rows that are not superseded as a pandas frame; `columns` as for `read`."""
        return self.read(columns).to_pandas()

    def distinct(self, column: str) -> set:
        """The distinct values of a column, superseded rows included."""
        values = set()
        for table in self._read_parts([column], only=None):
            values.update(table[column].unique().to_pylist())
        return values

    # Compaction

    def _remove_uncommitted(self) -> None:
        """Remove pending parts that no committed part lists; opening has renamed the others."""
        for name in self.workspace.list_names(self.folder):
            if name.startswith(PENDING_PREFIX):
                self.workspace.remove(f"{self.folder}/{name}")

    def _replace(self, old_parts: list[str], table: pa.Table) -> None:
        """Commit a table in place of old parts, all or nothing."""
        # An object store has no renames: one part, which one write commits, replaces all.
        part_rows = ROWS_PER_PART if self.workspace.is_local else max(table.num_rows, 1)
        starts = range(0, max(table.num_rows, 1), part_rows)
        pieces = [table.slice(start, part_rows) for start in starts]
        names = [self._next_part_name(offset) for offset in range(len(pieces))]
        for name, piece in zip(names[:-1], pieces[:-1], strict=True):
            self._commit(PENDING_PREFIX + name, piece)
        replaced_names = [path.rsplit("/", 1)[-1] for path in old_parts]
        metadata = {
            REPLACES: json.dumps(replaced_names).encode(),
            SIBLINGS: json.dumps(names[:-1]).encode(),
        }
        self._commit(names[-1], pieces[-1], metadata)
        self._complete_compaction()

    def _complete_compaction(self) -> None:
        """Rename the siblings and remove the replaced parts of every committed compaction.

        It is safe to repeat, and to run in several processes at once.
        """
        present = set(self.workspace.list_names(self.folder))
        for path in self.parts():
            replaced, siblings = self._compacted_names(path)
            for name in siblings:
                pending_name = PENDING_PREFIX + name
                if pending_name in present:
                    self.workspace.rename(f"{self.folder}/{pending_name}", f"{self.folder}/{name}")
            for name in replaced:
                if name in present:
                    self.workspace.remove(f"{self.folder}/{name}")

    def _last_of_each_key(self, exclude: RowMask | None = None) -> np.ndarray:
        """For every row of all parts in order, whether no later row supersedes it.

        Args:
            exclude: Mask of rows that are not compared; they count as not superseded.

        Returns:
            (num_rows,) bool.
        """
        columns = _identity_columns(self.manifest)
        tables = [self._read_part(path, columns) for path in self.parts()]
        empty = self.manifest.schema.remove_metadata().empty_table().select(columns)
        table = pa.concat_tables([empty, *tables])
        if exclude is None:
            return _is_last(table, self.manifest)

        is_compared = pc.invert(pc.fill_null(exclude(table), False)).to_numpy()
        is_last = np.ones(table.num_rows, bool)
        is_last[is_compared] = _is_last(table.filter(pa.array(is_compared)), self.manifest)
        return is_last

    # Files

    def _next_part_name(self, offset: int = 0) -> str:
        numbers = []
        for name in self.workspace.list_names(self.folder):
            match = PART_NAME.fullmatch(name)
            if match:
                numbers.append(int(match[1]))
        number = max(numbers, default=0) + 1 + offset
        return f"part-{number:08d}-{uuid.uuid4().hex[:8]}.parquet"

    def _commit(
        self, name: str, table: pa.Table, extra_metadata: dict[bytes, bytes] | None = None
    ) -> None:
        self.workspace.write_bytes(
            f"{self.folder}/{name}", encode_part(self.manifest, table, extra_metadata or {})
        )

    def _compacted_names(self, path: str) -> tuple[list[str], list[str]]:
        """The parts that a part replaces, and its siblings; both are empty for most parts."""
        try:
            with self._explain_damage(path), self.workspace.open(path) as file:
                metadata = pq.read_schema(file).metadata or {}
                replaced = json.loads(metadata.get(REPLACES, b"[]"))
                siblings = json.loads(metadata.get(SIBLINGS, b"[]"))
                for name in [*replaced, *siblings]:
                    if not PART_NAME.fullmatch(name):
                        raise ValueError(f"{name!r} is no name of a part")
                return replaced, siblings
        except FileNotFoundError:
            return [], []

    def _read_parts(self, columns: list[str] | None, only: RowMask | None) -> list[pa.Table]:
        """Read all parts; start again if another process compacts the manifest meanwhile."""
        for _ in range(MAX_READ_ATTEMPTS):
            try:
                tables = [self._read_part(path, columns) for path in self.parts()]
            except FileNotFoundError:
                continue
            if only is not None:
                tables = [table.filter(only(table)) for table in tables]
            return tables
        raise UserError(
            f"{self.workspace.root}/{self.folder} kept changing while it was read; wait until no "
            "other command writes there"
        )

    def _read_part(self, path: str, columns: list[str] | None = None) -> pa.Table:
        full_path = f"{self.workspace.root}/{path}"
        with self._explain_damage(path), self.workspace.open(path) as file:
            part = pq.ParquetFile(file, page_checksum_verification=True)
            metadata = part.schema_arrow.metadata or {}
            check_version(self.manifest, metadata, full_path)
            _check_columns(self.manifest, part.schema_arrow)
            table = part.read(columns)
            num_rows = int(metadata.get(NUM_ROWS, table.num_rows))
            if table.num_rows != num_rows:
                raise ValueError(f"it has {table.num_rows} rows, expected {num_rows}")
        table = table.replace_schema_metadata(None)
        return table if columns is None else table.select(columns)

    @contextmanager
    def _explain_damage(self, path: str) -> Iterator[None]:
        """Turn errors of reading a part into a UserError that names it.

        Raises:
            FileNotFoundError: If another process has removed the part.
            UserError: If the part cannot be read.
        """
        try:
            with explain_damage(self.manifest, f"{self.workspace.root}/{path}"):
                yield
        except FileNotFoundError as error:
            folder, _, name = path.rpartition("/")
            if name in self.workspace.list_names(folder):
                raise UserError(
                    f"{self.workspace.root}/{path} is a link to a file that is missing; restore "
                    "that file"
                ) from error
            raise


def encode_part(
    manifest: Manifest, table: pa.Table, extra_metadata: Mapping[bytes, bytes]
) -> bytes:
    """Encode rows as a Parquet file with checksums.

    Args:
        manifest: The definition of the manifest.
        table: The rows.
        extra_metadata: Parquet metadata besides name and version of the manifest.

    Returns:
        The content of the file.
    """
    schema = manifest.schema
    metadata = {**extra_metadata, **(schema.metadata or {})}
    metadata[NUM_ROWS] = str(table.num_rows).encode()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, schema.with_metadata(metadata), compression="zstd", write_page_checksum=True
    ) as writer:
        # `datasets` cannot read an empty row group.
        if table.num_rows:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


@contextmanager
def explain_damage(manifest: Manifest, path: str) -> Iterator[None]:
    """Turn errors of reading a part into a UserError that names it and says what to do.

    Args:
        manifest: The manifest of the part.
        path: Path of the part, for the message.

    Raises:
        FileNotFoundError: If the part is missing.
        UserError: If the part cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except DAMAGE_ERRORS as error:
        detail = " ".join(str(error).split())[:MAX_DETAIL_LENGTH] or type(error).__name__
        command = REPAIR_COMMANDS.get(manifest.name)
        if command is None:
            advice = "restore it from a backup: it holds decisions that cannot be made again"
        else:
            advice = (
                f"restore it from a backup, or remove it and run `{command}` to make its rows again"
            )
        raise UserError(f"{path} is damaged ({detail}); {advice}") from error


def schema_version(metadata: Mapping[bytes, bytes]) -> int:
    """The schema version in the Parquet metadata of a part."""
    return int(metadata.get(b"authface.version", b"0"))


def check_version(manifest: Manifest, metadata: Mapping[bytes, bytes], path: str) -> None:
    """Check that this version of authface can read a part.

    Args:
        manifest: The definition of the manifest.
        metadata: The Parquet metadata of the part.
        path: Path of the part, for the message.

    Raises:
        UserError: If the part has an older or newer schema.
    """
    version = schema_version(metadata)
    if version > manifest.version:
        raise UserError(
            f"{path} has schema {manifest.name} v{version}, newer than this authface supports "
            f"(v{manifest.version}); upgrade authface"
        )
    if version < manifest.version:
        raise UserError(
            f"{path} has schema {manifest.name} v{version}, and this authface needs "
            f"v{manifest.version}; run `authface migrate`"
        )


def _check_columns(manifest: Manifest, schema: pa.Schema) -> None:
    """Raise ValueError if a part does not have exactly the columns of its manifest."""
    expected = {field.name: field.type for field in manifest.schema}
    present = {field.name: field.type for field in schema}
    for name, kind in expected.items():
        if name not in present:
            raise ValueError(f"column {name} is missing")
        if present[name] != kind:
            raise ValueError(f"column {name} has the type {present[name]}, expected {kind}")
    for field in schema:
        if field.name not in expected:
            raise ValueError(f"column {strip_control(field.name)} does not belong to the manifest")
    if len(schema) > len(expected):
        raise ValueError("it has a column twice")


def _identity_columns(manifest: Manifest) -> list[str]:
    """The columns that decide which rows supersede which."""
    return list(dict.fromkeys([*manifest.key, manifest.input_column, "fingerprint"]))


def _is_last(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """Find the rows that no later row supersedes.

    A later row with the same key supersedes a row. Where an input gives several rows, such as the
    faces of a photo, they are made together: a later row of the same input with another fingerprint
    supersedes all its earlier rows.

    Returns:
        (num_rows,) bool.
    """
    is_last = np.zeros(table.num_rows, bool)
    is_last[_last_rows(table, list(manifest.key))] = True
    if manifest.input_column in manifest.key or not table.num_rows:
        return is_last

    newest_rows = table.take(pa.array(_last_rows(table, [manifest.input_column])))
    newest = newest_rows.select([manifest.input_column, "fingerprint"]).to_pandas()
    newest_fingerprint = newest.set_index(manifest.input_column)["fingerprint"]
    expected = table[manifest.input_column].to_pandas().map(newest_fingerprint)
    is_last &= (expected == table["fingerprint"].to_pandas()).to_numpy(bool)
    return is_last


def _last_rows(table: pa.Table, columns: list[str]) -> np.ndarray:
    """Row number of the last row of every distinct value of the columns."""
    row_numbers = pa.array(np.arange(table.num_rows))
    indexed = table.select(columns).append_column("row", row_numbers)
    return indexed.group_by(columns).aggregate([("row", "max")])["row_max"].to_numpy()
