"""Loads the samples of one process in micro-batches, with data workers or without."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, Sampler

from authface_train.data.cores import cores_per_process, processes_per_machine
from authface_train.data.sample_keys import SampleKey, micro_batches, step_keys
from authface_train.data.samples import Sample
from authface_train.settings import TrainSettings
from authface_train.training.signals import STOP_SIGNALS
from manifests.support.child_process import exit_with_parent

logger = logging.getLogger(__name__)

MAX_WORKERS = 8
"""More would take memory and start-up time; eight prepare what a card trains."""
PREFETCHED_BATCHES = 2
"""Micro-batches that each worker prepares ahead."""
SHARED_MEMORY = "/dev/shm"
"""Workers pass samples through this file system. Containers often have 64 MB of it."""


@contextlib.contextmanager
def sample_loader(
    dataset: Dataset[Sample],
    num_faces: int,
    settings: TrainSettings,
    first_step: int,
    accelerator: Accelerator,
) -> Iterator[Iterator[Sample]]:
    """Iterate over this process's micro-batches. The end of the block ends the workers.

    Args:
        dataset: The samples. It is pickled for workers that are not forked.
        num_faces: Number of faces of the dataset.
        settings: The run's settings, with a micro-batch.
        first_step: Number of the step to begin with, from 0.
        accelerator: Knows the device and the processes.

    Yields:
        Batches on the CPU, in pinned memory if the device is a GPU.
    """
    batch_sampler = MicroBatchSampler(
        settings=settings,
        num_faces=num_faces,
        first_step=first_step,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    num_workers = settings.workers
    if num_workers is None:
        assert settings.micro_batch is not None, "the micro-batch is derived before training starts"
        sample_bytes = sum(tensor.nbytes for tensor in dataset[SampleKey(0, 0)].values())
        num_workers = derive_workers(settings.micro_batch * sample_bytes, accelerator.device)
    with _single_opencv_thread() if num_workers else contextlib.nullcontext():
        # Any: the iterator of DataLoader has no public method that ends its workers.
        loader: Any = iter(
            DataLoader(
                dataset,
                batch_sampler=batch_sampler,
                num_workers=num_workers,
                prefetch_factor=PREFETCHED_BATCHES if num_workers else None,
                worker_init_fn=_start_worker,
                persistent_workers=num_workers > 0,
                pin_memory=accelerator.device.type == "cuda",
            )
        )
    try:
        yield loader
    finally:
        if num_workers:
            # Workers ignore signals. A process that reached its exit before they ended would wait
            # for them forever.
            loader._shutdown_workers()


def derive_workers(batch_bytes: int, device: torch.device) -> int:
    """The number of data workers of each process, where it is not set.

    A GPU gets the cores of its process but one, up to `MAX_WORKERS` and as many as the shared
    memory allows. A CPU trains so slowly that it prepares its samples itself.

    Args:
        batch_bytes: Size of a micro-batch.
        device: Device that trains.
    """
    if device.type == "cpu":
        return 0
    wanted = min(MAX_WORKERS, cores_per_process() - 1)
    if not wanted:
        logger.warning(
            "the process of %s has one CPU core, which prepares the samples between the steps; "
            "give it more cores",
            device,
        )
    if wanted and os.path.isdir(SHARED_MEMORY):
        free_bytes = shutil.disk_usage(SHARED_MEMORY).free // processes_per_machine()
        # Each worker fills a batch while those before are waiting.
        worker_bytes = (PREFETCHED_BATCHES + 1) * batch_bytes
        if free_bytes < wanted * worker_bytes:
            possible = free_bytes // worker_bytes
            logger.warning(
                "%s has space for %d data workers of %d; enlarge it (docker run --shm-size) to "
                "%.1f GB",
                SHARED_MEMORY,
                possible,
                wanted,
                wanted * worker_bytes * processes_per_machine() / 1e9,
            )
            return possible
    return wanted


class MicroBatchSampler(Sampler[list[SampleKey]]):
    """Yields the keys of one process's micro-batches.

    Args:
        settings: The run's settings, with a micro-batch.
        num_faces: Number of faces.
        first_step: Number of the step to begin with, from 0.
        rank: Index of the process.
        num_processes: Number of processes.
    """

    def __init__(
        self,
        *,
        settings: TrainSettings,
        num_faces: int,
        first_step: int,
        rank: int,
        num_processes: int,
    ) -> None:
        self.settings = settings
        self.num_faces = num_faces
        self.first_step = first_step
        self.rank = rank
        self.num_processes = num_processes

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """The keys of each micro-batch, step by step."""
        settings = self.settings
        assert settings.micro_batch is not None, "the micro-batch is derived before training starts"
        for step in range(self.first_step, settings.steps):
            keys = step_keys(settings.seed, step, settings.batch, self.num_faces)
            yield from micro_batches(keys, self.rank, self.num_processes, settings.micro_batch)


@contextlib.contextmanager
def _single_opencv_thread() -> Iterator[None]:
    """Keep OpenCV to one thread while worker processes are forked.

    A forked thread pool deadlocks, so the limit cannot be set in forked workers. Torch limits its
    own threads in workers.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start_worker(_: int) -> None:
    """Prepare a worker.

    It ignores signals, since the training process finishes its step and then ends the workers.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    exit_with_parent()
    # Read when OpenCV is imported, which a forked worker has done already.
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
