"""Sets of aligned faces: pictures that cannot be aligned are rejected with a reason."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from commands import collect_files, init_workspace
from PIL import Image

from authface_data.sources.authface_hq import AuthfaceHqSource
from authface_data.sources.ffhq import FfhqSource
from authface_data.sources.file_source import FileOptions
from manifests.support.errors import UserError


def aligned_landmarks(side_px: int) -> np.ndarray:
    """68 points whose quad is the whole picture."""
    points = np.full((68, 2), 0.5)
    points[36:42] = (0.378, 0.478)
    points[42:48] = (0.622, 0.478)
    points[48:68] = (0.5, 0.7)
    points[48], points[54] = (0.4, 0.7), (0.6, 0.7)
    return points * side_px - 0.5


def write_set(folder, sizes, entries=None):
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number, 9, 9)).save(folder / f"{number:05d}.png")
    if entries is not None:
        (folder / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    return folder


def rejections(source) -> dict[str, str | None]:
    return {photo.name: photo.rejection for photo in source.photos()}


def test_pictures_of_wrong_shape_are_dropped_with_a_reason(tmp_path, authface_here):
    sizes = [(256, 256), (256, 256), (300, 200), (64, 64), (512, 512)]
    folder = write_set(tmp_path / "set", sizes)
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    for _ in range(2):
        collected = authface_here(*collect_files("ffhq", root, folder))
        assert collected.returncode == 0, collected.stderr
        note = "3 pictures not aligned as in this set (first: 00002.png: not_square: 300 x 200"
        assert note in collected.stdout
        assert "--source folder takes photographs of any shape" in collected.stdout
    assert collected.stdout.startswith("0 photographs collected")

    photos = pd.read_parquet(root / "manifests/photos")
    assert set(photos["photo_id"]) == {"ffhq_00000", "ffhq_00001"}
    verdicts = pd.read_parquet(root / "manifests/verdicts").set_index("id")["reason"]
    assert verdicts["ffhq_00002"] == "not_square: 300 x 200 px"
    assert verdicts["ffhq_00003"] == "too_small: 64 px, at least 128 are needed"
    assert verdicts["ffhq_00004"] == "other_size: 512 px, most pictures of the set have 256"
    status = authface_here("status", "-w", root).stdout
    assert "not square, in a set of aligned faces" in status


def test_authface_hq_may_have_several_sizes(tmp_path, workspace):
    folder = write_set(tmp_path / "set", [(256, 256), (512, 512), (300, 200)])
    reasons = rejections(AuthfaceHqSource(workspace, FileOptions(path=folder)))
    assert list(reasons.values()) == [None, None, "not_square: 300 x 200 px"]


@pytest.mark.parametrize(
    ("landmarks", "is_aligned"),
    [
        (aligned_landmarks(1024), True),
        (aligned_landmarks(1024) + 40, True),
        (aligned_landmarks(1024) + 300, False),
        (aligned_landmarks(1024) / 2, False),
        (aligned_landmarks(1024)[:, ::-1], False),
        (np.zeros((68, 2)), False),
    ],
)
def test_known_landmarks_must_be_where_ffhq_puts_them(tmp_path, workspace, landmarks, is_aligned):
    entry = {
        "metadata": {"license": "Public Domain Mark"},
        "image": {"pixel_size": [1024, 1024], "face_landmarks": landmarks.tolist()},
    }
    folder = write_set(tmp_path / "set", [(128, 128)], {"0": entry})
    reason = rejections(FfhqSource(workspace, FileOptions(path=folder)))["00000.png"]
    assert (reason is None) == is_aligned
    assert is_aligned or reason.startswith("not_aligned: ")


@pytest.mark.parametrize(
    "image",
    [
        {"face_landmarks": [[1, 2]]},
        {"face_landmarks": [[10**400, 0]] * 68},
        {"face_landmarks": [[0, 0]] * 68, "pixel_size": 3},
        {"face_landmarks": 3},
        [],
    ],
)
def test_malformed_entry_costs_only_its_metadata(tmp_path, workspace, image):
    entries = {"0": {"metadata": {}, "image": image}}
    source = FfhqSource(
        workspace, FileOptions(path=write_set(tmp_path / "set", [(128, 128)], entries))
    )
    assert rejections(source) == {"00000.png": None}
    assert len(source.skipped) == 1
    assert "entry 0 is malformed" in source.skipped[0]


def test_unreadable_metadata_of_the_set_is_one_line(tmp_path, workspace):
    folder = write_set(tmp_path / "set", [(128, 128)])
    (folder / "ffhq-dataset-v2.json").write_bytes(b"[" * 200_000)
    with pytest.raises(UserError, match="cannot be read as JSON") as error:
        rejections(FfhqSource(workspace, FileOptions(path=folder)))
    assert "\n" not in str(error.value)


def test_deeply_nested_caption_is_skipped(tmp_path, workspace):
    folder = write_set(tmp_path / "set", [(128, 128)])
    for depth in (900, 100_000):
        (folder / "00000_qwen.json").write_text("[" * depth + '"red hair"' + "]" * depth)
        source = AuthfaceHqSource(workspace, FileOptions(path=folder))
        assert rejections(source) == {"00000.png": None}
        assert len(source.skipped) <= 1


def test_other_picture_under_the_same_name_is_stale(tmp_path, authface_here):
    """Two sets whose pictures have the same names, sizes and times do not hide each other."""
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    for name, colour in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "00000.bmp"
        Image.new("RGB", (128, 128), (colour, 9, 9)).save(path)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    assert authface_here(*collect_files("ffhq", root, tmp_path / "a")).returncode == 0
    other = authface_here(*collect_files("ffhq", root, tmp_path / "b"))
    assert other.returncode == 2
    assert "--yes" in other.stderr
