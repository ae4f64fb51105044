"""Finding a workspace, and its paths."""

import pickle

import pytest

from manifests.settings import preset_text
from manifests.support.errors import UserError
from manifests.workspace import Workspace


def test_option_then_environment_then_nearest_parent(tmp_path, monkeypatch):
    for name in ("option", "environment", "parent"):
        Workspace.create(tmp_path / name, preset_text("embedded"))
    deep = tmp_path / "parent" / "photos" / "x"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv("AUTHFACE_WORKSPACE", raising=False)
    assert Workspace.find(None).root == str(tmp_path / "parent")
    monkeypatch.setenv("AUTHFACE_WORKSPACE", str(tmp_path / "environment"))
    assert Workspace.find(None).root == str(tmp_path / "environment")
    assert Workspace.find(tmp_path / "option").root == str(tmp_path / "option")


def test_no_workspace_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTHFACE_WORKSPACE", raising=False)
    with pytest.raises(UserError, match="authface init"):
        Workspace.find(None)
    with pytest.raises(UserError, match="authface init"):
        Workspace.find(tmp_path)


def test_a_second_init_is_refused(workspace):
    with pytest.raises(UserError, match="is a workspace already"):
        Workspace.create(workspace.root, preset_text("paper"))


def test_ids_that_differ_by_case_get_different_files():
    lower, upper = (Workspace.photo_path(photo, "5f", ".jpg") for photo in ("us_abc", "us_ABC"))
    assert lower.lower() != upper.lower()
    assert lower.startswith("photos/us_abc-")


def test_exclusive_creation_and_conditional_removal(workspace):
    assert workspace.create_exclusive("x", b"1")
    assert not workspace.create_exclusive("x", b"2")
    workspace.remove_if_same("x", b"other")
    assert workspace.read_bytes("x") == b"1"
    workspace.remove_if_same("x", b"1")
    assert not workspace.exists("x")


def test_a_relative_weights_dir_begins_at_the_workspace(tmp_path):
    for text, expected in (
        ('weights_dir = "w"', str(tmp_path / "a" / "w")),
        ('weights_dir = "/data/w"', "/data/w"),
        ("", None),
    ):
        ws = Workspace.create(tmp_path / "a", text)
        assert ws.weights_dir == expected
        (tmp_path / "a" / "authface.toml").unlink()


def test_a_workspace_goes_to_worker_processes(workspace):
    assert pickle.loads(pickle.dumps(workspace)).root == workspace.root
