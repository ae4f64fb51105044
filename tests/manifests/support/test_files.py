"""Atomic file writes."""

import json

import pytest

from manifests.support.files import atomic_path, write_atomic, write_json


def test_write_creates_folder_and_replaces_file(tmp_path):
    path = tmp_path / "new" / "notes.txt"
    write_atomic(path, "first")
    write_atomic(path, "zwölf")
    assert path.read_bytes() == "zwölf".encode()
    assert [file.name for file in path.parent.iterdir()] == ["notes.txt"]


def test_exception_keeps_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_temporary_path_keeps_suffix_and_folder(tmp_path):
    with atomic_path(tmp_path / "picture.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"pixels")
    assert (tmp_path / "picture.png").read_bytes() == b"pixels"


def test_json_round_trips(tmp_path):
    value = {"stage": "prior", "steps": [1, 2]}
    write_json(tmp_path / "run.json", value)
    assert json.loads((tmp_path / "run.json").read_text()) == value
