"""An older manifest is brought up to date, a copy first."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import migrate
from manifests.schema import SCORES, Manifest
from manifests.store import Store


def write_old(workspace, version: int) -> None:
    """A part as an authface of version 0 wrote it: no crop_policy, the value in another column and type."""
    table = pa.table(
        {
            "face_id": ["a", "b"],
            "metric": ["niqe"] * 2,
            "score": pa.array([3, 4], pa.int32()),
            "fingerprint": ["f"] * 2,
        }
    )
    metadata = {"authface.manifest": "scores", "authface.version": str(version)}
    folder = workspace.local_path("manifests/scores")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata(metadata), folder / "part-00000001-0123abcd.parquet"
    )


def test_migrate_copies_upgrades_and_is_idempotent(workspace, monkeypatch, authface_here):
    write_old(workspace, 0)
    monkeypatch.setitem(
        migrate.MIGRATIONS, ("scores", 0), lambda table: table.rename_columns({"score": "value"})
    )
    assert migrate.count_outdated_parts(workspace) == {"scores": 1}
    copies = migrate.migrate(workspace)
    table = Store(workspace, SCORES).read()
    assert table["value"].to_pylist() == [3.0, 4.0]
    assert table["crop_policy"].to_pylist() == [None, None]
    assert table.schema.names == SCORES.schema.names
    old = pd.read_parquet(workspace.local_path(copies) / "scores")
    assert old["score"].tolist() == [3, 4]
    assert migrate.count_outdated_parts(workspace) == {}


def test_the_command_asks_first_and_reading_points_to_it(workspace, authface_here):
    write_old(workspace, 0)
    refused = authface_here("status", "-w", workspace.root)
    assert refused.returncode == 2
    assert "authface migrate" in refused.stderr
    asked = authface_here("migrate", "-w", workspace.root)
    assert asked.returncode == 0
    assert "1 parts of scores would be copied and rewritten" in asked.stdout
    assert migrate.count_outdated_parts(workspace) == {"scores": 1}
    assert authface_here("migrate", "-w", workspace.root, "--yes").returncode == 0
    assert authface_here("status", "-w", workspace.root).returncode == 0


def test_steps_run_in_order():
    manifest = Manifest("scores", 3, SCORES.key, SCORES.input_column, SCORES.columns)
    table = pa.table({"face_id": ["a"]}).replace_schema_metadata({"authface.version": "1"})
    seen = []
    steps = {("scores", v): (lambda t, v=v: seen.append(v) or t) for v in (0, 1, 2)}
    original, migrate.MIGRATIONS = migrate.MIGRATIONS, steps
    try:
        migrate.upgrade_table(table, manifest)
    finally:
        migrate.MIGRATIONS = original
    assert seen == [1, 2]
