"""What is decided again without asking anybody: settings, vocabulary, tags renamed; and the set handed to other trainers."""

import json
import tomllib
from datetime import UTC, datetime

import pyarrow.compute as pc
import pytest
from PIL import Image

from authface_data.captions.coverage import count_contradictions, count_facets
from authface_data.captions.export import FORMATS, export_dataset
from authface_data.captions.recompose import recompose
from authface_data.commands import tags as command
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.settings import load_settings, preset_text
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.captions import current_tags
from manifests.training_view import training_view
from manifests.verdicts import ALL_GATES, verdict_row

SAID = {
    "a": ["young asian woman, long black hair", "profile view, soft light"],
    "b": ["man, beard, zebra", "front view, black and white"],
    "c": ["woman, beard", "smile"],
}
FRONT = {"facet": "view", "tag": "front view", "value": 2.0, "confidence": 0.97}


@pytest.fixture
def captioned(workspace):
    """Three kept faces with captions by llava and measurements: each faces the camera."""
    faces = [
        {
            "face_id": f"fs_{x}_1",
            "photo_id": f"fs_{x}",
            "crop_path": f"faces/fs_{x}_1.png",
            "fingerprint": "f",
        }
        for x in SAID
    ]
    Store(workspace, FACES).append(faces)
    Store(workspace, PHOTOS).append(
        [
            {
                "photo_id": f"fs_{x}",
                "sha256": x,
                "licence_basis": "own",
                "photographer_name": f"Ann {x}",
                "fingerprint": "f",
            }
            for x in SAID
        ]
    )
    Store(workspace, VERDICTS).append(
        [verdict_row("face", f"fs_{x}_1", ALL_GATES, "kept", "f") for x in SAID]
    )
    rows = [
        {"face_id": f"fs_{x}_1", "captioner": "llava", "raw_answers": said, "fingerprint": "f"}
        for x, said in SAID.items()
    ]
    rows += [
        {
            "face_id": f"fs_{x}_1",
            "captioner": "measured",
            "measurements": [FRONT],
            "fingerprint": "f",
        }
        for x in SAID
    ]
    Store(workspace, CAPTIONS).append(rows)
    for x in SAID:
        with workspace.local(f"faces/fs_{x}_1.png").open("wb") as file:
            Image.new("RGB", (16, 16), "red").save(file, "PNG")
    recompose(workspace)
    return workspace


def used(workspace):
    return {
        face[3]: ", ".join([*semantic, *other])
        for face, (semantic, other) in current_tags(workspace).items()
    }


def decide(workspace, tag, decision="drop", renamed_to=None, minute=0):
    at = datetime(2026, 11, 25, 12, minute, tzinfo=UTC)
    row = {
        "id": f"tag:{tag}",
        "reviewer": "r",
        "decision": decision,
        "renamed_to": renamed_to,
        "decided_at": at,
    }
    Store(workspace, DECISIONS).append([row])


def test_captions_follow_settings_and_measurements(captioned):
    assert used(captioned) == {
        "a": "young asian woman, long black hair, soft light", "b": "man, beard, zebra, front view, black and white",
        "c": "woman, beard, smile",
    }  # fmt: skip
    assert recompose(captioned) == 0
    text = preset_text("embedded").replace(
        "[captions]", '[captions]\nsensitive = []\ncontradictions = "keep"\nmax_words = 3'
    )
    captioned.settings = load_settings(text.encode(), "test")
    assert recompose(captioned) == 3
    assert used(captioned)["a"] == "person, long black hair, soft light, profile view"
    assert used(captioned)["b"] == "person, beard, zebra, front view, black and white"
    rows = {
        row["face_id"]: row
        for row in Store(captioned, CAPTIONS).read().to_pylist()
        if row["captioner"] == "llava"
    }
    assert len(rows) == 3
    assert all(
        row["fingerprint"] == "f" and row["raw_answers"] == SAID[face[3]]
        for face, row in rows.items()
    )


def test_a_new_measurement_is_held_against_what_was_said(captioned):
    grey = {"facet": "colour", "tag": "colour photograph", "value": 30.0, "confidence": 0.9}
    Store(captioned, CAPTIONS).append(
        [
            {
                "face_id": "fs_b_1",
                "captioner": "measured",
                "measurements": [FRONT, grey],
                "fingerprint": "g",
            }
        ]
    )
    recompose(captioned)
    assert used(captioned)["b"] == "man, beard, zebra, front view"
    assert {(one.captioner, one.tag, one.against, one.count) for one in count_contradictions(captioned)} == {
        ("llava", "profile view", "front view", 1), ("llava", "black and white", "colour photograph", 1),
    }  # fmt: skip


def test_coverage(captioned):
    facets = {(one.facet, one.family): one for one in count_facets(captioned)}
    assert facets["face hair", "semantic"].tags == [("beard", 2)]
    assert (facets["face hair", "semantic"].faces, facets["face hair", "semantic"].of) == (2, 3)
    assert facets["unknown", "semantic"].tags == [("zebra", 1)]
    assert facets["camera", "photographic"].faces == 0
    only = count_facets(captioned, {"fs_c_1"})
    assert only[0].of == 1


