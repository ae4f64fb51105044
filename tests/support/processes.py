"""Processes that communicate through gloo on the CPU, with torchrun or started as it starts them.

They are forked from a server that has imported the commands and loaded dlib's model, because that
takes longer than training a tiny model.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import psutil

from manifests.support.errors import UserError

POLL_S = 0.02
CLI = Path(__file__).parents[2] / "cli.py"
PRELOADED = (
    "cli",
    "authface_data.captions.captioners",
    "authface_data.captions.measured.stage",
    "authface_data.filter_faces",
    "authface_data.sources.registry",
    "cv2",
    "preloaded_models",
    "torch.distributed.run",
    "torch.utils.tensorboard",
    "diffusers.loaders.single_file",
    "authface_train.callbacks.build",
    "authface_train.stages.restorer",
    "authface_train.training.jobs",
)

_context = multiprocessing.get_context("forkserver")
# A separate server: the one of the module has imported only what the engine's workers need.
_server = forkserver.ForkServer()
_server.set_forkserver_preload(list(PRELOADED))


class Rank:
    """A process that is forked from the server.

    Args:
        function: What it runs; the server imports its module by name.
        arguments: The arguments of the function.
        log: File that receives its stdout and stderr.
    """

    def __init__(
        self, function: Callable[..., None], arguments: tuple[object, ...], log: Path
    ) -> None:
        self.log = log
        _start_server()
        environment = dict(os.environ)
        self.process = _context.Process(target=_run, args=(function, arguments, environment, log))
        connect = _server.connect_to_new_process
        with mock.patch.object(forkserver, "connect_to_new_process", connect):
            self.process.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; returns its exit code, or None if it is still running."""
        self.process.join(timeout_s)
        return self.process.exitcode


def launch(
    num_processes: int,
    commands: Sequence[Sequence[object]],
    folder: Path,
    failing_rank: int | None = None,
) -> list[Rank]:
    """Start processes that each run the same commands one after the other.

    Args:
        num_processes: Number of processes (the world size).
        commands: Arguments of each command, without `authface`.
        folder: Folder for their output.
        failing_rank: Rank of a process whose first step of Stage I ends with an error of exit
            code 2.

    Returns:
        One process per rank.
    """
    texts = [[str(argument) for argument in command] for command in commands]
    # Each command has another port, since the store of the one before it may still be open.
    ports = [_find_free_port() for _ in commands]
    folder.mkdir(parents=True, exist_ok=True)
    ranks = []
    for rank in range(num_processes):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "127.0.0.1",
        }
        log = folder / f"rank-{rank}.log"
        ranks.append(Rank(_run_commands, (texts, ports, environment, rank == failing_rank), log))
    return ranks


def launch_torchrun(
    num_processes: int, command: Sequence[object], folder: Path, *options: str
) -> Rank:
    """Start torchrun with processes that run a command.

    Args:
        num_processes: Number of processes (the world size).
        command: Arguments of the command, without `authface`.
        folder: Folder for the output: `torchrun.log`, and one folder per process in `ranks`.
        options: Further options of torchrun.

    Returns:
        The process of torchrun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = torchrun_options(num_processes, folder / "ranks") + list(options)
    arguments += ["--run-path", "--start-method", "fork", CLI, *map(str, command)]
    log = folder / "torchrun.log"
    return Rank(_run_torchrun, ([*map(str, arguments)],), log)


def launch_two_machines(command: Sequence[object], folder: Path) -> list[Rank]:
    """Start two torchruns with one process each, as on two machines.

    Args:
        command: Arguments of the command, without `authface`.
        folder: Folder for the output of both, see `launch_torchrun`.

    Returns:
        The processes of the torchruns.
    """
    meeting_point = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={_find_free_port()}"]
    return [
        launch_torchrun(
            1, command, folder / f"machine-{rank}", *meeting_point, f"--node-rank={rank}"
        )
        for rank in (0, 1)
    ]


def torchrun_options(num_processes: int, log_folder: Path) -> list[str]:
    """Options of torchrun as docs/running.md documents them, with the output in log files."""
    return [
        f"--nproc-per-node={num_processes}",
        "--shutdown-timeout=60",
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        f"--master-port={_find_free_port()}",
        f"--log-dir={log_folder}",
        "--redirects=3",
    ]


def cpu_environment() -> dict[str, str]:
    """Environment variables of processes that train on one core each, without a GPU."""
    return {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def finish(ranks: Sequence[Rank], timeout_s: float = 300) -> list[tuple[int, str]]:
    """Wait for processes and return the exit code and output of each.

    If one does not end within the time, all are killed and the test fails.

    Args:
        ranks: The processes.
        timeout_s: Longest wait for each, in seconds.
    """
    results = []
    try:
        for rank in ranks:
            code = rank.wait(timeout_s)
            output = rank.log.read_text()
            assert code is not None, f"process {rank.pid} does not end:\n{output}"
            results.append((code, output))
    finally:
        for rank in ranks:
            rank.process.kill()
    return results


def wait_until_ended(
    processes: Collection[psutil.Process], timeout_s: float
) -> list[psutil.Process]:
    """Wait for the end of processes, also of those that nobody has reaped yet.

    Args:
        processes: The processes.
        timeout_s: Longest wait in seconds.

    Returns:
        The processes that are still running.
    """
    deadline = time.monotonic() + timeout_s
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _start_server() -> None:
    """Start the server unless it runs. It finds modules of this folder only by PYTHONPATH."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, folders))):
        _server.ensure_running()


def _run_commands(
    commands: list[list[str]], ports: list[int], environment: dict[str, str], fails: bool
) -> None:
    os.environ.update(environment)
    from accelerate.state import AcceleratorState

    import cli
    from authface_train.stages.prior import PriorTrainer

    if fails:
        PriorTrainer.step = mock.Mock(side_effect=UserError("a face is damaged"))
    for arguments, port in zip(commands, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        AcceleratorState._reset_state(reset_partial_state=True)
        with _successful_exit():
            cli.app(arguments)


def _run_torchrun(arguments: list[str]) -> None:
    from torch.distributed.run import main

    main(arguments)


def _run(
    function: Callable[..., None],
    arguments: tuple[object, ...],
    environment: dict[str, str],
    log: Path,
) -> None:
    """Call a function in this process, and write the output to a file.

    The server may have started before a test changed the environment.
    """
    import torch

    gc.freeze()  # the imported libraries, which need no collection
    os.environ.clear()
    os.environ.update(environment | cpu_environment())
    torch.set_num_threads(1)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    sys.argv[0] = "authface"
    function(*arguments)


@contextlib.contextmanager
def _successful_exit() -> Iterator[None]:
    """Continue after an exit with code 0."""
    try:
        yield
    except SystemExit as error:
        if error.code:
            raise


def _find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
