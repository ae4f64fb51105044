"""Which pictures belong together, and how each is read."""

import numpy as np
import pytest
from PIL import Image

from authface_train.evaluation.image_pairs import matched, pictures_by_name, read
from manifests.support.errors import UserError


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def test_flat_folders_and_sub_folders(tmp_path):
    flat = pictures_by_name(put(tmp_path / "flat", "a.png", "b.jpg", "c.png"))
    deep = pictures_by_name(put(tmp_path / "deep", "x/a.png", "y/b.png", "y/d.png"))
    assert list(deep) == ["x/a", "y/b", "y/d"]
    found = matched(flat, deep)
    assert {name: (one.name, other.name) for name, (one, other) in found.pairs.items()} == {
        "x/a": ("a.png", "a.png"),
        "y/b": ("b.jpg", "b.png"),
    }
    assert (found.alone, found.partnerless) == (["c"], ["y/d"])
    same = matched(deep, pictures_by_name(put(tmp_path / "same", "x/a.jpg", "z/b.png")))
    assert list(same.pairs) == ["x/a", "z/b"]
    assert (same.alone, same.partnerless) == (["y/d"], [])


def test_a_bare_name_takes_nothing_from_an_exact_one(tmp_path):
    one = pictures_by_name(put(tmp_path / "one", "x.png", "sub/x.png"))
    other = pictures_by_name(put(tmp_path / "other", "x.png", "else/x.png"))
    pairs = matched(one, other).pairs
    assert pairs["x"] == (one["x"], other["x"])
    assert pairs["else/x"] == (one["sub/x"], other["else/x"])


def test_a_name_that_is_there_twice(tmp_path):
    with pytest.raises(UserError, match=r"two pictures .* are named a"):
        pictures_by_name(put(tmp_path / "twice", "a.png", "a.jpg"))
    twins = pictures_by_name(put(tmp_path / "twins", "x/a.png", "y/a.png"))
    assert (
        matched(twins, pictures_by_name(put(tmp_path / "one", "a.png"))).pairs == {}
    )  # which of them it is, nobody knows
    with pytest.raises(UserError, match="no pictures"):
        pictures_by_name(put(tmp_path / "none", "a.gif"))


def test_what_restore_leaves_beside_its_results_is_none(tmp_path):
    folder = put(tmp_path / "out", "a.png", "strip.jpg", "certainty/a-0.png")
    assert list(pictures_by_name(folder)) == ["a", "certainty/a-0", "strip"]
    (folder / "restored.parquet").touch()
    assert list(pictures_by_name(folder)) == ["a"]


def test_every_kind_of_picture_is_read_and_says_what_was_done(tmp_path):
    values = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((values / 257).astype(np.uint8)).save(tmp_path / "grey.png")
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    deep, of_deep = read(tmp_path / "deep.png")
    grey, of_grey = read(tmp_path / "grey.png")
    assert deep.shape == grey.shape == (8, 8, 3)
    assert np.abs(deep.astype(int) - grey).max() <= 1
    assert of_deep == ["16 bits, brought to 8", "grey, taken as RGB"]
    assert of_grey == ["grey, taken as RGB"]
    white, of_clear = read(tmp_path / "clear.png")
    assert (white == 255).all()
    assert of_clear == ["alpha, laid over white"]
