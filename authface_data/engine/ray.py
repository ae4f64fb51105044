"""The Ray engine: runs chains on the machines of a Ray cluster.

Every worker is an actor with one CPU, and every model server an actor with one GPU. They run the
same stages as the local engine. Photographs and crops do not pass through Ray's object store: each
worker reads and writes the workspace, which must be on storage that all machines share. Only the
pictures for the model servers are sent, from worker to server.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from authface_data.engine import worker
from authface_data.engine.chunks import FetchInputs, ReportOutcomes, make_chunks
from authface_data.engine.model_server import Batcher
from authface_data.engine.stage import Chain, Failed, Model, gpu_models
from authface_data.engine.worker import Outcome, Task
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.extras import describe_missing
from manifests.support.text import excerpt, strip_control
from manifests.workspace import Workspace

try:
    import ray
    from ray import exceptions
except ImportError as error:
    raise MissingResourceError(describe_missing(["ray"], "--engine ray")) from error

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

logger = logging.getLogger(__name__)

MIN_TASKS_PER_WORKER = 16
MAX_CALLS_PER_SERVER = 256
"""Workers that may wait for a model server at once."""
MAX_DEATHS = 2
"""An input fails when it was alone in its worker and this many workers have died with it."""
MAX_FAILED_STARTS = 3
"""The run stops when this many workers in a row die before they work."""
WAIT_S = 1.0
CONNECT_TIMEOUT_S = 10.0
LOCAL_CLUSTER: dict[str, Any] = {
    "address": "local",
    "num_cpus": os.cpu_count(),
    "include_dashboard": False,
    "_node_ip_address": "127.0.0.1",  # By default Ray listens on an outer address.
}

DEATHS = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
)
"""How Ray reports that the process or the machine of an actor has ended."""


def run_tasks(
    workspace: Workspace,
    chain: Chain,
    tasks: list[Task],
    *,
    workers: int | None,
    address: str | None,
    fetch: FetchInputs | None,
    report: ReportOutcomes,
) -> None:
    """Take all tasks through the chain.

    Args:
        workspace: The workspace of the results.
        chain: The stages.
        tasks: The tasks.
        workers: Number of workers. Default: one per CPU of the cluster, but few for little work.
        address: Address of the cluster. Default: RAY_ADDRESS, else a cluster on this machine.
        fetch: Makes inputs available that must be fetched first.
        report: Called with the outcomes of every finished chunk.

    Raises:
        UserError: If there is no cluster at the address, or if no worker can start there.
    """
    with _connected(address):
        num_workers = workers or _worthwhile_workers(len(tasks))
        chunks = make_chunks(chain, tasks, fetch, num_workers)
        servers = _start_servers(gpu_models(chain))
        pool = _WorkerActors(workspace, _with_servers(chain, servers), report)
        try:
            pool.run(chunks, num_workers)
        finally:
            chunks.close()
            pool.stop()
            for server in servers:
                ray.kill(server)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine that ends with the connection.

    A connection that this process has already is used as it is.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    is_connected = ray.is_initialized()
    try:
        if address:
            _check_port(address)
        if not is_connected:
            ray.init(
                **({"address": address} if address else LOCAL_CLUSTER),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = excerpt(strip_control(str(error).splitlines()[0]), 200)
        place = f"at {address}" if address else "on this machine"
        raise UserError(f"cannot use Ray {place}: {reason}") from error
    # Ray replaces the handlers, but the command has its own way to stop.
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        if not is_connected:
            ray.shutdown()


def _check_port(address: str) -> None:
    """Raise OSError if nothing listens at an address; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()


def _worthwhile_workers(num_tasks: int) -> int:
    """One worker per CPU of the cluster, but few for little work."""
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(num_cpus, num_tasks // MIN_TASKS_PER_WORKER))


def _start_servers(models: Sequence[Model]) -> list[ActorHandle]:
    """Start one model server per GPU of the cluster, if there are models for them.

    Ray starts a server again that dies, and repeats what it was computing once.
    """
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if models else 0
    actor = ray.remote(
        num_cpus=0,
        num_gpus=1,
        max_concurrency=MAX_CALLS_PER_SERVER,
        max_restarts=-1,
        max_task_retries=1,
    )(_ServerActor)
    return [actor.remote(models, "cuda:0") for _ in range(num_gpus)]


def _with_servers(chain: Chain, servers: Sequence[ActorHandle]) -> list[Chain]:
    """The chain with the models of each server, or the chain itself without servers."""
    num_models = len(gpu_models(chain))
    return [
        chain.with_gpu_models([_RayModel(server, index) for index in range(num_models)])
        for server in servers
    ] or [chain]


def _get(reference: ObjectRef) -> Any:
    """Get a result. What a stage or a model raised is raised as it was."""
    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, exceptions.RayTaskError) and cause.cause is not None:
            cause = cause.cause
        raise cause from error


