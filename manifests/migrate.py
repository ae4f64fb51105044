"""Bring manifests written by an older authface up to the present schemas, a copy first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import MANIFESTS, Manifest
from manifests.store import PART, Store, part_version
from manifests.workspace import Workspace

# (manifest, version it starts from) -> what turns its table into that of the next version.
# Only for changes beyond new columns: those come in as null, and columns no longer known go.
MIGRATIONS: dict[tuple[str, int], Callable[[pa.Table], pa.Table]] = {}


def _old_parts(workspace: Workspace) -> Iterator[tuple[Manifest, str, pa.Table, bytes]]:
    """(manifest, file name, table, bytes) of every part of an older version."""
    for manifest in MANIFESTS.values():
        Store(workspace, manifest)  # completes an interrupted compaction
        folder = workspace.manifest_folder(manifest.name)
        for name in workspace.list(folder):
            if PART.fullmatch(name):
                data = workspace.read_bytes(f"{folder}/{name}")
                table = pq.read_table(pa.BufferReader(data))
                if part_version(table.schema.metadata or {}) < manifest.version:
                    yield manifest, name, table, data


def count_outdated_parts(workspace: Workspace) -> dict[str, int]:
    """How many parts of each manifest an older authface wrote."""
    return dict(Counter(manifest.name for manifest, *_ in _old_parts(workspace)))


def migrate(workspace: Workspace) -> str:
    """Rewrite every part of an older schema version. Returns the folder that holds copies of the old parts.

    A part is copied first and then replaced by one rename under its own name, so an interrupted migration is finished
    by running it again.
    """
    copies = f"manifests/.before-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for manifest, name, table, data in _old_parts(workspace):
        workspace.write_bytes(f"{copies}/{manifest.name}/{name}", data)
        sink = pa.BufferOutputStream()
        pq.write_table(upgrade_table(table, manifest), sink, compression="zstd")
        workspace.write_bytes(
            f"{workspace.manifest_folder(manifest.name)}/{name}", sink.getvalue().to_pybytes()
        )
    return copies


def upgrade_table(table: pa.Table, manifest: Manifest) -> pa.Table:
    """A table of an older version in the present schema; the part's own notes in the metadata are kept."""
    metadata = dict(table.schema.metadata or {})
    for version in range(part_version(metadata), manifest.version):
        step = MIGRATIONS.get((manifest.name, version))
        table = step(table) if step else table
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in manifest.schema
    ]
    made = pa.Table.from_arrays(columns, schema=manifest.schema.remove_metadata())
    return made.replace_schema_metadata({**metadata, **(manifest.schema.metadata or {})})
