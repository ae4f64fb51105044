"""The table out and in again, as spreadsheets and people leave it."""

import csv
import io
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from authface_data import gates
from authface_data.review import import_table as importing
from authface_data.review.faces import faces_to_review
from authface_data.review.follow_faces import follow_faces
from authface_data.review.table import SAID, harmless, meant, to_csv
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

SIZE = Gate(name="size", metric="qsize_px", op=">=", threshold=300)


@pytest.fixture
def reviewed(workspace):
    """Four faces, two of which the gate drops, captioned by `measured`."""
    workspace.settings.gates[:] = [SIZE]
    for number, size in enumerate((500.0, 310.0, 290.0, 100.0)):
        face, photo = f"fs_{number}_a", f"fs_{number}"
        said = {"description": "=cmd|' /C calc'!A0", "licence_basis": "own"}
        Store(workspace, PHOTOS).append([{"photo_id": photo, **said, "fingerprint": "f"}])
        workspace.write_bytes(f"faces/{face}.png", b"")
        Store(workspace, FACES).append(
            [
                {
                    "face_id": face, "photo_id": photo, "box_px": [0.0, 0.0, 100.0, 100.0], "qsize_px": size,
                    "fingerprint": "f", "crop_path": f"faces/{face}.png", "crop_sha256": f"{number}" * 64, "crop_size_px": 512,
                    **{f"{name}_box_crop_px": [0.0, 0.0, 9.0, 9.0] for name in ("left_eye", "right_eye", "mouth")},
                }
            ]
        )  # fmt: skip
        tags = {
            "photographic_tags": ["front view", "soft light"],
            "measured_tags": [],
            "caption": "front view, soft light",
        }
        Store(workspace, CAPTIONS).append(
            [{"face_id": face, "captioner": "measured", **tags, "fingerprint": "f"}]
        )
    gates.decide(workspace, [SIZE])
    return workspace


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def written(rows, delimiter=",", encoding="utf-8-sig", end="\r\n") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding)


def filled(workspace, **answers) -> list[dict[str, str]]:
    """Rows of a fresh table, with fields filled in for some faces, by the number of the face."""
    rows = rows_of(to_csv(faces_to_review(workspace)))
    for row in rows:
        row.update(answers.get(f"face{row['id'][3]}", {}))
    return rows


def take_in(workspace, data, reviewer="anna"):
    reading = importing.read_table(workspace, data, reviewer)
    importing.record(workspace, reading.said, datetime.now(UTC))
    return reading


def test_it_is_safe_in_a_spreadsheet(reviewed):
    data = to_csv(faces_to_review(reviewed))
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\r\n") == 5
    rows = rows_of(data)
    assert tuple(rows[0])[: len(SAID)] == SAID
    assert [row["photo"] for row in rows] == ["'=cmd|' /C calc'!A0"] * 4
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert all(not row["id"][0].isdigit() for row in rows)


@pytest.mark.parametrize(
    "text", ["=1+1", "+4", "-x", "@me", "'quoted'", "'=x", "plain", "", "a = b"]
)
def test_what_was_made_harmless_is_meant_as_before(text):
    assert meant(harmless(text)) == text


def test_the_worst_come_first(reviewed):
    assert [row["id"] for row in rows_of(to_csv(faces_to_review(reviewed)))] == [
        "fs_3_a",
        "fs_2_a",
        "fs_1_a",
        "fs_0_a",
    ]
    near = faces_to_review(reviewed, near_threshold=2)
    assert {face.id for face in near} == {"fs_1_a", "fs_2_a"}
    drawn = faces_to_review(reviewed, sample=2)
    assert len(drawn) == 2
    assert [face.id for face in drawn] == [face.id for face in faces_to_review(reviewed, sample=2)]