def test_a_tag_is_renamed_and_removed_as_a_decision(captioned):
    before = Store(captioned, CAPTIONS).read()
    decide(captioned, "beard", renamed_to="full beard", minute=1)
    decide(captioned, "zebra", minute=2)
    assert used(captioned)["b"] == "man, full beard, front view, black and white"
    assert used(captioned)["c"] == "woman, full beard, smile"
    assert (
        training_view(captioned)["caption"].tolist()[1]
        == "man, full beard, front view, black and white"
    )
    assert Store(captioned, CAPTIONS).read().equals(before)
    decide(captioned, "full beard", renamed_to="whiskers", minute=3)
    assert used(captioned)["c"] == "woman, whiskers, smile"
    decide(captioned, "beard", "keep", minute=4)
    assert used(captioned)["c"] == "woman, beard, smile"


def test_a_later_edit_of_one_face_stands_above_a_renaming(captioned):
    edit = {"id": "fs_c_1", "reviewer": "r", "semantic_tags": ["woman", "Beard"]}
    Store(captioned, DECISIONS).append(
        [{**edit, "decided_at": datetime(2026, 11, 25, 12, 5, tzinfo=UTC)}]
    )
    decide(captioned, "beard", minute=1)
    assert used(captioned)["c"] == "woman, Beard, smile"
    decide(captioned, "beard", minute=9)
    assert used(captioned)["c"] == "woman, smile"


def test_a_renaming_makes_no_double(captioned):
    decide(captioned, "smile", renamed_to="beard")
    assert used(captioned)["c"] == "woman, beard"


def test_what_can_be_no_tag():
    for text in ("", "  ", "a, b"):
        with pytest.raises(UserError, match="is no tag"):
            command._tag(text)


@pytest.mark.parametrize("form", list(FORMATS))
def test_every_format_holds_every_kept_face_its_caption_and_credits(captioned, tmp_path, form):
    folder = tmp_path / "out"
    counts = export_dataset(captioned, folder, form, "both", False)
    assert sum(counts.values()) == 3
    pictures = sorted(path for path in folder.rglob("*.png"))
    assert len(pictures) == 3
    assert (folder / "CREDITS.md").read_text().count("Ann") == 3
    captions = read_back(folder, form)
    assert captions == {f"fs_{x}_1": text for x, text in used(captioned).items()}
    with pytest.raises(UserError, match="not an empty folder"):
        export_dataset(captioned, folder, form, "both", False)


def read_back(folder, form) -> dict[str, str]:
    """The captions as the format's own reader sees them."""
    if form == "jsonl":
        rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
        assert all(
            (folder / row["file_name"]).is_file() and row["licence_basis"] == "own" for row in rows
        )
        return {row["face_id"]: row["text"] for row in rows}
    if form == "imagefolder":
        from datasets import load_dataset

        sets = load_dataset(
            "imagefolder", data_dir=str(folder), cache_dir=str(folder.parent / "cache")
        )
        names = {path.name for path in folder.iterdir() if path.is_dir()}
        assert set(sets) == names
        assert all(row["image"].size == (16, 16) for part in sets.values() for row in part)
        said = [
            json.loads(line)
            for name in names
            for line in (folder / name / "metadata.jsonl").read_text().splitlines()
        ]
        assert sorted(row["text"] for part in sets.values() for row in part) == sorted(
            row["text"] for row in said
        )
        return {row["file_name"].removesuffix(".png"): row["text"] for row in said}
    if form == "kohya":
        settings = tomllib.loads((folder / "dataset.toml").read_text())
        assert settings["datasets"][0]["subsets"][0]["image_dir"] == "train"
        assert settings["general"]["caption_extension"] == ".txt"
        assert settings["datasets"][0]["resolution"] == 512
    else:
        images, texts = json.loads((folder / "multidatabackend.json").read_text())
        assert (images["instance_data_dir"], images["caption_strategy"], images["type"]) == (
            "train",
            "textfile",
            "local",
        )
        assert images["resolution"] == images["minimum_image_size"] == 512
        assert (texts["dataset_type"], texts["default"]) == ("text_embeds", True)
    return {
        path.stem: path.with_suffix(".txt").read_text().strip() for path in folder.rglob("*.png")
    }


def test_only_some_tags_and_none(captioned, tmp_path):
    export_dataset(captioned, tmp_path / "semantic", "jsonl", "semantic", False)
    rows = [
        json.loads(line)
        for line in (tmp_path / "semantic" / "captions.jsonl").read_text().splitlines()
    ]
    assert {row["text"] for row in rows} == {
        "young asian woman, long black hair",
        "man, beard, zebra",
        "woman, beard",
    }
    Store(captioned, CAPTIONS).compact(lambda part: pc.equal(part["face_id"], "fs_c_1"))
    with pytest.raises(UserError, match="1 kept faces have no caption"):
        export_dataset(captioned, tmp_path / "both", "jsonl", "both", False)
    assert sum(export_dataset(captioned, tmp_path / "none", "jsonl", "none", False).values()) == 3
