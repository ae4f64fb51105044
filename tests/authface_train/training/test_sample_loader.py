"""Data workers: the same samples for every start method, and no worker outlives its trainer."""

import multiprocessing
import os
import pickle
import shutil
import signal
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from processes import Rank, wait_until_ended
from training_samples import NUM_FACES, both_stages, load_until_killed

from authface_train.presets import load_preset
from authface_train.training import sample_loader as sample_loader_module
from authface_train.training.sample_loader import derive_workers, sample_loader

MAX_PICKLED_BYTES = 100_000


@pytest.fixture
def dataset(workspace):
    return both_stages(workspace)


def make_settings(**overrides):
    return load_preset("prior", "tiny", {"batch": 4, "micro_batch": 2, "steps": 2, **overrides})


def load(dataset, settings, first_step=0):
    with sample_loader(dataset, NUM_FACES, settings, first_step, Accelerator(cpu=True)) as loader:
        return list(loader)


@pytest.fixture
def start_method():
    """A function that sets the start method of the processes; the test's end resets it."""
    previous = multiprocessing.get_start_method(allow_none=True)
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(previous, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_worker_gives_the_same_bits_for_every_start_method(dataset, start_method, method):
    expected = load(dataset, make_settings(workers=0))
    assert {"embeds", "degraded", "latent"} < expected[0].keys()
    start_method(method)
    batches = load(dataset, make_settings(workers=1))
    assert len(batches) == len(expected) == 4
    for batch, other in zip(batches, expected, strict=True):
        assert batch.pop("threads").tolist() == [1, 1]
        assert batch.keys() == other.keys() - {"threads"}
        assert all(torch.equal(batch[name], other[name]) for name in batch)


def test_pickled_samples_hold_no_pixels_and_no_open_file(dataset):
    load(dataset, make_settings(workers=0))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < MAX_PICKLED_BYTES
    assert b"diffusers" not in pickled
    copy = pickle.loads(pickled)
    assert copy.restorer.pairs.reference_crops.cache._parts == {}
    assert copy.prior.prompts.cache._parts == {}


def test_workers_have_ended_when_the_loop_ends(dataset):
    """Workers ignore signals, so a worker that is alive at exit would make the process hang."""
    settings = make_settings(workers=2, steps=3)
    with sample_loader(dataset, NUM_FACES, settings, 1, Accelerator(cpu=True)) as loader:
        next(loader)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
    # The loader is still referenced here: a reference cycle may keep it alive in the same way.
    assert loader is not None


def test_workers_can_be_forked_after_opencv_used_threads(dataset):
    """A forked thread pool deadlocks, so workers must inherit OpenCV with a single thread."""
    previous = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2048, 2048, 3), np.float32), (0, 0), 4)
        batches = load(dataset, make_settings(workers=1, steps=1))
        assert [batch["threads"].tolist() for batch in batches] == [[1, 1], [1, 1]]
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(previous)


@pytest.mark.slow
def test_workers_ignore_signals_and_die_with_a_killed_trainer(tmp_path):
    trainer = Rank(load_until_killed, (tmp_path / "ws",), tmp_path / "log")
    assert trainer.wait(120) == -signal.SIGKILL, trainer.log.read_text()
    workers = [int(pid) for pid in trainer.log.read_text().splitlines()[-1].split()]
    assert len(workers) == 2
    remaining = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
    assert not wait_until_ended(remaining, 10)


@pytest.mark.parametrize(
    ("device", "cores", "processes", "free_mb", "expected"),
    [
        ("cpu", 64, 1, 9000, 0),
        ("cuda", 64, 1, 9000, 8),
        ("cuda", 16, 4, 9000, 3),
        ("cuda", 4, 4, 9000, 0),
        ("cuda", 64, 1, 64, 2),  # 10 MB a batch, 3 batches a worker
        ("cuda", 64, 4, 64, 0),
    ],
)
def test_number_of_workers_follows_from_cores_and_shared_memory(
    device, cores, processes, free_mb, expected, monkeypatch, caplog
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mb * 10**6))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert derive_workers(10**7, torch.device(device)) == expected
    assert ("--shm-size" in caplog.text) == (free_mb == 64)


def test_samples_are_the_same_where_workers_are_derived(dataset, monkeypatch):
    monkeypatch.setattr(sample_loader_module, "derive_workers", lambda *_: 1)
    (derived, *_), (expected, *_) = (
        load(dataset, make_settings(workers=workers, steps=1)) for workers in (None, 0)
    )
    assert derived.pop("threads").tolist() == [1, 1]
    assert all(torch.equal(derived[name], expected[name]) for name in derived)
