"""The local engine: runs chains in this process or in worker processes of this machine.

On a machine with GPUs the models that use them run in model servers, see `model_server`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path

from authface_data.engine import worker
from authface_data.engine.chunks import FetchInputs, ReportOutcomes, make_chunks
from authface_data.engine.model_server import ModelServers
from authface_data.engine.processes import process_context, without_interrupt
from authface_data.engine.stage import Chain, Failed, gpu_models
from authface_data.engine.worker import Outcome, Task
from manifests.workspace import Workspace

MIN_TASKS_PER_WORKER = 16
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Devices of the drivers of NVIDIA, of AMD and of Windows' subsystem for Linux."""


def run_tasks(
    workspace: Workspace,
    chain: Chain,
    tasks: list[Task],
    *,
    workers: int | None,
    fetch: FetchInputs | None,
    report: ReportOutcomes,
) -> None:
    """Take all tasks through the chain.

    Args:
        workspace: The workspace of the results.
        chain: The stages.
        tasks: The tasks.
        workers: Number of workers; 1 works in this process. Default: by cores and tasks.
        fetch: Makes inputs available that must be fetched first.
        report: Called with the outcomes of every finished chunk.
    """
    gpus = _find_gpus() if gpu_models(chain) else []
    num_workers = workers or _worthwhile_workers(len(tasks))
    chunks = make_chunks(chain, tasks, fetch, num_workers)
    try:
        if num_workers == 1:
            worker.load_chain(chain, workspace, gpus[0] if gpus else "cpu")
            for chunk in chunks:
                report(worker.run_tasks(chunk))
        else:
            _WorkerProcesses(chain, workspace, num_workers, gpus, report).run(chunks)
    finally:
        chunks.close()


def _find_gpus() -> list[str]:
    """The torch devices of the GPUs of this machine."""
    # Importing torch takes seconds.
    if not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return []
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _worthwhile_workers(num_tasks: int) -> int:
    """Number of workers. A single worker is this process: starting others takes seconds."""
    return max(1, min(os.cpu_count() or 1, num_tasks // MIN_TASKS_PER_WORKER))


class _WorkerProcesses:
    """Runs chunks of tasks in worker processes and survives workers that die.

    Args:
        chain: The stages.
        workspace: The workspace of the results.
        num_workers: Number of worker processes.
        gpus: The devices of the model servers.
        report: Called in this process with the outcomes of every finished chunk.
    """

    def __init__(
        self,
        chain: Chain,
        workspace: Workspace,
        num_workers: int,
        gpus: list[str],
        report: ReportOutcomes,
    ) -> None:
        self.chain = chain
        self.workspace = workspace
        self.num_workers = num_workers
        self.gpus = gpus
        self.report = report

    def run(self, chunks: Iterator[list[Task]]) -> None:
        """Run all chunks.

        When a worker dies, the tasks in progress are run again one by one, in one process as long
        as it lives. A task whose worker dies again is recorded as failed.
        """
        while suspects := self._run_until_crash(chunks, self.num_workers):
            one_by_one = iter([[task] for task in suspects])
            while culprits := self._run_until_crash(one_by_one, 1):
                for task in culprits:
                    failure = Failed("its worker process died: out of memory, or no answer in time")
                    self.report([Outcome(task.key, index, failure) for index in task.stage_indices])

    def _run_until_crash(self, chunks: Iterator[list[Task]], num_workers: int) -> list[Task]:
        """Run chunks in new worker processes, each with one chunk more that waits.

        A single worker has none, so that only one chunk can be the cause of a crash.

        Args:
            chunks: The chunks to run; those that are not started are left in it.
            num_workers: Number of worker processes.

        Returns:
            The tasks that were in progress when a worker died, or [] if all chunks are done.
        """
        context = process_context(self.chain.stages)
        num_threads = max(1, (os.cpu_count() or 1) // num_workers)
        max_running = 1 if num_workers == 1 else 2 * num_workers
        submitted: list[list[Task]] = []
        with ExitStack() as stack:
            servers = None
            if self.gpus:
                models = gpu_models(self.chain)
                servers = ModelServers(models, self.gpus[:num_workers], context)
                stack.enter_context(servers)
            chains = context.SimpleQueue()
            for number in range(num_workers):
                proxies = servers.proxies(number) if servers else []
                chains.put(self.chain.with_gpu_models(proxies))
            pool = stack.enter_context(
                ProcessPoolExecutor(
                    num_workers,
                    mp_context=context,
                    initializer=worker.initialize_process,
                    initargs=(chains, self.workspace.root, num_threads, dict(os.environ)),
                )
            )
            try:
                self._feed(pool, chunks, max_running, submitted)
            except BrokenProcessPool:
                return [task for chunk in submitted for task in chunk]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return []

    def _feed(
        self,
        pool: ProcessPoolExecutor,
        chunks: Iterator[list[Task]],
        max_running: int,
        submitted: list[list[Task]],
    ) -> None:
        """Keep the pool supplied with chunks until all are done.

        Args:
            pool: The worker processes.
            chunks: The chunks to run.
            max_running: Number of chunks that are in the pool at once at most.
            submitted: Updated in place: the chunks that are in the pool.
        """
        running: dict[Future, list[Task]] = {}
        has_more = True
        while has_more or running:
            while has_more and len(running) < max_running:
                chunk = next(chunks, None)
                has_more = chunk is not None
                if not chunk:
                    break
                submitted.append(chunk)
                with without_interrupt():  # A submit may start a process.
                    running[pool.submit(worker.run_tasks, chunk)] = chunk

            # With room in the pool, only collect what is done and look for the next chunk.
            has_room = has_more and len(running) < max_running
            done, _ = wait(running, timeout=0 if has_room else None, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes = future.result()
                submitted.remove(running.pop(future))
                self.report(outcomes)
