"""Migration of manifests that an older authface wrote."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import migrate
from manifests.schema import SCORES, Manifest
from manifests.store import Store


def write_old_part(workspace) -> None:
    """Write a part of version 0: no crop_policy, and the value in another column and type."""
    table = pa.table(
        {
            "face_id": ["a", "b"],
            "metric": ["niqe"] * 2,
            "score": pa.array([3, 4], pa.int32()),
            "fingerprint": ["f"] * 2,
        }
    )
    metadata = {"authface.manifest": "scores", "authface.version": "0"}
    folder = workspace.local_path("manifests/scores")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata(metadata), folder / "part-00000001-0123abcd.parquet"
    )


def test_migration_copies_and_upgrades_old_parts(workspace, monkeypatch):
    write_old_part(workspace)

    def rename_score(table: pa.Table) -> pa.Table:
        return table.rename_columns({"score": "value"})

    monkeypatch.setitem(migrate.MIGRATIONS, ("scores", 0), rename_score)
    assert migrate.count_outdated_parts(workspace) == {"scores": 1}
    copies = migrate.migrate(workspace)
    table = Store(workspace, SCORES).read()
    assert table["value"].to_pylist() == [3.0, 4.0]
    assert table["crop_policy"].to_pylist() == [None, None]
    assert table.schema.names == SCORES.schema.names
    old = pd.read_parquet(workspace.local_path(copies) / "scores")
    assert old["score"].tolist() == [3, 4]
    assert migrate.count_outdated_parts(workspace) == {}


def test_old_part_is_refused_until_migrate_with_yes(workspace, authface_here):
    write_old_part(workspace)
    refused = authface_here("status", "-w", workspace.root)
    assert refused.returncode == 2
    assert "authface migrate" in refused.stderr
    preview = authface_here("migrate", "-w", workspace.root)
    assert preview.returncode == 0
    assert "1 part of scores would be copied and rewritten" in preview.stdout
    assert migrate.count_outdated_parts(workspace) == {"scores": 1}
    assert authface_here("migrate", "-w", workspace.root, "--yes").returncode == 0
    assert authface_here("status", "-w", workspace.root).returncode == 0


def test_migrations_run_in_order_of_version(monkeypatch):
    manifest = Manifest("scores", 3, SCORES.key, SCORES.input_column, SCORES.columns)
    table = pa.table({"face_id": ["a"]}).replace_schema_metadata({"authface.version": "1"})
    applied = []

    def migration_from(version: int):
        def migration(table: pa.Table) -> pa.Table:
            applied.append(version)
            return table

        return migration

    migrations = {("scores", version): migration_from(version) for version in (0, 1, 2)}
    monkeypatch.setattr(migrate, "MIGRATIONS", migrations)
    migrate.upgrade_table(table, manifest)
    assert applied == [1, 2]
