"""The run folder: starting, resuming and metrics."""

import json
import os
import signal
import socket
from pathlib import Path

import pandas as pd
import pytest
import torch
from full_disk import file_size_limit
from lock_holder import hold_lock
from safetensors.torch import save_file

from authface_train.presets import load_preset
from authface_train.runs.lineage import COLUMNS, write_lineage
from authface_train.runs.training_run import TrainingRun
from manifests.support.errors import UserError
from manifests.support.files import apply_umask


@pytest.fixture
def run(tmp_path):
    return TrainingRun(tmp_path / "run", "prior")


def make_view(caption="a face"):
    provenance = {column: [f"{column} 1"] for column in COLUMNS}
    return pd.DataFrame(
        {"face_id": ["a"], "crop_sha256": ["0"], "caption": [caption], **provenance}
    )


def start(run, *, resume=False, view=None, base="tiny", base_digest="0", **overrides):
    run.start(
        load_preset("prior", "tiny", {"base": base, **overrides}),
        make_view() if view is None else view,
        resume=resume,
        base=base,
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


def test_withdrawn_start_leaves_nothing_of_a_new_run(tmp_path):
    run = TrainingRun(tmp_path / "new folder" / "run", "prior")
    start(run)
    run.withdraw()
    assert list(tmp_path.iterdir()) == []

    start(run)
    run.release()
    before = sorted(run.folder.iterdir())
    resumed = TrainingRun(run.folder, "prior")
    start(resumed, resume=True)
    resumed.withdraw()
    assert sorted(run.folder.iterdir()) == before


def test_folder_is_checked_before_anything_is_loaded(run):
    run.check_folder(resume=False)
    start(run)
    run.check_folder(resume=True)
    with pytest.raises(UserError, match="holds a run"):
        run.check_folder(resume=False)


def test_resume_keeps_what_changes_the_results(run):
    start(run)
    start(run, resume=True, steps=30, workers=2)
    with pytest.raises(UserError, match=r"seed was 0 and is 1 now; use the same value"):
        start(run, resume=True, seed=1)
    with pytest.raises(UserError, match="kept faces or captions have changed"):
        start(run, resume=True, view=make_view("another caption"))
    with pytest.raises(UserError, match="the base model has changed"):
        start(run, resume=True, base_digest="1")


def test_resume_compares_the_faces_and_names_a_changed_source(run):
    start(run, source="portraits")
    start(run, resume=True, source="workspace")  # the same faces
    with pytest.raises(UserError, match="source was workspace and is ffhq now"):
        start(run, resume=True, source="ffhq", view=make_view("another caption"))


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


def test_refused_start_leaves_no_folder(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/lineage.parquet").write_bytes(b"PAR1")
    run = TrainingRun(tmp_path / "runs/new/run", "prior")
    with pytest.raises(UserError, match=r"lineage\.parquet cannot be loaded"):
        start(run, base=str(tmp_path / "base"))
    assert [item.name for item in tmp_path.iterdir()] == ["base"]

    run.folder.mkdir(parents=True)
    with file_size_limit(10), pytest.raises(UserError, match="cannot write"):
        start(run)
    assert list(run.folder.iterdir()) == []
    start(run)


def test_base_may_move_and_is_found_from_any_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sdxl").mkdir()
    start(run, base="sdxl")
    assert run.read_record()["base"] == str(tmp_path / "sdxl")
    (tmp_path / "sdxl").rename(tmp_path / "moved")
    start(run, resume=True, base=str(tmp_path / "moved"))
    assert run.read_record()["base"] == str(tmp_path / "moved")
    start(run, resume=True, base="owner/name")
    with pytest.raises(UserError, match="the base model has changed"):
        start(run, resume=True, base=str(tmp_path / "moved"), base_digest="1")
    assert run.read_record()["base"] == "owner/name"


@pytest.fixture
def holder(run):
    """A process that writes the run."""
    start(run)
    run.release()
    with hold_lock(run.folder, "train-prior") as process:
        yield process


def test_run_has_one_writer_and_a_killed_one_is_replaced(run, holder):
    pattern = rf"`authface train-prior` \(process {holder.pid} on {socket.gethostname()}\)"
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(UserError, match=pattern):
        start(run, resume=True, steps=99)
    assert (run.folder / "run.json").read_bytes() == before
    assert json.loads((run.folder / ".lock").read_bytes())["pid"] == holder.pid

    holder.send_signal(signal.SIGKILL)
    holder.wait()
    start(run, resume=True)
    assert json.loads((run.folder / ".lock").read_bytes())["pid"] == os.getpid()
    other = TrainingRun(run.folder, "prior")
    with pytest.raises(UserError, match="is being written by"):
        start(other, resume=True)
    other.release()
    run.release()
    run.release()
    assert sorted(path.name for path in run.folder.iterdir()) == ["lineage.parquet", "run.json"]


def test_remains_of_a_killed_start_are_no_reason_to_refuse_the_next(run, holder):
    holder.kill()
    holder.wait()
    (run.folder / "run.json").unlink()
    (run.folder / ".writing-1.lock").write_text("{")
    start(run)
    assert not list(run.folder.glob(".writing-*"))


def test_lock_works_without_hard_links(run, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    start(run)
    with pytest.raises(UserError, match="is being written by"):
        start(TrainingRun(run.folder, "prior"), resume=True)
    run.release()
    assert not (run.folder / ".lock").exists()


def write_results(folder, steps):
    for name in ("drawn", "audit", "validation"):
        (folder / name).mkdir(exist_ok=True)
    for step in steps:
        for picture in ("drawn/step", "audit/nearest-step", "validation/step"):
            (folder / f"{picture}-{step:08d}.png").write_bytes(b"")
    losses = [{"step": step, "held_out_loss": 9 - step} for step in steps]
    pd.DataFrame(losses).to_csv(folder / "audit/audit.csv", index=False)
    rows = [{"step": float(step), "psnr": 1.0} for step in steps]
    pd.DataFrame(rows).to_csv(folder / "validation/validation.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / "ledger.csv", index=False)


def test_results_of_repeated_steps_are_dropped(run):
    start(run)
    run.discard_after(0)
    assert run.best_step() is None
    write_results(run.folder, [0, 2, 4, 6])
    assert run.best_step() == 6
    run.discard_after(4)
    assert run.best_step() == 4
    for file in ("audit/audit.csv", "validation/validation.csv", "ledger.csv"):
        assert pd.read_csv(run.folder / file)["step"].tolist() == [0, 2, 4], file
    pictures = {int(path.stem[-8:]) for path in run.folder.rglob("*.png")}
    assert pictures == {0, 2, 4}
    assert len(list(run.folder.rglob("*.png"))) == 9


def write_model(folder: Path):
    (folder / "unet").mkdir()
    save_file({"a": torch.zeros(1000)}, folder / "unet/model.safetensors")
    (folder / "model_index.json").write_text("{}")
    apply_umask(folder)


def test_full_disk_keeps_the_earlier_model(run):
    start(run)
    run.save_model(write_model)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with file_size_limit(1000), pytest.raises(UserError, match=f"cannot write {run.folder}: File"):
        run.save_model(write_model)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_model_has_the_permissions_of_the_umask(run, umask, mode):
    previous = os.umask(umask)
    try:
        start(run)
        run.save_model(write_model)
    finally:
        os.umask(previous)
    modes = {path.stat().st_mode & 0o777 for path in run.folder.rglob("*") if path.is_file()}
    assert modes == {mode}
    assert (run.folder / "unet").stat().st_mode & 0o777 == 0o777 & ~umask


def test_metrics_keep_full_precision_and_get_new_columns(run):
    start(run)
    run.discard_after(0)
    run.log_metrics(1, {"loss": 0.1 + 0.2})
    run.log_metrics(2, {"loss": None, "accuracy": 1.0})
    assert run.read_metrics() == [
        {"step": "1", "loss": "0.30000000000000004", "accuracy": ""},
        {"step": "2", "loss": "", "accuracy": "1.0"},
    ]


def test_metrics_of_repeated_steps_and_torn_rows_are_dropped(run):
    start(run)
    run.discard_after(0)
    for step in (1, 2, 3):
        run.log_metrics(step, {"loss": float(step), "rate": 1.0})
    with (run.folder / "metrics.csv").open("a") as file:
        file.write("4,")
    assert [row["step"] for row in run.read_metrics()] == ["1", "2", "3"]
    run.discard_after(2)
    run.log_metrics(3, {"loss": 5.0, "rate": 1.0})
    assert [row["loss"] for row in run.read_metrics()] == ["1.0", "2.0", "5.0"]


def test_run_of_a_version_without_a_setting_had_the_present_default(run):
    start(run)
    record = run.read_record()
    del record["settings"]["ema_every"]
    (run.folder / "run.json").write_text(json.dumps(record))
    start(run, resume=True)
    with pytest.raises(UserError, match="ema_every was 1 and is 2 now"):
        start(run, resume=True, ema_every=2)


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
