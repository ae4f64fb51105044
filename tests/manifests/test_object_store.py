"""Workspaces in an object store, with a real S3 server on this machine and real processes."""

import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from commands import collect_folder, init_workspace, set_options
from killable import run_killable
from PIL import Image
from s3_server import connect, s3_server
from workspace_state import TIME_COLUMNS

import manifests.lock
from manifests.object_store import ObjectStore
from manifests.run_register import list_registered_runs
from manifests.schema import DECISIONS, FACES, MANIFESTS
from manifests.settings import preset_text
from manifests.store import Store, encode_part
from manifests.support.errors import UserError
from manifests.workspace import Workspace

NAME = "obama.jpg"
"""The photograph of the demo that the chain of commands uses."""
EXPIRED_S = manifests.lock.LEASE_S + manifests.lock.CLOCK_TOLERANCE_S + 100


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


@pytest.fixture
def remote(bucket):
    """An empty workspace in the bucket."""
    return Workspace.create(f"{bucket}/{uuid.uuid4().hex}", preset_text("embedded"))


@pytest.fixture(scope="module")
def chain(bucket, photos, weights, authface_here, tmp_path_factory):
    """A workspace in the bucket with one photograph, collected, filtered and captioned."""
    url = f"{bucket}/chain"
    folder = tmp_path_factory.mktemp("photos")
    shutil.copy(photos[NAME], folder)
    for command in (
        init_workspace(url),
        collect_folder(url, folder),
        ["filter", "-w", url],
        ["caption", "-w", url],
    ):
        result = authface_here(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    return url


# The chain of commands


def read_rows(workspace, name, photo_ids):
    """Rows of a manifest about the given photographs, without times, sorted."""
    key = {"photos": "photo_id", "verdicts": "id"}.get(name, "face_id")
    rows = [
        {column: value for column, value in row.items() if column not in TIME_COLUMNS}
        for row in Store(workspace, MANIFESTS[name]).read().to_pylist()
        if row[key].startswith(tuple(photo_ids))
    ]
    return sorted(rows, key=str)


@pytest.mark.slow
def test_rows_equal_those_of_a_folder(chain, filled):
    remote, local = Workspace(chain), Workspace(filled)
    photo_ids = Store(remote, MANIFESTS["photos"]).read_pandas()["photo_id"]
    assert len(photo_ids) == 1
    for name in ("photos", "faces", "scores", "verdicts", "captions"):
        rows = read_rows(remote, name, photo_ids)
        assert rows
        assert rows == read_rows(local, name, photo_ids)
    for row in Store(remote, FACES).read(["crop_path"]).to_pylist():
        assert remote.read_bytes(row["crop_path"]) == local.read_bytes(row["crop_path"])


@pytest.mark.slow
def test_results_of_every_command(chain, authface_here, tmp_path):
    def run(*arguments):
        result = authface_here(*arguments, "-w", chain)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert json.loads(run("status", "--json"))["workspace"] == chain
    table = tmp_path / "table.csv"
    run("review", "export", "--csv", table, "--all")
    rows = pd.read_csv(table)
    rows["decision"] = rows["decision"].astype(object)
    rows.loc[0, "decision"] = "unsure"
    rows.to_csv(table, index=False)
    run("review", "import", table, "--reviewer", "ann", "--yes")
    assert Store(Workspace(chain), DECISIONS).read()["id"].to_pylist() == [rows["id"][0]]
    run("filter", "--regate")
    assert f"Report: {chain}/reports/report.html" in run("report")
    assert b"<html" in Workspace(chain).read_bytes("reports/report.html")
    run("export-captions", "--format", "kohya", "--output", tmp_path / "kohya")
    assert list((tmp_path / "kohya").rglob("*.png"))


@pytest.mark.slow
def test_training_reads_the_bucket_and_caches_on_the_disk(
    chain, authface_here, tmp_path, monkeypatch
):
    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path / "cache"))
    train = ("train-prior", "-w", chain, "--preset", "tiny", "--base", "tiny", "--steps", 1)
    result = authface_here(*train)
    assert result.returncode == 2
    assert "--output is required" in result.stderr

    output = tmp_path / "run"
    result = authface_here(*train, "--output", output, *set_options("audit=false", "draw.every=0"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert (output / "model_index.json").is_file()
    (run,) = list_registered_runs(Workspace(chain))
    assert run.folder == str(output)
    assert list((tmp_path / "cache/workspaces").rglob("*.safetensors"))
    assert not any(name.startswith("runs/") for name in Workspace(chain).walk())


@pytest.mark.slow
def test_forgotten_photograph_leaves_bucket_and_local_cache(
    chain, authface_here, tmp_path, monkeypatch
):
    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path))
    copy = f"{chain}-copy"
    connect().copy(f"{chain}/", f"{copy}/", recursive=True)
    workspace = Workspace(copy)
    cached = workspace.local_cache.local_path("cache/crops/512/part")
    cached.parent.mkdir(parents=True)
    cached.touch()
    photo_id = Store(workspace, MANIFESTS["photos"]).read(["photo_id"]).to_pylist()[0]["photo_id"]
    workspace.write_bytes("reports/notes.txt", f"{photo_id}\nother\n".encode())

    result = authface_here("forget", photo_id, "-w", copy, "--yes")
    assert result.returncode == 0, result.stdout + result.stderr
    assert not cached.exists()
    workspace = Workspace(copy)
    assert not any(photo_id in path for path in workspace.walk())
    assert not any(photo_id.encode() in workspace.read_bytes(path) for path in workspace.walk())
    assert workspace.read_bytes("reports/notes.txt") == b"other\n"


