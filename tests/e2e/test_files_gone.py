"""Files of a workspace that a person or a kill removed or left: commands repair or name them."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import collect_folder, init_workspace
from PIL import Image


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three small pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "green"), ("c", "blue")):
        Image.new("RGB", (64, 48), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def root(tmp_path, folder, authface_here) -> Path:
    """A workspace with the pictures of `folder`."""
    root = tmp_path / "ws"
    for command in (init_workspace(root), collect_folder(root, folder)):
        assert authface_here(*command).returncode == 0
    return root


def list_pictures(root, name):
    return sorted(os.listdir(root / name))


def test_photograph_without_a_file_is_collected_again(root, folder, authface_here):
    names = list_pictures(root, "photos")
    before = pd.read_parquet(root / "manifests/photos")
    (root / "photos" / names[1]).unlink()
    completed = authface_here(*collect_folder(root, folder))
    assert completed.returncode == 0, completed.stderr
    assert "files of 1 photos are missing in photos/; they are made again" in completed.stderr
    assert "1 photograph collected, 2 already in the workspace" in completed.stdout
    assert list_pictures(root, "photos") == names
    after = pd.read_parquet(root / "manifests/photos")
    columns = ["photo_id", "path", "sha256"]
    assert sorted(after[columns].itertuples(index=False)) == sorted(
        before[columns].itertuples(index=False)
    )
    again = authface_here(*collect_folder(root, folder))
    assert "0 photographs collected, 3 already in the workspace" in again.stdout
    assert "missing" not in again.stderr


def test_files_of_a_killed_collection_and_of_a_person(root, folder, authface_here):
    """A killed run leaves files without rows; a person puts files into the workspace."""
    names = list_pictures(root, "photos")
    shutil.rmtree(root / "manifests/photos")  # killed after all files and before the first row
    (root / ".tmp").mkdir(exist_ok=True)
    (root / "photos/IMG-20240101.jpg").write_bytes(b"of a person")
    (root / "photos/holiday").mkdir()
    completed = authface_here(*collect_folder(root, folder))
    assert completed.returncode == 0, completed.stderr
    assert "3 photographs collected, 0 already in the workspace" in completed.stdout
    assert "2 files in" in completed.stderr
    assert "are not from authface (IMG-20240101.jpg, ...)" in completed.stderr
    assert list_pictures(root, "photos") == sorted([*names, "IMG-20240101.jpg", "holiday"])
    assert (root / "photos/IMG-20240101.jpg").read_bytes() == b"of a person"
    assert len(pd.read_parquet(root / "manifests/photos")) == 3

    # A picture that is no longer in the folder has a file and no row: the next run removes it.
    shutil.rmtree(root / "manifests/photos")
    (folder / "c.png").unlink()
    assert authface_here(*collect_folder(root, folder)).returncode == 0
    rows = pd.read_parquet(root / "manifests/photos")
    pictures = [name for name in list_pictures(root, "photos") if name.startswith("fs_")]
    assert sorted(rows["path"]) == [f"photos/{name}" for name in pictures]
    assert len(rows) == 2


@pytest.mark.slow
def test_crops_are_made_again_once_their_photograph_is_there(
    filled, tmp_path, photos, authface_here
):
    root = tmp_path / "ws"
    shutil.copytree(filled, root, symlinks=True)
    filter_faces = ["filter", "-w", root]
    names = list_pictures(root, "faces")
    faces = pd.read_parquet(root / "manifests/faces")
    scores = pd.read_parquet(root / "manifests/scores")
    verdicts = pd.read_parquet(root / "manifests/verdicts")
    is_kept = (verdicts["gate"] == "all_gates") & (verdicts["verdict"] == "kept")
    lost = faces[faces["face_id"].isin(verdicts[is_kept]["id"])].iloc[0]
    (root / lost["crop_path"]).unlink()
    report = authface_here("report", "-w", root)
    assert report.returncode == 2
    assert f"crops of 1 face are missing ({lost['face_id']})" in report.stderr

    # The photograph is lost too: its row stays, and `status` says why the crop is not there.
    path = root / pd.read_parquet(root / "manifests/photos").set_index("photo_id")["path"].get(
        lost["photo_id"]
    )
    path.rename(tmp_path / path.name)
    failed = authface_here(*filter_faces)
    assert failed.returncode == 4, failed.stdout + failed.stderr
    assert "No such file or directory" in authface_here("status", "-w", root).stdout
    assert len(pd.read_parquet(root / "manifests/faces")) == len(faces)
    report = authface_here("report", "-w", root)
    assert f"1 of their photographs ({lost['photo_id']})" in report.stderr

    (tmp_path / path.name).rename(path)
    repaired = authface_here(*filter_faces)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert list_pictures(root, "faces") == names
    columns = ["face_id", "metric", "value", "created_at"]
    after = pd.read_parquet(root / "manifests/scores")[columns].sort_values(columns[:2])
    assert after.reset_index(drop=True).equals(
        scores[columns].sort_values(columns[:2]).reset_index(drop=True)
    )
    assert authface_here("report", "-w", root).returncode == 0
