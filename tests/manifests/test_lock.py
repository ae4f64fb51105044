"""One writer at a time, by real processes."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from manifests.support.errors import UserError

HOLD = """
import sys, time
from manifests.workspace import Workspace
with Workspace(sys.argv[1]).lock("filter"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(workspace):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, workspace.root], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_held_lock_is_refused_with_its_holder_named(workspace, holder):
    with pytest.raises(
        UserError, match=rf"`authface filter` \(process {holder.pid} on {socket.gethostname()}\)"
    ):
        workspace.lock("caption").__enter__()


def test_the_command_ends_with_code_2(workspace, holder, authface, tmp_path):
    done = authface("filter", "-w", workspace.root)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is being written by `authface filter`" in done.stderr


def test_a_dead_holders_lock_is_taken_over(workspace, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert workspace.exists(".lock")
    with workspace.lock("caption"):
        assert json.loads(workspace.read_bytes(".lock"))["pid"] == os.getpid()
    assert not workspace.exists(".lock")


def test_a_process_id_that_was_given_away_does_not_hold(workspace):
    stale = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0, "command": "filter"}
    workspace.write_bytes(".lock", json.dumps(stale).encode())
    with workspace.lock("caption"):
        pass


def test_another_hosts_lock_is_never_taken(workspace):
    other = {"host": "elsewhere.example", "pid": 1, "started": 1.0, "command": "filter"}
    workspace.write_bytes(".lock", json.dumps(other).encode())
    with pytest.raises(UserError, match=r"elsewhere\.example"):
        workspace.lock("caption").__enter__()


def test_a_lock_that_cannot_be_read_is_named(workspace):
    workspace.write_bytes(".lock", b"")
    with pytest.raises(UserError, match=r"\.lock cannot be read"):
        workspace.lock("caption").__enter__()


def test_releasing_leaves_anothers_lock(workspace):
    with workspace.lock("filter"):
        workspace.write_bytes(".lock", b"another's")
    assert workspace.read_bytes(".lock") == b"another's"


def test_half_written_files_of_dead_processes_go_and_of_living_ones_stay(workspace):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout.strip()
    folder = workspace.local_path(".tmp")
    folder.mkdir()
    (folder / f"{socket.gethostname()}.{dead}.aa").write_bytes(b"")
    (folder / f"{socket.gethostname()}.{os.getpid()}.bb").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    with workspace.lock("filter"):
        pass
    assert workspace.list_names(".tmp") == [".DS_Store", f"{socket.gethostname()}.{os.getpid()}.bb"]