@pytest.fixture
def small_pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_killed_command_is_continued(remote, small_pictures, authface_here):
    command = collect_folder(remote.root, small_pictures)
    killed = run_killable(command, kill_at=8)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    before = Store(remote, MANIFESTS["photos"]).read_pandas()
    assert 0 < len(before) < 8
    assert remote.exists(".lock")

    result = authface_here(*command)
    assert result.returncode == 0, result.stderr
    after = Store(remote, MANIFESTS["photos"]).read_pandas()
    assert len(after) == after["photo_id"].nunique() == 8
    kept = after[after["photo_id"].isin(before["photo_id"])]
    assert set(kept["created_at"]) == set(before["created_at"])
    assert sorted(remote.list_names("photos")) == sorted(
        path.rpartition("/")[2] for path in after["path"]
    )
    assert not remote.exists(".lock")


# Refusals


def run_refused(authface_here, *arguments):
    """Run a command that must be refused with one line. Returns exit code and line."""
    result = authface_here(*arguments)
    assert result.stderr.count("\n") == 1, result.stderr
    assert "test-secret" not in result.stdout + result.stderr
    return result.returncode, result.stderr


def test_missing_package_is_one_line(authface_here, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    code, line = run_refused(authface_here, "status", "-w", "s3://faces/x")
    assert code == 3
    assert "a workspace on S3 needs authface[s3]: pip install " in line


@pytest.mark.parametrize(
    ("changes", "url", "code", "message"),
    [
        ({}, "s3://nowhere/x", 2, "the bucket nowhere does not exist"),
        ({}, "s3://faces/nothing", 2, "is not a workspace"),
        ({}, "s3://key:test-secret@faces/x", 2, "other URLs are not supported"),
        ({}, "gs://faces/x", 2, "other URLs are not supported"),
        ({"AWS_ACCESS_KEY_ID": ""}, "s3://faces/x", 3, "no credentials"),
        ({"AWS_PROFILE": "missing"}, "s3://faces/x", 3, "no credentials"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "s3://faces/x", 3, "cannot be accessed (Invalid"),
    ],
)
def test_wrong_access_is_one_line(bucket, authface_here, monkeypatch, changes, url, code, message):
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    if "AWS_ACCESS_KEY_ID" in changes:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for command in (["status", "-w", url], ["init", url]):
        if message == "is not a workspace" and command[0] == "init":
            continue
        result_code, line = run_refused(authface_here, *command)
        assert result_code == code
        assert message in line


@pytest.mark.slow
def test_server_that_does_not_answer_is_one_line(bucket, authface_here, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://user:test-secret@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        code, line = run_refused(authface_here, "status", "-w", "s3://faces/x")
    assert code == 3
    assert "check the connection and AWS_ENDPOINT_URL" in line


def test_denied_access_is_one_line(remote, monkeypatch):
    async def deny(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem._pipe_file", deny)
    remote = Workspace(remote.root)
    with pytest.raises(UserError, match=r"access denied \(Access Denied\); check the credentials"):
        remote.write_bytes("x", b"")


def test_links_are_refused(remote, small_pictures, authface_here):
    for mode in ("reference", "hardlink"):
        command = [*collect_folder(remote.root, small_pictures), "--files", mode]
        code, line = run_refused(authface_here, *command)
        assert code == 2
        assert "use --files copy" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["train-prior", "--output", "s3://faces/run"],
        ["train-prior", "--output=s3://faces/run"],
        ["collect", "-w", "s3://faces/x", "--source", "folder", "--path", "s3://faces/photos"],
        ["demo", "--workspace", "s3://faces/x"],
        ["review", "import", "s3://faces/table.csv"],
    ],
)
def test_url_in_place_of_a_folder_is_refused(authface_here, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, line = run_refused(authface_here, *arguments)
    assert code == 2
    assert "needs a folder on a disk" in line
    assert not list(tmp_path.iterdir())


def test_service_without_conditional_writes_is_refused(bucket, monkeypatch):
    original = ObjectStore._write_if
    monkeypatch.setattr(
        ObjectStore, "_write_if", lambda store, path, data, _: original(store, path, data, {})
    )
    with pytest.raises(UserError, match="ignores conditional writes"):
        Workspace.create(f"{bucket}/unsafe", preset_text("embedded"))
    assert not connect().exists(f"{bucket}/unsafe")


def test_relative_weights_dir_is_refused(bucket):
    settings = f'weights_dir = "weights"\n{preset_text("embedded")}'
    workspace = Workspace.create(f"{bucket}/{uuid.uuid4().hex}", settings)
    with pytest.raises(UserError, match="weights_dir is relative"):
        _ = workspace.weights_dir


# Files


def test_files_are_written_read_and_listed(remote):
    remote.write_bytes("cache/a/x", b"1" * 10)
    assert remote.read_bytes("cache/a/x", limit=3) == b"111"
    remote.write_bytes("cache/a/empty", b"")
    assert remote.read_bytes("cache/a/empty", limit=3) == b""
    assert remote.list_names("cache/a") == ["empty", "x"]
    assert remote.list_names("cache") == ["a"]
    assert remote.list_names("nowhere") == []
    assert remote.exists("cache/a")
    assert not remote.exists("cache/b")
    assert remote.size("cache/a/x") == 10
    assert {"cache/a/empty", "cache/a/x"} <= set(remote.walk())
    remote.remove("cache/a/x")
    remote.remove("cache/a/x")
    with pytest.raises(FileNotFoundError):
        remote.read_bytes("cache/a/x")
    with pytest.raises(FileNotFoundError):
        remote.open("cache/a/x")


def test_listings_are_never_stale(remote):
    assert remote.list_names("cache") == []
    other = connect()
    other.pipe_file(f"{remote.root}/cache/x", b"1")
    assert remote.list_names("cache") == ["x"]
    assert remote.exists("cache/x")
    other.rm_file(f"{remote.root}/cache/x")
    assert remote.list_names("cache") == []
    assert not remote.exists("cache/x")


def test_large_files_are_read_in_blocks(remote, monkeypatch):
    monkeypatch.setattr("manifests.object_store.SMALL_FILE_BYTES", 100)
    monkeypatch.setattr("manifests.object_store.READ_BLOCK_BYTES", 256)
    store = Store(remote, FACES)
    store.append([{"face_id": f"f{number}", "photo_id": "p"} for number in range(50)])
    assert store.read()["face_id"].to_pylist() == [f"f{number}" for number in range(50)]
    content = remote.read_bytes(store.parts()[0])
    with remote.open(store.parts()[0]) as file:
        assert file.read() == content
        file.seek(-10, os.SEEK_END)
        assert file.read(20) == content[-10:]


def test_conditional_writes(remote):
    assert remote.create_exclusive("x", b"1")
    assert not remote.create_exclusive("x", b"2")
    assert not remote.replace_if_same("x", b"2", b"3")
    assert not remote.replace_if_same("missing", b"2", b"3")
    assert remote.replace_if_same("x", b"1", b"3")
    remote.remove_if_same("x", b"1")
    assert remote.read_bytes("x") == b"3"
    remote.remove_if_same("x", b"3")
    assert not remote.exists("x")


def test_object_that_changes_after_it_was_compared_stays(remote, monkeypatch):
    remote.write_bytes("x", b"old")
    compare = ObjectStore._etag_if_same

    def compare_and_disturb(store, path, data):
        etag = compare(store, path, data)
        connect().pipe_file(f"{remote.root}/{path}", b"of another")
        return etag

    monkeypatch.setattr(ObjectStore, "_etag_if_same", compare_and_disturb)
    assert not remote.replace_if_same("x", b"old", b"new")
    remote.write_bytes("x", b"old")
    remote.remove_if_same("x", b"old")
    assert remote.read_bytes("x") == b"of another"


def test_lines_of_several_writers_are_appended(remote, monkeypatch):
    remote.append_line("log", "1")
    replace = ObjectStore.replace_if_same

    def replace_after_another(store, *arguments):
        monkeypatch.setattr(ObjectStore, "replace_if_same", replace)
        Workspace(remote.root).append_line("log", "2")
        return replace(store, *arguments)

    monkeypatch.setattr(ObjectStore, "replace_if_same", replace_after_another)
    remote.append_line("log", "3")
    assert remote.read_bytes("log") == b"1\n2\n3\n"


def test_workspace_is_picklable_while_it_is_locked(remote):
    with remote.lock("filter"):
        copy = pickle.loads(pickle.dumps(remote))
        copy.write_bytes("x", b"1")
    assert remote.read_bytes("x") == b"1"


def test_forked_process_opens_its_own_connection(remote):
    remote.write_bytes("x", b"1")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if remote.read_bytes("x") == b"1" else 1)
    assert os.waitpid(pid, 0)[1] == 0


# Compaction


def face_rows(*ids):
    return [{"face_id": face_id, "photo_id": "p", "fingerprint": "f"} for face_id in ids]


def test_compaction_holds_few_parts_in_memory(remote, monkeypatch):
    """It reads one old part after the other, and encodes new ones of `ROWS_PER_PART` rows."""
    monkeypatch.setattr("manifests.store.ROWS_PER_PART", 4)
    num_rows = []

    def record(manifest, table, metadata):
        num_rows.append(table.num_rows)
        return encode_part(manifest, table, metadata)

    store = Store(remote, FACES)
    for face_id in "abcdefghij":
        store.append(face_rows(face_id))
    monkeypatch.setattr("manifests.store.encode_part", record)
    store.compact()
    assert num_rows == [4, 4, 2]
    assert sorted(remote.list_names("manifests/faces")) == [
        part.rpartition("/")[2] for part in store.parts()
    ]
    assert store.read()["face_id"].to_pylist() == list("abcdefghij")


class Killed(BaseException):
    """Ends a compaction as SIGKILL does: nothing catches it."""


def let_die(patch, num_operations):
    """Let this process die after so many operations that change an object."""
    remaining = itertools.count(num_operations, -1)

    def dying(operation):
        def run(*arguments):
            if next(remaining) <= 0:
                raise Killed
            return operation(*arguments)

        return run

    for name in ("write_bytes", "copy", "remove"):
        patch.setattr(ObjectStore, name, dying(getattr(ObjectStore, name)))


@pytest.mark.slow
def test_compaction_killed_at_any_operation_is_complete_or_absent(remote, monkeypatch):
    """Four parts become two. Kills before every write, copy and removal of an object."""
    monkeypatch.setattr("manifests.store.ROWS_PER_PART", 8)
    store = Store(remote, FACES)
    for face_ids in ("abc", "def", "ghi", "jkl"):
        store.append(face_rows(*face_ids))
    parts = {path: remote.read_bytes(path) for path in store.parts()}
    results = []
    is_killed = True
    while is_killed:
        for path in store.parts():
            remote.remove(path)
        for path, content in parts.items():
            remote.write_bytes(path, content)
        with monkeypatch.context() as patch:
            let_die(patch, num_operations=len(results))
            try:
                store.compact(drop=lambda part: pc.equal(part["face_id"], "b"))
                is_killed = False
            except Killed:
                pass
        store = Store(remote, FACES)
        results.append("".join(store.read(["face_id"])["face_id"].to_pylist()))
        if is_killed:
            store.compact(drop=lambda part: pc.equal(part["face_id"], "b"))
        assert store.read(["face_id"])["face_id"].to_pylist() == list("acdefghijkl")
        assert len(store.parts()) == len(remote.list_names("manifests/faces")) == 2
    num_absent = results.count("abcdefghijkl")
    assert 0 < num_absent < len(results) - 1
    assert results == ["abcdefghijkl"] * num_absent + ["acdefghijkl"] * (len(results) - num_absent)


def test_kill_between_copy_and_removal_of_a_pending_part(workspace, remote, monkeypatch):
    """A workspace with an interrupted compaction may be copied from a disk into a bucket."""
    local = Store(workspace, FACES)
    for face_id in "abcde":
        local.append(face_rows(face_id))
    monkeypatch.setattr("manifests.store.ROWS_PER_PART", 4)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_complete_compaction", lambda store: None)
        local.compact()
    names = workspace.list_names("manifests/faces")
    assert any(name.startswith(".pending-") for name in names)
    for name in names:
        path = f"manifests/faces/{name}"
        remote.write_bytes(path, workspace.read_bytes(path))

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "remove", kill)
        with pytest.raises(Killed):
            Store(remote, FACES)
    store = Store(Workspace(remote.root), FACES)
    assert store.read()["face_id"].to_pylist() == list("abcde")
    assert len(store.parts()) == len(remote.list_names("manifests/faces")) == 2


