"""Photographs that lie in folders: sidecars, links, FFHQ, AuthFace-HQ; and what is kept of them."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.sources import authface_hq, ffhq, folder
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace


def paint(path: Path, colour=(200, 30, 30), size=(40, 30), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def found(source, path) -> tuple[dict[str, dict], list[str]]:
    passed_over: list[str] = []
    rows = {
        row["name"]: {"photo_id": key, **row} for key, row in source.find_photos(path, passed_over)
    }
    return rows, passed_over


def manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def test_links_loops_and_hidden_files(tmp_path):
    paint(tmp_path / "in/a/1.png")
    paint(tmp_path / "in/b/2.PNG", format="PNG")
    paint(tmp_path / "in/.hidden/3.png")
    paint(tmp_path / "elsewhere/4.png")
    (tmp_path / "in/a/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere.png")
    rows, _ = found(folder, tmp_path / "in")
    assert sorted(rows) == ["a/1.png", "b/2.PNG", "linked/4.png"]
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        found(folder, tmp_path / "void")
    with pytest.raises(UserError, match="no folder"):
        found(folder, tmp_path / "in/a/1.png")


def test_sidecars_nearer_over_farther_and_json_over_csv(tmp_path):
    for name in ("1.jpg", "sub/2.jpg", "sub/3.jpg", "sub/4.jpg", "5.jpg"):
        paint(tmp_path / name)
    (tmp_path / "all.csv").write_bytes(
        "\ufefffile;photographer;licence;consent_ref;note;shoe size\n1.jpg;Åsa;all rights;r-1;=1+1;44\n"
        "sub\\2.jpg;Bo;all rights;r-2;;\nsub/3.jpg;Bo;all rights;r-3;;\nmissing.jpg;X;;;;\n".encode()
    )
    (tmp_path / "sub/nearer.csv").write_text("filename,photographer,person\n3.jpg,Cy,p-1\n")
    (tmp_path / "sub/3.jpg.json").write_text(
        json.dumps({"note": "by hand", "licence_basis": "other:loan"})
    )
    (tmp_path / "sub/4.json").write_text(json.dumps({"photographer": "Di"}))
    (tmp_path / "5.json").write_text(json.dumps({"something": "else's"}))
    (tmp_path / "prices.csv").write_text("item,price\nlens,100\n")
    rows, passed_over = found(folder, tmp_path)
    assert rows["1.jpg"]["photographer_name"] == "Åsa"
    assert rows["1.jpg"]["note"] == "=1+1"
    assert rows["sub/2.jpg"]["consent_ref"] == "r-2"
    three = rows["sub/3.jpg"]
    assert [
        three[name]
        for name in ("photographer_name", "person", "consent_ref", "note", "licence_basis")
    ] == [
        "Cy",
        "p-1",
        "r-3",
        "by hand",
        "other:loan",
    ]
    assert rows["sub/4.jpg"]["photographer_name"] == "Di"
    assert "photographer_name" not in rows["5.jpg"]
    assert len(passed_over) == 1
    assert "missing.jpg" in passed_over[0]


@pytest.mark.parametrize("text", ["[]", "{", '{"photographr": "x"}', '{"note": 3}'])
def test_a_sidecar_that_is_wrong_is_a_mistake(tmp_path, text):
    paint(tmp_path / "1.jpg")
    (tmp_path / "1.jpg.json").write_text(text)
    with pytest.raises(UserError, match=r"1\.jpg\.json"):
        found(folder, tmp_path)


FFHQ_ENTRY = {
    "metadata": {
        "photo_url": "https://www.flickr.com/photos/x/1/",
        "photo_title": "A smile",
        "author": "Jane",
        "license": "Attribution-NonCommercial License",
    },
    "image": {
        "pixel_size": [1024, 1024],
        "face_landmarks": [[float(n), float(n + 1)] for n in range(68)],
    },
}


def test_ffhq_with_and_without_its_json(tmp_path):
    root = tmp_path / "images1024x1024"
    for name in ("00000/00000.png", "00000/00001.png", "00000/00002.png", "00003.png"):
        paint(root / name)
    rows, passed_over = found(ffhq, root)
    assert sorted(row["photo_id"] for row in rows.values()) == [f"ffhq_0000{n}" for n in range(4)]
    assert all(row["aligned"] for row in rows.values())
    assert not passed_over
    public = {**FFHQ_ENTRY, "metadata": {**FFHQ_ENTRY["metadata"], "license": "Public Domain Mark"}}
    said = {
        "0": FFHQ_ENTRY,
        "1": public,
        "2": {"metadata": {}, "image": {"face_landmarks": [[1, 2]]}},
        "9": FFHQ_ENTRY,
    }
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps(said))
    rows, passed_over = found(ffhq, root)
    first = rows["00000/00000.png"]
    assert first["licence_basis"] == "other:Attribution-NonCommercial License"
    assert (first["photographer_name"], first["source_url"]) == (
        "Jane",
        "https://www.flickr.com/photos/x/1/",
    )
    assert np.array(first["landmarks68_px"]).shape == (68, 2)
    assert rows["00000/00001.png"]["licence_basis"] == "public-domain"
    assert "licence_basis" not in rows["00003.png"]
    assert len(passed_over) == 1
    assert "entry 2" in passed_over[0]


@pytest.mark.parametrize(
    ("said", "tags"),
    [
        ("a woman, Red hair; smiling.", ["a woman", "red hair", "smiling"]),
        ({"caption": "a man\nbeard"}, ["a man", "beard"]),
        ({"id": "7", "response": ["young woman", "soft light"]}, ["young woman", "soft light"]),
        ([{"text": "one"}, {"text": "two, one"}], ["one", "two"]),
        ({"hair": "brown", "eyes": {"colour": "blue"}}, ["brown", "blue"]),
        ({"count": 3}, None),
    ],
)
def test_authface_hq_captions_in_whatever_form(tmp_path, said, tags):
    paint(tmp_path / "woman/woman_1.png")
    (tmp_path / "woman/woman_1_qwen.json").write_text(json.dumps(said))
    rows, passed_over = found(authface_hq, tmp_path)
    row = rows["woman/woman_1.png"]
    assert row["photo_id"] == "afhq_woman_woman_1"
    assert row["source_tags"] == tags
    assert bool(passed_over) == (tags is None)


@pytest.mark.slow
def test_authface_hq_from_files_to_captions_that_train(tmp_path, authface_here, filled, weights):
    """Its pictures are taken whole, its captions are qwen's, and without a basis training refuses them."""
    faces = manifest(filled, "faces")
    home = tmp_path / "hq/woman"
    home.mkdir(parents=True)
    for number, path in enumerate(faces["crop_path"][:3]):
        (home / f"woman_{number}.png").write_bytes((filled / path).read_bytes())
        (home / f"woman_{number}_qwen.json").write_text(
            json.dumps({"caption": "a portrait, blue suit, headshot"})
        )
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    done = authface_here(
        "collect", "-w", root, "--source", "authface-hq", "--path", tmp_path / "hq"
    )
    assert done.returncode == 0, done.stderr
    assert "no licence basis" in done.stdout
    captions = manifest(root, "captions")
    assert set(captions["captioner"]) == {"qwen"}
    assert len(captions) == 3
    assert list(captions["semantic_tags"].iloc[0]) == ["blue suit"]
    assert list(captions["photographic_tags"].iloc[0]) == ["head and shoulders", "portrait"]
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    made = manifest(root, "faces")
    assert set(made["face_id"]) <= set(captions["face_id"])
    assert (made["pad_fraction"] == 0).all()
    with (
        Image.open(root / made["crop_path"].iloc[0]) as ours,
        Image.open(home / "woman_0.png") as theirs,
    ):
        first = made[made["photo_id"] == "afhq_woman_woman_0"]
        with Image.open(root / first["crop_path"].iloc[0]) as crop:
            assert np.array_equal(np.asarray(crop), np.asarray(theirs))  # not resampled
        assert ours.size == (512, 512)
    with pytest.raises(UserError, match="no licence basis"):
        training_view(Workspace(root))
    view = training_view(Workspace(root), allow_unknown_licence=True)
    assert set(view["captioner"]) == {"qwen"}
    assert set(view["caption"]) == {"blue suit, head and shoulders, portrait"}
    again = authface_here(
        "collect",
        "-w",
        root,
        "--source",
        "authface-hq",
        "--path",
        tmp_path / "hq",
        "--licence-basis",
        "other:x",
        "--yes",
    )
    assert again.returncode == 0, again.stderr
    assert len(training_view(Workspace(root))) == len(view)


