"""The batch script of docs/running.md, with programs in place of `srun` and `scontrol`."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "running.md"
SRUN = """#!/bin/bash
stop() { mkdir -p "$RUN/checkpoints/step-00000009"; echo stopped >> "$LOG"; exit 1; }
trap stop USR1 TERM
echo started "$@" >> "$LOG"
for _ in $(seq $TENTHS); do sleep 0.1; done
exit $CODE
"""
SCONTROL = """#!/bin/bash
echo scontrol "$@" >> "$LOG"
"""


@pytest.fixture
def start_job(tmp_path):
    """A function that starts the script, and returns its process and a reader of the log."""
    script = re.search(r"```bash\n(#!/bin/bash.*?)```", DOCUMENT.read_text(), re.S)[1]
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "job": script}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()

    def start(code: int, tenths: int) -> tuple[subprocess.Popen, Path]:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "RUN": str(tmp_path / "portraits/runs/prior-4x48gb"),
            "LOG": str(log),
            "CODE": str(code),
            "TENTHS": str(tenths),
            "SLURM_JOB_ID": "42",
        }
        return subprocess.Popen([programs / "job"], env=environment, process_group=0), log

    return start


def wait_for_start(log: Path) -> None:
    deadline = time.monotonic() + 20
    while "started" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)


def test_signal_to_the_script_saves_and_requeues_the_job(start_job):
    job, log = start_job(code=0, tenths=100)
    wait_for_start(log)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 1
    started, *others = log.read_text().splitlines()
    assert "authface train-prior" in started
    assert "--resume" in started
    assert others == ["stopped", "scontrol requeue 42"]


def test_preemption_that_signals_only_the_processes_requeues_the_job(start_job):
    job, log = start_job(code=0, tenths=100)
    wait_for_start(log)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert job.wait(20) == 1
    assert log.read_text().splitlines()[1:] == ["stopped", "scontrol requeue 42"]


@pytest.mark.parametrize("code", [0, 1])
def test_finished_and_failed_jobs_are_not_requeued(start_job, code):
    job, log = start_job(code=code, tenths=1)
    assert job.wait(20) == code
    assert "scontrol" not in log.read_text()
