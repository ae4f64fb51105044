"""Splits of the small experiments: no person is in two of them."""

import pandas as pd

from authface_train.reproduce import orl_faces
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
    people = [orl_faces.orl_person(name) for name in orl_faces.MEMBERS.values()]
    assert len(people) == 160
    assert len(set(people)) == 40, "one split per person"
    splits = pd.Series([split for _, split in set(people)]).value_counts()
    assert splits.to_dict() == {"train": 28, "test": 10, "val": 2}
    assert orl_faces.orl_person("lenna.png") is None
