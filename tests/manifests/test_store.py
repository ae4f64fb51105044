"""Appending, superseding, compacting and reading rows in Parquet files."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import store as store_module
from manifests.schema import CAPTIONS, DECISIONS, FACES, MANIFESTS, PHOTOS, SCORES
from manifests.store import RowFilter, Store
from manifests.support.errors import UserError


def score_row(face: str, value: float, metric: str = "niqe", fingerprint: str = "a") -> dict:
    return {"face_id": face, "metric": metric, "value": value, "fingerprint": fingerprint}


def read_values(store: Store) -> dict[str, float]:
    """face_id -> value."""
    table = store.read()
    return dict(zip(table["face_id"].to_pylist(), table["value"].to_pylist(), strict=True))


def list_files(workspace) -> list[str]:
    return workspace.list_names("manifests/scores")


def test_every_manifest_round_trips_as_plain_parquet(workspace):
    face = {
        "face_id": "us_Abc_12345678",
        "photo_id": "us_Abc",
        "box_px": [1.5, 2.0, 3.0, 4.0],
        "landmarks5_px": [[0.0, 1.0]] * 5,
        "upscaled": True,
        "crop_size_px": 512,
        "fingerprint": "f",
    }
    Store(workspace, FACES).append([face])
    Store(workspace, CAPTIONS).append(
        [{"face_id": "x", "captioner": "llava", "semantic_tags": ["a", "b"], "fingerprint": "f"}]
    )
    read = pd.read_parquet(workspace.local_path("manifests/faces"))
    assert list(read.columns) == FACES.schema.names
    assert read.loc[0, "box_px"].tolist() == face["box_px"]
    assert [list(point) for point in read.loc[0, "landmarks5_px"]] == face["landmarks5_px"]
    assert bool(read.loc[0, "upscaled"]) is True
    assert str(read["created_at"].dtype).startswith("datetime64")
    assert Store(workspace, CAPTIONS).read().to_pylist()[0]["semantic_tags"] == ["a", "b"]


def test_schema_carries_name_version_and_common_columns():
    for name, manifest in MANIFESTS.items():
        assert manifest.schema.metadata[b"authface.manifest"] == name.encode()
        assert int(manifest.schema.metadata[b"authface.version"]) == manifest.version
        assert manifest.schema.names[-2:] == ["fingerprint", "created_at"]
        assert set(manifest.key) <= set(manifest.schema.names)


def test_unknown_column_is_refused(workspace):
    with pytest.raises(ValueError, match="scores has no column valeu"):
        Store(workspace, SCORES).append([{"face_id": "a", "valeu": 1.0}])


def test_later_rows_supersede_earlier_ones_before_and_after_compaction(workspace):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1), score_row("b", 2)])
    store.append([score_row("a", 3), score_row("a", 9, metric="piqe")])
    rows = store.read_pandas().set_index(["metric", "face_id"])["value"].to_dict()
    assert rows == {("niqe", "a"): 3, ("niqe", "b"): 2, ("piqe", "a"): 9}
    assert store.compact() == 1
    plain = pd.read_parquet(workspace.local_path("manifests/scores"))
    assert len(plain) == 3
    assert not plain.duplicated(["face_id", "metric"]).any()
    assert len(list_files(workspace)) == 1
    assert store.compact() == 0  # a second compaction writes nothing


def test_decisions_are_append_only(workspace):
    store = Store(workspace, DECISIONS)
    for minute, decision in enumerate(["keep", "drop"]):
        at = pd.Timestamp(2026, 1, 1, 0, minute, tz="UTC")
        store.append([{"id": "a", "reviewer": "r", "decision": decision, "decided_at": at}])
    store.compact()
    assert store.read()["decision"].to_pylist() == ["keep", "drop"]


def test_large_parts_without_superseded_rows_are_not_rewritten(workspace, monkeypatch):
    monkeypatch.setattr(store_module, "ROWS_PER_PART", 4)
    store = Store(workspace, SCORES)
    store.append([score_row(f"a{n}", n) for n in range(4)])
    store.append([score_row(f"a{n}", n) for n in range(4, 8)])
    store.append([score_row("new", 1)])
    store.append([score_row("a7", 99)])
    before = store.parts()
    store.compact()
    assert set(before) & set(store.parts()) == {before[0]}
    assert read_values(store) == {**{f"a{n}": n for n in range(7)}, "a7": 99, "new": 1}


def test_compaction_drops_and_adds_rows(workspace):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1), score_row("b", 2)])
    num_removed = store.compact(
        drop=lambda part: pc.equal(part["face_id"], "a"), add=store.table([score_row("c", 3)])
    )
    assert num_removed == 1
    assert read_values(store) == {"b": 2, "c": 3}


@pytest.mark.parametrize(
    ("version", "message"),
    [(SCORES.version + 1, "newer than this authface"), (SCORES.version - 1, "authface migrate")],
)
def test_other_schema_version_is_refused(workspace, version, message):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1)])
    path = workspace.local_path("manifests/scores") / list_files(workspace)[0]
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"authface.version": str(version)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=message):
        store.read()


KILLED_COMPACTION = """
import os, signal, sys
import pyarrow.compute as pc
from manifests import store as store_module, workspace as workspace_module
from manifests.schema import SCORES
from manifests.store import RowFilter, Store
from manifests.workspace import Workspace