def test_people_have_the_last_word(reviewed):
    rows = filled(
        reviewed,
        face0={"decision": "drop", "reason": "tattoo"},
        face2={"decision": "Keep", "rating": "5"},
    )
    reading = take_in(reviewed, written(rows))
    assert (len(reading.said), reading.known, reading.silent) == (2, 0, 2)
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_a", "fs_2_a"]
    stored = Store(reviewed, DECISIONS).read_pandas().set_index("id")
    assert stored.loc["fs_0_a", ["reviewer", "decision", "reason", "photo_id"]].tolist() == [
        "anna",
        "drop",
        "tattoo",
        "fs_0",
    ]
    assert stored.loc["fs_2_a", "rating"] == 5


def test_importing_twice_is_importing_once(reviewed):
    data = written(
        filled(
            reviewed,
            face0={"decision": "drop"},
            face1={"photographic_tags": "front view, hard light"},
        )
    )
    take_in(reviewed, data)
    again = take_in(reviewed, data)
    assert (len(again.said), again.known) == (
        0,
        1,
    )  # edited tags are the face's own by now: nothing is said of that face
    assert Store(reviewed, DECISIONS).read().num_rows == 2


def test_edited_tags_are_the_captions_of_training(reviewed):
    take_in(
        reviewed,
        written(
            filled(reviewed, face1={"photographic_tags": " front view ,  hard light, front view"})
        ),
    )
    captions = training_view(reviewed).set_index("face_id")["caption"]
    assert captions["fs_1_a"] == "front view, hard light"
    assert captions["fs_0_a"] == "front view, soft light"


@pytest.mark.parametrize(
    ("delimiter", "encoding", "end"),
    [
        (";", "utf-8", "\r\n"),
        ("\t", "utf-16", "\n"),
        (",", "cp1252", "\r\n"),
        (";", "utf-8-sig", "\n"),
    ],
)
def test_as_spreadsheets_save_it(reviewed, delimiter, encoding, end):
    rows = filled(reviewed, face0={"decision": "drop", "note": 'zu weich, "glatt"; geschönt'})
    take_in(reviewed, written(rows, delimiter, encoding, end))
    assert Store(reviewed, DECISIONS).read_pandas()["note"].tolist() == [
        'zu weich, "glatt"; geschönt'
    ]


def test_all_or_nothing_and_every_mistake_by_line_and_column(reviewed):
    rows = filled(
        reviewed, face0={"decision": "maybe"}, face1={"decision": "keep"}, face2={"rating": "9"},
        face3={"decision": "drop", "state": "c00000000-t00000000-ffffffffffffffff"},
    )  # fmt: skip
    rows.append({**rows[0], "id": "fs_9_a", "decision": "keep", "rating": ""})
    with pytest.raises(UserError) as caught:
        take_in(reviewed, written(rows))
    said = str(caught.value)
    assert "line 3, column rating: '9' is not 1 to 5" in said
    assert (
        "line 2, column state: 'c00000000-t00000000-ffffffffffffffff' was written by no export"
        in said
    )
    assert "line 5, column decision: 'maybe' is none of keep, drop, unsure" in said
    assert "line 6, column id: there is no face 'fs_9_a' here" in said
    assert Store(reviewed, DECISIONS).read().num_rows == 0


def test_who_says_so_must_be_known(reviewed):
    with pytest.raises(UserError, match="column reviewer: whose decision"):
        take_in(reviewed, written(filled(reviewed, face0={"decision": "drop"})), reviewer="")


def test_a_row_that_changed_since_is_refused(reviewed):
    old = filled(reviewed, face0={"decision": "drop"})
    changed = {**Store(reviewed, FACES).read().to_pylist()[0], "crop_sha256": "f" * 64}
    Store(reviewed, FACES).append(
        [{name: value for name, value in changed.items() if name != "created_at"}]
    )
    with pytest.raises(
        UserError, match="line 5, column state: the picture of fs_0_a changed since"
    ):
        take_in(reviewed, written(old))


