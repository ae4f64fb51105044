"""Export and import of the review table, as spreadsheets and people change it."""

import csv
import io
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from authface_data import gates
from authface_data.review.faces import faces_to_review
from authface_data.review.follow_faces import follow_faces
from authface_data.review.import_table import read_review_table, record_reviews
from authface_data.review.snapshot import Snapshot
from authface_data.review.table import (
    ANSWER_COLUMNS,
    collect_metrics,
    escape_formulas,
    table_cells,
    table_columns,
    to_csv,
    unescape_formulas,
)
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
    """Four faces with captions by `measured`; the gate drops the two smallest."""
    workspace.settings.gates[:] = [SIZE]
    photos, faces, captions = [], [], []
    for number, size in enumerate((500.0, 310.0, 290.0, 100.0)):
        face_id = f"fs_{number}_a"
        photo_id = f"fs_{number}"
        photos.append(
            {
                "photo_id": photo_id,
                "description": "=cmd|' /C calc'!A0",
                "licence_basis": "own",
                "fingerprint": "f",
            }
        )
        workspace.write_bytes(f"faces/{face_id}.png", b"")
        box = [0.0, 0.0, 9.0, 9.0]
        faces.append(
            {
                "face_id": face_id,
                "photo_id": photo_id,
                "box_px": [0.0, 0.0, 100.0, 100.0],
                "qsize_px": size,
                "fingerprint": "f",
                "crop_path": f"faces/{face_id}.png",
                "crop_sha256": f"{number}" * 64,
                "crop_size_px": 512,
                "left_eye_box_crop_px": box,
                "right_eye_box_crop_px": box,
                "mouth_box_crop_px": box,
            }
        )
        tags = {
            "photographic_tags": ["front view", "soft light"],
            "measured_tags": [],
            "caption": "front view, soft light",
        }
        captions.append({"face_id": face_id, "captioner": "measured", **tags, "fingerprint": "f"})
    # One part for each manifest: every test reads them several times.
    for manifest, rows in ((PHOTOS, photos), (FACES, faces), (CAPTIONS, captions)):
        Store(workspace, manifest).append(rows)
    gates.apply_gates(workspace, [SIZE])
    return workspace


def parse_rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def encode_rows(rows, delimiter=",", encoding="utf-8-sig", line_end="\r\n") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding)


def answered_rows(workspace, **answers) -> list[dict[str, str]]:
    """Rows of a new table; answers: "face0" and so on -> columns to fill in."""
    rows = parse_rows(to_csv(faces_to_review(workspace)))
    for row in rows:
        row.update(answers.get(f"face{row['id'][3]}", {}))
    return rows


def import_table(workspace, data, reviewer="anna"):
    table = read_review_table(workspace, data, reviewer)
    record_reviews(workspace, table.new, datetime.now(UTC))
    return table


def test_csv_is_safe_in_a_spreadsheet(reviewed):
    data = to_csv(faces_to_review(reviewed))
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\r\n") == 5
    rows = parse_rows(data)
    assert tuple(rows[0])[: len(ANSWER_COLUMNS)] == ANSWER_COLUMNS
    assert [row["photo"] for row in rows] == ["'=cmd|' /C calc'!A0"] * 4
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert all(not row["id"][0].isdigit() for row in rows)


@pytest.mark.parametrize(
    "text", ["=1+1", "+4", "-x", "@me", "'quoted'", "'=x", "plain", "", "a = b"]
)
def test_unescape_formulas_undoes_escape_formulas(text):
    assert unescape_formulas(escape_formulas(text)) == text


def test_faces_that_are_most_likely_judged_wrongly_come_first(reviewed):
    """Narrow keeps, then narrow drops by a single gate, then the others."""
    assert [row["id"] for row in parse_rows(to_csv(faces_to_review(reviewed)))] == [
        "fs_1_a",
        "fs_2_a",
        "fs_0_a",
        "fs_3_a",
    ]
    near = faces_to_review(reviewed, near_threshold=2)
    assert {face.face_id for face in near} == {"fs_1_a", "fs_2_a"}
    sample = faces_to_review(reviewed, sample=2)
    again = faces_to_review(reviewed, sample=2)
    assert len(sample) == 2
    assert [face.face_id for face in sample] == [face.face_id for face in again]


