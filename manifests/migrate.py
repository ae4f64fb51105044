"""Migration of manifests that an older authface wrote to the present schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import MANIFESTS, Manifest
from manifests.store import PART_NAME, Store, schema_version
from manifests.workspace import Workspace

MIGRATIONS: dict[tuple[str, int], Callable[[pa.Table], pa.Table]] = {}
"""(manifest, version) -> function that converts a table of that version to the next version.

A migration is only needed for changes beyond added and removed columns: `upgrade_table` fills added
columns with nulls and drops removed ones.
"""


class _OldPart(NamedTuple):
    manifest: Manifest
    name: str
    table: pa.Table
    content: bytes


def _list_old_parts(workspace: Workspace) -> Iterator[_OldPart]:
    for manifest in MANIFESTS.values():
        store = Store(workspace, manifest)
        for name in workspace.list_names(store.folder):
            if not PART_NAME.fullmatch(name):
                continue
            content = workspace.read_bytes(f"{store.folder}/{name}")
            table = pq.read_table(pa.BufferReader(content))
            if schema_version(table.schema.metadata or {}) < manifest.version:
                yield _OldPart(manifest, name, table, content)


def count_outdated_parts(workspace: Workspace) -> dict[str, int]:
    """Count the parts that an older authface wrote, by manifest."""
    return dict(Counter(part.manifest.name for part in _list_old_parts(workspace)))


def migrate(workspace: Workspace) -> str:
    """Rewrite every part that has an older schema version.

    A part is copied first and then replaced under the same name by one rename, so running an
    interrupted migration again completes it.

    Returns:
        The folder in the workspace that holds copies of the old parts.
    """
    copies = f"manifests/.before-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for part in _list_old_parts(workspace):
        workspace.write_bytes(f"{copies}/{part.manifest.name}/{part.name}", part.content)
        sink = pa.BufferOutputStream()
        pq.write_table(upgrade_table(part.table, part.manifest), sink, compression="zstd")
        folder = workspace.manifest_folder(part.manifest.name)
        workspace.write_bytes(f"{folder}/{part.name}", sink.getvalue().to_pybytes())
    return copies


def upgrade_table(table: pa.Table, manifest: Manifest) -> pa.Table:
    """Convert a table of an older schema version to the present one.

    Args:
        table: A part, with its version in the schema's metadata.
        manifest: The present definition of the manifest.

    Returns:
        The converted table. The part's other metadata, such as the state of a compaction, is kept.
    """
    metadata = dict(table.schema.metadata or {})
    for version in range(schema_version(metadata), manifest.version):
        step = MIGRATIONS.get((manifest.name, version))
        if step is not None:
            table = step(table)

    columns = []
    for field in manifest.schema:
        if field.name in table.schema.names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    upgraded = pa.Table.from_arrays(columns, schema=manifest.schema.remove_metadata())
    return upgraded.replace_schema_metadata({**metadata, **(manifest.schema.metadata or {})})