# Lock

HOLD = """
import sys, time
from manifests.workspace import Workspace
with Workspace(sys.argv[1]).lock("filter"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_of_a_killed_process_is_taken_over(remote):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, remote.root], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"`authface filter` \(process {process.pid} on"):
        remote.lock("caption").__enter__()
    process.kill()
    process.wait()
    assert remote.exists(".lock")
    with remote.lock("caption"):
        assert json.loads(remote.read_bytes(".lock"))["pid"] == os.getpid()
    assert not remote.exists(".lock")


def move_to_another_host(monkeypatch, seconds=0.0):
    """Let the locks of this process be those of another host, `seconds` later."""
    now = manifests.lock.time.time()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(manifests.lock.time, "time", lambda: now + seconds)


def test_expired_lease_is_taken_over_and_its_holder_writes_nothing_more(remote, monkeypatch):
    monkeypatch.setattr(manifests.lock, "SETTLE_S", 0.0)
    other = Workspace(remote.root)
    lock = remote.lock("filter")
    lock.__enter__()
    store = Store(remote, FACES)
    store.append(face_rows("a"))
    with monkeypatch.context() as elsewhere:
        move_to_another_host(elsewhere, 60)
        with pytest.raises(UserError, match=r"again in \d+ s if that machine has stopped"):
            other.lock("caption").__enter__()

        move_to_another_host(elsewhere, EXPIRED_S)
        with other.lock("caption"):
            assert json.loads(other.read_bytes(".lock"))["host"] == "elsewhere"
            for write in (
                lambda: store.append(face_rows("b")),
                lambda: store.compact(drop=lambda part: pc.equal(part["face_id"], "a")),
                lambda: remote.remove(store.parts()[0]),
            ):
                with pytest.raises(UserError, match="was taken over or removed"):
                    write()
            lock.__exit__(None, None, None)
            assert other.exists(".lock")
    assert Store(other, FACES).read()["face_id"].to_pylist() == ["a"]


def test_lease_is_renewed(remote, monkeypatch):
    monkeypatch.setattr(manifests.lock, "RENEW_INTERVAL_S", 0.05)
    with remote.lock("filter"):
        first = json.loads(remote.read_bytes(".lock"))["expires"]
        deadline = time.monotonic() + 30
        while json.loads(remote.read_bytes(".lock"))["expires"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not remote.exists(".lock")


def test_only_one_of_two_hosts_takes_over(remote, monkeypatch):
    monkeypatch.setattr(manifests.lock, "SETTLE_S", 0.0)
    expired = {"host": "gone", "pid": 1, "started": 1.0, "command": "filter", "expires": 1.0}
    remote.write_bytes(".lock", json.dumps(expired).encode())
    replace = ObjectStore.replace_if_same
    winner = Workspace(remote.root).lock("filter")

    def replace_after_another(store, *arguments):
        monkeypatch.setattr(ObjectStore, "replace_if_same", replace)
        winner.__enter__()
        return replace(store, *arguments)

    monkeypatch.setattr(ObjectStore, "replace_if_same", replace_after_another)
    with pytest.raises(UserError, match="is being written by `authface filter`"):
        remote.lock("caption").__enter__()
    winner.__exit__(None, None, None)


def test_lost_answer_of_a_write_does_not_lose_the_lock(remote, monkeypatch):
    """The object is written, the answer is lost, and the repeated request fails."""
    import s3fs

    pipe_file = s3fs.S3FileSystem._pipe_file
    num_calls = 0

    async def write_twice(fs, *arguments, **options):
        nonlocal num_calls
        num_calls += 1
        await pipe_file(fs, *arguments, **options)
        return await pipe_file(fs, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_pipe_file", write_twice)
        remote = Workspace(remote.root)
        assert remote.create_exclusive("x", b"1")
        assert remote.replace_if_same("x", b"1", b"2")
    assert num_calls == 2
