"""The writer lock, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from lock_holder import hold_lock

from manifests import lock
from manifests.lock import LocalFolder, WriterLock
from manifests.support.errors import UserError
from manifests.workspace import Workspace


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


def test_lock_of_another_host_without_a_lease_is_never_taken_over(workspace):
    """Earlier versions wrote such locks."""
    other = {"host": "elsewhere.example", "pid": 1, "started": 1.0, "command": "filter"}
    workspace.write_bytes(".lock", json.dumps(other).encode())
    with pytest.raises(UserError, match=r"elsewhere\.example\); wait for it, or remove \.lock"):
        workspace.lock("caption").__enter__()


def locks_of(folder_kind, workspace, tmp_path):
    """Makes locks of the same folder: a workspace, or the folder of a run."""
    if folder_kind == "workspace":
        return lambda: WriterLock(Workspace(workspace.root), "filter")
    return lambda: WriterLock(LocalFolder(tmp_path), "train-prior")


@pytest.mark.parametrize("folder_kind", ["workspace", "run"])
def test_lock_of_another_host_is_taken_over_after_its_lease(
    workspace, tmp_path, monkeypatch, folder_kind
):
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    make_lock = locks_of(folder_kind, workspace, tmp_path)
    first = make_lock()
    first.acquire()
    now = time.time()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(UserError, match=r"again in 1\d\d s if that machine has stopped"):
            make_lock().acquire()
        elsewhere.setattr(lock.time, "time", lambda: now + 200)
        second = make_lock()
        second.acquire()
        with pytest.raises(UserError, match="was taken over or removed"):
            first.check()
        first.release()
        second.check()
        second.release()
    make_lock().acquire()


def test_host_of_the_same_name_is_another_host(workspace, monkeypatch, tmp_path):
    """Its processes cannot be seen from here, so that its lock is not that of a dead process."""
    other = tmp_path / "machine-id"
    other.write_text("0123456789abcdef\n")
    with monkeypatch.context() as elsewhere, hold_lock(workspace.root, "filter") as holder:
        holder.kill()
        holder.wait()
        elsewhere.setattr(lock, "MACHINE_ID_FILE", other)
        with pytest.raises(UserError, match="if that machine has stopped"):
            workspace.lock("caption").__enter__()
    with workspace.lock("caption"):
        pass


@pytest.mark.parametrize("folder_kind", ["workspace", "run"])
def test_lease_is_renewed(workspace, tmp_path, monkeypatch, folder_kind):
    monkeypatch.setattr(lock, "RENEW_INTERVAL_S", 0.02)
    held = locks_of(folder_kind, workspace, tmp_path)()
    held.acquire()
    first = held.folder.read_bytes(lock.LOCK)
    deadline = time.monotonic() + 30
    while held.folder.read_bytes(lock.LOCK) == first:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    held.check()
    held.release()
    with pytest.raises(FileNotFoundError):
        held.folder.read_bytes(lock.LOCK)


def test_suspended_process_keeps_a_lock_that_nobody_took(workspace, monkeypatch):
    """A laptop that sleeps does not lose its own workspace."""
    with workspace.lock("filter"):
        now = time.time()
        monkeypatch.setattr(lock.time, "time", lambda: now + 100_000)
        workspace.write_bytes("x", b"1")
        assert json.loads(workspace.read_bytes(".lock"))["expires"] > now + 100_000


def test_forked_process_leaves_the_lease_to_its_parent(workspace, monkeypatch):
    with workspace.lock("filter"):
        content = workspace.read_bytes(".lock")
        now = time.time()
        with monkeypatch.context() as later:
            later.setattr(lock.time, "time", lambda: now + 100)
            pid = os.fork()
            if pid == 0:
                workspace.write_bytes("x", b"1")
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        assert workspace.exists("x")
        assert workspace.read_bytes(".lock") == content


def test_removed_lock_ends_its_holder_at_the_next_renewal(workspace, monkeypatch):
    with workspace.lock("filter"):
        workspace.remove(".lock")
        now = time.time()
        monkeypatch.setattr(lock.time, "time", lambda: now + 100)
        with pytest.raises(UserError, match="was taken over or removed"):
            workspace.write_bytes("x", b"1")
    assert not workspace.exists("x")


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
