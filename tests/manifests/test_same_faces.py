"""Decisions reach the faces that show the same picture, and no others."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests.captions import current_tags, tag_edits
from manifests.decisions import TAG_ID_PREFIX, face_decisions, record_decisions
from manifests.migrate import upgrade_table
from manifests.schema import DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.verdicts import ALL_GATES, kept_faces, verdict_row

START = datetime(2026, 1, 1, tzinfo=UTC)
LEFT = [0.0, 0.0, 100.0, 100.0]
RIGHT = [200.0, 0.0, 300.0, 100.0]
FAR_HASHES = ("0" * 16, "0f" * 8, "33" * 8, "ff" * 8)
"""Any two differ in at least 32 bits."""


def add_photo(workspace, name, faces, *, pixels=None, phash=None, size=(400, 200)):
    """Add a photograph and its faces; faces: box and perceptual hash of the crop of each."""
    photo = {"photo_id": f"fs_{name}", "pixel_hash": pixels or name * 32, "phash": phash}
    width, height = size
    Store(workspace, PHOTOS).append(
        [{**photo, "width": width, "height": height, "fingerprint": "f"}]
    )
    rows = [
        {
            "face_id": f"fs_{name}_{number}",
            "photo_id": f"fs_{name}",
            "box_px": box,
            "crop_phash": crop_phash,
            "fingerprint": "f",
        }
        for number, (box, crop_phash) in enumerate(faces)
    ]
    Store(workspace, FACES).append(rows)
    Store(workspace, VERDICTS).append(
        verdict_row("face", row["face_id"], ALL_GATES, "kept", fingerprint="f") for row in rows
    )


def decide(workspace, face_id, decision, minute=0, reviewer="anna", **columns):
    row = {"id": face_id, "reviewer": reviewer, "decision": decision, "fingerprint": ""}
    record_decisions(workspace, [{**row, **columns}], now=START + timedelta(minutes=minute))


def remove_photo(workspace, name):
    for manifest in (PHOTOS, FACES):
        Store(workspace, manifest).compact(lambda part: pc.equal(part["photo_id"], f"fs_{name}"))


def relations(workspace):
    return {
        face_id: (decision.source.relation, decision.source.bits)
        for face_id, decision in face_decisions(workspace).items()
    }


def test_equal_pixels_reach_the_overlapping_face_only(workspace):
    add_photo(workspace, "a", [(LEFT, FAR_HASHES[0]), (RIGHT, FAR_HASHES[1])], pixels="p" * 32)
    moved = [10.0, 0.0, 110.0, 105.0]
    add_photo(workspace, "b", [(moved, FAR_HASHES[2]), (RIGHT, FAR_HASHES[3])], pixels="p" * 32)
    add_photo(workspace, "c", [(LEFT, FAR_HASHES[3])])
    decide(workspace, "fs_a_0", "drop")
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_b_0": ("equal_pixels", 0)}
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_1", "fs_b_1", "fs_c_0"]


def test_crops_within_the_radius_are_reached(workspace):
    add_photo(workspace, "a", [(LEFT, "0" * 16)])
    add_photo(workspace, "b", [(RIGHT, "000000000000003f")])
    add_photo(workspace, "c", [(RIGHT, "000000000000007f")])
    add_photo(workspace, "d", [(RIGHT, None)])
    decide(workspace, "fs_a_0", "drop")
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_b_0": ("crop", 6)}


def test_drop_reaches_the_mirror_image_and_tags_do_not(workspace):
    add_photo(workspace, "a", [(LEFT, FAR_HASHES[1])])
    add_photo(workspace, "b", [(RIGHT, FAR_HASHES[2])])
    set_hashes(workspace, "fs_b_0", crop_phash_mirrored=FAR_HASHES[1])
    decide(workspace, "fs_a_0", "drop", photographic_tags=["lit from the left"])
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_b_0": ("mirrored_crop", 0)}
    assert kept_faces(workspace).empty
    decision = str(face_decisions(workspace)["fs_b_0"])
    assert decision == "drop by anna (near-duplicate of the mirrored crop, 0 bits: fs_a_0)"
    assert tag_edits(workspace)["photographic_tags"].index.tolist() == ["fs_a_0"]

    # The dropped face leaves the workspace.
    remove_photo(workspace, "a")
    assert relations(workspace)["fs_b_0"] == ("mirrored_crop", 0)


def test_fine_hashes_of_a_near_crop_must_agree(workspace):
    for name in "abc":
        add_photo(workspace, name, [(LEFT, FAR_HASHES[0])])
    set_hashes(workspace, "fs_a_0", crop_fine_hash="0" * 64)
    set_hashes(workspace, "fs_b_0", crop_fine_hash="f" * 20 + "0" * 44)
    decide(workspace, "fs_a_0", "drop")
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_c_0": ("crop", 0)}


def set_hashes(workspace, face_id, **hashes):
    rows = Store(workspace, FACES).read().to_pylist()
    (row,) = [row for row in rows if row["face_id"] == face_id]
    row.pop("created_at")
    Store(workspace, FACES).append([{**row, **hashes}])


def test_faces_at_one_place_of_near_duplicate_photographs_are_reached(workspace):
    """The copy is half as large, and its landmarks differ so much that the crop does too."""
    add_photo(workspace, "a", [(LEFT, FAR_HASHES[0]), (RIGHT, FAR_HASHES[1])], phash="0" * 16)
    half = [0.0, 0.0, 50.0, 50.0]
    add_photo(workspace, "b", [(half, FAR_HASHES[2])], phash="000000000000000f", size=(200, 100))
    add_photo(workspace, "c", [(LEFT, FAR_HASHES[3])], phash="000000000000001f")
    decide(workspace, "fs_a_0", "drop")
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_b_0": ("photo", 4)}


def test_drop_wins_over_a_later_keep_of_a_twin(workspace):
    for name in "ab":
        add_photo(workspace, name, [(LEFT, "0" * 16)], pixels="p" * 32)
    decide(workspace, "fs_a_0", "drop", 1)
    decide(workspace, "fs_b_0", "keep", 2, reviewer="ben")
    assert kept_faces(workspace).empty
    assert str(face_decisions(workspace)["fs_b_0"]) == "drop by anna (equal pixels: fs_a_0)"
    # `unsure` of the reviewer who dropped the face withdraws the drop for both.
    decide(workspace, "fs_a_0", "unsure", 3)
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_0", "fs_b_0"]


def test_keep_of_a_twin_does_not_bring_a_duplicate_in(workspace):
    for name in "ab":
        add_photo(workspace, name, [(LEFT, "0" * 16)], pixels="p" * 32)
    dropped = [
        verdict_row("face", f"fs_{name}_0", ALL_GATES, "dropped", fingerprint="g") for name in "ab"
    ]
    Store(workspace, VERDICTS).append(dropped)
    decide(workspace, "fs_a_0", "keep")
    assert kept_faces(workspace)["face_id"].tolist() == ["fs_a_0"]
    assert str(face_decisions(workspace)["fs_b_0"]) == "keep by anna (equal pixels: fs_a_0)"


@pytest.mark.parametrize(("decision", "kept"), [("drop", []), ("keep", ["fs_b_0"])])
def test_decision_outlives_the_rows_of_its_face(workspace, decision, kept):
    add_photo(workspace, "a", [(LEFT, "0" * 16)], pixels="p" * 32)
    decide(workspace, "fs_a_0", decision)
    remove_photo(workspace, "a")
    add_photo(workspace, "b", [(LEFT, FAR_HASHES[1])], pixels="p" * 32)
    add_photo(workspace, "c", [(LEFT, "0000000000000001")])
    dropped = [
        verdict_row("face", f"fs_{name}_0", ALL_GATES, "dropped", fingerprint="g") for name in "bc"
    ]
    Store(workspace, VERDICTS).append(dropped)
    assert kept_faces(workspace)["face_id"].tolist() == kept
    # A later decision about a copy corrects the one about the face that has left.
    decide(workspace, "fs_c_0", "keep" if decision == "drop" else "drop", 1)
    assert ("fs_c_0" in set(kept_faces(workspace)["face_id"])) == (decision == "drop")


def test_edited_tags_hold_for_a_twin_that_has_none(workspace):
    for name in "abc":
        add_photo(workspace, name, [(LEFT, "0" * 16)], pixels="p" * 32)
    decide(workspace, "fs_b_0", None, 0, semantic_tags=["boy"])
    decide(workspace, "fs_a_0", None, 1, semantic_tags=["man"], photographic_tags=["soft light"])
    tags = current_tags(workspace)
    assert tags["fs_a_0"] == (["man"], ["soft light"])
    assert tags["fs_b_0"] == (["boy"], ["soft light"])
    assert tags["fs_c_0"] == (["man"], ["soft light"])


def test_older_decisions_take_the_hashes_of_the_present_faces(workspace):
    """Decisions of version 3 have a photograph and a box, but no hashes."""
    for name in "ab":
        add_photo(workspace, name, [(LEFT, "0" * 16)], pixels="p" * 32)
    old_schema = pa.schema(
        [field for field in DECISIONS.schema if field.name not in ("pixel_hash", "crop_phash")],
        {"authface.version": "3"},
    )
    row = {"id": "fs_a_0", "reviewer": "r", "decision": "drop", "decided_at": START}
    old = pa.Table.from_pylist([{**row, "photo_id": "fs_a", "box_px": LEFT}], schema=old_schema)
    upgraded = upgrade_table(old, DECISIONS)
    path = workspace.local_path("manifests/decisions/part-00000001-00000000.parquet")
    path.parent.mkdir(exist_ok=True)
    pq.write_table(upgraded, path)
    assert relations(workspace) == {"fs_a_0": ("own", 0), "fs_b_0": ("equal_pixels", 0)}


def test_later_record_is_newer_whatever_the_clock_says(workspace, caplog):
    add_photo(workspace, "a", [(LEFT, "0" * 16)])
    decide(workspace, "fs_a_0", "drop", 10)
    decide(workspace, "fs_a_0", "keep", 10)
    assert not caplog.records, "the clock stood still; it did not run backwards"
    decide(workspace, f"{TAG_ID_PREFIX}hat", "drop", 1)
    assert "Check the clock" in caplog.text
    times = Store(workspace, DECISIONS).read_pandas(["decided_at"])["decided_at"].tolist()
    start = START + timedelta(minutes=10)
    assert times == [start + timedelta(microseconds=n) for n in range(3)]
    assert face_decisions(workspace)["fs_a_0"].decision == "keep"
