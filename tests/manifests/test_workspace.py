"""Finding and creating workspaces, their paths and files."""

import logging
import os
import pickle
import re
from hashlib import sha256

import pytest

from manifests.settings import preset_text
from manifests.support.errors import UserError
from manifests.workspace import Workspace


def test_find_prefers_option_then_environment_then_parent(tmp_path, monkeypatch):
    for name in ("option", "environment", "parent"):
        Workspace.create(tmp_path / name, preset_text("embedded"))
    deep_folder = tmp_path / "parent" / "photos" / "x"
    deep_folder.mkdir(parents=True)
    monkeypatch.chdir(deep_folder)
    monkeypatch.delenv("AUTHFACE_WORKSPACE", raising=False)
    assert Workspace.find(None).root == str(tmp_path / "parent")
    monkeypatch.setenv("AUTHFACE_WORKSPACE", str(tmp_path / "environment"))
    assert Workspace.find(None).root == str(tmp_path / "environment")
    assert Workspace.find(tmp_path / "option").root == str(tmp_path / "option")


def test_missing_workspace_names_init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTHFACE_WORKSPACE", raising=False)
    with pytest.raises(UserError, match="authface init"):
        Workspace.find(None)
    with pytest.raises(UserError, match="authface init"):
        Workspace.find(tmp_path)


def test_create_refuses_an_existing_workspace(workspace):
    with pytest.raises(UserError, match="is a workspace already"):
        Workspace.create(workspace.root, preset_text("paper"))


def test_ids_that_differ_by_case_have_different_files():
    lower = Workspace.photo_path("us_abc", "5f", ".jpg")
    upper = Workspace.photo_path("us_ABC", "5f", ".jpg")
    assert lower.lower() != upper.lower()
    assert lower.startswith("photos/us_abc-")


@pytest.mark.parametrize("length", [16, 200, 201, 5000])
def test_names_of_pictures_fit_every_file_system(workspace, length):
    ids = ["a" * length, "a" * (length - 1) + "b"]
    paths = {
        make(id, "5f", ".jpeg")
        for id in ids
        for make in (Workspace.photo_path, Workspace.crop_path)
    }
    assert len(paths) == 4
    for path in paths:
        assert len(path.rsplit("/", 1)[-1]) < 230
        workspace.write_bytes(path, b"x")


def write_picture(workspace, folder, picture_id, content):
    """Write a file as a command does. Returns its path."""
    make_path = Workspace.photo_path if folder == "photos" else Workspace.crop_path
    path = make_path(picture_id, sha256(content).hexdigest(), ".png")
    workspace.write_bytes(path, content)
    return path


@pytest.mark.parametrize("folder", ["photos", "faces"])
def test_only_own_files_are_removed_from_the_folders_of_pictures(workspace, folder, caplog):
    listed = write_picture(workspace, folder, "fs_1", b"listed")
    left_by_a_kill = write_picture(workspace, folder, "fs_2", b"left")
    long_id = write_picture(workspace, folder, "afhq_" + "x" * 300, b"long")
    link = f"{folder}/fs_3-01234567.jpg"
    workspace.link(link, "/nonexistent/original.jpg", hard=False)
    # A photograph named by date, one with a name like ours but other content, and a folder.
    foreign = ["IMG-20230101.jpg", "us_trip-20230101.jpg", "mine"]
    for name in foreign[:2]:
        workspace.write_bytes(f"{folder}/{name}", b"mine")
    workspace.write_bytes(f"{folder}/mine/a.jpg", b"mine")
    workspace.write_bytes(f"{folder}/.DS_Store", b"")
    workspace.write_bytes(f"{folder}/Thumbs.db", b"")

    with caplog.at_level(logging.WARNING):
        workspace.remove_unlisted(folder, {listed})
    assert workspace.list_names(folder) == sorted(
        [*foreign, ".DS_Store", "Thumbs.db", listed.rsplit("/", 1)[-1]]
    )
    for path in (left_by_a_kill, long_id, link):
        assert not os.path.lexists(workspace.local_path(path))
    assert re.search(
        r"3 files in \S+ are not from authface \(IMG-20230101.jpg, \.\.\.\)", caplog.text
    )


def test_create_exclusive_and_remove_if_same(workspace):
    assert workspace.create_exclusive("x", b"1")
    assert not workspace.create_exclusive("x", b"2")
    workspace.remove_if_same("x", b"other")
    assert workspace.read_bytes("x") == b"1"
    workspace.remove_if_same("x", b"1")
    assert not workspace.exists("x")


@pytest.mark.parametrize(
    ("settings", "weights_dir"),
    [
        ('weights_dir = "w"', "{root}/w"),
        ('weights_dir = "/data/w"', "/data/w"),
        ("", None),
    ],
)
def test_relative_weights_dir_starts_at_the_workspace(tmp_path, settings, weights_dir):
    expected = weights_dir and weights_dir.format(root=tmp_path)
    assert Workspace.create(tmp_path, settings).weights_dir == expected


def test_workspace_is_picklable(workspace):
    assert pickle.loads(pickle.dumps(workspace)).root == workspace.root


@pytest.mark.parametrize("settings", [b"a = " + b"[" * 3000, b"\0", b"x" * 2_000_000, b"a = \xff"])
def test_damaged_settings_are_one_line_with_their_path(workspace, settings):
    workspace.write_bytes("authface.toml", settings)
    with pytest.raises(UserError, match=r"ws/authface\.toml is not valid TOML: ") as error:
        _ = Workspace(workspace.root).settings
    assert str(error.value).isprintable()


def test_walk_lists_every_file_but_those_being_written(workspace, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.jpg").touch()
    workspace.local_path("photos").rmdir()
    workspace.local_path("photos").symlink_to(disk)
    workspace.write_bytes("cache/b/c", b"12")
    workspace.write_bytes(".tmp/elsewhere.1.abc", b"")
    workspace._temp_path().touch()
    assert {"photos/a.jpg", "cache/b/c", ".tmp/elsewhere.1.abc", "authface.toml"} == set(
        workspace.walk()
    )
    assert workspace.size("cache/b/c") == 2


def test_replace_if_same(workspace):
    workspace.write_bytes("x", b"1")
    assert not workspace.replace_if_same("x", b"2", b"3")
    assert not workspace.replace_if_same("missing", b"2", b"3")
    assert workspace.replace_if_same("x", b"1", b"3")
    assert workspace.read_bytes("x") == b"3"
