"""The writer lock, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from lock_holder import hold_lock

from manifests.support.errors import UserError


@pytest.fixture
def holder(workspace):
    """A process that holds the lock for `authface filter`."""
    with hold_lock(workspace.root, "filter") as process:
        yield process


def test_held_lock_is_refused_and_names_its_holder(workspace, holder):
    with pytest.raises(
        UserError, match=rf"`authface filter` \(process {holder.pid} on {socket.gethostname()}\)"
    ):
        workspace.lock("caption").__enter__()


def test_command_ends_with_code_2_if_the_lock_is_held(workspace, holder, authface):
    result = authface("filter", "-w", workspace.root)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is being written by `authface filter`" in result.stderr


def test_lock_of_a_dead_process_is_taken_over(workspace, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert workspace.exists(".lock")
    with workspace.lock("caption"):
        assert json.loads(workspace.read_bytes(".lock"))["pid"] == os.getpid()
    assert not workspace.exists(".lock")


def test_lock_of_an_earlier_process_with_the_same_id_is_taken_over(workspace):
    stale = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0, "command": "filter"}
    workspace.write_bytes(".lock", json.dumps(stale).encode())
    with workspace.lock("caption"):
        pass


def test_lock_of_another_host_is_never_taken_over(workspace):
    other = {"host": "elsewhere.example", "pid": 1, "started": 1.0, "command": "filter"}
    workspace.write_bytes(".lock", json.dumps(other).encode())
    with pytest.raises(UserError, match=r"elsewhere\.example"):
        workspace.lock("caption").__enter__()


def test_lock_of_a_requeued_slurm_job_is_taken_over_on_another_host(workspace, monkeypatch):
    other = {"host": "node1", "pid": 1, "started": 1.0, "command": "train-prior"}
    for job, restarts, is_taken in (("7", "1", True), ("7", "0", False), ("8", "1", False)):
        lock = json.dumps({**other, "slurm_job": "7", "slurm_restarts": 0}).encode()
        workspace.write_bytes(".lock", lock)
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        if is_taken:
            with workspace.lock("filter"):
                pass
        else:
            with pytest.raises(UserError, match="process 1 on node1"):
                workspace.lock("filter").__enter__()


HOLDER = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": 1.0, "command": "filter"}
FOREIGN_LOCKS = {
    "empty": b"",
    "list": b"[1, 2]",
    "text": b'"filter"',
    "null": b"null",
    "no keys": b"{}",
    "nested": b"[" * 100_000,
    "invalid UTF-8": b'{"host": "\xff"}',
    "large": b"x" * 1_000_000,
    **{
        f"{key}={value!r:.20}": json.dumps({**HOLDER, key: value}).encode()
        for key, value in [
            ("pid", "abc"),
            ("pid", -1),
            ("pid", 0),
            ("pid", 2**70),
            ("pid", 1.5),
            ("pid", None),
            ("pid", [1]),
            ("host", 7),
            ("host", {"a": 1}),
            ("started", [1.0]),
            ("started", "yesterday"),
            ("command", ["filter"]),
        ]
    },
}


@pytest.mark.parametrize("case", FOREIGN_LOCKS)
def test_lock_of_another_form_is_one_line_and_stays(workspace, case):
    content = FOREIGN_LOCKS[case]
    workspace.write_bytes(".lock", content)
    with pytest.raises(UserError, match=r"\.lock cannot be read .*; remove it if no") as error:
        workspace.lock("caption").__enter__()
    assert str(error.value).isprintable()
    assert workspace.read_bytes(".lock") == content


def test_folder_named_lock_is_one_line(workspace, authface):
    workspace.local_path(".lock").mkdir(exist_ok=True)
    result = authface("filter", "-w", workspace.root)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert ".lock cannot be read (Is a directory); remove it" in result.stderr


def test_escape_codes_of_a_lock_are_not_printed(workspace):
    other = {**HOLDER, "host": "x\x1b[2J", "command": "filter\x07\nnext line"}
    workspace.write_bytes(".lock", json.dumps(other).encode())
    with pytest.raises(UserError, match=r"being written by `authface filter") as error:
        workspace.lock("caption").__enter__()
    assert str(error.value).isprintable()


def test_release_keeps_the_lock_of_another_process(workspace):
    with workspace.lock("filter"):
        workspace.write_bytes(".lock", b"another lock")
    assert workspace.read_bytes(".lock") == b"another lock"


def test_unfinished_files_of_dead_processes_are_removed(workspace):
    print_pid = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead_pid = subprocess.run(print_pid, capture_output=True, text=True).stdout.strip()
    host = socket.gethostname()
    file_of_dead_process = f"{host}.{dead_pid}.aa"
    file_of_living_process = f"{host}.{os.getpid()}.bb"
    folder = workspace.local_path(".tmp")
    folder.mkdir(exist_ok=True)
    for name in (file_of_dead_process, file_of_living_process, ".DS_Store"):
        (folder / name).write_bytes(b"")
    with workspace.lock("filter"):
        pass
    assert workspace.list_names(".tmp") == [".DS_Store", file_of_living_process]
