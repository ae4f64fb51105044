"""One manifest on disk: append, read and compact.

A manifest is a folder of plain Parquet files, its parts, named `part-<number>-<random>.parquet`.
Rows of later parts supersede earlier rows. A part is committed by one rename, or by one write to an
object store.

A compaction replaces several parts. All new parts but the last are written under a pending name.
The Parquet metadata of the last one lists the parts that it replaces and its pending siblings, so
that its rename commits them all. Opening the manifest completes a compaction that was interrupted
after that commit. An object store copies and removes a part in place of a rename. The metadata
also list the parts among which no row supersedes another, so that a reader compares only the rows
of later parts with them.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

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
MAX_CODE = 1 << 62
NUM_WRITERS = 2
"""Number of parts that a compaction encodes at once. More would take more memory."""
SAMPLE_ROWS = 1000
"""Number of rows by which the encoding of a column is chosen."""

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
# JSON list of parts, itself included, among which no row supersedes another. Reading them needs no
# comparison of their rows.
DISTINCT = b"authface.distinct"
# JSON list of the columns that are stored with a dictionary. Parquet says so too, but pyarrow aborts
# the process if the description of a column is damaged.
ENCODED = b"authface.encoded"

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


@dataclass(frozen=True)
class RowFilter:
    """Selects rows by the values of one text column.

    Attributes:
        column: Name of the column.
        matches: Maps distinct values of the column to a boolean mask.
    """

    column: str
    matches: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]

    @classmethod
    def equal(cls, column: str, value: str) -> RowFilter:
        """Select the rows that have a value.

        Args:
            column: Name of a text column.
            value: The value.
        """
        return cls(column, lambda values: pc.equal(values, value))

    @classmethod
    def is_in(cls, column: str, values: Iterable[str]) -> RowFilter:
        """Select the rows that have one of several values.

        Args:
            column: Name of a text column.
            values: The values.
        """
        chosen = pa.array(list(values), pa.string())
        return cls(column, lambda distinct: pc.is_in(distinct, chosen))


@dataclass(frozen=True)
class _Footer:
    """What the Parquet metadata of a part say.

    Attributes:
        metadata: The metadata as they are stored.
        num_rows: Number of rows.
        replaced: Names of the parts that it replaces.
        siblings: Names of the other new parts of its compaction.
        distinct: Names of parts among which no row supersedes another.
        encoded: Names of the columns that are stored with a dictionary.
    """

    metadata: Mapping[bytes, bytes]
    num_rows: int
    replaced: list[str]
    siblings: list[str]
    distinct: list[str]
    encoded: frozenset[str]


_FOOTERS: WeakKeyDictionary[Workspace, dict[tuple[str, tuple[int, ...]], _Footer]] = (
    WeakKeyDictionary()
)
"""Workspace -> (path of a part, state of its file) -> metadata of the part."""


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
        return self._committed(self.workspace.list_names(self.folder))

    def _committed(self, names: Iterable[str]) -> list[str]:
        """Paths of the committed parts among the names in the folder."""
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
        add: pa.Table | Iterable[pa.Table] = (),
        *,
        drop_columns: Sequence[str] | None = None,
        replaces_keys: bool = False,
    ) -> int:
        """Merge small parts and remove superseded rows, in one atomic commit.

        Parts that are large and lose no row are not rewritten. Nothing is written if there is
        nothing to merge, remove or add. Few parts are in memory at once.

        Args:
            drop: Mask of rows to remove.
            add: Rows to add with the same commit, in one table or several.
            drop_columns: Columns that `drop` reads. Default: all.
            replaces_keys: Promise that `drop` selects every row of a key or none, and that `add`
                has no key twice and none that stays. It saves comparing these rows.

        Returns:
            Number of removed rows, superseded ones included.
        """
        self._remove_uncommitted()
        parts = self.parts()
        dropped = {}
        if drop is not None:
            for path in parts:
                dropped[path] = _to_mask(drop(self._read_part(path, drop_columns)))
        kept = self._find_current(parts, dropped if replaces_keys else {})
        for path, mask in dropped.items():
            kept[path] = kept[path] & ~mask if path in kept else ~mask

        rewritten_parts = []
        num_removed = 0
        for path in parts:
            num_rows = self._footer(path).num_rows
            num_removed_here = num_rows - int(kept[path].sum()) if path in kept else 0
            if num_removed_here or num_rows < ROWS_PER_PART // 2:
                rewritten_parts.append(path)
            num_removed += num_removed_here

        added = iter([add] if isinstance(add, pa.Table) else add)
        first_added = next(added, None)
        if first_added is None and len(rewritten_parts) < 2 and not num_removed:
            if not self._unmarked(parts) or len(parts) < 2:
                return 0
            rewritten_parts = rewritten_parts or parts[-1:]  # to store the mark
        tables = (self._read_kept(path, kept.get(path)) for path in rewritten_parts)
        all_tables = itertools.chain(tables, () if first_added is None else (first_added,), added)
        is_distinct = replaces_keys or first_added is None
        self._replace(parts, rewritten_parts, all_tables, is_distinct)
        return num_removed

    def read(
        self,
        columns: Iterable[str] | None = None,
        only: RowFilter | None = None,
        encoded: Collection[str] = (),
        where: Callable[[pa.Table], np.ndarray] | None = None,
    ) -> pa.Table:
        """Read all rows that are not superseded, in the order they were written.

        Args:
            columns: Columns to read. Default: all.
            only: The rows to read. Parts without any are skipped.
            encoded: Text columns to read as dictionary arrays, which take less memory and time
                where values repeat. The dictionaries of two chunks differ.
            where: Maps the columns of some rows to (n,) bool: the rows to read. It is called for
                each part, so that rows which are not needed never are in memory together.

        Returns:
            A table of the columns, in the given order.
        """
        names = list(dict.fromkeys(self.manifest.schema.names if columns is None else columns))
        for _ in range(MAX_READ_ATTEMPTS):
            try:
                tables = self._read_current(names, only, encoded, where)
            except FileNotFoundError:
                continue  # another process has compacted the manifest
            fields = [self.manifest.schema.field(name) for name in names]
            empty = pa.schema(_encode_field(field, encoded) for field in fields).empty_table()
            # Arrow keeps what decoding has used: hundreds of megabytes for a large manifest.
            pa.default_memory_pool().release_unused()
            return pa.concat_tables([empty, *tables])
        raise UserError(
            f"{self.workspace.root}/{self.folder} kept changing while it was read; wait until no "
            "other command writes there"
        )

    def read_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Read all rows that are not superseded as a pandas frame; `columns` as for `read`."""
        return self.read(columns).to_pandas()

    def count(self) -> int:
        """Number of rows that are not superseded."""
        parts = self.parts()
        current = self._find_current(parts, {})
        num_rows = 0
        for path in parts:
            footer = self._footer(path)
            with self._explain_damage(path):
                check_version(self.manifest, footer.metadata, f"{self.workspace.root}/{path}")
            num_rows += int(current[path].sum()) if path in current else footer.num_rows
        return num_rows

    def distinct(self, column: str) -> set:
        """The distinct values of a text column, superseded rows included."""
        values = set()
        for path in self.parts():
            encoded = self._read_part(path, [column], [column])[column]
            values.update(encoded.unique().to_pylist())
        return values

    # Compaction

    def _remove_uncommitted(self) -> None:
        """Remove pending parts that no committed part lists; opening has renamed the others."""
        for name in self.workspace.list_names(self.folder):
            if name.startswith(PENDING_PREFIX):
                self.workspace.remove(f"{self.folder}/{name}")

    def _replace(
        self,
        parts: Sequence[str],
        old_parts: Sequence[str],
        tables: Iterable[pa.Table],
        is_distinct: bool,
    ) -> None:
        """Commit tables in place of old parts, all or nothing.

        Args:
            parts: All present parts.
            old_parts: The parts to replace.
            tables: The rows of the new parts.
            is_distinct: Whether no row of the new and the remaining parts supersedes another.
        """
        empty = self.manifest.schema.remove_metadata().empty_table()
        pieces = _cut_pieces(itertools.chain([empty], tables), ROWS_PER_PART)
        piece = next(pieces)
        names = [self._next_part_name()]
        with ThreadPoolExecutor(NUM_WRITERS) as pool:
            commits: deque[Future[None]] = deque()
            for next_piece in pieces:
                commits.append(pool.submit(self._commit, PENDING_PREFIX + names[-1], piece))
                if len(commits) > NUM_WRITERS:
                    commits.popleft().result()
                names.append(self._next_part_name(len(names)))
                piece = next_piece
            for commit in commits:
                commit.result()

        remaining = [_name(path) for path in parts if path not in old_parts]
        marked = [*remaining, *names] if is_distinct else remaining
        metadata = {
            REPLACES: json.dumps([_name(path) for path in old_parts]).encode(),
            SIBLINGS: json.dumps(names[:-1]).encode(),
            DISTINCT: json.dumps(marked).encode(),
        }
        self._commit(names[-1], piece, metadata)
        self._complete_compaction()

    def _complete_compaction(self) -> None:
        """Rename the siblings and remove the replaced parts of every committed compaction.

        It is safe to repeat, and to run in several processes at once.
        """
        names = self.workspace.list_names(self.folder)
        present = set(names)
        for path in self._committed(names):
            try:
                footer = self._footer(path)
            except FileNotFoundError:
                continue  # another process has replaced it
            for name in footer.siblings:
                pending_name = PENDING_PREFIX + name
                if pending_name in present:
                    self.workspace.rename(f"{self.folder}/{pending_name}", f"{self.folder}/{name}")
            for name in footer.replaced:
                if name in present:
                    self.workspace.remove(f"{self.folder}/{name}")

    # Superseded rows

    def _unmarked(self, parts: Sequence[str]) -> list[str]:
        """The parts that the last compaction did not mark as free of superseded rows."""
        marked: list[str] = []
        for path in parts:
            marked = self._footer(path).distinct or marked
        return [path for path in parts if _name(path) not in set(marked)]

    def _find_current(
        self, parts: Sequence[str], excluded: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Find the rows that no later row supersedes.

        Args:
            parts: Paths of the parts, oldest first.
            excluded: Path of a part -> (num_rows,) bool, rows that are not compared.

        Returns:
            Path of a part -> (num_rows,) bool, the rows to keep; excluded ones count as kept. Parts
            without superseded rows are left out.
        """
        unmarked = set(self._unmarked(parts))
        if not unmarked or len(parts) < 2:
            return {}
        compared = self._compared_rows(parts, unmarked)

        columns = _identity_columns(self.manifest)
        text_columns = _text_columns(self.manifest, columns)
        places = []
        tables = []
        for path in parts:
            mask = compared[path]
            if path in excluded:
                mask &= ~excluded[path]
            if mask.any():
                part = self._read_part(path, columns, text_columns)
                tables.append(part.filter(pa.array(mask)))
                places.append((path, mask))
        if not tables:
            return {}

        is_last = _is_last(pa.concat_tables(tables), self.manifest)
        current = {}
        start = 0
        for path, mask in places:
            stop = start + int(mask.sum())
            if not is_last[start:stop].all():
                current[path] = np.ones(len(mask), bool)
                current[path][mask] = is_last[start:stop]
            start = stop
        return current

    def _compared_rows(
        self, parts: Sequence[str], unmarked: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Find the rows that a row of an unmarked part may supersede.

        Returns:
            Path of a part -> (num_rows,) bool: all rows of an unmarked part, and the rows of the
            others that share an input or the first column of the key with one of them.
        """
        columns = sorted({self.manifest.key[0], self.manifest.input_column})
        if self.manifest.input_column in self.manifest.key:
            columns = [self.manifest.input_column]
        table = pa.concat_tables([self._read_part(path, columns, columns) for path in parts])
        num_rows = [self._footer(path).num_rows for path in parts]
        is_unmarked = np.repeat([path in unmarked for path in parts], num_rows)
        if not is_unmarked.all():
            newest = table.filter(pa.array(is_unmarked))
            for column in columns:
                values = newest[column].cast(pa.string()).unique()
                is_unmarked |= match_encoded(table[column], partial(pc.is_in, value_set=values))
        stops = np.cumsum(num_rows)
        return dict(zip(parts, np.split(is_unmarked, stops[:-1]), strict=True))

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

    def _footer(self, path: str) -> _Footer:
        """The metadata of a part. Those of an unchanged file are read once per process.

        Raises:
            FileNotFoundError: If another process has removed the part.
            UserError: If the part cannot be read.
        """
        with self._explain_damage(path):
            footers = _FOOTERS.setdefault(self.workspace, {})
            key = (path, self._file_state(path))
            if key not in footers:
                footers[key] = self._read_footer(path)
            return footers[key]

    def _file_state(self, path: str) -> tuple[int, ...]:
        """Changes when a part is written again, which only a migration or a person does."""
        if not self.workspace.is_local:
            return ()
        status = self.workspace.local_path(path).stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read_footer(self, path: str) -> _Footer:
        with self.workspace.open(path) as file:
            parquet = pq.ParquetFile(file)
            metadata = parquet.metadata.metadata or {}
            lists = [json.loads(metadata.get(key, b"[]")) for key in (REPLACES, SIBLINGS, DISTINCT)]
            for name in itertools.chain(*lists):
                if not PART_NAME.fullmatch(name):
                    raise ValueError(f"{name!r} is no name of a part")
            replaced, siblings, distinct = lists
            return _Footer(
                metadata=metadata,
                num_rows=parquet.metadata.num_rows,
                replaced=replaced,
                siblings=siblings,
                distinct=distinct,
                encoded=frozenset(json.loads(metadata.get(ENCODED, b"[]"))),
            )

    def _read_current(
        self,
        columns: Sequence[str],
        only: RowFilter | None,
        encoded: Collection[str],
        where: Callable[[pa.Table], np.ndarray] | None,
    ) -> list[pa.Table]:
        """The rows of every part that are not superseded and match `only` and `where`."""
        parts = self.parts()
        current = self._find_current(parts, {})
        tables = []
        for path in parts:
            mask = current.get(path)
            if only is not None:
                matching = self._match_rows(path, only)
                mask = matching if mask is None else mask & matching
                if not mask.any():
                    continue
            table = self._read_kept(path, mask, columns, encoded)
            tables.append(table if where is None else table.filter(pa.array(where(table))))
        return tables

    def _match_rows(self, path: str, only: RowFilter) -> np.ndarray:
        """(num_rows,) bool: the rows of a part that a filter selects."""
        if only.column not in self._footer(path).encoded:
            return _to_mask(only.matches(self._read_part(path, [only.column])[only.column]))
        column = self._read_part(path, [only.column], [only.column])[only.column]
        return match_encoded(column, only.matches)

    def _read_kept(
        self,
        path: str,
        keep: np.ndarray | None,
        columns: Sequence[str] | None = None,
        encoded: Collection[str] = (),
    ) -> pa.Table:
        """The rows of a part that a mask selects; None selects all."""
        if keep is not None and not keep.any():
            names = columns or self.manifest.schema.names
            schema = self.manifest.schema.remove_metadata()
            fields = [_encode_field(schema.field(name), encoded) for name in names]
            return pa.schema(fields).empty_table()
        table = self._read_part(path, columns, encoded)
        return table if keep is None or keep.all() else table.filter(pa.array(keep))

    def _read_part(
        self, path: str, columns: Sequence[str] | None = None, encoded: Collection[str] = ()
    ) -> pa.Table:
        """Read a part; columns in `encoded` as dictionary arrays."""
        full_path = f"{self.workspace.root}/{path}"
        with self._explain_damage(path), self.workspace.open(path) as file:
            part = pq.ParquetFile(
                file, page_checksum_verification=True, read_dictionary=list(encoded)
            )
            metadata = part.schema_arrow.metadata or {}
            check_version(self.manifest, metadata, full_path)
            _check_columns(self.manifest, part.schema_arrow)
            table = part.read(None if columns is None else list(columns))
            num_rows = int(metadata.get(NUM_ROWS, table.num_rows))
            if table.num_rows != num_rows:
                raise ValueError(f"it has {table.num_rows} rows, expected {num_rows}")
        table = table.replace_schema_metadata(None)
        return table if columns is None else table.select(list(columns))

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
    repetitive = _repetitive_columns(table)
    metadata[NUM_ROWS] = str(table.num_rows).encode()
    metadata[ENCODED] = json.dumps(repetitive).encode()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata(metadata),
        compression="zstd",
        use_dictionary=repetitive,
        write_page_checksum=True,
    ) as writer:
        # `datasets` cannot read an empty row group.
        if table.num_rows:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _repetitive_columns(table: pa.Table) -> list[str]:
    """The text columns whose first values repeat; only these are worth a dictionary."""
    columns = []
    for field in table.schema:
        first_values = table[field.name].slice(0, SAMPLE_ROWS)
        if pa.types.is_string(field.type) and len(first_values.unique()) <= SAMPLE_ROWS // 2:
            columns.append(field.name)
    return columns


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
        ValueError: If it is a part of another manifest.
    """
    name = metadata.get(b"authface.manifest", manifest.name.encode())
    if name != manifest.name.encode():
        raise ValueError(f"it is a part of {strip_control(name.decode('utf-8', 'replace'))}")
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
    present = {field.name: _decoded_type(field.type) for field in schema}
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


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _encode_field(field: pa.Field, encoded: Collection[str]) -> pa.Field:
    """A field of a manifest as `Store.read` gives it."""
    if field.name not in encoded:
        return field
    return field.with_type(pa.dictionary(pa.int32(), field.type))


def _to_mask(mask: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) bool; null counts as false."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)


def text_array(column: pd.Series) -> pa.Array:
    """The texts of a pandas column in one array; NaN becomes null."""
    texts = pa.array(column, pa.string(), from_pandas=True)
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def match_encoded(
    column: pa.ChunkedArray, matches: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]
) -> np.ndarray:
    """Evaluate a condition on the distinct values of a column only.

    Args:
        column: (n,) dictionary array; null does not match.
        matches: Maps distinct values to a boolean mask.

    Returns:
        (n,) bool.
    """
    rows, distinct = join_dictionaries(column)
    mask = np.append(_to_mask(matches(distinct)), False)
    return mask[rows]


def join_dictionaries(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Join the dictionaries of a column.

    Args:
        column: (n,) dictionary array, whose chunks may have different dictionaries.

    Returns:
        (n,) int, index into the values, -1 for null; and the values, some of them repeated.
    """
    rows = [np.zeros(0, np.int32)]
    dictionaries = []
    num_values = 0
    for chunk in column.chunks:
        indices = chunk.indices
        is_null = None
        if indices.null_count:
            is_null = indices.is_null().to_numpy(zero_copy_only=False)
            indices = indices.fill_null(0)
        chunk_rows = indices.to_numpy().astype(np.int32) + np.int32(num_values)
        if is_null is not None:
            chunk_rows[is_null] = -1
        rows.append(chunk_rows)
        dictionaries.append(chunk.dictionary)
        num_values += len(chunk.dictionary)
    return np.concatenate(rows), pa.chunked_array(dictionaries, column.type.value_type)


