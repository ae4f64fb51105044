"""The training view as a query, and the splits under it."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.settings import Splits
from manifests.splits import assign_splits
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.verdicts import ALL_GATES, kept_faces, verdict_row


def fill(workspace, basis="own"):
    """Three faces: a kept, b dropped, c kept; a has two captioners."""
    Store(workspace, PHOTOS).append(
        [
            {"photo_id": f"fs_{x}", "sha256": x, "licence_basis": basis, "fingerprint": "f"}
            for x in "abc"
        ]
    )
    Store(workspace, FACES).append(
        [{"face_id": f"fs_{x}_1", "photo_id": f"fs_{x}", "fingerprint": "f"} for x in "abc"]
    )
    verdict = {"a": "kept", "b": "dropped", "c": "kept"}
    Store(workspace, VERDICTS).append(
        [verdict_row("face", f"fs_{x}_1", ALL_GATES, verdict[x], fingerprint="f") for x in "abc"]
    )
    Store(workspace, CAPTIONS).append(
        [
            {
                "face_id": "fs_a_1", "captioner": "llava", "caption": "man, hat, front view", "semantic_tags": ["man", "hat"],
                "photographic_tags": ["front view"], "fingerprint": "f",
            },
            {
                "face_id": "fs_a_1", "captioner": "measured", "caption": "close-up", "measured_tags": ["close-up"],
                "photographic_tags": ["close-up"], "semantic_tags": [], "fingerprint": "f",
            },
            {
                "face_id": "fs_c_1", "captioner": "measured", "caption": "low-key", "measured_tags": ["low-key"],
                "photographic_tags": ["low-key"], "semantic_tags": [], "fingerprint": "f",
            },
        ]
    )  # fmt: skip


def decide(workspace, face, decision, minute, **more):
    at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    Store(workspace, DECISIONS).append(
        [{"id": face, "reviewer": "r", "decision": decision, "decided_at": at, **more}]
    )


def test_kept_by_gates_one_caption_per_face_first_in_use(workspace):
    fill(workspace)
    view = training_view(workspace)
    assert view["face_id"].tolist() == ["fs_a_1", "fs_c_1"]
    assert view["captioner"].tolist() == ["llava", "measured"]
    assert view["caption"].tolist() == ["man, hat, front view", "low-key"]
    assert set(view["split"]) <= {"train", "val", "test"}
    assert view["licence_basis"].tolist() == ["own", "own"]


@pytest.mark.parametrize(
    ("tags", "captions"),
    [
        ("none", ["", ""]),
        ("semantic", ["man, hat", ""]),
        ("photographic", ["front view", "low-key"]),
    ],
)
def test_tag_families(workspace, tags, captions):
    fill(workspace)
    assert training_view(workspace, tags)["caption"].tolist() == captions


def test_a_person_has_the_last_word(workspace):
    fill(workspace)
    decide(workspace, "fs_b_1", "keep", 1)
    decide(workspace, "fs_a_1", "drop", 1)
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_b_1", "fs_c_1"]
    decide(workspace, "fs_a_1", "keep", 2)
    decide(
        workspace, "fs_b_1", "unsure", 2, reviewer="another"
    )  # decides nothing: the keep before it stands
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_1", "fs_b_1", "fs_c_1"]
    decide(workspace, "fs_b_1", "unsure", 3)  # of the same person: it takes that back
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_1", "fs_c_1"]


def test_edited_tags_make_the_caption(workspace):
    fill(workspace)
    decide(workspace, "fs_a_1", "keep", 1, semantic_tags=["woman"])
    view = training_view(workspace).set_index("face_id")
    assert view.loc["fs_a_1", "caption"] == "woman, front view"


def test_tags_of_a_person_are_a_caption_where_there_is_none(workspace):
    fill(workspace)
    Store(workspace, CAPTIONS).compact(lambda part: pc.equal(part["face_id"], "fs_a_1"))
    decide(workspace, "fs_a_1", "keep", 1, semantic_tags=["a man", "hat"])
    row = training_view(workspace).set_index("face_id").loc["fs_a_1"]
    assert (row["captioner"], row["caption"]) == ("person", "a man, hat")


def test_a_face_that_was_not_judged_is_not_in_the_set(workspace):
    fill(workspace)
    Store(workspace, FACES).append([{"face_id": "fs_a_2", "photo_id": "fs_a", "fingerprint": "f"}])
    assert "fs_a_2" not in set(training_view(workspace)["face_id"])


@pytest.mark.parametrize("basis", [None, "", "  "])
def test_no_licence_basis_is_refused_unless_allowed(workspace, basis):
    fill(workspace, basis)
    with pytest.raises(UserError, match="--allow-unknown-licence"):
        training_view(workspace)
    assert len(training_view(workspace, allow_unknown_licence=True)) == 2


def photos_frame(count, **columns):
    frame = pd.DataFrame({"photo_id": [f"us_{n}" for n in range(count)]})
    for name in ("sha256", "phash", "photographer_name", "person"):
        frame[name] = columns.get(name, [None] * count)
    return frame


def test_groups_are_never_divided_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    frame = photos_frame(
        3000,
        sha256=[f"s{n}" for n in range(3000)],
        photographer_name=[
            f"p{rng.integers(700)}" if rng.uniform() < 0.7 else None for _ in range(3000)
        ],
        person=[f"x{rng.integers(400)}" if rng.uniform() < 0.2 else None for _ in range(3000)],
    )
    settings = Splits(val=0.2, test=0.2)
    split = assign_splits(frame, settings)
    for column in ("photographer_name", "person"):
        known = frame.dropna(subset=[column])
        assert (split[known["photo_id"]].groupby(known[column].to_numpy()).nunique() == 1).all()
    shuffled = frame.sample(frac=1, random_state=1)
    assert assign_splits(shuffled, settings).sort_index().equals(split.sort_index())


def test_shares_are_met_and_the_seed_matters():
    frame = photos_frame(20000)
    split = assign_splits(frame, Splits(val=0.1, test=0.05))
    shares = split.value_counts(normalize=True)
    assert shares["val"] == pytest.approx(0.1, abs=0.01)
    assert shares["test"] == pytest.approx(0.05, abs=0.01)
    assert not split.equals(assign_splits(frame, Splits(val=0.1, test=0.05, seed=1)))


def test_a_pinned_person_brings_the_whole_group_to_a_split():
    frame = photos_frame(
        6, person=["x", None, "y", None, None, "z"], photographer_name=["p", "p", None, None, "q", "q"]
    )  # fmt: skip
    pins = Splits(val=0.0, test=0.0, people={"x": "test", "z": "val"})
    assert assign_splits(frame, pins).tolist() == ["test", "test", "train", "train", "val", "val"]
    with pytest.raises(UserError, match="pins x to test and y to val"):
        assign_splits(frame.assign(photographer_name="p"), Splits(people={"x": "test", "y": "val"}))
