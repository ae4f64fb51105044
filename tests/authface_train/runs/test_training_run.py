"""The run folder: starting, resuming and metrics."""

import json

import pandas as pd
import pytest

from authface_train.presets import load_preset
from authface_train.runs.lineage import COLUMNS, write_lineage
from authface_train.runs.training_run import TrainingRun
from manifests.support.errors import UserError


@pytest.fixture
def run(tmp_path):
    return TrainingRun(tmp_path / "run", "prior")


def make_view(caption="a face"):
    provenance = {column: [f"{column} 1"] for column in COLUMNS}
    return pd.DataFrame(
        {"face_id": ["a"], "crop_sha256": ["0"], "caption": [caption], **provenance}
    )


def start(run, *, resume=False, view=None, base_digest="0", **overrides):
    run.start(
        load_preset("prior", "tiny", overrides),
        make_view() if view is None else view,
        resume=resume,
        base="tiny",
        base_digest=base_digest,
        processes=1,
    )


def test_start_writes_record_and_lineage(run):
    assert run.read_record() is None
    start(run)
    record = run.read_record()
    assert record["stage"] == "prior"
    assert record["settings"]["steps"] == 20
    lineage = pd.read_parquet(run.folder / "lineage.parquet")
    assert lineage[["face_id", "stage"]].to_dict("records") == [{"face_id": "a", "stage": "prior"}]


def test_started_run_needs_resume(run):
    start(run)
    with pytest.raises(UserError, match="continue it with --resume"):
        start(run)
    start(run, resume=True)


def test_resume_keeps_what_changes_the_results(run):
    start(run)
    start(run, resume=True, steps=30, workers=2)
    with pytest.raises(UserError, match=r"seed was 0 and is 1 now; use the same value"):
        start(run, resume=True, seed=1)
    with pytest.raises(UserError, match="kept faces or captions have changed"):
        start(run, resume=True, view=make_view("another caption"))
    with pytest.raises(UserError, match="the base model has changed"):
        start(run, resume=True, base_digest="1")


def test_inexact_resume_may_change_the_order_of_sums(run):
    start(run)
    with pytest.raises(UserError, match=r"micro_batch was 4 and is 2 now.*exact_resume=false"):
        start(run, resume=True, micro_batch=2)
    start(run, resume=True, micro_batch=2, exact_resume=False)


def test_interrupted_start_does_not_block_the_next_one(run):
    run.folder.mkdir()
    (run.folder / ".writing-1-run.json").write_text("{")
    (run.folder / "lineage.parquet").write_bytes(b"")
    start(run)
    assert not list(run.folder.glob(".writing-*"))
    assert json.loads((run.folder / "run.json").read_text())["stage"] == "prior"


def test_folder_with_other_files_is_refused(run):
    run.folder.mkdir()
    (run.folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        start(run)
    assert [item.name for item in run.folder.iterdir()] == ["notes.txt"]


def test_metrics_keep_full_precision_and_get_new_columns(run):
    start(run)
    run.truncate_metrics(0)
    run.log_metrics(1, {"loss": 0.1 + 0.2})
    run.log_metrics(2, {"loss": None, "accuracy": 1.0})
    assert run.read_metrics() == [
        {"step": "1", "loss": "0.30000000000000004", "accuracy": ""},
        {"step": "2", "loss": "", "accuracy": "1.0"},
    ]


def test_metrics_of_repeated_steps_and_torn_rows_are_dropped(run):
    start(run)
    run.truncate_metrics(0)
    for step in (1, 2, 3):
        run.log_metrics(step, {"loss": float(step), "rate": 1.0})
    with (run.folder / "metrics.csv").open("a") as file:
        file.write("4,")
    assert [row["step"] for row in run.read_metrics()] == ["1", "2", "3"]
    run.truncate_metrics(2)
    run.log_metrics(3, {"loss": 5.0, "rate": 1.0})
    assert [row["loss"] for row in run.read_metrics()] == ["1.0", "2.0", "5.0"]


@pytest.mark.parametrize("key", ["stage", "settings", "data", "base", "base_digest", "processes"])
@pytest.mark.parametrize("value", [None, 7.5, [1], {"a": [1]}, "abc"])
def test_record_with_a_wrong_value_is_one_line(run, key, value):
    start(run)
    record = run.read_record()
    (run.folder / "run.json").write_text(json.dumps({**record, key: value}))
    if (key, value) in (("base", "abc"), ("processes", None)):
        return
    with pytest.raises(UserError) as error:
        start(run, resume=True)
    assert str(error.value).isprintable()


def test_damaged_lineage_of_the_base_is_one_line(run, tmp_path):
    (tmp_path / "lineage.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"lineage\.parquet cannot be loaded"):
        write_lineage(tmp_path / "run", "restorer", make_view(), tmp_path)
