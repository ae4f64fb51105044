"""The training view: kept faces, their captions and licence bases."""

from datetime import UTC, datetime

import pyarrow.compute as pc
import pytest

from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.verdicts import ALL_GATES, kept_faces, verdict_row


def fill(workspace, basis="own"):
    """Write three faces: a and c are kept, b is dropped; a has captions of two captioners."""
    photos = [
        {"photo_id": f"fs_{name}", "sha256": name, "licence_basis": basis, "fingerprint": "f"}
        for name in "abc"
    ]
    faces = [
        {"face_id": f"fs_{name}_1", "photo_id": f"fs_{name}", "fingerprint": "f"} for name in "abc"
    ]
    verdicts = [
        verdict_row("face", f"fs_{name}_1", ALL_GATES, verdict, fingerprint="f")
        for name, verdict in (("a", "kept"), ("b", "dropped"), ("c", "kept"))
    ]
    captions = [
        caption_row("fs_a_1", "llava", ["man", "hat"], ["front view"]),
        caption_row("fs_a_1", "measured", [], ["close-up"]),
        caption_row("fs_c_1", "measured", [], ["low-key"]),
    ]
    Store(workspace, PHOTOS).append(photos)
    Store(workspace, FACES).append(faces)
    Store(workspace, VERDICTS).append(verdicts)
    Store(workspace, CAPTIONS).append(captions)


def caption_row(face_id, captioner, semantic_tags, photographic_tags):
    return {
        "face_id": face_id,
        "captioner": captioner,
        "semantic_tags": semantic_tags,
        "photographic_tags": photographic_tags,
        "caption": ", ".join([*semantic_tags, *photographic_tags]),
        "fingerprint": "f",
    }


def decide(workspace, face_id, decision, minute, **columns):
    decided_at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    row = {"id": face_id, "reviewer": "r", "decision": decision, "decided_at": decided_at}
    Store(workspace, DECISIONS).append([{**row, **columns}])


def test_view_has_kept_faces_with_the_preferred_caption(workspace):
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
def test_captions_have_the_chosen_tag_families(workspace, tags, captions):
    fill(workspace)
    assert training_view(workspace, tags)["caption"].tolist() == captions


def test_decisions_overrule_gates(workspace):
    fill(workspace)
    decide(workspace, "fs_b_1", "keep", 1)
    decide(workspace, "fs_a_1", "drop", 1)
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_b_1", "fs_c_1"]
    decide(workspace, "fs_a_1", "keep", 2)
    # `unsure` of another reviewer leaves the earlier `keep` in force.
    decide(workspace, "fs_b_1", "unsure", 2, reviewer="another")
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_1", "fs_b_1", "fs_c_1"]
    # `unsure` of the same reviewer withdraws it.
    decide(workspace, "fs_b_1", "unsure", 3)
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_1", "fs_c_1"]


def test_edited_tags_replace_those_of_the_captioner(workspace):
    fill(workspace)
    decide(workspace, "fs_a_1", "keep", 1, semantic_tags=["woman"])
    view = training_view(workspace).set_index("face_id")
    assert view.loc["fs_a_1", "caption"] == "woman, front view"


def test_edited_tags_are_a_caption_without_a_captioner(workspace):
    fill(workspace)
    Store(workspace, CAPTIONS).compact(lambda part: pc.equal(part["face_id"], "fs_a_1"))
    decide(workspace, "fs_a_1", "keep", 1, semantic_tags=["a man", "hat"])
    row = training_view(workspace).set_index("face_id").loc["fs_a_1"]
    assert (row["captioner"], row["caption"]) == ("person", "a man, hat")


def test_ungated_face_is_not_in_the_view(workspace):
    fill(workspace)
    Store(workspace, FACES).append([{"face_id": "fs_a_2", "photo_id": "fs_a", "fingerprint": "f"}])
    assert "fs_a_2" not in set(training_view(workspace)["face_id"])


@pytest.mark.parametrize("basis", [None, "", "  "])
def test_missing_licence_basis_is_refused_unless_allowed(workspace, basis):
    fill(workspace, basis)
    with pytest.raises(UserError, match="--allow-unknown-licence"):
        training_view(workspace)
    assert len(training_view(workspace, allow_unknown_licence=True)) == 2