def _cut_pieces(tables: Iterable[pa.Table], piece_rows: int) -> Iterator[pa.Table]:
    """Cut the rows of several tables into tables of `piece_rows` rows; the last has fewer."""
    waiting: list[pa.Table] = []
    num_waiting = 0
    for table in tables:
        waiting.append(table)
        num_waiting += table.num_rows
        while num_waiting > piece_rows:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, piece_rows)
            waiting = [joined.slice(piece_rows)]
            num_waiting -= piece_rows
    yield pa.concat_tables(waiting)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _identity_columns(manifest: Manifest) -> list[str]:
    """The columns that decide which rows supersede which."""
    return list(dict.fromkeys([*manifest.key, manifest.input_column, "fingerprint"]))


def _text_columns(manifest: Manifest, columns: Iterable[str]) -> list[str]:
    return [name for name in columns if pa.types.is_string(manifest.schema.field(name).type)]


def _is_last(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """Find the rows that no later row supersedes.

    A later row with the same key supersedes a row. Where an input gives several rows, such as the
    faces of a photo, they are made together: a later row of the same input with another fingerprint
    supersedes all its earlier rows.

    Args:
        table: The identity columns, texts as dictionary arrays.
        manifest: The definition of the manifest.

    Returns:
        (num_rows,) bool.
    """
    table = table.unify_dictionaries()
    keys = _encode_rows(table, manifest.key)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_last = np.empty(len(keys), bool)
    is_last[order] = np.append(keys[1:] != keys[:-1], np.ones(min(len(keys), 1), bool))
    if manifest.input_column in manifest.key or not table.num_rows:
        return is_last

    inputs = _encode_rows(table, [manifest.input_column])
    fingerprints = _encode_rows(table, ["fingerprint"])
    newest_row = np.zeros(inputs.max() + 1, np.int64)
    newest_row[inputs] = np.arange(len(inputs))  # of equal indices the last one counts
    return is_last & (fingerprints == fingerprints[newest_row[inputs]])


def _encode_rows(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """(num_rows,) int64: equal for rows with equal values in the columns."""
    codes = np.zeros(table.num_rows, np.int64)
    num_codes = 1
    for name in columns:
        column = table[name]
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        num_values = len(column.chunk(0).dictionary) + 1 if column.num_chunks else 1
        if num_codes * num_values > MAX_CODE:
            distinct, codes = np.unique(codes, return_inverse=True)
            num_codes = len(distinct)
        indices = [pc.fill_null(chunk.indices, num_values - 1) for chunk in column.chunks]
        values = pa.chunked_array(indices, pa.int32()).to_numpy()
        codes = codes * num_values + values
        num_codes *= num_values
    return codes