root, stop = sys.argv[1], int(sys.argv[2])
store_module.ROWS_PER_PART = 8
num_operations = 0
def count_calls(function):
    def counted(*args):
        global num_operations
        num_operations += 1
        if num_operations == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return counted
store = Store(Workspace(root), SCORES)
for name in ("write_bytes", "rename", "remove"):
    setattr(Workspace, name, count_calls(getattr(Workspace, name)))
store.compact(drop=lambda part: pc.equal(part["face_id"], "a1"))
"""


@pytest.mark.slow
def test_compaction_killed_at_any_operation_is_complete_or_absent(workspace, tmp_path):
    """Nine parts become three. The compaction is killed before every write, rename and removal."""

    def fill() -> None:
        store = Store(workspace, SCORES)
        for name in list_files(workspace):
            workspace.remove(f"manifests/scores/{name}")
        for part in range(8):
            store.append([score_row(f"a{part * 3 + n}", part) for n in range(3)])
        store.append([score_row("a0", 50)])

    fill()
    before = read_values(Store(workspace, SCORES))
    after = {face: value for face, value in before.items() if face != "a1"}
    script = tmp_path / "killed_compaction.py"
    script.write_text(KILLED_COMPACTION)
    is_committed = []
    stop = 1
    while True:
        fill()
        command = [sys.executable, script, workspace.root, str(stop)]
        killed = subprocess.run(command, capture_output=True, text=True)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        # Opening the store completes a committed compaction.
        present = read_values(Store(workspace, SCORES))
        assert present in (before, after), f"killed before operation {stop}"
        plain = pd.read_parquet(workspace.local_path("manifests/scores"))
        if present == after:
            assert dict(zip(plain["face_id"], plain["value"], strict=True)) == after
            assert len(plain) == len(after)
        is_committed.append(present == after)
        Store(workspace, SCORES).compact(drop=lambda part: pc.equal(part["face_id"], "a1"))
        assert read_values(Store(workspace, SCORES)) == after
        assert not [name for name in list_files(workspace) if name.startswith(".")]
        stop += 1
    assert stop > 14
    assert is_committed == sorted(is_committed)  # every kill after the commit finds it
    assert True in is_committed
    assert False in is_committed


def test_reader_survives_a_compaction_between_listing_and_reading(workspace, monkeypatch):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1)])
    store.append([score_row("b", 2)])
    old_parts = store.parts()
    list_parts = store.parts
    calls = []

    def list_old_parts_first():
        calls.append(1)
        return old_parts if len(calls) == 1 else list_parts()

    Store(workspace, SCORES).compact()
    monkeypatch.setattr(store, "parts", list_old_parts_first)
    assert read_values(store) == {"a": 1, "b": 2}
    assert len(calls) == 2


def test_faces_of_a_photo_are_superseded_together(workspace):
    """One face with new settings supersedes both faces with old ones."""
    store = Store(workspace, FACES)
    store.append([{"face_id": f"p_{n}", "photo_id": "p", "fingerprint": "old"} for n in "ab"])
    store.append([{"face_id": "q_a", "photo_id": "q", "fingerprint": "old"}])
    store.append([{"face_id": "p_c", "photo_id": "p", "fingerprint": "new"}])
    assert sorted(store.read()["face_id"].to_pylist()) == ["p_c", "q_a"]
    assert store.read(["score"]).num_rows == 2
    store.compact()
    assert sorted(pd.read_parquet(workspace.local_path("manifests/faces"))["face_id"]) == [
        "p_c",
        "q_a",
    ]


def test_damaged_part_is_named(workspace):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1)])
    path = workspace.local_path(store.parts()[0])
    path.write_bytes(path.read_bytes()[:50])
    for read in (store.read, lambda: Store(workspace, SCORES)):
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            read()


def test_compacted_part_names_the_parts_it_replaces(workspace):
    store = Store(workspace, PHOTOS)
    store.append([{"photo_id": "us_1", "fingerprint": "f"}])
    store.append([{"photo_id": "us_2", "fingerprint": "f"}])
    old = {path.rsplit("/", 1)[-1] for path in store.parts()}
    store.compact()
    metadata = pq.read_schema(workspace.local_path(store.parts()[0])).metadata
    assert set(json.loads(metadata[b"authface.replaces"])) == old
    assert pa.types.is_timestamp(store.read().schema.field("created_at").type)
    assert os.path.basename(store.parts()[0]).startswith("part-00000003-")


def test_compaction_marks_parts_whose_rows_are_not_compared_again(workspace, monkeypatch):
    """Reads then compare the rows of later parts only, also with marked ones."""
    monkeypatch.setattr(store_module, "ROWS_PER_PART", 4)
    store = Store(workspace, SCORES)
    store.append([score_row(f"a{n}", n) for n in range(6)])
    store.append([score_row("a0", 10)])
    store.compact()
    metadata = pq.read_schema(workspace.local_path(store.parts()[-1])).metadata
    marked = json.loads(metadata[b"authface.distinct"])
    assert sorted(marked) == [os.path.basename(path) for path in store.parts()]

    compared = []
    is_last = store_module._is_last
    monkeypatch.setattr(
        store_module,
        "_is_last",
        lambda table, manifest: compared.append(table.num_rows) or is_last(table, manifest),
    )
    assert read_values(store) == {"a0": 10, **{f"a{n}": n for n in range(1, 6)}}
    assert compared == []
    store.append([score_row("a3", 30), score_row("a3", 31, metric="piqe"), score_row("b", 1)])
    table = store.read(["face_id", "metric", "value"], encoded=["face_id", "metric"])
    assert compared == [4]  # both rows of a3, its old row, and b
    rows = {(row["face_id"], row["metric"]): row["value"] for row in table.to_pylist()}
    assert rows["a3", "niqe"] == 30
    assert rows["a3", "piqe"] == 31
    assert len(rows) == store.count() == 8


def test_parts_of_an_earlier_version_are_marked_by_the_next_compaction(workspace, monkeypatch):
    """They have no mark and nothing to remove: one part is written again."""
    monkeypatch.setattr(store_module, "ROWS_PER_PART", 2)
    store = Store(workspace, SCORES)
    for part in range(3):
        store.append([score_row(f"a{part}{n}", part) for n in range(2)])
    before = store.parts()
    assert store.compact() == 0
    assert len(set(before) & set(store.parts())) == 2
    assert store.compact() == 0
    assert len(read_values(store)) == 6
    assert not store._unmarked(store.parts())


def test_added_rows_that_supersede_remaining_ones_are_compared(workspace):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1), score_row("b", 2)])
    store.compact(
        drop=lambda part: pc.equal(part["face_id"], "b"),
        add=[store.table([score_row("a", 5)]), store.table([score_row("c", 3)])],
        drop_columns=["face_id"],
    )
    store.append([score_row("c", 4)])
    assert read_values(store) == {"a": 5, "c": 4}


def test_filter_reads_matching_rows_of_the_newest_state(workspace):
    store = Store(workspace, SCORES)
    store.append([score_row("a", 1), score_row("b", 2), score_row("c", 3, metric="piqe")])
    store.append([score_row("a", 5)])
    table = store.read(["face_id", "value"], RowFilter.equal("metric", "niqe"))
    assert dict(zip(*table.to_pydict().values(), strict=True)) == {"b": 2, "a": 5}
    assert store.read(only=RowFilter.is_in("face_id", ["c", "x"])).num_rows == 1
    assert store.read(only=RowFilter.equal("face_id", "x")).schema == store.read().schema