def test_decisions_override_gates(reviewed):
    rows = answered_rows(
        reviewed,
        face0={"decision": "drop", "reason": "tattoo"},
        face2={"decision": "Keep", "rating": "5"},
    )
    table = import_table(reviewed, encode_rows(rows))
    assert (len(table.new), table.already_imported, table.empty) == (2, 0, 2)
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_a", "fs_2_a"]
    stored = Store(reviewed, DECISIONS).read_pandas().set_index("id")
    assert stored.loc["fs_0_a", ["reviewer", "decision", "reason", "photo_id"]].tolist() == [
        "anna",
        "drop",
        "tattoo",
        "fs_0",
    ]
    assert stored.loc["fs_2_a", "rating"] == 5


def test_importing_a_table_twice_records_it_once(reviewed):
    data = encode_rows(
        answered_rows(
            reviewed,
            face0={"decision": "drop"},
            face1={"photographic_tags": "front view, hard light"},
        )
    )
    import_table(reviewed, data)
    again = import_table(reviewed, data)
    # The edited tags are the face's tags now, so the other row counts as empty.
    assert (len(again.new), again.already_imported) == (0, 1)
    assert Store(reviewed, DECISIONS).read().num_rows == 2


def test_edited_tags_become_the_caption(reviewed):
    import_table(
        reviewed,
        encode_rows(
            answered_rows(
                reviewed, face1={"photographic_tags": " front view ,  hard light, front view"}
            )
        ),
    )
    captions = training_view(reviewed).set_index("face_id")["caption"]
    assert captions["fs_1_a"] == "front view, hard light"
    assert captions["fs_0_a"] == "front view, soft light"


@pytest.mark.parametrize(
    ("delimiter", "encoding", "line_end"),
    [
        (";", "utf-8", "\r\n"),
        ("\t", "utf-16", "\n"),
        (",", "cp1252", "\r\n"),
        (";", "utf-8-sig", "\n"),
    ],
)
def test_formats_of_spreadsheets(reviewed, delimiter, encoding, line_end):
    rows = answered_rows(
        reviewed, face0={"decision": "drop", "note": 'zu weich, "glatt"; geschönt'}
    )
    import_table(reviewed, encode_rows(rows, delimiter, encoding, line_end))
    assert Store(reviewed, DECISIONS).read_pandas()["note"].tolist() == [
        'zu weich, "glatt"; geschönt'
    ]


def test_all_mistakes_are_listed_and_nothing_is_imported(reviewed):
    rows = answered_rows(
        reviewed,
        face0={"decision": "maybe"},
        face1={"decision": "keep"},
        face2={"rating": "9"},
        face3={"decision": "drop", "state": "c00000000-t00000000-ffffffffffffffff"},
    )
    rows.append({**rows[0], "id": "fs_9_a", "decision": "keep", "rating": ""})
    with pytest.raises(UserError) as caught:
        import_table(reviewed, encode_rows(rows))
    message = str(caught.value)
    assert "line 3, column rating: '9' is not a rating; use 1 to 5" in message
    state = "c00000000-t00000000-ffffffffffffffff"
    assert f"line 5, column state: '{state}' was not written by `authface review`" in message
    unknown_decision = "unknown decision 'maybe'; choose from: keep, drop, unsure"
    assert f"line 4, column decision: {unknown_decision}" in message
    assert "line 6, column id: unknown face 'fs_9_a'" in message
    assert Store(reviewed, DECISIONS).read().num_rows == 0


def test_reviewer_is_required(reviewed):
    with pytest.raises(UserError, match="column reviewer: the reviewer is missing"):
        import_table(
            reviewed, encode_rows(answered_rows(reviewed, face0={"decision": "drop"})), reviewer=""
        )


def test_row_of_a_changed_crop_is_rejected(reviewed):
    old = answered_rows(reviewed, face0={"decision": "drop"})
    changed = {**Store(reviewed, FACES).read().to_pylist()[0], "crop_sha256": "f" * 64}
    Store(reviewed, FACES).append(
        [{name: value for name, value in changed.items() if name != "created_at"}]
    )
    with pytest.raises(
        UserError, match="line 4, column state: the picture of fs_0_a changed after"
    ):
        import_table(reviewed, encode_rows(old))


