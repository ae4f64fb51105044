"""Splits of the small experiments: no person is in two of them."""

import numpy as np
import pandas as pd

from authface_data.sources.orl_faces import MEMBERS, read_pgm
from authface_train.reproduce.orl_faces import orl_person
from authface_train.reproduce.small_data import SPLIT_FILE, _assign_groups


def test_recorded_split_keeps_people_and_photographs_together():
    split = pd.read_csv(SPLIT_FILE)
    assert split.groupby("person")["split"].nunique().max() == 1
    assert split.groupby("file")["split"].nunique().max() == 1
    num_people = split.groupby("split")["person"].nunique()
    assert num_people.to_dict() == {"test": 11, "train": 27, "val": 4}


def test_added_photograph_joins_the_split_of_its_group():
    rows = pd.DataFrame(
        {"group": ["a", "a", "b", "c", "c"], "split": ["train", None, None, "test", "train"]},
    )
    splits = _assign_groups(rows)
    assert splits["a"] == "train"
    assert splits["c"] == "test", "a group of two splits must not be trained on"
    assert splits["b"] in ("train", "val", "test")


def test_pictures_of_an_orl_person_are_in_one_split():
    people = [orl_person(name) for name in MEMBERS.values()]
    assert len(people) == 159
    assert len(set(people)) == 40, "one split per person"
    splits = pd.Series([split for _, split in set(people)]).value_counts()
    assert splits.to_dict() == {"train": 28, "test": 10, "val": 2}
    assert orl_person("lenna.png") is None


def test_orl_picture_with_converted_line_ends_is_repaired():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = b"P5\n4 3\n255\n" + pixels.tobytes()
    assert np.array_equal(read_pgm(data), pixels)
    converted = data.replace(b"\n", b"\r\n")
    assert len(converted) == len(data) + 4, "the pixel of value 10 too"
    assert np.array_equal(read_pgm(converted), pixels)
