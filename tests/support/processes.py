"""Processes that communicate through gloo on the CPU, started as torchrun starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

SCRIPT = """
import json, sys
import cli
for arguments in json.loads(sys.argv[1]):
    try:
        cli.app(arguments)
    except SystemExit as error:
        if error.code:
            raise
"""


def launch(num_processes: int, commands: Sequence[Sequence[object]]) -> list[subprocess.Popen[str]]:
    """Start processes that each run the same commands one after the other.

    Args:
        num_processes: Number of processes (the world size).
        commands: Arguments of each command, without `authface`.

    Returns:
        One process per rank; its stdout includes stderr.
    """
    port = _find_free_port()
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    processes = []
    for rank in range(num_processes):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
    return processes


def finish(
    processes: Sequence[subprocess.Popen[str]], timeout_s: float = 300
) -> list[tuple[int, str]]:
    """Wait for processes and return the exit code and output of each.

    If one does not end within the time, all are killed and the test fails.

    Args:
        processes: The processes.
        timeout_s: Longest wait for each, in seconds.
    """
    try:
        return [(process.wait(timeout_s), process.stdout.read()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def _find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
