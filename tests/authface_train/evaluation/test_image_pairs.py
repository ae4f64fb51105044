"""Finding, matching and reading pictures."""

import os
from pathlib import Path

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


def test_names_that_differ_in_their_suffix_alone_are_kept_apart(tmp_path):
    names = ("a.png", "a.jpg", "b.png")
    clean = find_pictures(make_pictures(tmp_path / "clean", *names))
    assert list(clean) == ["a.jpg", "a.png", "b"]
    # `authface restore` names the results of aligned faces like this.
    restored = find_pictures(make_pictures(tmp_path / "out", "a.png.png", "a.jpg.png", "b.png"))
    pairs = match_pictures(restored, clean).pairs
    assert {name: path.name for name, (path, _) in pairs.items()} == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "b": "b.png",
    }

    single = find_pictures(make_pictures(tmp_path / "single", "a.png"))
    matched = match_pictures(clean, single)
    assert matched.pairs == {}
    assert matched.ambiguous == ["a.jpg and a.png could match a: not matched; rename them"]


def test_ambiguous_stems_are_named(tmp_path):
    ambiguous = find_pictures(make_pictures(tmp_path / "ambiguous", "x/a.png", "y/a.png"))
    single = find_pictures(make_pictures(tmp_path / "single", "a.png"))
    matched = match_pictures(ambiguous, single)
    assert matched.pairs == {}
    assert (matched.only_first, matched.only_second) == ([], [])
    assert matched.ambiguous == ["x/a and y/a could match a: not matched; rename them"]
    with pytest.raises(UserError, match="no pictures"):
        find_pictures(make_pictures(tmp_path / "empty", "a.tga"))


def match_names(first, second, suffix=None):
    """Names of the matched pictures: second to first; and the result of `match_pictures`."""
    matched = match_pictures(
        {name: Path(name) for name in first}, {name: Path(name) for name in second}, suffix
    )
    return {name: str(path) for name, (path, _) in matched.pairs.items()}, matched


def test_names_of_other_tools_are_matched(tmp_path):
    restored = ["a_restored", "b_00", "sub/c_restored", "d", "d_00", "e_sr", "img_01_00"]
    clean = ["a", "b", "c", "d", "e", "img_01", "img_02"]
    pairs, matched = match_names(restored, clean)
    assert pairs == {
        "a": "a_restored",
        "b": "b_00",
        "c": "sub/c_restored",
        "d": "d",
        "img_01": "img_01_00",
    }
    assert matched.only_first == ["d_00", "e_sr"]
    assert matched.only_second == ["e", "img_02"]
    assert match_names(restored, clean, "_sr")[0]["e"] == "e_sr"
    assert match_names(["a_00"], ["a_restored"])[0] == {"a_restored": "a_00"}


def test_several_faces_of_a_picture_are_ambiguous():
    pairs, matched = match_names(["a_00", "a_01", "b_00", "b_restored"], ["a", "b"])
    assert pairs == {}
    assert matched.ambiguous == [
        "a_00 and a_01 could match a: not matched; rename them",
        "b_00 and b_restored could match b: not matched; rename them",
    ]
    many = [f"a_{number:02d}" for number in range(9)]
    assert "a_03 and 5 more could match a" in match_names(many, ["a"])[1].ambiguous[0]


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
