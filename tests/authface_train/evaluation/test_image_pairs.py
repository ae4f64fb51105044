"""Finding, matching and reading pictures."""

import os

import numpy as np
import pytest
from PIL import Image

from authface_train.evaluation.image_pairs import find_pictures, match_pictures, read_picture
from manifests.support.errors import UserError


def make_pictures(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def test_flat_folder_is_matched_with_sub_folders(tmp_path):
    flat = find_pictures(make_pictures(tmp_path / "flat", "a.png", "b.jpg", "c.png"))
    nested = find_pictures(make_pictures(tmp_path / "nested", "x/a.png", "y/b.png", "y/d.png"))
    assert list(nested) == ["x/a", "y/b", "y/d"]

    matched = match_pictures(flat, nested)
    names = {name: (first.name, second.name) for name, (first, second) in matched.pairs.items()}
    assert names == {"x/a": ("a.png", "a.png"), "y/b": ("b.jpg", "b.png")}
    assert (matched.only_first, matched.only_second) == (["c"], ["y/d"])

    similar = find_pictures(make_pictures(tmp_path / "similar", "x/a.jpg", "z/b.png"))
    matched = match_pictures(nested, similar)
    assert list(matched.pairs) == ["x/a", "z/b"]
    assert (matched.only_first, matched.only_second) == (["y/d"], [])


def test_full_names_are_matched_before_stems(tmp_path):
    first = find_pictures(make_pictures(tmp_path / "first", "x.png", "sub/x.png"))
    second = find_pictures(make_pictures(tmp_path / "second", "x.png", "other/x.png"))
    pairs = match_pictures(first, second).pairs
    assert pairs["x"] == (first["x"], second["x"])
    assert pairs["other/x"] == (first["sub/x"], second["other/x"])


def test_duplicate_names_are_refused_and_ambiguous_stems_not_matched(tmp_path):
    with pytest.raises(UserError, match=r"two pictures .* are named a"):
        find_pictures(make_pictures(tmp_path / "duplicate", "a.png", "a.jpg"))
    ambiguous = find_pictures(make_pictures(tmp_path / "ambiguous", "x/a.png", "y/a.png"))
    single = find_pictures(make_pictures(tmp_path / "single", "a.png"))
    assert match_pictures(ambiguous, single).pairs == {}
    with pytest.raises(UserError, match="no pictures"):
        find_pictures(make_pictures(tmp_path / "empty", "a.tga"))


def test_name_that_is_not_utf8_is_refused(tmp_path):
    make_pictures(tmp_path / "in", os.fsdecode(b"a\xff.png"))
    with pytest.raises(UserError, match="not UTF-8; rename"):
        find_pictures(tmp_path / "in")


def test_by_products_of_restore_are_left_out(tmp_path):
    folder = make_pictures(tmp_path / "out", "a.png", "strip.jpg", "certainty/a-0.png")
    assert list(find_pictures(folder)) == ["a", "certainty/a-0", "strip"]
    (folder / "restored.parquet").touch()
    assert list(find_pictures(folder)) == ["a"]


def test_conversions_are_described(tmp_path):
    values = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((values / 257).astype(np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "transparent.png")

    deep, deep_conversions = read_picture(tmp_path / "deep.png")
    grey, grey_conversions = read_picture(tmp_path / "grey.png")
    assert deep.shape == grey.shape == (8, 8, 3)
    assert np.abs(deep.astype(int) - grey).max() <= 1
    assert deep_conversions == ["16 bits reduced to 8", "grey expanded to RGB"]
    assert grey_conversions == ["grey expanded to RGB"]

    white, conversions = read_picture(tmp_path / "transparent.png")
    assert (white == 255).all()
    assert conversions == ["alpha composited over white"]
