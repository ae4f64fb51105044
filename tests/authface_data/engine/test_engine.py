"""The local engine: one result per input, failures alone, nothing repeated, everything recorded."""

import os

import pytest
from stages import Decoded, Measure, Short, no_picture

from authface_data.engine import local
from authface_data.engine.stage import Chain, expected_fingerprints
from manifests.schema import SCORES, VERDICTS
from manifests.store import Store
from manifests.support.errors import UserError


def inputs(count=6, **do):
    """Faces f0, f1, …; do: what a face's row asks the stage to do."""
    return [(f"f{n}", {"number": float(n), "do": do.get(f"f{n}", "")}) for n in range(count)]


def run(workspace, stage, rows, **options):
    stages = stage if isinstance(stage, list) else [stage]
    options = {"workers": 1, **options}
    return local.run_chain(workspace, Chain(stages, no_picture), rows, title="test", **options)


def scores(workspace, metric="m"):
    table = Store(workspace, SCORES).read().to_pylist()
    return {row["face_id"]: row["value"] for row in table if row["metric"] == metric}


def verdicts(workspace):
    return {row["id"]: row for row in Store(workspace, VERDICTS).read().to_pylist()}


def test_rows_dropped_nothing_and_failed_are_all_recorded(workspace):
    done = run(workspace, Measure(), inputs(f1="drop", f2="nothing", f3="raise"))
    assert scores(workspace) == {"f0": 0, "f4": 4, "f5": 5}
    told = verdicts(workspace)
    assert (told["f1"]["verdict"], told["f1"]["reason"], told["f1"]["value"], told["f1"]["threshold"]) == (
        "dropped", "too small", 1, 10,
    )  # fmt: skip
    assert (told["f2"]["verdict"], told["f2"]["reason"]) == ("dropped", "nothing_found")
    assert (told["f3"]["verdict"], told["f3"]["reason"]) == (
        "failed",
        "RuntimeError: row 3.0 is bad",
    )
    assert {row["gate"] for row in told.values()} == {"scores:m"}
    assert (done.processed["m"], done.dropped["m"], done.failed["m"]) == (4, 1, 1)


def test_a_failing_batch_is_run_again_row_by_row(workspace):
    stage = Measure(batch_size=4)
    run(workspace, stage, inputs(4, f2="raise"))
    assert stage.batches == [4, 1, 1, 1, 1]
    assert set(scores(workspace)) == {"f0", "f1", "f3"}
    assert verdicts(workspace)["f2"]["verdict"] == "failed"


def test_a_wrong_number_of_results_or_a_row_of_another_input_is_a_failure(workspace):
    run(workspace, Short(name="short"), inputs(2))
    assert {row["verdict"] for row in verdicts(workspace).values()} == {"failed"}
    assert "gave 0 results for 1 inputs" in verdicts(workspace)["f0"]["reason"]
    run(workspace, Measure(name="alien"), inputs(1, f0="alien"))
    assert scores(workspace, "alien") == {}


def test_what_is_done_is_not_done_again(workspace, tmp_path):
    rows = inputs(f1="drop", f2="nothing", f3="raise")
    for _ in range(2):
        run(workspace, Measure(marks=tmp_path), rows)
    assert {len(path.read_text().split()) for path in tmp_path.glob("m-*")} == {1}


def test_retry_failed_runs_only_those_and_their_verdict_goes(workspace, tmp_path):
    healed = tmp_path / "healed"
    rows = inputs(f1="drop", f3="raise")
    run(workspace, Measure(heal=healed), rows)
    healed.touch()
    marks = tmp_path / "marks"
    marks.mkdir()
    run(workspace, Measure(heal=healed, marks=marks), rows, retry_failed=True)
    assert [path.name for path in marks.iterdir()] == ["m-f3"]
    assert scores(workspace)["f3"] == 3
    assert set(verdicts(workspace)) == {"f1"}


def test_a_changed_setting_makes_exactly_its_rows_stale(workspace):
    rows = inputs(f1="drop")
    run(workspace, [Measure("m"), Measure("other")], rows)
    before = Store(workspace, SCORES).read().to_pylist()
    with pytest.raises(UserError, match=r"6 of m were made with other settings.*--yes"):
        run(workspace, [Measure("m", scale=2.0), Measure("other")], rows)
    assert Store(workspace, SCORES).read().to_pylist() == before
    run(workspace, [Measure("m", scale=2.0), Measure("other")], rows, redo=True)
    assert scores(workspace) == {"f0": 0, "f2": 4, "f3": 6, "f4": 8, "f5": 10}
    kept = [row for row in Store(workspace, SCORES).read().to_pylist() if row["metric"] == "other"]
    assert sorted(kept, key=str) == sorted(
        (row for row in before if row["metric"] == "other"), key=str
    )
    assert len(Store(workspace, VERDICTS).read()) == 2  # f1 of m and f1 of other, once each


def test_a_stale_input_that_now_gives_nothing_loses_its_old_row(workspace):
    run(workspace, Measure(), inputs(2))
    run(workspace, Measure(scale=2.0), inputs(2, f1="drop"), redo=True)
    assert scores(workspace) == {"f0": 0}


