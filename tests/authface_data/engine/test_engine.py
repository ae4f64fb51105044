"""The local engine: every input gets one result, failures are isolated, and no work is repeated."""

import errno
import os

import pandas as pd
import pytest
from stages import CountedPicture, NumberStage, PhotoStage, TooFewResults, no_picture

from authface_data.engine import run as engine_run
from authface_data.engine.run import Engine, run_chain
from authface_data.engine.stage import Chain, expected_fingerprints
from manifests.schema import PHOTOS, SCORES, VERDICTS
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError
from manifests.workspace import Workspace


def make_inputs(count=6, **actions):
    """Inputs f0, f1, ...

    Args:
        count: Number of inputs.
        **actions: Key -> action of its row, see `NumberStage`.
    """
    keys = [f"f{number}" for number in range(count)]
    return [
        (key, {"number": float(number), "action": actions.get(key, "")})
        for number, key in enumerate(keys)
    ]


def run(workspace, stages, inputs, **options):
    """Run one stage or a list of stages, by default in this process."""
    stages = stages if isinstance(stages, list) else [stages]
    options = {"engine": Engine(workers=1), **options}
    return run_chain(workspace, Chain(stages, no_picture), inputs, title="test", **options)


def read_scores(workspace, metric="m"):
    table = Store(workspace, SCORES).read().to_pylist()
    return {row["face_id"]: row["value"] for row in table if row["metric"] == metric}


def read_verdicts(workspace):
    return {row["id"]: row for row in Store(workspace, VERDICTS).read().to_pylist()}


def test_every_kind_of_result_is_recorded(workspace):
    inputs = make_inputs(f1="drop", f2="no rows", f3="raise")
    outcomes = run(workspace, NumberStage(), inputs)
    assert read_scores(workspace) == {"f0": 0, "f4": 4, "f5": 5}
    verdicts = {
        key: (row["verdict"], row["reason"], row["value"], row["threshold"])
        for key, row in read_verdicts(workspace).items()
    }
    assert verdicts == {
        "f1": ("dropped", "too small", 1, 10),
        "f2": ("dropped", "nothing_found", None, None),
        "f3": ("failed", "RuntimeError: row 3.0 is bad", None, None),
    }
    assert {row["gate"] for row in read_verdicts(workspace).values()} == {"scores:m"}
    assert outcomes.processed["m"] == 4
    assert outcomes.dropped["m"] == 1
    assert outcomes.failed["m"] == 1


def test_failing_batch_is_processed_again_item_by_item(workspace):
    stage = NumberStage(batch_size=4)
    run(workspace, stage, make_inputs(4, f2="raise"))
    assert stage.batch_sizes == [4, 1, 1, 1, 1]
    assert set(read_scores(workspace)) == {"f0", "f1", "f3"}
    assert read_verdicts(workspace)["f2"]["verdict"] == "failed"


def test_stage_that_breaks_its_contract_fails_the_input(workspace):
    run(workspace, TooFewResults(name="short"), make_inputs(2))
    assert {row["verdict"] for row in read_verdicts(workspace).values()} == {"failed"}
    assert "gave 0 results for 1 inputs" in read_verdicts(workspace)["f0"]["reason"]
    run(workspace, NumberStage(name="other"), make_inputs(1, f0="other key"))
    assert read_scores(workspace, "other") == {}


def test_finished_inputs_are_not_processed_again(workspace, tmp_path):
    inputs = make_inputs(f1="drop", f2="no rows", f3="raise")
    for _ in range(2):
        run(workspace, NumberStage(log_folder=tmp_path), inputs)
    num_calls = {len(path.read_text().split()) for path in tmp_path.glob("m-*")}
    assert num_calls == {1}


def test_retry_failed_processes_failed_inputs_and_removes_their_verdicts(workspace, tmp_path):
    healed = tmp_path / "healed"
    inputs = make_inputs(f1="drop", f3="raise")
    run(workspace, NumberStage(healed=healed), inputs)
    healed.touch()
    logs = tmp_path / "logs"
    logs.mkdir()
    run(workspace, NumberStage(healed=healed, log_folder=logs), inputs, retry_failed=True)
    assert [path.name for path in logs.iterdir()] == ["m-f3"]
    assert read_scores(workspace)["f3"] == 3
    assert set(read_verdicts(workspace)) == {"f1"}


def test_changed_setting_makes_only_its_rows_stale(workspace):
    inputs = make_inputs(f1="drop")
    run(workspace, [NumberStage("m"), NumberStage("other")], inputs)
    before = Store(workspace, SCORES).read().to_pylist()
    with pytest.raises(UserError, match=r"6 of m were made with other settings.*--yes"):
        run(workspace, [NumberStage("m", scale=2.0), NumberStage("other")], inputs)
    assert Store(workspace, SCORES).read().to_pylist() == before
    run(workspace, [NumberStage("m", scale=2.0), NumberStage("other")], inputs, redo=True)
    assert read_scores(workspace) == {"f0": 0, "f2": 4, "f3": 6, "f4": 8, "f5": 10}
    after = Store(workspace, SCORES).read().to_pylist()
    other_before = [row for row in before if row["metric"] == "other"]
    other_after = [row for row in after if row["metric"] == "other"]
    assert sorted(other_after, key=str) == sorted(other_before, key=str)
    assert len(Store(workspace, VERDICTS).read()) == 2  # f1 by m and f1 by other


