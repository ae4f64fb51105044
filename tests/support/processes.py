"""Several processes over gloo on the CPU, each running the same commands one after the other, as a launcher starts them."""

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
for words in json.loads(sys.argv[1]):
    try:
        cli.app(words)
    except SystemExit as ended:
        if ended.code:
            raise
"""


def launch(world: int, commands: Sequence[Sequence[object]]) -> list[subprocess.Popen]:
    """One process per rank, output as text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = json.dumps([[str(word) for word in command] for command in commands])
    started = []
    for rank in range(world):
        env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
               "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
               "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
        command = [sys.executable, "-P", "-c", SCRIPT, words]
        started.append(
            subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    return started


def finish(processes: Sequence[subprocess.Popen], timeout_s: float = 300) -> list[tuple[int, str]]:
    """Exit code and output of each; all are killed where one hangs."""
    try:
        return [(process.wait(timeout_s), process.stdout.read()) for process in processes]
    finally:
        for process in processes:
            process.kill()