def test_stages_of_a_chain_share_one_picture_each(workspace):
    Decoded.opened.clear()
    chain = Chain([Measure("a"), Measure("b")], Decoded)
    local.run_chain(workspace, chain, inputs(3), title="t", workers=1)
    assert sorted(Decoded.opened) == [0, 1, 2]
    assert set(scores(workspace, "a")) == set(scores(workspace, "b")) == {"f0", "f1", "f2"}
    Decoded.opened.clear()
    local.run_chain(
        workspace,
        Chain([Measure("a"), Measure("b"), Measure("c")], Decoded),
        inputs(3),
        title="t",
        workers=1,
    )
    assert set(scores(workspace, "c")) == {"f0", "f1", "f2"}


def test_pixels_are_on_disk_when_the_row_is(workspace, monkeypatch):
    seen = []
    append = Store.append

    def check(store, rows):
        rows = list(rows)
        seen.extend(
            workspace.exists(f"faces/{row['face_id']}.png") for row in rows if "metric" in row
        )
        append(store, rows)

    monkeypatch.setattr(Store, "append", check)
    run(workspace, Measure(), inputs(2, f0="pixels", f1="pixels"))
    assert seen == [True, True]


def test_commits_while_it_runs(workspace, monkeypatch):
    monkeypatch.setattr(local, "COMMIT_ROWS", 2)
    sizes = []
    append = Store.append

    def count(store, rows):
        rows = list(rows)
        sizes.append(len(rows))
        append(store, rows)

    monkeypatch.setattr(Store, "append", count)
    run(workspace, Measure(), inputs(7))
    assert [size for size in sizes if size] == [2, 2, 2, 1]


def test_an_interruption_keeps_what_was_made(workspace, monkeypatch):
    stage = Measure()
    one = stage.one

    def interrupted(item, write_pixels):
        if item.key == "f3":
            raise KeyboardInterrupt
        return one(item, write_pixels)

    monkeypatch.setattr(stage, "one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, stage, inputs())
    assert set(scores(workspace)) == {"f0", "f1", "f2"}


@pytest.mark.slow
def test_processes_give_what_one_process_gives(workspace, tmp_path):
    rows = inputs(12, f1="drop", f5="raise")
    run(workspace, Measure("m", marks=tmp_path), rows, workers=2)
    assert scores(workspace) == {f"f{n}": n for n in range(12) if n not in (1, 5)}
    assert verdicts(workspace)["f5"]["verdict"] == "failed"
    workers = {path.read_text().strip() for path in tmp_path.glob("m-*")}
    assert str(os.getpid()) not in workers


@pytest.mark.slow
def test_a_row_that_kills_its_worker_fails_alone(workspace):
    run(workspace, Measure(), inputs(8, f2="die"), workers=2)
    assert set(scores(workspace)) == {f"f{n}" for n in range(8) if n != 2}
    assert "worker process died" in verdicts(workspace)["f2"]["reason"]


def test_an_input_that_changed_is_stale_alone(workspace):
    rows = inputs(3)
    run(workspace, Measure(), rows)
    changed = [
        (key, {**row, "mark": "edited", "number": 9.0} if key == "f1" else row) for key, row in rows
    ]
    with pytest.raises(UserError, match="1 of m"):
        run(workspace, Measure(), changed)
    run(workspace, Measure(), changed, redo=True)
    assert scores(workspace) == {"f0": 0, "f1": 9, "f2": 2}


def test_an_input_that_fails_to_be_made_again_keeps_its_old_row(workspace, tmp_path):
    rows = inputs(3, f1="raise")
    healed = tmp_path / "healed"
    healed.touch()
    run(workspace, Measure(heal=healed), rows)
    healed.unlink()
    run(workspace, Measure(heal=healed, scale=2.0), rows, redo=True)
    assert scores(workspace) == {"f0": 0, "f1": 1, "f2": 4}
    assert verdicts(workspace)["f1"]["verdict"] == "failed"
    healed.touch()
    run(workspace, Measure(heal=healed, scale=2.0), rows, retry_failed=True)
    assert scores(workspace) == {"f0": 0, "f1": 2, "f2": 4}
    assert verdicts(workspace) == {}


def test_a_disk_that_cannot_be_written_stops_and_fails_no_row(workspace, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    write = type(workspace).write_bytes
    monkeypatch.setattr(
        type(workspace),
        "write_bytes",
        lambda ws, path, data: (
            full(path, data) if path.startswith("faces/") else write(ws, path, data)
        ),
    )
    with pytest.raises(UserError, match="No space left"):
        run(workspace, Measure(), inputs(3, f1="pixels"))
    assert verdicts(workspace) == {}
    assert scores(workspace) == {"f0": 0}


def test_an_interrupted_commit_writes_nothing_twice(workspace, monkeypatch):
    """A signal arrives when the rows are on the disk, before the engine knows."""
    append = Store.append

    def interrupted(store, rows):
        append(store, rows)
        if store.manifest is SCORES:
            monkeypatch.setattr(Store, "append", append)
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, Measure(), inputs(3))
    import pandas as pd

    assert len(pd.read_parquet(workspace.local_path("manifests/scores"))) == 3


def test_the_fingerprint_is_of_name_version_settings_and_input():
    def mark(stage, row):
        return expected_fingerprints(stage, [("f", row)])["f"]

    base = mark(Measure(), {"mark": "x"})
    assert mark(Measure(batch_size=8), {"mark": "x", "number": 3}) == base
    newer = Measure()
    newer.version = 2
    others = [mark(stage, {"mark": "x"}) for stage in (Measure("n"), Measure(scale=2.0), newer)]
    assert len({base, *others, mark(Measure(), {"mark": "y"})}) == 5
