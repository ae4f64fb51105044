"""Sidecar files of this and of other programs: what is used, and what is named once."""

import json
import os
import unicodedata

import pytest
from PIL import Image

from authface_data.sources.file_source import FileOptions
from authface_data.sources.folder import FolderSource
from authface_data.sources.sidecars import Sidecars
from authface_data.sources.takeout import sidecar_names
from manifests.support.time_limit import time_limit

TAKEOUT = {
    "title": "IMG.jpg",
    "description": "At the lake",
    "creationTime": {"timestamp": "1600000000"},
    "photoTakenTime": {"timestamp": "1700000000", "formatted": "14 Nov 2023"},
    "geoData": {"latitude": 47.4, "longitude": 8.5, "altitude": 0.0},
    "people": [{"name": "A. Person"}],
}
GALLERY_DL = {"category": "flickr", "id": 12, "tags": ["a"], "description": None, "user": {}}
IMG2DATASET = {"caption": "x", "url": "http://x/", "key": "0", "sha256": "1"}


@pytest.fixture
def describe(tmp_path, workspace):
    """Writes a folder of pictures and sidecar files, and describes the pictures."""

    def describe(files):
        for name, content in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.new("RGB", (8, 6)).save(path, "JPEG")
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(json.dumps(content))
        source = FolderSource(workspace, FileOptions(path=tmp_path / "in"))
        columns = {photo.name: dict(photo.columns) for photo in source.photos()}
        return columns, source

    return describe


def test_files_of_other_programs_do_not_stop_the_collection(describe):
    columns, source = describe(
        {
            "a.jpg": None,
            "a.jpg.json": TAKEOUT,
            "b.jpg": None,
            "b.jpg.json": GALLERY_DL,
            "c.jpg": None,
            "c.json": IMG2DATASET,
            "d.jpg": None,
            "d.jpg.json": {"photographr": "Anna", "licence": "all rights"},
        }
    )
    assert columns["a.jpg"] == {"description": "At the lake", "taken_at": "2023:11:14 22:13:20"}
    assert columns["b.jpg"] == columns["c.jpg"] == {}
    assert columns["d.jpg"] == {"licence": "all rights"}
    assert not source.skipped
    assert len(source.notes) == 1
    assert "3 sidecar files have fields that are not used: " in source.notes[0]
    assert "photographr (did you mean photographer?)" in source.notes[0]
    assert "caption" not in source.notes[0]


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [
        ("IMG.jpg", "IMG.jpg.supplemental-metadata.json"),
        ("IMG.jpg", "IMG.jpg.supplemental-meta.json"),
        ("IMG.jpg", "IMG.jpg.suppl.json"),
        ("IMG.jpg", "IMG.jpg..json"),
        ("IMG(2).jpg", "IMG.jpg.supplemental-metadata(2).json"),
        ("IMG(2).jpg", "IMG.jpg(2).json"),
        (
            "Screenshot_2017-07-05-10-05-26.png",
            "Screenshot_2017-07-05-10-05-26.png.supplementa.json",
        ),
        (
            "Screenshot_20220207_102421_com.snapchat.android.jpg",
            "Screenshot_20220207_102421_com.snapchat.androi.json",
        ),
    ],
)
def test_names_of_google_takeout_are_found_cut_or_whole(describe, picture, sidecar):
    columns, source = describe({picture: None, "other.jpg": None, sidecar: TAKEOUT})
    assert columns[picture]["description"] == "At the lake"
    assert columns["other.jpg"] == {}
    assert not source.skipped


def test_cut_name_that_fits_two_pictures_is_not_used(describe):
    stem = "x" * 46
    columns, _ = describe({f"{stem}1.jpg": None, f"{stem}2.jpg": None, f"{stem}.json": TAKEOUT})
    assert set(map(str, columns.values())) == {"{}"}
    assert len(set(sidecar_names("IMG.jpg"))) == len(list(sidecar_names("IMG.jpg")))


@pytest.mark.parametrize("store_place", [False, True])
def test_place_of_takeout_is_read_only_if_it_is_stored(tmp_path, store_place):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.jpg.json").write_text(json.dumps(TAKEOUT))
    columns = Sidecars(store_place).columns_for(tmp_path / "a.jpg")
    assert columns.get("latitude") == (47.4 if store_place else None)
    assert columns.get("longitude") == (8.5 if store_place else None)


@pytest.mark.parametrize("latitude", [10**400, float("nan"), float("inf"), 91, "47", None, True])
def test_impossible_place_of_takeout_is_unknown(tmp_path, latitude):
    (tmp_path / "a.jpg").touch()
    place = {"latitude": latitude, "longitude": 181}
    (tmp_path / "a.jpg.json").write_text(json.dumps({**TAKEOUT, "geoData": place}))
    assert "latitude" not in Sidecars(store_place=True).columns_for(tmp_path / "a.jpg")