def test_imported_table_can_be_corrected_and_imported_again(reviewed):
    """A reviewer can change a decision, add a note, and take an edit of tags back."""
    rows = answered_rows(reviewed, face0={"decision": "drop"}, face1={"photographic_tags": "wrong"})
    import_table(reviewed, encode_rows(rows))
    for row in rows:
        row.update(
            {
                "fs_0_a": {"decision": "keep", "note": "no, fine"},
                "fs_2_a": {"decision": "keep"},
            }.get(row["id"], {})
        )
        if row["id"] == "fs_1_a":
            row["photographic_tags"] = "front view, soft light"
    table = import_table(reviewed, encode_rows(rows))
    assert {review.face_id for review in table.new} == {"fs_0_a", "fs_1_a", "fs_2_a"}
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_0_a", "fs_1_a", "fs_2_a"]
    assert (
        training_view(reviewed).set_index("face_id")["caption"]["fs_1_a"]
        == "front view, soft light"
    )


def test_unsure_withdraws_the_decision_of_the_same_reviewer_only(reviewed):
    import_table(
        reviewed,
        encode_rows(
            answered_rows(reviewed, face0={"decision": "drop"}, face3={"decision": "keep"})
        ),
        reviewer="anna",
    )
    import_table(
        reviewed,
        encode_rows(
            answered_rows(reviewed, face0={"decision": "unsure"}, face3={"decision": "unsure"})
        ),
        reviewer="ben",
    )
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_a", "fs_3_a"]
    import_table(
        reviewed,
        encode_rows(
            answered_rows(reviewed, face0={"decision": "unsure"}, face3={"decision": "unsure"})
        ),
        reviewer="anna",
    )
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_0_a", "fs_1_a"]


@pytest.mark.parametrize("rating", ["0", "6", "12", "12345", "1.5"])
def test_invalid_ratings_are_rejected(reviewed, rating):
    with pytest.raises(UserError, match="use 1 to 5"):
        import_table(reviewed, encode_rows(answered_rows(reviewed, face0={"rating": rating})))


def test_lossy_encoding_does_not_change_tags(reviewed):
    import_table(
        reviewed, encode_rows(answered_rows(reviewed, face0={"photographic_tags": "café, 髪"}))
    )
    rows = answered_rows(reviewed, face0={"decision": "keep"})
    lossy = encode_rows(rows, encoding="utf-8").decode().encode("cp1252", "replace")
    table = import_table(reviewed, lossy)
    assert [review.photographic_tags for review in table.new] == [None]
    mac = (
        encode_rows(answered_rows(reviewed, face0={"decision": "drop"}), encoding="utf-8")
        .decode()
        .encode("mac_roman", "replace")
    )
    with pytest.raises(UserError, match="not in UTF-8"):
        import_table(reviewed, mac)


def test_separator_line_of_excel_and_reviewer_with_spaces(reviewed):
    data = b"sep=;\r\n" + encode_rows(
        answered_rows(reviewed, face0={"decision": "drop"}), delimiter=";", encoding="utf-8"
    )
    import_table(reviewed, data, reviewer=" anna  b ")
    assert Store(reviewed, DECISIONS).read_pandas()["reviewer"].tolist() == ["anna b"]


@pytest.mark.parametrize("text", ["x;=HYPERLINK(1)", "a\n=1+1", " =1", "＝1", "a;b", "'; '=x"])
def test_formula_after_a_separator_is_escaped_too(text):
    assert unescape_formulas(escape_formulas(text)) == text
    assert ";=" not in escape_formulas(text)
    assert not escape_formulas(text).strip().startswith(("=", "＝"))


def test_older_table_cannot_replace_a_newer_decision_of_the_same_reviewer(reviewed):
    old = encode_rows(answered_rows(reviewed, face0={"decision": "keep"}))
    import_table(reviewed, encode_rows(answered_rows(reviewed, face0={"decision": "drop"})))
    with pytest.raises(UserError, match="anna's decision on fs_0_a changed after"):
        import_table(reviewed, old)
    import_table(reviewed, old, reviewer="ben")  # another reviewer may use it


def test_tags_that_changed_after_the_export_cannot_be_edited(reviewed):
    first = encode_rows(answered_rows(reviewed, face0={"photographic_tags": "hard light"}))
    second = encode_rows(answered_rows(reviewed, face0={"photographic_tags": "side light"}))
    decision_only = encode_rows(answered_rows(reviewed, face0={"decision": "keep"}))
    import_table(reviewed, first)
    with pytest.raises(UserError, match="the tags of fs_0_a changed after"):
        import_table(reviewed, second, reviewer="ben")
    import_table(reviewed, decision_only, reviewer="ben")  # does not change tags
    assert training_view(reviewed).set_index("face_id")["caption"]["fs_0_a"] == "hard light"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\r\n1,2\r\n", "missing column id, decision, state"),
        (b"", "missing column id"),
        (b'id,decision,state\r\n"x', "not valid CSV"),
        (b"\xff\xfeA", "truncated or damaged"),
    ],
)
def test_files_that_are_not_tables_are_rejected(reviewed, data, message):
    with pytest.raises(UserError, match=message):
        import_table(reviewed, data)