def test_stale_input_that_is_now_dropped_loses_its_old_row(workspace):
    run(workspace, NumberStage(), make_inputs(2))
    run(workspace, NumberStage(scale=2.0), make_inputs(2, f1="drop"), redo=True)
    assert read_scores(workspace) == {"f0": 0}


def test_stages_of_a_chain_share_one_picture_per_input(workspace):
    CountedPicture.opened.clear()
    chain = Chain([NumberStage("a"), NumberStage("b")], CountedPicture)
    run_chain(workspace, chain, make_inputs(3), title="t", engine=Engine(workers=1))
    assert sorted(CountedPicture.opened) == [0, 1, 2]
    assert (
        set(read_scores(workspace, "a")) == set(read_scores(workspace, "b")) == {"f0", "f1", "f2"}
    )
    CountedPicture.opened.clear()
    longer_chain = Chain([NumberStage("a"), NumberStage("b"), NumberStage("c")], CountedPicture)
    run_chain(workspace, longer_chain, make_inputs(3), title="t", engine=Engine(workers=1))
    assert set(read_scores(workspace, "c")) == {"f0", "f1", "f2"}


def test_pixels_are_on_the_disk_before_the_row(workspace, monkeypatch):
    has_pixels = []
    append = Store.append

    def append_and_check(store, rows):
        for row in rows:
            has_pixels.append(workspace.exists(f"faces/{row['face_id']}.png"))
        append(store, rows)

    monkeypatch.setattr(Store, "append", append_and_check)
    run(workspace, NumberStage(), make_inputs(2, f0="write pixels", f1="write pixels"))
    assert has_pixels == [True, True]


def test_rows_are_committed_during_the_run(workspace, monkeypatch):
    monkeypatch.setattr(engine_run, "COMMIT_ROWS", 2)
    commit_sizes = []
    append = Store.append

    def append_and_count(store, rows):
        commit_sizes.append(len(rows))
        append(store, rows)

    monkeypatch.setattr(Store, "append", append_and_count)
    run(workspace, NumberStage(), make_inputs(7))
    assert [size for size in commit_sizes if size] == [2, 2, 2, 1]


def test_interrupted_run_keeps_finished_rows(workspace, monkeypatch):
    stage = NumberStage()
    process_item = stage.process_item

    def interrupt_at_f3(item, write_pixels):
        if item.key == "f3":
            raise KeyboardInterrupt
        return process_item(item, write_pixels)

    monkeypatch.setattr(stage, "process_item", interrupt_at_f3)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, stage, make_inputs())
    assert set(read_scores(workspace)) == {"f0", "f1", "f2"}


@pytest.mark.slow
def test_worker_processes_give_the_rows_of_one_process(workspace, tmp_path):
    inputs = make_inputs(12, f1="drop", f5="raise")
    run(workspace, NumberStage("m", log_folder=tmp_path), inputs, engine=Engine(workers=2))
    expected = {f"f{number}": number for number in range(12) if number not in (1, 5)}
    assert read_scores(workspace) == expected
    assert read_verdicts(workspace)["f5"]["verdict"] == "failed"
    worker_ids = {path.read_text().strip() for path in tmp_path.glob("m-*")}
    assert str(os.getpid()) not in worker_ids


@pytest.mark.slow
def test_only_the_input_that_kills_its_worker_fails(workspace):
    run(workspace, NumberStage(), make_inputs(8, f2="die"), engine=Engine(workers=2))
    assert set(read_scores(workspace)) == {"f0", "f1", "f3", "f4", "f5", "f6", "f7"}
    assert "worker process died" in read_verdicts(workspace)["f2"]["reason"]


def test_only_the_changed_input_is_stale(workspace):
    inputs = make_inputs(3)
    run(workspace, NumberStage(), inputs)
    changed = dict(inputs)
    changed["f1"] = {**changed["f1"], "mark": "edited", "number": 9.0}
    changed = list(changed.items())
    with pytest.raises(UserError, match="1 of m"):
        run(workspace, NumberStage(), changed)
    run(workspace, NumberStage(), changed, redo=True)
    assert read_scores(workspace) == {"f0": 0, "f1": 9, "f2": 2}


def test_input_that_fails_with_new_settings_keeps_its_old_row(workspace, tmp_path):
    inputs = make_inputs(3, f1="raise")
    healed = tmp_path / "healed"
    healed.touch()
    run(workspace, NumberStage(healed=healed), inputs)
    healed.unlink()
    run(workspace, NumberStage(healed=healed, scale=2.0), inputs, redo=True)
    assert read_scores(workspace) == {"f0": 0, "f1": 1, "f2": 4}
    assert read_verdicts(workspace)["f1"]["verdict"] == "failed"
    healed.touch()
    run(workspace, NumberStage(healed=healed, scale=2.0), inputs, retry_failed=True)
    assert read_scores(workspace) == {"f0": 0, "f1": 2, "f2": 4}
    assert read_verdicts(workspace) == {}


