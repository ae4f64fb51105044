"""Appending, superseding, compacting and reading, on real Parquet."""

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
from manifests.store import Store
from manifests.support.errors import UserError


def score(face: str, value: float, metric: str = "niqe", fingerprint: str = "a") -> dict:
    return {"face_id": face, "metric": metric, "value": value, "fingerprint": fingerprint}


def values(store: Store) -> dict[str, float]:
    table = store.read()
    return dict(zip(table["face_id"].to_pylist(), table["value"].to_pylist(), strict=True))


def parts_on_disk(workspace, name="scores") -> list[str]:
    return list(workspace.list_names(f"manifests/{name}"))


def test_every_manifest_round_trips_as_plain_parquet(workspace):
    face = {
        "face_id": "us_Abc_12345678", "photo_id": "us_Abc", "box_px": [1.5, 2.0, 3.0, 4.0], "landmarks5_px": [[0.0, 1.0]] * 5,
        "upscaled": True, "crop_size_px": 512, "fingerprint": "f",
    }  # fmt: skip
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


def test_an_unknown_column_is_refused(workspace):
    with pytest.raises(ValueError, match="scores has no column valeu"):
        Store(workspace, SCORES).append([{"face_id": "a", "valeu": 1.0}])


def test_later_rows_supersede_before_and_after_compaction(workspace):
    store = Store(workspace, SCORES)
    store.append([score("a", 1), score("b", 2)])
    store.append([score("a", 3), score("a", 9, metric="piqe")])
    table = store.read().filter(pc.equal(store.read()["metric"], "niqe"))
    assert dict(zip(table["face_id"].to_pylist(), table["value"].to_pylist(), strict=True)) == {
        "a": 3,
        "b": 2,
    }
    assert store.compact() == 1
    plain = pd.read_parquet(workspace.local_path("manifests/scores"))
    assert len(plain) == 3
    assert not plain.duplicated(["face_id", "metric"]).any()
    assert len(parts_on_disk(workspace)) == 1
    assert store.compact() == 0  # nothing left to do, and the part is not written again


def test_decisions_are_append_only(workspace):
    store = Store(workspace, DECISIONS)
    for minute, decision in enumerate(["keep", "drop"]):
        at = pd.Timestamp(2026, 1, 1, 0, minute, tz="UTC")
        store.append([{"id": "a", "reviewer": "r", "decision": decision, "decided_at": at}])
    store.compact()
    assert store.read()["decision"].to_pylist() == ["keep", "drop"]


def test_large_parts_without_superseded_rows_stay(workspace, monkeypatch):
    monkeypatch.setattr(store_module, "ROWS_PER_PART", 4)
    store = Store(workspace, SCORES)
    store.append([score(f"a{n}", n) for n in range(4)])
    store.append([score(f"a{n}", n) for n in range(4, 8)])
    store.append([score("new", 1)])
    store.append([score("a7", 99)])
    before = store.parts()
    store.compact()
    assert set(before) & set(store.parts()) == {before[0]}
    assert values(store) == {**{f"a{n}": n for n in range(7)}, "a7": 99, "new": 1}


def test_drop_and_add_come_in_one_commit(workspace):
    store = Store(workspace, SCORES)
    store.append([score("a", 1), score("b", 2)])
    gone = store.compact(
        drop=lambda part: pc.equal(part["face_id"], "a"), add=store.table([score("c", 3)])
    )
    assert gone == 1
    assert values(store) == {"b": 2, "c": 3}


def test_a_newer_schema_is_refused_and_an_older_one_names_migrate(workspace):
    store = Store(workspace, SCORES)
    store.append([score("a", 1)])
    path = workspace.local_path("manifests/scores") / parts_on_disk(workspace)[0]
    for version, words in (
        (SCORES.version + 1, "newer than this authface"),
        (SCORES.version - 1, "authface migrate"),
    ):
        table = pq.read_table(path)
        pq.write_table(
            table.replace_schema_metadata(
                {**table.schema.metadata, b"authface.version": str(version)}
            ),
            path,
        )
        with pytest.raises(UserError, match=words):
            store.read()