class _ServerActor:
    """Owns a GPU and the models on it."""

    def __init__(self, models: Sequence[Model], device: str) -> None:
        self._models = models
        self._batcher = Batcher()
        self._error: Exception | None = None
        try:
            for model in models:
                model.load(device)
        except Exception as error:
            self._error = error

    def describe(self, index: int) -> tuple[str, str | None]:
        """Device and revision of a model. Raises what loading the models raised."""
        if self._error is not None:
            raise self._error
        return self._models[index].device, self._models[index].revision

    def predict(self, index: int, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs of a model."""
        return self._batcher.predict(self._models[index], inputs)


class _RayModel:
    """Takes the place of a model in a worker and sends its inputs to a server."""

    uses_gpu = True

    def __init__(self, server: ActorHandle, index: int) -> None:
        self.server = server
        self.index = index
        self.device = ""
        self.revision: str | None = None

    def load(self, device: str) -> None:
        """Wait until the server has loaded the model; `device` is not used."""
        self.device, self.revision = _get(self.server.describe.remote(self.index))

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs of inputs in the server."""
        return _get(self.server.predict.remote(self.index, inputs))


class _WorkerActor:
    """Takes tasks through the chain."""

    def __init__(self, chain: Chain, root: str) -> None:
        worker.initialize_worker(chain, root, num_threads=1)

    def wait_until_ready(self) -> list[Outcome]:
        """Return once the worker has started."""
        return []

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Take tasks through the chain, see `worker.run_tasks`."""
        return worker.run_tasks(tasks)


class _Call(NamedTuple):
    """What a worker is doing: a chunk, or starting if the chunk is empty."""

    actor: ActorHandle
    chunk: list[Task]


class _WorkerActors:
    """The workers of a run. A worker that dies is replaced, and its tasks are repeated.

    Args:
        workspace: The workspace of the results.
        chains: The chain, with the models of each server; the workers are spread over them.
        report: Called with the outcomes of every finished chunk.
    """

    def __init__(
        self, workspace: Workspace, chains: Sequence[Chain], report: ReportOutcomes
    ) -> None:
        self._root = workspace.root
        self._chains = chains
        self._report = report
        self._actor = ray.remote(num_cpus=1)(_WorkerActor)
        self._num_started = 0
        self._failed_starts = 0
        self._idle: deque[ActorHandle] = deque()
        self._running: dict[ObjectRef, _Call] = {}
        self._repeated: deque[list[Task]] = deque()
        self._num_deaths: Counter[str] = Counter()

    def run(self, chunks: Iterator[list[Task]], num_workers: int) -> None:
        """Start workers and run all chunks."""
        for _ in range(num_workers):
            self._start_worker()
        has_more = True
        while has_more or self._repeated or any(call.chunk for call in self._running.values()):
            while self._idle and (self._repeated or has_more):
                chunk = self._repeated.popleft() if self._repeated else next(chunks, None)
                has_more = has_more and chunk is not None
                if not chunk:
                    break
                actor = self._idle.popleft()
                self._running[actor.run.remote(chunk)] = _Call(actor, chunk)
            if self._running:
                # With an idle worker, only collect what is done and look for the next chunk.
                timeout_s = 0 if self._idle and has_more else WAIT_S
                done, _ = ray.wait(list(self._running), timeout=timeout_s)
                for reference in done:
                    self._finish(reference, self._running.pop(reference))

    def stop(self) -> None:
        """End all workers."""
        for actor in [*self._idle, *(call.actor for call in self._running.values())]:
            ray.kill(actor)

    def _start_worker(self) -> None:
        chain = self._chains[self._num_started % len(self._chains)]
        self._num_started += 1
        actor = self._actor.remote(chain, self._root)
        self._running[actor.wait_until_ready.remote()] = _Call(actor, [])

    def _finish(self, reference: ObjectRef, call: _Call) -> None:
        """Report the outcomes of a chunk; if its worker has died, replace it."""
        try:
            outcomes = _get(reference)
        except DEATHS as error:
            logger.debug("a Ray worker has died: %s", error)
            if not call.chunk:
                self._count_failed_start(error)
            self._repeat(call.chunk)
            self._start_worker()
        else:
            self._failed_starts = 0
            self._idle.append(call.actor)
            self._report(outcomes)

    def _count_failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        if self._failed_starts == MAX_FAILED_STARTS:
            lines = strip_control(str(error)).splitlines()
            raise UserError(
                f"no worker can start on the Ray cluster ({excerpt(lines[-1], 200)}); check that "
                "authface is installed on its machines"
            ) from error

    def _repeat(self, chunk: Sequence[Task]) -> None:
        """Repeat the tasks of a worker that has died, one by one."""
        for task in chunk:
            self._num_deaths[task.key] += len(chunk) == 1
            if self._num_deaths[task.key] < MAX_DEATHS:
                self._repeated.append([task])
            else:
                failure = Failed("its worker died: out of memory, or no answer in time")
                self._report([Outcome(task.key, index, failure) for index in task.stage_indices])