def test_value_of_wrong_type_is_passed_over_and_named(describe):
    columns, source = describe(
        {
            "a.jpg": None,
            "a.jpg.json": {"licence": 4, "consent_ref": ["r"], "photographer": "Anna"},
            "b.jpg": None,
            "b.jpg.json": {"licence": 5, "photoTakenTime": {"timestamp": "soon"}},
        }
    )
    assert columns["a.jpg"] == {"photographer_name": "Anna"}
    assert columns["b.jpg"] == {}
    text = "\n".join(source.skipped)
    assert "licence is a number instead of a text in 2 sidecar files (first: " in text
    assert "consent_ref is a list instead of a text in 1 sidecar files" in text
    assert "get no consent_ref from these files" in text
    assert "photoTakenTime is no date in 1 sidecar files" in text
    assert len(source.skipped) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b"\xff\xfe\0\0",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"description": 1' + b"0" * 10_000 + b"}",
        b'"' + b"x" * (17 << 20) + b'"',
    ],
    ids=lambda content: repr(content[:10]),
)
def test_damaged_json_is_one_line(describe, content):
    columns, source = describe({"a.jpg": None, "a.jpg.json": content})
    assert columns["a.jpg"] == {}
    assert len(source.skipped) == 1
    assert "a.jpg.json is not used as a sidecar file: " in source.skipped[0]
    assert "recursion" not in source.skipped[0]
    assert "\n" not in source.skipped[0]
    assert len(source.skipped[0]) < 800


def test_pipe_with_the_name_of_a_sidecar_file_is_not_opened(describe, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg.json", "a.json", "list.csv"):
        os.mkfifo(tmp_path / "in" / name)
    columns, source = describe({"a.jpg": None})
    assert columns["a.jpg"] == {}
    assert len(source.skipped) == 1


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (b"file,licence\na.jpg,mine\nb.jpg," + b"x" * 200_000 + b"\n", "field larger than"),
        ("file,licence\r\na.jpg,mine\r\n".encode("utf-16") + b"\0", None),
        (b"file,licence\na.jpg,mine\n\xff\xfe\x81,x\n", "1 row without a picture"),
        (b"file,licence\na.jpg,mine\n" + b"\0" * 99, None),
        (b"file,note,licence,note\na.jpg,1,mine,2\n", "the column note occurs twice"),
        (b"file,licence\na.jpg,mine\n.,x\n", "1 row without a picture (first: .)"),
    ],
)
def test_damaged_table_is_used_as_far_as_possible(describe, table, problem):
    columns, source = describe({"a.jpg": None, "list.csv": table})
    assert columns["a.jpg"] == {"licence": "mine"}
    assert problem is None or problem in "\n".join(source.skipped)
    assert len(source.skipped) <= 1


def test_table_of_very_many_columns_is_not_used(describe):
    """Python's reader would fill each of 100,000 short rows up to 100,000 cells."""
    names = ",".join(map(str, range(100_000)))
    table = f"file,licence,{names}\n".encode() + b"a.jpg,mine\n" * 100_000
    with time_limit(10, ends_process=False):
        columns, source = describe({"a.jpg": None, "list.csv": table})
    assert columns["a.jpg"] == {}
    assert len(source.skipped) == 1
    assert "list.csv has more than 1,000 columns; it is not used" in source.skipped[0]


def test_names_match_in_any_unicode_form_and_case(describe):
    name = "Zoë Ångström.jpg"
    decomposed = unicodedata.normalize("NFD", name)
    table = f"file,person\n{name},z\nanna/b.JPG,b\nSub/C.jpg,c\n".encode()
    columns, source = describe(
        {
            decomposed: None,
            f"{name.upper()}.json": {"note": "n"},
            "anna/B.jpg": None,
            "sub/c.jpg": None,
            "list.csv": table,
        }
    )
    assert columns[decomposed] == {"person": "z", "note": "n"}
    assert columns["anna/B.jpg"] == {"person": "b"}
    assert columns["sub/c.jpg"] == {"person": "c"}
    assert not source.skipped


def test_similar_name_of_another_picture_is_not_used(describe):
    columns, source = describe(
        {
            "a.jpg": None,
            "A.jpg": None,
            "A.jpg.json": {"consent_ref": "r"},
            "list.csv": b"file,person\nA.jpg,p\nann.jpg,q\n",
            "anna.jpg": None,
        }
    )
    assert columns["A.jpg"] == {"person": "p", "consent_ref": "r"}
    assert columns["a.jpg"] == columns["anna.jpg"] == {}
    assert len(source.skipped) == 1
    assert "1 row without a picture (first: ann.jpg; did you mean anna.jpg?)" in source.skipped[0]
