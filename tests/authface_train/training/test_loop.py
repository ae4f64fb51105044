"""Worker processes of the training loop, which prepare samples."""

import multiprocessing

import cv2
import numpy as np
import torch
from accelerate import Accelerator

from authface_train.presets import load_preset
from authface_train.training.loop import _sample_loader


class FaceNumberTrainer:
    """A trainer of four faces; a sample holds the face's index and OpenCV's number of threads."""

    num_faces = 4

    def sample(self, key):
        cv2.GaussianBlur(np.zeros((512, 512, 3), np.float32), (0, 0), 4)
        return {"face": torch.tensor(key.index), "threads": torch.tensor(cv2.getNumThreads())}


def test_workers_have_ended_when_the_loop_ends():
    """Workers ignore signals, so a worker that is alive at exit would make the process hang."""
    overrides = {"workers": 2, "batch": 4, "micro_batch": 2, "steps": 3}
    settings = load_preset("prior", "tiny", overrides)
    with _sample_loader(FaceNumberTrainer(), settings, 1, Accelerator(cpu=True)) as loader:
        faces = [face for _ in range(2) for face in next(loader)["face"].tolist()]
        assert len(multiprocessing.active_children()) == 2
    assert sorted(faces) == [0, 1, 2, 3]
    assert multiprocessing.active_children() == []
    # The loader is still referenced here: a reference cycle may keep it alive in the same way.
    assert loader is not None


def test_workers_can_be_forked_after_opencv_used_threads():
    """A forked thread pool deadlocks, so workers must inherit OpenCV with a single thread."""
    previous = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2048, 2048, 3), np.float32), (0, 0), 4)
        overrides = {"workers": 1, "batch": 4, "micro_batch": 4, "steps": 1}
        settings = load_preset("prior", "tiny", overrides)
        with _sample_loader(FaceNumberTrainer(), settings, 0, Accelerator(cpu=True)) as loader:
            assert next(loader)["threads"].tolist() == [1, 1, 1, 1]
            assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(previous)
