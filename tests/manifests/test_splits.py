"""Splits: shares, groups that stay together, and pinned people."""

import hashlib
import re
import unicodedata

import numpy as np
import pandas as pd
import pytest

from manifests.settings import Splits
from manifests.splits import GROUP_COLUMNS, assign_splits, explain_empty_val, hash_share
from manifests.support.errors import UserError


def test_hash_share_is_the_start_of_the_sha256():
    digest = hashlib.sha256(b"0:fs_a").digest()
    assert hash_share("0:fs_a") == int.from_bytes(digest[:8], "big") / 2**64
    shares = [hash_share(str(number)) for number in range(2000)]
    assert 0 <= min(shares) < max(shares) < 1
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)


def photos_frame(count, **columns):
    """Rows of `photos`; columns that are not given are empty."""
    frame = pd.DataFrame({"photo_id": [f"us_{number}" for number in range(count)]})
    for name in GROUP_COLUMNS:
        frame[name] = columns.get(name, [None] * count)
    return frame


def test_groups_are_never_divided_and_row_order_does_not_matter():
    rng = np.random.default_rng(0)
    count = 3000
    photographers = np.where(rng.random(count) < 0.7, rng.integers(700, size=count), -1)
    people = np.where(rng.random(count) < 0.2, rng.integers(400, size=count), -1)
    frame = photos_frame(
        count,
        sha256=[f"hash {number}" for number in range(count)],
        photographer_name=[None if number < 0 else f"p{number}" for number in photographers],
        person=[None if number < 0 else f"x{number}" for number in people],
    )
    settings = Splits(val=0.2, test=0.2)
    split = assign_splits(frame, settings)["split"]
    for column in ("photographer_name", "person"):
        known = frame.dropna(subset=[column])
        splits_of_group = split[known["photo_id"]].groupby(known[column].to_numpy()).nunique()
        assert (splits_of_group == 1).all()
    shuffled = frame.sample(frac=1, random_state=1)
    assert assign_splits(shuffled, settings)["split"].sort_index().equals(split.sort_index())


def test_shares_are_met_and_depend_on_the_seed():
    frame = photos_frame(20000)
    split = assign_splits(frame, Splits(val=0.1, test=0.05))["split"]
    shares = split.value_counts(normalize=True)
    assert shares["val"] == pytest.approx(0.1, abs=0.01)
    assert shares["test"] == pytest.approx(0.05, abs=0.01)
    other_seed = assign_splits(frame, Splits(val=0.1, test=0.05, seed=1))
    assert not split.equals(other_seed["split"])


def test_pinned_person_determines_the_split_of_the_group():
    frame = photos_frame(
        6,
        person=["x", None, "y", None, None, "z"],
        photographer_name=["p", "p", None, None, "q", "q"],
    )
    pins = Splits(val=0.0, test=0.0, people={"x": "test", "z": "val"})
    split = assign_splits(frame, pins)["split"]
    assert split.tolist() == ["test", "test", "train", "train", "val", "val"]
    with pytest.raises(UserError, match="pins x to test and y to val"):
        assign_splits(frame.assign(photographer_name="p"), Splits(people={"x": "test", "y": "val"}))


@pytest.mark.parametrize(
    ("name", "advice"),
    [("Anna Smit", "; did you mean Anna Smith?"), ("Zed", "; correct the name in authface.toml")],
)
def test_pinned_person_whom_no_photograph_shows_is_refused(name, advice):
    frame = photos_frame(2, person=["Anna Smith", None])
    message = f"splits.people pins {name!r}, but no photograph has this person{advice}"
    with pytest.raises(UserError, match=re.escape(message)):
        assign_splits(frame, Splits(people={name: "test"}))


def test_pinned_person_matches_in_any_unicode_form_and_case():
    decomposed = unicodedata.normalize("NFD", "José")
    frame = photos_frame(2, person=[decomposed, "ANNA"])
    pins = Splits(val=0.0, people={"José": "test", "Anna": "train"})
    assert assign_splits(frame, pins)["split"].tolist() == ["test", "train"]


@pytest.mark.parametrize("seed", range(5))
def test_train_is_filled_first(seed):
    """With one group, or if no used photograph is in train, a group moves from val to train."""
    settings = Splits(val=0.9, seed=seed)
    one_photographer = photos_frame(5, photographer_name=["p"] * 5)
    assert set(assign_splits(one_photographer, settings)["split"]) == {"train"}
    frame = photos_frame(40)
    before = assign_splits(frame, settings)["split"]
    used = before.index[before == "val"][:3]
    after = assign_splits(frame, settings, used_photo_ids=used)["split"]
    assert (after[used] == "train").sum() == 1
    assert after.drop(used).equals(before.drop(used))
    pinned = photos_frame(2, person=["x", "y"])
    all_pinned = Splits(people={"x": "val", "y": "test"})
    assert assign_splits(pinned, all_pinned)["split"].tolist() == ["val", "test"]


def view_frame(frame, settings):
    splits = assign_splits(frame, settings)
    return frame.assign(split=splits["split"].tolist(), split_group=splits["group"].tolist())


def test_empty_val_is_explained():
    settings = Splits(val=0.05)
    view = view_frame(photos_frame(5, photographer_name=["Ann"] * 5), settings)
    reason = explain_empty_val(view, settings)
    assert "all 5 kept faces are in one group, photographs by Ann, and" in reason
    view = view_frame(photos_frame(2, person=["Ben", "Ben"]), settings)
    assert "photographs of Ben" in explain_empty_val(view, settings)
    settings = Splits(val=0.001)
    view = view_frame(photos_frame(3), settings)
    assert "splits.seed = 0, none of the 3 groups" in explain_empty_val(view, settings)
    assert explain_empty_val(view, Splits(val=0.0)) is None
    half = Splits(val=0.5)
    assert explain_empty_val(view_frame(photos_frame(40), half), half) is None


def test_similar_photos_stay_together_through_a_chain_of_near_duplicates():
    """The outer hashes differ in 6 bits, but each differs in 3 bits from the middle one."""
    hashes = ["0000000000000000", "0000000000000007", "000000000000003f", "ffffffffffffffff"]
    frame = photos_frame(4, phash=hashes, person=["x", None, None, None])
    pins = Splits(val=0.0, test=0.0, people={"x": "test"})
    split = assign_splits(frame, pins, radius=3)["split"]
    assert split.tolist() == ["test", "test", "test", "train"]
    split = assign_splits(frame, pins, radius=2)["split"]
    assert split.tolist() == ["test", "train", "train", "train"]


def test_no_photos_give_no_splits():
    assert assign_splits(photos_frame(0), Splits()).empty