@pytest.mark.slow
def test_ffhq_landmarks_are_taken_as_they_come(tmp_path, authface_here, filled, weights):
    row = manifest(filled, "faces").iloc[0]
    home = tmp_path / "ffhq"
    home.mkdir()
    with Image.open(filled / row["crop_path"]) as crop:
        crop.resize((1024, 1024)).save(home / "00007.png")
    points = [[(x + 0.5) * 2 - 0.5, (y + 0.5) * 2 - 0.5] for x, y in row["landmarks_crop_px"]]
    entry = {**FFHQ_ENTRY, "image": {"pixel_size": [1024, 1024], "face_landmarks": points}}
    (home / "ffhq-dataset-v2.json").write_text(json.dumps({"7": entry}))
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    assert authface_here("collect", "-w", root, "--source", "ffhq", "--path", home).returncode == 0
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    face = manifest(root, "faces").iloc[0]
    assert face["landmark_backend"] == "source"
    assert np.allclose(
        np.stack(face["landmarks_crop_px"]), np.stack(row["landmarks_crop_px"]), atol=1e-6
    )
    assert np.allclose(np.stack(face["landmarks68_px"]), points)
    assert face["qsize_px"] == 1024
    for name in ("left_eye", "right_eye", "mouth"):
        assert np.allclose(face[f"{name}_box_crop_px"], row[f"{name}_box_crop_px"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["copy", "hardlink", "reference"])
def test_how_files_are_kept(tmp_path, authface_here, keep):
    original = paint(tmp_path / "in/1.png")
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    words = (
        "collect",
        "-w",
        root,
        "--source",
        "folder",
        "--path",
        tmp_path / "in",
        "--licence-basis",
        "own",
        "--files",
        keep,
    )
    done = authface_here(*words)
    assert done.returncode == 0, done.stderr
    row = manifest(root, "photos").iloc[0]
    kept = root / row["path"]
    assert kept.read_bytes() == original.read_bytes()
    assert kept.is_symlink() == (keep == "reference")
    assert (os.stat(kept).st_ino == original.stat().st_ino) == (keep != "copy")
    assert not os.path.isabs(row["path"])
    assert authface_here(*words).stdout.startswith("0 photographs collected")
    if keep == "reference":
        original.unlink()
        gone = authface_here("collect", "-w", root, "--source", "folder", "--refresh")
        assert f"authface forget -- {row['photo_id']}" in gone.stdout
    elif keep == "hardlink":
        assert authface_here("forget", "-w", root, row["photo_id"], "--yes").returncode == 0
        assert original.exists()  # the owner's file is the owner's
        assert not list((root / "photos").iterdir())


@pytest.mark.slow
def test_place_is_kept_only_where_asked_for(tmp_path, authface_here):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 15.5), 3: "W", 4: (13.0, 24.0, 0.5)}
    original = paint(tmp_path / "in/1.jpg", exif=exif)
    for asked in (False, True):
        root = tmp_path / f"ws{asked}"
        assert authface_here("init", root, "--preset", "embedded").returncode == 0
        settings = root / "authface.toml"
        settings.write_text(
            f"[collect]\nstore_place = {str(asked).lower()}\n"
            + settings.read_text().split("\n\n", 1)[1]
        )
        done = authface_here(
            "collect",
            "-w",
            root,
            "--source",
            "folder",
            "--path",
            tmp_path / "in",
            "--licence-basis",
            "own",
        )
        assert done.returncode == 0, done.stderr
        row = manifest(root, "photos").iloc[0]
        kept = root / row["path"]
        with Image.open(kept) as image:
            assert bool(image.getexif().get_ifd(0x8825)) == asked
        assert (kept.read_bytes() == original.read_bytes()) == asked
        if asked:
            assert row["latitude"] == pytest.approx(52.50430556)
            assert row["longitude"] == pytest.approx(-13.40013889)
        else:
            assert pd.isna(row["latitude"])


@pytest.mark.slow
def test_options_of_other_sources_and_a_missing_basis_are_mistakes(tmp_path, authface_here):
    paint(tmp_path / "in/1.png")
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    common = ("collect", "-w", root, "--source", "folder", "--path", tmp_path / "in")
    for words, said in (
        (("--query", "face", "--licence-basis", "own"), "--query means nothing to --source folder"),
        (("--plan", "--licence-basis", "own"), "--plan means nothing to --source folder"),
        ((), "--licence-basis is missing"),
        (("--licence-basis", "  "), "--licence-basis is empty"),
    ):
        done = authface_here(*common, *words)
        assert done.returncode == 2
        assert said in done.stderr
    (tmp_path / "in/list.csv").write_text("file,licence_basis\n1.png,public-domain\n")
    assert authface_here(*common).returncode == 0  # each says its own
    assert list(manifest(root, "photos")["licence_basis"]) == ["public-domain"]
