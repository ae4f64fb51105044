"""The processes that prepare samples."""

import multiprocessing

import torch
from accelerate import Accelerator

from authface_train.loop import _loader
from authface_train.preset import load_preset


class Counting:
    """A trainer of four faces whose samples say which face they are of."""

    faces = 4

    def sample(self, draw):
        return {"face": torch.tensor(draw.index)}


def test_workers_have_ended_when_the_loop_has():
    """They ignore signals, and a process waits for its children at its exit: one that is left would keep it there for ever."""
    settings = load_preset("prior", "tiny", ["workers=2", "batch=4", "micro_batch=2", "steps=3"])
    with _loader(Counting(), settings, 1, Accelerator(cpu=True)) as loader:
        seen = [next(loader)["face"].tolist() for _ in range(2)]
        assert len(multiprocessing.active_children()) == 2
    assert sorted(seen[0] + seen[1]) == [0, 1, 2, 3]
    assert multiprocessing.active_children() == []
    assert loader is not None  # still held, as by a cycle of references
