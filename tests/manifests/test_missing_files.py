"""Rows whose files are gone: they are found, named, and the command that repairs is given."""

import hashlib
import os

import captioned_workspace
import pandas as pd
import pyarrow.compute as pc
import pytest
from captioned_workspace import face_id

from authface_data.captions.export import export_dataset
from authface_data.report.page import write_report
from authface_data.review.faces import faces_to_review
from authface_data.review.sheet import render_page
from authface_train.data.crops import load_crop
from authface_train.training.setup import load_rows
from manifests.missing_files import (
    find_missing_files,
    name_some,
    remove_unlisted_photos,
    require_crops,
)
from manifests.schema import FACES, PHOTOS
from manifests.store import Store
from manifests.support.errors import UserError


@pytest.fixture
def captioned(workspace, tmp_path):
    """Three faces with crops; of their photographs a and b are files and c is a link."""
    captioned_workspace.fill(workspace)
    original = tmp_path / "original.jpg"
    original.write_bytes(b"c")
    paths = {name: f"photos/fs_{name}.jpg" for name in "abc"}
    workspace.write_bytes(paths["a"], b"a")
    workspace.write_bytes(paths["b"], b"b")
    workspace.link(paths["c"], str(original), hard=False)
    photos = Store(workspace, PHOTOS)
    rows = [{**row, "path": paths[row["photo_id"][-1]]} for row in photos.read().to_pylist()]
    photos.append(rows)
    faces = Store(workspace, FACES)
    boxes = {
        f"{name}_box_crop_px": [2.0, 2.0, 6.0, 6.0] for name in ("left_eye", "right_eye", "mouth")
    }
    crop = {"crop_sha256": "5f", "crop_size_px": 16, **boxes}
    faces.append([{**row, **crop} for row in faces.read().to_pylist()])
    return workspace


def crop_paths(workspace):
    faces = Store(workspace, FACES).read(["face_id", "crop_path"]).to_pylist()
    return {row["face_id"]: row["crop_path"] for row in faces}


def test_nothing_is_missing_in_a_whole_workspace(captioned):
    found = find_missing_files(captioned)
    assert (found.photo_ids, found.broken_links, found.face_ids) == ([], [], [])
    require_crops(captioned, crop_paths(captioned))


def test_missing_photos_broken_links_and_crops_are_found(captioned, tmp_path):
    captioned.remove("photos/fs_a.jpg")
    os.remove(tmp_path / "original.jpg")
    captioned.remove(f"faces/{face_id('b')}.png")
    found = find_missing_files(captioned)
    assert found.photo_ids == ["fs_a", "fs_c"]
    assert found.broken_links == ["fs_c"]
    assert found.face_ids == [face_id("b")]


def test_missing_folder_of_crops(captioned):
    for path in crop_paths(captioned).values():
        captioned.remove(path)
    captioned.local_path("faces").rmdir()
    with pytest.raises(UserError, match=r"crops of 3 faces are missing \(fs_a_1, fs_b_1, fs_c_1\)"):
        require_crops(captioned, crop_paths(captioned))


def test_command_depends_on_whether_the_photograph_is_there(captioned, tmp_path):
    captioned.remove(f"faces/{face_id('c')}.png")
    with pytest.raises(UserError, match="run `authface filter` to make them again"):
        require_crops(captioned, crop_paths(captioned))
    os.remove(tmp_path / "original.jpg")  # the photograph is a link to it
    with pytest.raises(UserError, match=r"1 of their photographs \(fs_c\); offer .*collect`"):
        require_crops(captioned, crop_paths(captioned))