def test_full_disk_stops_the_run_and_fails_no_row(workspace, monkeypatch):
    write_bytes = Workspace.write_bytes

    def refuse_pixels(ws, path, data):
        if path.startswith("faces/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(ws, path, data)

    monkeypatch.setattr(Workspace, "write_bytes", refuse_pixels)
    with pytest.raises(UserError, match="No space left"):
        run(workspace, NumberStage(), make_inputs(3, f1="write pixels"))
    assert read_verdicts(workspace) == {}
    assert read_scores(workspace) == {"f0": 0}


def test_interrupted_commit_writes_no_row_twice(workspace, monkeypatch):
    """The interruption comes after the rows are on the disk, but before `append` returns."""
    append = Store.append

    def append_and_interrupt(store, rows):
        append(store, rows)
        if store.manifest is SCORES:
            monkeypatch.setattr(Store, "append", append)
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", append_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, NumberStage(), make_inputs(3))
    assert len(pd.read_parquet(workspace.local_path("manifests/scores"))) == 3


def test_fingerprint_depends_on_name_version_settings_and_input():
    def fingerprint(stage, row):
        return expected_fingerprints(stage, [("f", row)])["f"]

    row = {"mark": "x"}
    base = fingerprint(NumberStage(), row)
    assert fingerprint(NumberStage(batch_size=8), {**row, "number": 3}) == base
    new_version = NumberStage()
    new_version.version = 2
    fingerprints = {
        base,
        fingerprint(NumberStage("n"), row),
        fingerprint(NumberStage(scale=2.0), row),
        fingerprint(new_version, row),
        fingerprint(NumberStage(), {"mark": "y"}),
    }
    assert len(fingerprints) == 5


def limit_seconds(workspace, seconds):
    settings = workspace.root + "/authface.toml"
    with open(settings, "a") as file:
        file.write(f"\n[limits]\nfile_seconds = {seconds}\n")
    return Workspace(workspace.root)


def read_photos(workspace):
    rows = Store(workspace, PHOTOS).read(["photo_id", "warnings"]).to_pylist()
    return {row["photo_id"]: row["warnings"] for row in rows}


def test_slow_file_is_a_failed_row_that_can_be_retried(workspace):
    workspace = limit_seconds(workspace, 0.2)
    outcomes = run(workspace, PhotoStage(), make_inputs(3, f1="slow"))
    assert set(read_photos(workspace)) == {"f0", "f2"}
    assert outcomes.failed["m"] == 1
    reason = read_verdicts(workspace)["f1"]["reason"]
    assert reason == "took longer than 0.2 s (limits.file_seconds)"
    run(workspace, PhotoStage(), make_inputs(3), retry_failed=True)
    assert set(read_photos(workspace)) == {"f0", "f1", "f2"}
    assert read_verdicts(workspace) == {}


def test_file_that_hangs_in_a_library_ends_its_worker(workspace):
    workspace = limit_seconds(workspace, 0.5)
    run(workspace, PhotoStage(), make_inputs(6, f1="stuck"), engine=Engine(workers=2))
    assert set(read_photos(workspace)) == {"f0", "f2", "f3", "f4", "f5"}
    verdict = read_verdicts(workspace)["f1"]
    assert verdict["verdict"] == "failed"
    assert "no answer in time" in verdict["reason"]


def test_warnings_of_libraries_are_a_note_of_the_row(workspace, capfd):
    run(workspace, PhotoStage(), make_inputs(2, f1="warn"))
    assert read_photos(workspace) == {"f0": None, "f1": "corrupt EXIF data"}
    assert "corrupt" not in capfd.readouterr().err


def test_unreadable_file_fails_and_is_retried(workspace):
    run(workspace, PhotoStage(), make_inputs(3, f1="unreadable"))
    verdict = read_verdicts(workspace)["f1"]
    assert verdict["verdict"] == "failed"
    assert verdict["reason"] == "cannot read f1: Input/output error"
    run(workspace, PhotoStage(), make_inputs(3), retry_failed=True)
    assert set(read_photos(workspace)) == {"f0", "f1", "f2"}


def test_many_unreadable_files_in_a_row_stop_the_run(workspace, monkeypatch):
    monkeypatch.setattr(engine_run, "MAX_READ_ERRORS", 3)
    actions = dict.fromkeys(["f1", "f3", "f5", "f6", "f7"], "unreadable")
    with pytest.raises(PartialFailureError, match=r"3 files in a row .* --retry failed"):
        run(workspace, PhotoStage(), make_inputs(9, **actions))
    # What was done before is kept, and the failures are recorded.
    assert set(read_photos(workspace)) == {"f0", "f2", "f4"}
    assert set(read_verdicts(workspace)) == set(actions)
    run(workspace, PhotoStage(), make_inputs(9), retry_failed=True)
    assert len(read_photos(workspace)) == 9