def test_decisions_move_to_the_new_id_of_a_face(reviewed):
    import_table(
        reviewed,
        encode_rows(
            answered_rows(reviewed, face0={"decision": "drop"}, face1={"decision": "drop"})
        ),
    )
    faces = [
        row
        for row in Store(reviewed, FACES).read().to_pylist()
        if row["face_id"] in ("fs_0_a", "fs_1_a")
    ]
    for face, box in zip(faces, ([2.0, 0.0, 98.0, 101.0], [60.0, 0.0, 160.0, 100.0]), strict=True):
        new_face = {
            **face,
            "face_id": face["face_id"].replace("_a", "_b"),
            "box_px": box,
            "fingerprint": "g",
        }
        del new_face["created_at"]
        # With another fingerprint, it supersedes the former face of the photograph.
        Store(reviewed, FACES).append([new_face])
    assert follow_faces(reviewed) == (1, ["fs_1_a"])
    assert sorted(Store(reviewed, DECISIONS).read_pandas()["id"]) == ["fs_0_b", "fs_1_a"]
    gates.apply_gates(reviewed, [SIZE])
    assert sorted(kept_faces(reviewed)["face_id"]) == ["fs_1_b"]


@pytest.mark.slow
def test_export_and_import_commands(filled_workspace, authface_here, tmp_path):
    table = tmp_path / "review.csv"
    assert (
        authface_here(
            "review", "export", "-w", filled_workspace, "--csv", table, "--near-threshold", 3
        ).returncode
        == 0
    )
    rows = parse_rows(table.read_bytes())
    assert len(rows) == 3
    rows[0]["decision"] = "keep"
    table.write_bytes(encode_rows(rows))
    invalid_name = os.fsdecode(b"an\xffa")  # not valid UTF-8
    assert (
        "(an?a)"
        in authface_here(
            "review", "import", table, "-w", filled_workspace, "--reviewer", invalid_name
        ).stdout
    )
    shown = authface_here("review", "import", table, "-w", filled_workspace, "--reviewer", "anna")
    assert f"{rows[0]['id']}: " in shown.stdout
    assert "Nothing has been recorded yet" in shown.stdout
    assert Store(Workspace(filled_workspace), DECISIONS).read().num_rows == 0
    assert (
        "1 decision recorded"
        in authface_here(
            "review", "import", table, "-w", filled_workspace, "--reviewer", "anna", "--yes"
        ).stdout
    )
    wrong = authface_here(
        "review", "export", "-w", filled_workspace, "--csv", table, "--sample", 3, "--all"
    )
    assert wrong.returncode == 2
    explanation = authface_here("explain", rows[0]["id"], "-w", filled_workspace).stdout
    assert f"Face {rows[0]['id']}: kept" in explanation
    assert "anna, " in explanation


@pytest.fixture
def filled_workspace(request, tmp_path):
    """A copy of the filled workspace that a test may change."""
    root = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue("filled"), root)
    return root


def test_snapshot_keeps_the_time_of_export_to_the_microsecond():
    now = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
    snapshot = Snapshot.take("ab", ["x"], [], now)
    later = Snapshot.take("ab", ["x"], [], now + timedelta(microseconds=1))
    assert Snapshot.parse(str(snapshot)) == snapshot
    assert Snapshot.parse(str(later)) != snapshot
    assert Snapshot.parse("2026-11-24") is None


def test_columns_of_the_table_are_the_cells_of_each_face(reviewed):
    faces = faces_to_review(reviewed)
    metrics = collect_metrics(faces)
    assert metrics == collect_metrics(list(faces))
    lines = list(csv.reader(io.StringIO(to_csv(faces).decode("utf-8-sig"), newline="")))
    num_texts = len(table_columns([]))
    assert len(lines) == len(faces) + 1
    for face, line in zip(faces, lines[1:], strict=True):
        cells = table_cells(face, metrics)
        assert line == [*map(escape_formulas, cells[:num_texts]), *cells[num_texts:]]
    assert [face.face_id for face in faces[1:]] == faces.column("face_id")[1:]
    assert faces[-1] == list(faces)[-1]
