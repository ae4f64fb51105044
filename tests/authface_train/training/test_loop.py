"""The processes that prepare samples."""

import multiprocessing

import cv2
import numpy as np
import torch
from accelerate import Accelerator

from authface_train.presets import load_preset
from authface_train.training.loop import _loader


class Counting:
    """A trainer of four faces whose samples say which face they are of, and by how many threads OpenCV works."""

    faces = 4

    def sample(self, draw):
        cv2.GaussianBlur(np.zeros((512, 512, 3), np.float32), (0, 0), 4)
        return {"face": torch.tensor(draw.index), "threads": torch.tensor(cv2.getNumThreads())}


def test_workers_have_ended_when_the_loop_has():
    """They ignore signals, and a process waits for its children at its exit: one that is left would keep it there for ever."""
    settings = load_preset("prior", "tiny", ["workers=2", "batch=4", "micro_batch=2", "steps=3"])
    with _loader(Counting(), settings, 1, Accelerator(cpu=True)) as loader:
        seen = [next(loader)["face"].tolist() for _ in range(2)]
        assert len(multiprocessing.active_children()) == 2
    assert sorted(seen[0] + seen[1]) == [0, 1, 2, 3]
    assert multiprocessing.active_children() == []
    assert loader is not None  # still held, as by a cycle of references


def test_workers_begin_where_opencv_has_worked_already():
    """Its threads do not come along into a forked process: told there to be one, it would wait for them for ever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2048, 2048, 3), np.float32), (0, 0), 4)
        settings = load_preset(
            "prior", "tiny", ["workers=1", "batch=4", "micro_batch=4", "steps=1"]
        )
        with _loader(Counting(), settings, 0, Accelerator(cpu=True)) as loader:
            assert next(loader)["threads"].tolist() == [1, 1, 1, 1]
            assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
