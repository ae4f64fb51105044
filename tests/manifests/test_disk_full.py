"""A full disk ends a command with one line that names the file, and leaves nothing half written."""

import errno

import captioned_workspace
import pytest
from full_disk import file_size_limit

from authface_data.captions.export import FORMATS, export_dataset
from manifests.schema import SCORES
from manifests.settings import preset_text
from manifests.store import Store
from manifests.support.csv_file import CsvLog, write_rows
from manifests.support.errors import UserError
from manifests.support.files import new_folder, write_atomic
from manifests.workspace import Workspace


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_workspace_file(workspace):
    workspace.write_bytes("photos/a.jpg", b"old")
    with file_size_limit(10), pytest.raises(UserError, match=r"write .*/photos/a.jpg: File"):
        workspace.write_bytes("photos/a.jpg", b"x" * 100)
    assert workspace.read_bytes("photos/a.jpg") == b"old"
    assert workspace.list_names(".tmp") == []


@pytest.mark.parametrize("operation", ["write_bytes", "create_exclusive", "append", "compact"])
def test_message_says_what_to_do(workspace, monkeypatch, operation):
    store = Store(workspace, SCORES)
    row = {"face_id": "a", "metric": "niqe", "value": 1.0}
    store.append([row])
    operations = {
        "write_bytes": lambda: workspace.write_bytes("reports/report.html", b"x"),
        "create_exclusive": lambda: workspace.create_exclusive(".lock", b"x"),
        "append": lambda: store.append([row]),
        "compact": lambda: store.compact(add=store.table([row])),
    }
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(
        UserError, match=r"cannot write /.*: No space .*; free some space and run the command again"
    ):
        operations[operation]()
    monkeypatch.undo()
    assert Store(workspace, SCORES).read().num_rows == 1
    assert workspace.list_names(".tmp") == []


def test_new_workspace(tmp_path):
    with file_size_limit(10), pytest.raises(UserError, match=f"cannot write {tmp_path}/ws"):
        Workspace.create(tmp_path / "ws", preset_text("embedded"))
    assert list_files(tmp_path) == []


def test_output_file(tmp_path):
    path = tmp_path / "review.csv"
    write_atomic(path, "old")
    for write in (
        lambda: write_atomic(path, "x" * 100),
        lambda: write_rows(path, [{"a": "x" * 100}]),
    ):
        with file_size_limit(10), pytest.raises(UserError, match=f"cannot write {path}"):
            write()
        assert path.read_text() == "old"
        assert list_files(tmp_path) == ["review.csv"]


def test_log_of_a_run(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.append({"step": 1})
    with file_size_limit(8), pytest.raises(UserError, match=f"cannot write {log.path}"):
        log.append({"step": 123456789})
    log = CsvLog(log.path)
    log.append({"step": 2})
    assert log.path.read_text().splitlines() == ["step", "1", "2"]


@pytest.mark.parametrize("export_format", list(FORMATS))
@pytest.mark.parametrize("exists", [False, True])
def test_export_leaves_no_partial_folder(workspace, tmp_path, export_format, exists):
    captioned_workspace.fill(workspace)
    output = tmp_path / "export"
    if exists:
        output.mkdir()
    size = workspace.local_path(f"faces/{captioned_workspace.face_id('a')}.png").stat().st_size
    with file_size_limit(size), pytest.raises(UserError, match=r"cannot write .*export/"):
        export_dataset(workspace, output, export_format)  # CREDITS.md does not fit
    assert output.exists() == exists
    assert not exists or not any(output.iterdir())
    assert sum(export_dataset(workspace, output, export_format).values()) == 3


def test_remains_of_a_killed_export_are_replaced(tmp_path):
    output = tmp_path / "export"
    write_atomic(output / ".unfinished" / "train" / "a.png", b"old")
    with new_folder(output) as folder:
        write_atomic(folder / "train" / "b.png", b"new")
    assert list_files(output) == ["train/b.png"]
    with pytest.raises(UserError, match="is not an empty folder"), new_folder(output):
        pass
    assert list_files(output) == ["train/b.png"]