def test_face_that_a_person_dropped_needs_no_crop(captioned, tmp_path, authface_here):
    """This is the way out if an original is lost for good."""
    captioned.remove(f"faces/{face_id('b')}.png")
    table = tmp_path / "drops.csv"
    exported = authface_here("review", "export", "--csv", table, "-w", captioned.root)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert "Warning: the crops of 1 face are missing (fs_b_1)" in exported.stdout
    rows = pd.read_csv(table, dtype=str)
    rows.loc[rows["id"] == face_id("b"), "decision"] = "drop"
    rows.to_csv(table, index=False)
    imported = authface_here(
        "review", "import", table, "--reviewer", "anna", "--yes", "-w", captioned.root
    )
    assert imported.returncode == 0, imported.stdout + imported.stderr
    output = tmp_path / "export"
    assert sum(export_dataset(captioned, output, "kohya").values()) == 2
    assert len(load_rows(captioned, "both", allow_unknown_licence=False).all) == 2
    assert b"fs_b_1" not in render_page(captioned, faces_to_review(captioned))


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_damaged_crop_is_named(captioned, content):
    path = f"faces/{face_id('a')}.png"
    whole = captioned.read_bytes(path)
    assert (load_crop(captioned, path, 16) == (255, 0, 0)).all()
    for damaged in (content, whole[: len(whole) // 2]):
        captioned.write_bytes(path, damaged)
        with pytest.raises(UserError, match=rf"{path} cannot be read .*run `authface filter`"):
            load_crop(captioned, path, 16)
    captioned.remove(path)
    with pytest.raises(UserError, match=rf"{path} is missing; run `authface filter`"):
        load_crop(captioned, path, 16)


def test_files_whose_rows_were_lost_are_kept(captioned):
    """A damaged part of `photos` was removed; the files may be the only copies."""
    content = b"d"
    lost = captioned.photo_path("fs_a", hashlib.sha256(content).hexdigest(), ".jpg")
    left_by_a_kill = captioned.photo_path("fs_d", hashlib.sha256(content).hexdigest(), ".jpg")
    for path in (lost, left_by_a_kill):
        captioned.write_bytes(path, content)
    Store(captioned, PHOTOS).compact(drop=lambda part: pc.equal(part["photo_id"], "fs_a"))
    remove_unlisted_photos(captioned)
    assert captioned.exists(lost)
    assert not captioned.exists(left_by_a_kill)


def test_photographs_without_rows_are_named(captioned, tmp_path, authface_here):
    for path in Store(captioned, PHOTOS).parts():
        captioned.remove(path)
    export = ["export-captions", "--format", "jsonl", "--output", tmp_path / "export"]
    for command in (["report"], ["caption"], export, [*export, "--allow-unknown-licence"]):
        completed = authface_here(*command, "-w", captioned.root)
        assert completed.returncode == 2, completed.stdout + completed.stderr
        assert "no row in the manifest photos for 3 photographs of faces" in completed.stderr
        assert "(fs_a, fs_b, fs_c); offer them again with `authface collect`" in completed.stderr


def test_ids_are_named_in_order_and_counted():
    assert name_some({"b", "a"}) == "a, b"
    assert name_some([f"f{number}" for number in range(9, 0, -1)]) == "f1, f2, f3 and 6 more"


def test_commands_that_need_crops_name_the_missing_ones(captioned, tmp_path):
    captioned.remove(f"faces/{face_id('b')}.png")
    message = r"crops of 1 face are missing \(fs_b_1\); run `authface filter`"
    output = tmp_path / "new" / "export"
    with pytest.raises(UserError, match=message):
        export_dataset(captioned, output, "kohya")
    assert not output.exists()
    with pytest.raises(UserError, match=message):
        load_rows(captioned, "both", allow_unknown_licence=False)
    with pytest.raises(UserError, match=message):
        write_report(captioned)
    assert captioned.list_names("reports") == []


def test_review_and_caption_commands_name_the_missing_crops(captioned, authface_here):
    captioned.remove(f"faces/{face_id('a')}.png")
    for command in (
        ["review", "sheet"],
        ["caption", "--captioner", "measured"],
    ):
        completed = authface_here(*command, "-w", captioned.root)
        assert completed.returncode == 2, completed.stdout + completed.stderr
        assert "crops of 1 face are missing (fs_a_1)" in completed.stderr
        assert "authface filter" in completed.stderr
    assert captioned.list_names("reports") == []
