"""The search for image files: odd names and entries, other files, folders in the workspace."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from commands import collect_folder, init_workspace
from PIL import Image

from authface_data.sources import image_files
from authface_data.sources.file_source import FileOptions
from authface_data.sources.folder import FolderSource
from authface_data.sources.image_files import find_image_files
from authface_data.sources.skipped_files import describe_skipped
from manifests.support.errors import UserError

PICTURE = Image.new("RGB", (12, 9), (90, 40, 20))


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        PICTURE.save(file, "JPEG")
    return path


@pytest.fixture
def collect(tmp_path, authface_here):
    """Collects the folder `in`; returns the ended command and the workspace."""
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    return lambda: (authface_here(*collect_folder(root, tmp_path / "in")), root)


ODD_NAMES = (
    "顔" * 83 + ".jpg",
    "x" * 251 + ".jpg",
    os.fsdecode(b"\xff\xfe latin\xe9.jpg"),
    "two\nlines.jpg",
    "\x1b[31mred\x1b[0m.jpg",
    "-rf.jpg",
    "--help.jpg",
    "[bold red]markup[red].jpg",
    " blanks .jpg",
    "right \u202e to left.jpg",
)


def test_every_odd_name_is_one_row(tmp_path, collect):
    for name in ODD_NAMES:
        save(tmp_path / "in" / name)
        save(tmp_path / "in" / name).with_name(f"{name}"[:40] + ".json").touch()
    collected, root = collect()
    assert collected.returncode == 0, collected.stderr
    photos = pd.read_parquet(root / "manifests/photos")
    assert len(photos) == len(set(photos["path"])) == len(ODD_NAMES)
    assert all((root / path).is_file() for path in photos["path"])
    assert "\x1b" not in collected.stdout + collected.stderr

    repeated, _ = collect()
    assert repeated.stdout.startswith(f"0 photographs collected, {len(ODD_NAMES)} already")


def test_path_longer_than_the_system_allows_is_skipped(tmp_path, collect):
    save(tmp_path / "in/a.jpg")
    script = (
        "import os\n"
        "for _ in range(20):\n"
        "    os.mkdir('d' * 250)\n"
        "    os.chdir('d' * 250)\n"
        "open('deep.jpg', 'w').close()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "in", check=True)
    try:
        collected, root = collect()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "in"], check=True)
    assert collected.returncode == 0, collected.stderr
    assert "File name too long" in collected.stderr
    assert len(pd.read_parquet(root / "manifests/photos")) == 1


def test_entries_that_are_no_files_are_skipped_with_a_message(tmp_path, collect):
    folder = tmp_path / "in"
    save(folder / "a.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "loop-1.jpg").symlink_to("loop-2.jpg")
    (folder / "loop-2.jpg").symlink_to("loop-1.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "up.jpg").symlink_to("..")
    collected, root = collect()
    assert collected.returncode == 0, collected.stderr
    assert len(pd.read_parquet(root / "manifests/photos")) == 1
    messages = [line for line in collected.stderr.splitlines() if "skipped: " in line]
    assert len(messages) == 5
    assert sum("is a pipe, device or socket" in message for message in messages) == 2
    assert sum("broken.jpg: the target of the link is gone" in message for message in messages) == 1
    assert sum("symbolic links" in message for message in messages) == 2


def test_folder_that_cannot_be_read_is_skipped(tmp_path, monkeypatch):
    save(tmp_path / "a.jpg")
    save(tmp_path / "closed/b.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(image_files.os, "scandir", refuse)
    skipped: list[str] = []
    assert [file.relative_path for file in find_image_files(tmp_path, skipped)] == ["a.jpg"]
    assert skipped == [f"{tmp_path}/closed: Permission denied"]


@pytest.mark.parametrize("removed_after", ["listing", "describing"])
def test_file_that_is_removed_meanwhile(tmp_path, workspace, removed_after):
    save(tmp_path / "in/a.jpg")
    gone = save(tmp_path / "in/b.jpg")

    class Source(FolderSource):
        def _read(self, image_file):
            if removed_after == "listing":
                gone.unlink(missing_ok=True)
            return super()._read(image_file)

    source = Source(workspace, FileOptions(path=tmp_path / "in", licence_basis="own"))
    photos = list(source.photos())
    if removed_after == "describing":
        assert len(photos) == 2
        return
    assert [photo.name for photo in photos] == ["a.jpg"]
    assert len(source.skipped) == 1
    assert "b.jpg" in source.skipped[0]


def test_skipped_files_are_counted_by_suffix_and_listed_in_status(tmp_path, collect, authface_here):
    folder = tmp_path / "in"
    save(folder / "a.jpg")
    save(folder / "b.JPE")
    for name in (
        "1.NEF",
        "sub/2.nef",
        "3.mov",
        "4",
        "list.csv",
        "a.jpg.json",
        ".x.nef",
        "Thumbs.db",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}" if name.endswith("json") else "x")
    for _ in range(2):
        collected, root = collect()
        assert collected.returncode == 0, collected.stderr
        assert (
            "skipped: 2 .nef, 1 .mov, 1 without suffix; RAW files are not read: export JPEG or "
            "TIFF first" in collected.stdout
        )
    status = authface_here("status", "-w", root)
    assert "Files that were skipped: 2 .nef, 1 .mov, 1 without suffix; RAW" in status.stdout
    as_json = json.loads(authface_here("status", "-w", root, "--json").stdout)
    assert as_json["skipped_files"] == {".nef": 2, ".mov": 1, "without suffix": 1}

    for path in folder.glob("**/*.[jJnN]*"):
        path.unlink()
    (folder / "only.dng").touch()
    empty, _ = collect()
    assert empty.returncode == 2
    assert "no pictures in " in empty.stderr
    assert "1 .dng" in empty.stderr
    assert "RAW files are not read" in empty.stderr
    assert "1 .dng" in authface_here("status", "-w", root).stdout


def test_many_odd_suffixes_are_summed_up():
    counts = Counter({f".{number}": 1 for number in range(30)} | {".mov": 7, ".\x1b[31m": 2})
    text = describe_skipped(counts)
    assert text.startswith("7 .mov")
    assert text.endswith("22 others")


@pytest.mark.parametrize("place", [".", "photos", "mine"])
def test_folder_in_the_workspace_is_refused(tmp_path, collect, authface_here, place):
    save(tmp_path / "in/a.jpg")
    collected, root = collect()
    assert collected.returncode == 0, collected.stderr
    save(root / "mine/b.jpg")
    for folder in (root / place, tmp_path / "link"):
        if folder.name == "link":
            folder.symlink_to(root / place)
        refused = authface_here(*collect_folder(root, folder))
        assert refused.returncode == 2
        assert "is inside the workspace" in refused.stderr
    assert len(pd.read_parquet(root / "manifests/photos")) == 1


def test_links_into_the_workspace_are_not_followed(tmp_path, collect):
    save(tmp_path / "in/a.jpg")
    collected, root = collect()
    (tmp_path / "in/stored").symlink_to(root / "photos")
    (tmp_path / "in/one.jpg").symlink_to(next((root / "photos").iterdir()))
    collected, _ = collect()
    assert collected.stdout.startswith("0 photographs collected, 1 already in the workspace")


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        list(find_image_files(tmp_path / "missing", []))
