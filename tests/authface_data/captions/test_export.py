"""Exports for other trainers, read back as the trainers read them."""

import json
import tomllib

import captioned_workspace
import pyarrow.compute as pc
import pytest
from captioned_workspace import captions_in_use, face_id

from authface_data.captions.export import FORMATS, export_dataset
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.support.errors import UserError


@pytest.fixture
def captioned(workspace):
    captioned_workspace.fill(workspace)
    return workspace


@pytest.mark.parametrize("export_format", list(FORMATS))
def test_export_contains_all_faces_captions_and_credits(captioned, tmp_path, export_format):
    folder = tmp_path / "out"
    counts = export_dataset(captioned, folder, export_format)
    assert sum(counts.values()) == 3
    assert len(list(folder.rglob("*.png"))) == 3
    assert (folder / "CREDITS.md").read_text().count("Ann") == 3
    assert READERS[export_format](folder) == {
        face_id(name): text for name, text in captions_in_use(captioned).items()
    }
    with pytest.raises(UserError, match="not an empty folder"):
        export_dataset(captioned, folder, export_format)


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_jsonl(folder):
    rows = read_json_lines(folder / "captions.jsonl")
    for row in rows:
        assert (folder / row["file_name"]).is_file()
        assert row["licence_basis"] == "own"
    return {row["face_id"]: row["text"] for row in rows}


def read_imagefolder(folder):
    from datasets import load_dataset

    splits = load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(folder.parent / "cache")
    )
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    assert set(splits) == names
    loaded_rows = [row for split in splits.values() for row in split]
    assert all(row["image"].size == (16, 16) for row in loaded_rows)
    rows = [row for name in names for row in read_json_lines(folder / name / "metadata.jsonl")]
    assert sorted(row["text"] for row in loaded_rows) == sorted(row["text"] for row in rows)
    return {row["file_name"].removesuffix(".png"): row["text"] for row in rows}


def read_kohya(folder):
    settings = tomllib.loads((folder / "dataset.toml").read_text())
    assert settings["datasets"][0]["subsets"][0]["image_dir"] == "train"
    assert settings["general"]["caption_extension"] == ".txt"
    assert settings["datasets"][0]["resolution"] == 512
    return read_caption_files(folder)


def read_simpletuner(folder):
    images, texts = json.loads((folder / "multidatabackend.json").read_text())
    assert images["instance_data_dir"] == "train"
    assert images["caption_strategy"] == "textfile"
    assert images["type"] == "local"
    assert images["resolution"] == images["minimum_image_size"] == 512
    assert (texts["dataset_type"], texts["default"]) == ("text_embeds", True)
    return read_caption_files(folder)


def read_caption_files(folder):
    return {
        path.stem: path.with_suffix(".txt").read_text().strip() for path in folder.rglob("*.png")
    }


READERS = {
    "jsonl": read_jsonl,
    "imagefolder": read_imagefolder,
    "kohya": read_kohya,
    "simpletuner": read_simpletuner,
}


def test_export_of_one_tag_family_and_of_no_tags(captioned, tmp_path):
    export_dataset(captioned, tmp_path / "semantic", "jsonl", tags="semantic")
    rows = read_json_lines(tmp_path / "semantic" / "captions.jsonl")
    assert {row["text"] for row in rows} == {
        "young asian woman, long black hair",
        "man, beard, zebra",
        "woman, beard",
    }
    Store(captioned, CAPTIONS).compact(lambda part: pc.equal(part["face_id"], "fs_c_1"))
    with pytest.raises(UserError, match="1 kept faces have no caption"):
        export_dataset(captioned, tmp_path / "both", "jsonl", tags="both")
    counts = export_dataset(captioned, tmp_path / "none", "jsonl", tags="none")
    assert sum(counts.values()) == 3