def test_a_reviewer_may_think_again_in_the_same_table(reviewed):
    """Change one's mind, add a note, take an edit of tags back: the table that was imported may be corrected."""
    rows = filled(reviewed, face0={"decision": "drop"}, face1={"photographic_tags": "wrong"})
    take_in(reviewed, written(rows))
    for row in rows:
        row.update(
            {
                "fs_0_a": {"decision": "keep", "note": "no, fine"},
                "fs_2_a": {"decision": "keep"},
            }.get(row["id"], {})
        )
        if row["id"] == "fs_1_a":
            row["photographic_tags"] = "front view, soft light"
    reading = take_in(reviewed, written(rows))
    assert {one.id for one in reading.said} == {"fs_0_a", "fs_1_a", "fs_2_a"}
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_0_a", "fs_1_a", "fs_2_a"]
    assert (
        training_view(reviewed).set_index("face_id")["caption"]["fs_1_a"]
        == "front view, soft light"
    )


def test_unsure_takes_ones_own_word_back_and_nobody_elses(reviewed):
    take_in(
        reviewed,
        written(filled(reviewed, face0={"decision": "drop"}, face3={"decision": "keep"})),
        reviewer="anna",
    )
    take_in(
        reviewed,
        written(filled(reviewed, face0={"decision": "unsure"}, face3={"decision": "unsure"})),
        reviewer="ben",
    )
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_a", "fs_3_a"]
    take_in(
        reviewed,
        written(filled(reviewed, face0={"decision": "unsure"}, face3={"decision": "unsure"})),
        reviewer="anna",
    )
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_0_a", "fs_1_a"]


@pytest.mark.parametrize("rating", ["0", "6", "12", "12345", "1.5"])
def test_ratings_are_one_to_five(reviewed, rating):
    with pytest.raises(UserError, match="is not 1 to 5"):
        take_in(reviewed, written(filled(reviewed, face0={"rating": rating})))


def test_another_encoding_changes_no_tags(reviewed):
    take_in(reviewed, written(filled(reviewed, face0={"photographic_tags": "café, 髪"})))
    rows = filled(reviewed, face0={"decision": "keep"})
    out = written(rows, encoding="utf-8").decode().encode("cp1252", "replace")
    assert [one.photographic_tags for one in take_in(reviewed, out).said] == [None]
    mac = (
        written(filled(reviewed, face0={"decision": "drop"}), encoding="utf-8")
        .decode()
        .encode("mac_roman", "replace")
    )
    with pytest.raises(UserError, match="not in UTF-8"):
        take_in(reviewed, mac)


def test_excels_own_first_line_and_a_name_with_spaces(reviewed):
    data = b"sep=;\r\n" + written(
        filled(reviewed, face0={"decision": "drop"}), delimiter=";", encoding="utf-8"
    )
    take_in(reviewed, data, reviewer=" anna  b ")
    assert Store(reviewed, DECISIONS).read_pandas()["reviewer"].tolist() == ["anna b"]


@pytest.mark.parametrize("text", ["x;=HYPERLINK(1)", "a\n=1+1", " =1", "＝1", "a;b", "'; '=x"])
def test_a_formula_in_the_middle_is_harmless_too(text):
    assert meant(harmless(text)) == text
    assert ";=" not in harmless(text)
    assert not harmless(text).strip().startswith(("=", "＝"))


def test_a_later_word_of_the_same_person_is_not_taken_back_by_an_older_table(reviewed):
    old = written(filled(reviewed, face0={"decision": "keep"}))
    take_in(reviewed, written(filled(reviewed, face0={"decision": "drop"})))
    with pytest.raises(UserError, match="anna's decision on fs_0_a changed since"):
        take_in(reviewed, old)
    take_in(reviewed, old, reviewer="ben")  # another person's view of the same faces is welcome


