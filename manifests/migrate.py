"""Migration of manifests that an older authface wrote to the present schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import MANIFESTS, Manifest
from manifests.store import Store, encode_part, explain_damage, schema_version
from manifests.workspace import Workspace

MIGRATIONS: dict[tuple[str, int], Callable[[pa.Table], pa.Table]] = {}
"""(manifest, version) -> function that converts a table of that version to the next version.

A migration is only needed for changes beyond added and removed columns: `upgrade_table` fills added
columns with nulls and drops removed ones.
"""


def _list_old_parts(workspace: Workspace, manifest: Manifest) -> Iterator[str]:
    """Paths of the parts that have an older schema version."""
    for path in Store(workspace, manifest).parts():
        with explain_damage(manifest, f"{workspace.root}/{path}"), workspace.open(path) as file:
            version = schema_version(pq.read_schema(file).metadata or {})
        if version < manifest.version:
            yield path


def count_outdated_parts(workspace: Workspace) -> dict[str, int]:
    """Count the parts that an older authface wrote, by manifest."""
    counts = {
        name: sum(1 for _ in _list_old_parts(workspace, manifest))
        for name, manifest in MANIFESTS.items()
    }
    return {name: count for name, count in counts.items() if count}


def migrate(workspace: Workspace) -> str:
    """Rewrite every part that has an older schema version.

    A part is copied first and then replaced under the same name by one rename, so running an
    interrupted migration again completes it.

    Returns:
        The folder in the workspace that holds copies of the old parts.

    Raises:
        UserError: If a part is damaged.
    """
    copies = f"manifests/.before-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for manifest in MANIFESTS.values():
        for path in _list_old_parts(workspace, manifest):
            content = workspace.read_bytes(path)
            with explain_damage(manifest, f"{workspace.root}/{path}"):
                old = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
                upgraded = upgrade_table(old, manifest)
                if upgraded[manifest.key[0]].null_count:
                    raise ValueError(f"it has rows without {manifest.key[0]}")
            workspace.write_bytes(f"{copies}/{path.removeprefix('manifests/')}", content)
            metadata = upgraded.schema.metadata or {}
            workspace.write_bytes(path, encode_part(manifest, upgraded, metadata))
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