STOPPED = """
import os, signal, sys
import pyarrow.compute as pc
from manifests import store as store_module, workspace as workspace_module
from manifests.schema import SCORES
from manifests.store import Store
from manifests.workspace import Workspace

root, stop = sys.argv[1], int(sys.argv[2])
store_module.ROWS_PER_PART = 8
count = 0
def counted(original):
    def call(*args):
        global count
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)
    return call
store = Store(Workspace(root), SCORES)
for name in ("write_bytes", "rename", "remove"):
    setattr(Workspace, name, counted(getattr(Workspace, name)))
store.compact(drop=lambda part: pc.equal(part["face_id"], "a1"))
print(count)
"""


@pytest.mark.slow
def test_a_compaction_killed_at_any_step_is_completed_or_never_was(workspace, tmp_path):
    """Twenty-five rows in nine parts become three parts: killed before each of its writes, renames and removals."""

    def fill() -> None:
        store = Store(workspace, SCORES)
        for name in parts_on_disk(workspace):
            workspace.remove(f"manifests/scores/{name}")
        for part in range(8):
            store.append([score(f"a{part * 3 + n}", part) for n in range(3)])
        store.append([score("a0", 50)])

    fill()
    before = values(Store(workspace, SCORES))
    after = {face: value for face, value in before.items() if face != "a1"}
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    outcomes, stop = [], 1
    while True:
        fill()
        done = subprocess.run(
            [sys.executable, script, workspace.root, str(stop)], capture_output=True, text=True
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        found = values(Store(workspace, SCORES))  # opening completes
        assert found in (before, after), f"killed at {stop}"
        plain = pd.read_parquet(workspace.local_path("manifests/scores"))
        if found == after:
            assert dict(zip(plain["face_id"], plain["value"], strict=True)) == after
            assert len(plain) == len(after)
        outcomes.append(found == after)
        Store(workspace, SCORES).compact(drop=lambda part: pc.equal(part["face_id"], "a1"))
        assert values(Store(workspace, SCORES)) == after
        assert not [name for name in parts_on_disk(workspace) if name.startswith(".")]
        stop += 1
    assert stop > 14
    assert outcomes == sorted(outcomes)  # once committed, always committed
    assert True in outcomes
    assert False in outcomes


def test_a_reader_survives_a_compaction_between_listing_and_reading(workspace, monkeypatch):
    store = Store(workspace, SCORES)
    store.append([score("a", 1)])
    store.append([score("b", 2)])
    listed = store.parts()
    real, calls = store.parts, []

    def stale_listing():
        calls.append(1)
        return listed if len(calls) == 1 else real()

    Store(workspace, SCORES).compact()
    monkeypatch.setattr(store, "parts", stale_listing)
    assert values(store) == {"a": 1, "b": 2}
    assert len(calls) == 2


def test_the_faces_of_a_photo_are_superseded_together(workspace):
    """Two faces found with old settings, one with new ones: a reader sees one generation, before and after compaction."""
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


def test_a_damaged_part_is_named(workspace):
    store = Store(workspace, SCORES)
    store.append([score("a", 1)])
    path = workspace.local_path(store.parts()[0])
    path.write_bytes(path.read_bytes()[:50])
    for use in (store.read, lambda: Store(workspace, SCORES)):
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            use()


def test_parts_are_named_in_the_replacing_part(workspace):
    store = Store(workspace, PHOTOS)
    store.append([{"photo_id": "us_1", "fingerprint": "f"}])
    store.append([{"photo_id": "us_2", "fingerprint": "f"}])
    old = {path.rsplit("/", 1)[-1] for path in store.parts()}
    store.compact()
    metadata = pq.read_schema(workspace.local_path(store.parts()[0])).metadata
    assert set(json.loads(metadata[b"authface.replaces"])) == old
    assert pa.types.is_timestamp(store.read().schema.field("created_at").type)
    assert os.path.basename(store.parts()[0]).startswith("part-00000003-")
