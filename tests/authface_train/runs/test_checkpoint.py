"""Damaged checkpoints are one line with the folder to remove."""

import json

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from authface_train.runs import checkpoint
from authface_train.training.trainable_model import TrainableModel
from manifests.support.errors import UserError

FOLDER = "step-00000002"


def make_model():
    accelerator = Accelerator(cpu=True)
    linear = torch.nn.Linear(4, 4)
    module, optimizer = accelerator.prepare(linear, torch.optim.AdamW(linear.parameters()))
    accelerator.backward(module(torch.ones(1, 4)).sum())
    optimizer.step()
    return accelerator, TrainableModel(module, optimizer)


def load(folder):
    accelerator, model = make_model()
    return checkpoint.load_latest(folder, {"unet": model}, accelerator)


@pytest.fixture
def folder(tmp_path):
    accelerator, model = make_model()
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"unet": model}, accelerator, keep=2)
    return tmp_path


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
def test_damaged_checkpoint_is_one_line_and_the_one_before_it_loads(folder, name):
    DAMAGES[name](folder / FOLDER)
    with pytest.raises(UserError, match=rf"{FOLDER}.*; remove this checkpoint, so that") as error:
        load(folder)
    assert str(error.value).isprintable()
    (folder / FOLDER).rename(folder / "removed")
    assert load(folder) == 1
