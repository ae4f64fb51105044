"""Photographs that are links (`--files reference`), when their originals move, vanish or change."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import collect_folder, init_workspace
from PIL import Image

NAMES = ("anna/1.png", "anna/2.png", "3.png")


class Linked:
    """A workspace whose photographs are links to files on a drive."""

    def __init__(self, folder: Path, authface_here) -> None:
        self.root = folder / "ws"
        self.drive = folder / "drive"
        self.authface = authface_here
        for number, name in enumerate(NAMES):
            path = self.drive / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 16), (number * 40, 9, 9)).save(path)
        assert authface_here(*init_workspace(self.root)).returncode == 0
        assert self.collect(self.drive).returncode == 0

    def collect(self, folder: Path, *options: object):
        return self.authface(*collect_folder(self.root, folder, "--files", "reference", *options))

    def refresh(self):
        return self.authface("collect", "-w", self.root, "--source", "folder", "--refresh")

    def photos(self) -> pd.DataFrame:
        return pd.read_parquet(self.root / "manifests/photos").set_index("photo_id")

    def targets(self) -> list[str]:
        return sorted(os.readlink(self.root / path) for path in self.photos()["path"])

    def lost(self) -> dict[str, str]:
        verdicts = pd.read_parquet(self.root / "manifests/verdicts")
        verdicts = verdicts[verdicts["gate"] == "collect:refresh"]
        return dict(zip(verdicts["id"], verdicts["reason"], strict=True))


@pytest.fixture
def linked(tmp_path, authface_here) -> Linked:
    return Linked(tmp_path, authface_here)


def test_links_into_a_moved_folder_are_repaired(linked, tmp_path):
    before = linked.photos()
    moved = tmp_path / "moved"
    linked.drive.rename(moved)
    (moved / "anna/2.png").rename(moved / "anna/renamed.png")
    os.utime(moved / "3.png", (1, 1))

    command = ("collect", "-w", linked.root, "--source", "folder", "--files", "reference")
    collected = linked.authface(*command, "--path", moved)
    assert collected.returncode == 0, collected.stderr
    assert "3 links repaired" in collected.stdout
    assert collected.stdout.startswith("0 photographs collected, 3 already in the workspace")
    assert "forget" not in collected.stdout + collected.stderr
    expected = sorted(str(moved / name) for name in ("anna/1.png", "anna/renamed.png", "3.png"))
    assert linked.targets() == expected
    assert set(linked.photos().index) == set(before.index)
    assert not linked.lost()

    repeated = linked.collect(moved)
    assert repeated.stdout.startswith("0 photographs collected, 3 already in the workspace")
    assert "repaired" not in repeated.stdout


@pytest.mark.parametrize("leaves_mount_point", [False, True])
def test_unplugged_drive_is_no_reason_to_forget(linked, tmp_path, leaves_mount_point):
    away = tmp_path / "away"
    linked.drive.rename(away)
    if leaves_mount_point:
        linked.drive.mkdir()
    for result in (linked.collect(linked.drive), linked.refresh()):
        assert result.returncode == 4
        assert "originals of 3 linked photographs are missing" in result.stderr
        assert "is a drive unplugged, or was the folder moved?" in result.stderr
        assert "--source folder --path NEW_FOLDER --files reference" in result.stderr
        assert "forget" not in result.stdout + result.stderr
        assert "\n" not in result.stderr.strip()
    assert len(linked.photos()) == 3
    assert len(linked.lost()) == 3

    if leaves_mount_point:
        linked.drive.rmdir()
    away.rename(linked.drive)
    assert linked.refresh().returncode == 0
    assert not linked.lost()


def test_other_folder_repairs_nothing_and_reports_the_missing_originals(linked, tmp_path):
    linked.drive.rename(tmp_path / "away")
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (9, 9)).save(other / "4.png")
    collected = linked.collect(other)
    assert collected.returncode == 4
    assert collected.stdout.startswith("1 photograph collected")
    assert "originals of 3 linked photographs are missing" in collected.stderr


def test_changed_original_is_collected_and_its_earlier_photograph_reported(linked):
    earlier = set(linked.photos().index)
    changed = linked.drive / "3.png"
    Image.new("RGB", (20, 16), (1, 2, 3)).save(changed)
    collected = linked.collect(linked.drive)
    assert collected.returncode == 0, collected.stderr
    assert "originals of 1 linked photographs have changed" in collected.stdout
    assert "forget" not in collected.stdout
    assert len(set(linked.photos().index) - earlier) == 1
    assert list(linked.lost().values()) == ["its original has changed since it was collected"]


def test_equal_content_keeps_two_photographs_apart(linked):
    shutil.copy(linked.drive / "3.png", linked.drive / "copy.png")
    assert linked.collect(linked.drive).stdout.startswith("1 photograph collected, 3 already")
    (linked.drive / "3.png").unlink()
    collected = linked.collect(linked.drive)
    assert "1 links repaired" in collected.stdout
    assert len(linked.photos()) == 4
    assert linked.targets().count(str(linked.drive / "copy.png")) == 2
