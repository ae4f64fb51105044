"""Checkpoints: which ones are kept, damaged ones, a full disk, permissions, background."""

import io
import json
import os
import threading
import time

import pytest
import torch
from accelerate import Accelerator
from full_disk import file_size_limit
from safetensors.torch import load_file, save_file

from authface_train.runs import checkpoint, checkpoint_saver
from authface_train.runs.checkpoint_saver import CheckpointSaver, copy_to_cpu
from authface_train.training.ema import EMA
from authface_train.training.trainable_model import TrainableModel
from manifests.support.errors import UserError

FOLDER = "step-00000002"


@pytest.fixture(autouse=True)
def _enough_memory(monkeypatch):
    """The copies of these tests are small, however full the machine is."""
    monkeypatch.setattr(checkpoint_saver, "available_bytes", lambda: 1e12)


def make_model(width=4, ema=False):
    accelerator = Accelerator(cpu=True)
    linear = torch.nn.Linear(width, width)
    module, optimizer = accelerator.prepare(linear, torch.optim.AdamW(linear.parameters()))
    accelerator.backward(module(torch.ones(1, width)).sum())
    optimizer.step()
    weights = list(module.parameters())
    average = EMA(weights, 0.9, torch.device("cpu"), lambda: None) if ema else None
    return accelerator, TrainableModel(module, optimizer, average)


def load(folder):
    accelerator, model = make_model()
    return checkpoint.load_latest(folder, {"unet": model}, accelerator)


@pytest.fixture
def folder(tmp_path):
    accelerator, model = make_model()
    for step in (1, 2):
        save(tmp_path, step, accelerator, model)
    return tmp_path


def save(folder, step, accelerator, model, keep=2, best=None):
    CheckpointSaver(folder, accelerator, keep).save(step, {"unet": model}, best=best)


def change_tensor(path):
    save_file({name: value.flatten() for name, value in load_file(path).items()}, path)


class Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('attacked')",))


