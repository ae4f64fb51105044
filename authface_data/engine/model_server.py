"""Model servers: processes that each own a GPU and the models on it, and serve all workers.

The workers of this machine decode, align and measure on the CPU. When a stage needs its model, the
worker sends the inputs to a server and waits. The server collects what all workers have sent in the
meantime, and computes it together.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Self

from authface_data.engine.processes import Context, without_interrupt
from authface_data.engine.stage import Model
from manifests.support.child_process import exit_with_parent

MAX_WAITING = 256
"""Workers that may connect at once."""
CUDA_ERROR = "CUDA error"
"""Part of messages after which a process cannot use its GPU any more: the server ends."""


class _Request(NamedTuple):
    model: Model
    inputs: Sequence[Any]
    future: Future[list[Any]]


class Batcher:
    """Computes the requests of several threads together, in a thread for all of them."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs of inputs, perhaps together with those of other threads."""
        request = _Request(model, inputs, Future())
        self._requests.put(request)
        return request.future.result()

    def _run(self) -> None:
        while True:
            requests = [self._requests.get()]
            with suppress(queue.Empty):
                while True:
                    requests.append(self._requests.get_nowait())
            by_model: dict[int, list[_Request]] = {}
            for request in requests:
                by_model.setdefault(id(request.model), []).append(request)
            for group in by_model.values():
                _answer(group)


def _answer(requests: Sequence[_Request]) -> None:
    """Compute requests to one model; if that fails, one by one, so that only bad ones fail."""
    inputs = [item for request in requests for item in request.inputs]
    try:
        outputs = iter(requests[0].model.predict(inputs))
        results = [[next(outputs) for _ in request.inputs] for request in requests]
    except Exception as error:
        if CUDA_ERROR in str(error):
            os._exit(1)
        if len(requests) > 1:
            for request in requests:
                _answer([request])
        else:
            requests[0].future.set_exception(error)
        return
    for request, result in zip(requests, results, strict=True):
        request.future.set_result(result)


class ServedModel:
    """Takes the place of a model in a worker process and sends its inputs to a server.

    Args:
        address: Path of the server's socket.
        key: Key of the connection.
        index: Number of the model in the server.
    """

    uses_gpu = True

    def __init__(self, address: str, key: bytes, index: int) -> None:
        self.address = address
        self.key = key
        self.index = index
        self.device = ""
        self.revision: str | None = None

    def load(self, device: str) -> None:
        """Connect to the server and wait until it has loaded the models; `device` is not used.

        Raises:
            Exception: What the server raised when it loaded them.
        """
        self._connection = Client(self.address, authkey=self.key)
        self._connection.send(self.index)
        self.device, self.revision = self._receive()

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs of inputs in the server."""
        self._connection.send(inputs)
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionError):
            # The engine notices the end of this process and runs its tasks again one by one.
            os._exit(1)
        if isinstance(reply, Exception):
            raise reply
        return reply


class ModelServers:
    """Server processes, one per device; a context manager that ends them.

    Args:
        models: The models, before they are loaded.
        devices: The torch devices, such as "cuda:0".
        context: The context of the processes.
    """

    def __init__(self, models: Sequence[Model], devices: Sequence[str], context: Context) -> None:
        self.models = models
        self.devices = devices
        self.context = context
        self.key = os.urandom(16)
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> Self:
        # The path of a socket must be short, so it is in the folder for temporary files.
        self._folder = tempfile.TemporaryDirectory(prefix="authface-", ignore_cleanup_errors=True)
        self.addresses = []
        for number, device in enumerate(self.devices):
            address = f"{self._folder.name}/{number}"
            is_listening, listening = self.context.Pipe(duplex=False)
            environment = dict(os.environ)
            arguments = (self.models, device, address, self.key, listening, environment)
            process = self.context.Process(target=_serve, args=arguments, daemon=True)
            with without_interrupt():
                process.start()
            listening.close()
            self._processes.append(process)
            with suppress(EOFError):  # A server that has ended is noticed by its workers.
                is_listening.recv()
            self.addresses.append(address)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._folder.cleanup()

    def proxies(self, number: int) -> list[ServedModel]:
        """What takes the place of the models in a worker.

        Args:
            number: Number of the worker; the workers are spread over the servers.
        """
        address = self.addresses[number % len(self.addresses)]
        return [ServedModel(address, self.key, index) for index in range(len(self.models))]


class _Loading:
    """The models of a server, and the error if they could not be loaded."""

    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.error: Exception | None = None


def _serve(
    models: Sequence[Model],
    device: str,
    address: str,
    key: bytes,
    listening: Connection,
    environment: Mapping[str, str],
) -> None:
    """Run a server: one thread per connection, and one that computes."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process handles Ctrl-C.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    exit_with_parent()
    loading = _Loading()
    batcher = Batcher()
    with Listener(address, "AF_UNIX", backlog=MAX_WAITING, authkey=key) as listener:
        threading.Thread(
            target=_accept, args=(listener, models, loading, batcher), daemon=True
        ).start()
        listening.send(True)
        try:
            for model in models:
                model.load(device)
        except Exception as error:
            loading.error = error
        loading.is_done.set()
        threading.Event().wait()


def _accept(
    listener: Listener, models: Sequence[Model], loading: _Loading, batcher: Batcher
) -> None:
    while True:
        connection = listener.accept()
        arguments = (connection, models, loading, batcher)
        threading.Thread(target=_serve_worker, args=arguments, daemon=True).start()


def _serve_worker(
    connection: Connection, models: Sequence[Model], loading: _Loading, batcher: Batcher
) -> None:
    """Answer the requests of one worker to one model until it disconnects."""
    with suppress(EOFError, ConnectionError), connection:
        model = models[connection.recv()]
        loading.is_done.wait()
        if loading.error is not None:
            _send(connection, loading.error)
            return
        connection.send((model.device, model.revision))
        while True:
            inputs = connection.recv()
            try:
                outputs: object = batcher.predict(model, inputs)
            except Exception as error:
                outputs = error
            _send(connection, outputs)


def _send(connection: Connection, value: object) -> None:
    """Send a value, or an error without its details if they cannot be pickled."""
    try:
        data = pickle.dumps(value)
        pickle.loads(data) if isinstance(value, Exception) else None
    except Exception:  # Errors of libraries may hold anything, and pickle raises what they raise.
        data = pickle.dumps(RuntimeError(f"{type(value).__name__}: {value}"))
    connection.send_bytes(data)