def test_two_people_cannot_edit_the_same_tags_unseen(reviewed):
    mine = written(filled(reviewed, face0={"photographic_tags": "hard light"}))
    theirs = written(filled(reviewed, face0={"photographic_tags": "side light"}))
    only_decides = written(filled(reviewed, face0={"decision": "keep"}))
    take_in(reviewed, mine)
    with pytest.raises(UserError, match="the tags of fs_0_a changed since"):
        take_in(reviewed, theirs, reviewer="ben")
    take_in(reviewed, only_decides, reviewer="ben")  # and leaves the tags as they are now
    assert training_view(reviewed).set_index("face_id")["caption"]["fs_0_a"] == "hard light"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,b\r\n1,2\r\n", "no column id, decision, state"),
        (b"", "no column id"),
        (b'id,decision,state\r\n"x', "not a CSV"),
        (b"\xff\xfeA", "cut off or damaged"),
    ],
)
def test_what_is_no_table(reviewed, data, words):
    with pytest.raises(UserError, match=words):
        take_in(reviewed, data)


def test_decisions_follow_a_face_to_its_new_id(reviewed):
    take_in(
        reviewed, written(filled(reviewed, face0={"decision": "drop"}, face1={"decision": "drop"}))
    )
    faces = [
        row
        for row in Store(reviewed, FACES).read().to_pylist()
        if row["face_id"] in ("fs_0_a", "fs_1_a")
    ]
    for face, box in zip(faces, ([2.0, 0.0, 98.0, 101.0], [60.0, 0.0, 160.0, 100.0]), strict=True):
        new = {
            **face,
            "face_id": face["face_id"].replace("_a", "_b"),
            "box_px": box,
            "fingerprint": "g",
        }
        del new["created_at"]
        Store(reviewed, FACES).append(
            [new]
        )  # another fingerprint: the photo's former face is superseded
    assert follow_faces(reviewed) == (1, ["fs_1_a"])
    assert sorted(Store(reviewed, DECISIONS).read_pandas()["id"]) == ["fs_0_b", "fs_1_a"]
    gates.decide(reviewed, [SIZE])
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_b"]


@pytest.mark.slow
def test_the_commands(filled_workspace, authface_here, tmp_path):
    table = tmp_path / "review.csv"
    assert (
        authface_here(
            "review", "export", "-w", filled_workspace, "--csv", table, "--near-threshold", 3
        ).returncode
        == 0
    )
    rows = rows_of(table.read_bytes())
    assert len(rows) == 3
    rows[0]["decision"] = "keep"
    table.write_bytes(written(rows))
    no_text = os.fsdecode(b"an\xffa")
    assert (
        "(an?a)"
        in authface_here(
            "review", "import", table, "-w", filled_workspace, "--reviewer", no_text
        ).stdout
    )
    shown = authface_here("review", "import", table, "-w", filled_workspace, "--reviewer", "anna")
    assert f"{rows[0]['id']}: " in shown.stdout
    assert "Nothing is recorded yet" in shown.stdout
    assert Store(Workspace(filled_workspace), DECISIONS).read().num_rows == 0
    assert (
        "1 decisions recorded"
        in authface_here(
            "review", "import", table, "-w", filled_workspace, "--reviewer", "anna", "--yes"
        ).stdout
    )
    wrong = authface_here(
        "review", "export", "-w", filled_workspace, "--csv", table, "--sample", 3, "--all"
    )
    assert wrong.returncode == 2
    story = authface_here("explain", rows[0]["id"], "-w", filled_workspace).stdout
    assert f"Face {rows[0]['id']}: kept" in story
    assert "anna, " in story


@pytest.fixture
def filled_workspace(request, tmp_path):
    """A copy of the filled workspace, to be written to."""
    root = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue("filled"), root)
    return root


def test_shown_at_is_kept_to_the_microsecond():
    from authface_data.review.state import State

    now = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
    state = State.of("ab", ["x"], [], now)
    assert State.parse(str(state)) == state
    assert State.parse(str(State.of("ab", ["x"], [], now + timedelta(microseconds=1)))) != state
    assert State.parse("2026-11-24") is None