DAMAGES = {
    "weights cut off": lambda f: (f / "unet.safetensors").write_bytes(b"\0" * 20),
    "weights of other shapes": lambda f: change_tensor(f / "unet.safetensors"),
    "weights missing": lambda f: (f / "unet.safetensors").unlink(),
    "optimizer cut off": lambda f: (f / "unet.optimiser.pt").write_bytes(b"PK\3\4" + bytes(50)),
    "optimizer empty": lambda f: (f / "unet.optimiser.pt").write_bytes(b""),
    "optimizer of another form": lambda f: torch.save([1, "a"], f / "unet.optimiser.pt"),
    "optimizer that runs code": lambda f: torch.save(Attack(), f / "unet.optimiser.pt"),
    "state empty": lambda f: (f / "state.json").write_bytes(b""),
    "state is a list": lambda f: (f / "state.json").write_text("[2]"),
    "state nested": lambda f: (f / "state.json").write_text("[" * 100_000),
    "another step": lambda f: (f / "state.json").write_text(json.dumps({"step": 7})),
    "step is a text": lambda f: (f / "state.json").write_text(json.dumps({"step": "2"})),
    "state missing": lambda f: (f / "state.json").unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoint_is_one_line_and_the_one_before_it_loads(folder, name, caplog):
    DAMAGES[name](folder / FOLDER)
    assert load(folder) == 1
    (line,) = [record.message for record in caplog.records]
    assert f"{FOLDER} is damaged (" in line
    assert line.endswith("; continuing from step-00000001")
    assert line.isprintable()
    assert (folder / FOLDER).is_dir()


def test_the_weights_are_those_of_the_checkpoint_before(folder):
    (folder / FOLDER / "unet.optimiser.pt").write_bytes(b"")
    accelerator, model = make_model()
    weights = load_file(folder / "step-00000001/unet.safetensors")
    checkpoint.load_latest(folder, {"unet": model}, accelerator)
    assert torch.equal(accelerator.unwrap_model(model.module).weight, weights["weight"])


def test_only_damaged_checkpoints_are_one_line(folder, caplog):
    for step in (1, 2):
        (folder / f"step-0000000{step}" / "state.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .*0002: state.json: No such") as error:
        load(folder)
    assert str(error.value).isprintable()
    assert not caplog.records


def test_missing_or_cut_off_average_falls_back(tmp_path):
    accelerator, model = make_model(ema=True)
    for step in (1, 2):
        save(tmp_path, step, accelerator, model)
    average = tmp_path / FOLDER / "unet.ema.safetensors"
    average.write_bytes(average.read_bytes()[:-1])
    assert checkpoint.load_latest(tmp_path, {"unet": model}, accelerator) == 1
    average.unlink()
    assert checkpoint.load_latest(tmp_path, {"unet": model}, accelerator) == 1


def test_damaged_checkpoint_stays_until_the_next_one_is_complete(folder, monkeypatch, caplog):
    accelerator, model = make_model()
    save(folder, 5, accelerator, model)
    (folder / "step-00000005/unet.safetensors").write_bytes(b"")
    assert load(folder) == 2
    # `undo` would also undo the changes of the fixtures that capture logs.
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(folder, 3, accelerator, model, keep=1)
    assert checkpoint.list_steps(folder) == [2, 5]

    save(folder, 3, accelerator, model, keep=1)
    assert checkpoint.list_steps(folder) == [3]
    assert "removed the damaged checkpoint" in caplog.text
    assert load(folder) == 3


def interrupt(*_):
    raise KeyboardInterrupt


def test_newest_and_best_are_kept(tmp_path):
    accelerator, model = make_model()
    for step in range(1, 6):
        save(tmp_path, step, accelerator, model, best=2 if step > 2 else None)
    assert checkpoint.list_steps(tmp_path) == [2, 4, 5]
    save(tmp_path, 6, accelerator, model, keep=1, best=5)
    assert checkpoint.list_steps(tmp_path) == [5, 6]
    # A best step without a checkpoint, as in runs of earlier versions.
    save(tmp_path, 7, accelerator, model, keep=1, best=2)
    assert checkpoint.list_steps(tmp_path) == [7]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("size", [100, 3_000, 6_000, 10_000, 20_000, 21_500])
def test_full_disk_is_one_line_and_the_last_checkpoint_is_intact(tmp_path, size):
    accelerator, model = make_model(width=50, ema=True)
    save(tmp_path, 1, accelerator, model)
    size_of = {path.name: path.stat().st_size for path in (tmp_path / "step-00000001").iterdir()}
    assert max(size_of.values()) > 21_500
    with (
        file_size_limit(size),
        pytest.raises(UserError, match=r"cannot write .*/step-00000002: File too large; use"),
    ):
        save(tmp_path, 2, accelerator, model)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load_latest(tmp_path, {"unet": model}, accelerator) == 1


def test_disk_that_is_full_at_the_last_flush_is_one_line(folder, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    accelerator, model = make_model()
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(UserError, match=r"step-00000003: No space .*; free some space and run"):
        save(folder, 3, accelerator, model)
    assert checkpoint.list_steps(folder) == [1, 2]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_have_the_permissions_of_the_umask(tmp_path, umask, mode):
    accelerator, model = make_model(ema=True)
    previous = os.umask(umask)
    try:
        save(tmp_path, 1, accelerator, model)
    finally:
        os.umask(previous)
    files = list((tmp_path / "step-00000001").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert len(files) == 4


def change_everything(model):
    """Overwrite all states in place, as training does."""
    with torch.no_grad():
        for weight in model.weights:
            weight.fill_(9)
        for moments in model.optimizer.state.values():
            for value in moments.values():
                value.fill_(9)
        for average in model.ema.average:
            average.fill_(9)


def file_contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_checkpoint_in_the_background_holds_the_states_of_its_step(tmp_path, monkeypatch):
    accelerator, model = make_model(ema=True)
    with CheckpointSaver(tmp_path / "sync", accelerator, keep=2) as saver:
        saver.save(1, {"unet": model})

    may_write = threading.Event()
    write = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: may_write.wait(60) and write(*args))
    with CheckpointSaver(tmp_path / "async", accelerator, keep=2) as saver:
        saver.save(1, {"unet": model}, in_background=True)
        assert checkpoint.list_steps(tmp_path / "async") == []
        change_everything(model)
        may_write.set()
    assert checkpoint.list_steps(tmp_path / "async") == [1]
    expected = file_contents(tmp_path / "sync/step-00000001")
    assert file_contents(tmp_path / "async/step-00000001") == expected
    assert len(expected) == 4


def test_copies_share_no_memory_with_the_state_also_of_quantised_moments():
    torchao = pytest.importorskip("torchao.optim")
    linear = torch.nn.Linear(64, 128)
    optimizer = torchao.AdamW8bit(linear.parameters())
    linear(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    before = io.BytesIO()
    torch.save(state, before)
    copied = copy_to_cpu(state)
    assert type(copied["state"][0]["exp_avg"]) is type(state["state"][0]["exp_avg"])
    assert type(copied["state"][0]["exp_avg"]) is not torch.Tensor

    linear(torch.full((2, 64), 3.0)).sum().backward()
    optimizer.step()
    after, kept = io.BytesIO(), io.BytesIO()
    torch.save(optimizer.state_dict(), after)
    torch.save(copied, kept)
    assert kept.getvalue() == before.getvalue() != after.getvalue()


def test_the_next_checkpoint_waits_for_the_one_in_the_background(tmp_path):
    accelerator, model = make_model()
    with CheckpointSaver(tmp_path, accelerator, keep=2) as saver:
        for step in range(1, 6):
            saver.save(step, {"unet": model}, in_background=step < 5)
        assert checkpoint.list_steps(tmp_path) == [4, 5]
    assert not list(tmp_path.glob(".*"))


def wait_for_failure(saver):
    deadline = time.monotonic() + 30
    while not saver.has_failed:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_full_disk_in_the_background_the_next_checkpoint_is_written_at_once(folder, caplog):
    accelerator, model = make_model(width=50)
    with CheckpointSaver(folder, accelerator, keep=2) as saver:
        with file_size_limit(3_000):
            saver.save(3, {"unet": model}, in_background=True)
            wait_for_failure(saver)
        assert checkpoint.list_steps(folder) == [1, 2]
        assert not list(folder.glob(".*"))
        saver.save(4, {"unet": model}, in_background=True)
        assert checkpoint.list_steps(folder) == [2, 4]
    (line,) = caplog.messages
    assert line.startswith("no checkpoint was written in the background: cannot write ")
    assert "step-00000003: File too large; use" in line


def test_failure_in_the_background_is_told_when_training_ends_by_another_error(folder, caplog):
    accelerator, model = make_model(width=50)
    saver = CheckpointSaver(folder, accelerator, keep=2)

    def train():
        with saver, file_size_limit(3_000):
            saver.save(3, {"unet": model}, in_background=True)
            wait_for_failure(saver)
            raise ValueError("an error of training")

    with pytest.raises(ValueError, match="of training"):
        train()
    assert "step-00000003: File too large" in caplog.text


def test_second_interrupt_waits_for_the_file_in_progress_only(folder, monkeypatch):
    accelerator, model = make_model(ema=True)
    written = []
    save_file = checkpoint_saver._save_torch

    def write_slowly(value, path):
        time.sleep(0.3)
        save_file(value, path)
        written.append(path.name)

    monkeypatch.setattr(checkpoint_saver, "_save_torch", write_slowly)

    def train():
        with CheckpointSaver(folder, accelerator, keep=2) as saver:
            saver.save(3, {"unet": model}, in_background=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(written) <= 1
    assert not any(thread.name == "step-00000003" for thread in threading.enumerate())
    assert checkpoint.list_steps(folder) == [1, 2]
    assert not list(folder.glob(".*"))


def test_states_that_cannot_be_copied_are_written_at_once(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("can't allocate memory")

    accelerator, model = make_model()
    monkeypatch.setattr(checkpoint_saver, "copy_to_cpu", refuse)
    with CheckpointSaver(tmp_path, accelerator, keep=2) as saver:
        saver.save(1, {"unet": model}, in_background=True)
        assert checkpoint.list_steps(tmp_path) == [1]
    assert "cannot be copied: can't allocate memory" in caplog.text


def test_what_was_gathered_anew_is_not_copied_again_but_scalars_are():
    state = {"moment": torch.ones(3), "step": torch.tensor(5.0)}
    copied = copy_to_cpu(state, is_gathered_anew=True)
    assert copied["moment"] is state["moment"]
    state["step"] += 1
    assert float(copied["step"]) == 5


def test_without_memory_for_a_copy_checkpoints_are_written_at_once(tmp_path, monkeypatch, caplog):
    accelerator, model = make_model()
    monkeypatch.setattr(checkpoint_saver, "available_bytes", lambda: 100.0)
    with CheckpointSaver(tmp_path, accelerator, keep=2) as saver:
        for step in (1, 2):
            saver.save(step, {"unet": model}, in_background=True)
            assert checkpoint.list_steps(tmp_path)[-1] == step
    assert caplog.text.count("is written before training goes on") == 1


def test_old_checkpoint_that_cannot_be_removed_is_a_warning(folder, monkeypatch, caplog):
    def refuse(path, *_, **__):
        raise OSError(16, "Device or resource busy")

    accelerator, model = make_model()
    with CheckpointSaver(folder, accelerator, keep=1) as saver:
        monkeypatch.setattr(checkpoint_saver.shutil, "rmtree", refuse)
        saver.save(3, {"unet": model}, in_background=True)
    assert checkpoint.list_steps(folder) == [3]
    assert "cannot remove the old checkpoint" in caplog.text
    assert load(folder) == 3
