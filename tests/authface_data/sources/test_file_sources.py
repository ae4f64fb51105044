"""Sources of files: folders with sidecar files, FFHQ, AuthFace-HQ; and how their files are kept."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.sources.authface_hq import AuthfaceHqSource
from authface_data.sources.ffhq import FfhqSource
from authface_data.sources.file_source import FileOptions
from authface_data.sources.folder import FolderSource
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace


def save_image(path: Path, colour=(200, 30, 30), size=(40, 30), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def describe_photos(source_class, workspace, path) -> tuple[dict[str, dict], list[str]]:
    """Id and columns of each photograph by its name, and the messages about skipped files."""
    source = source_class(workspace, FileOptions(path=path))
    photos = {
        photo.name: {"photo_id": photo.photo_id, **photo.columns} for photo in source.photos()
    }
    return photos, source.skipped


def read_manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def make_workspace(root: Path, authface_here) -> Path:
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    return root


def test_each_image_is_found_once_despite_links_loops_and_hidden_folders(tmp_path, workspace):
    save_image(tmp_path / "in/a/1.png")
    save_image(tmp_path / "in/b/2.PNG", format="PNG")
    save_image(tmp_path / "in/.hidden/3.png")
    save_image(tmp_path / "elsewhere/4.png")
    (tmp_path / "in/a/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/broken.png").symlink_to(tmp_path / "nowhere.png")
    photos, _ = describe_photos(FolderSource, workspace, tmp_path / "in")
    assert sorted(photos) == ["a/1.png", "b/2.PNG", "linked/4.png"]

    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        describe_photos(FolderSource, workspace, tmp_path / "empty")
    with pytest.raises(UserError, match="no folder"):
        describe_photos(FolderSource, workspace, tmp_path / "in/a/1.png")


def test_nearer_sidecars_override_and_json_overrides_csv(tmp_path, workspace):
    for name in ("1.jpg", "sub/2.jpg", "sub/3.jpg", "sub/4.jpg", "5.jpg"):
        save_image(tmp_path / name)
    (tmp_path / "all.csv").write_bytes(
        "\ufefffile;photographer;licence;consent_ref;note;shoe size\n"
        "1.jpg;Åsa;all rights;r-1;=1+1;44\n"
        "sub\\2.jpg;Bo;all rights;r-2;;\n"
        "sub/3.jpg;Bo;all rights;r-3;;\n"
        "missing.jpg;X;;;;\n".encode()
    )
    (tmp_path / "sub/nearer.csv").write_text("filename,photographer,person\n3.jpg,Cy,p-1\n")
    sidecar = {"note": "by hand", "licence_basis": "other:loan"}
    (tmp_path / "sub/3.jpg.json").write_text(json.dumps(sidecar))
    (tmp_path / "sub/4.json").write_text(json.dumps({"photographer": "Di"}))
    (tmp_path / "5.json").write_text(json.dumps({"something": "else's"}))
    (tmp_path / "prices.csv").write_text("item,price\nlens,100\n")

    photos, skipped = describe_photos(FolderSource, workspace, tmp_path)

    assert photos["1.jpg"]["photographer_name"] == "Åsa"
    assert photos["1.jpg"]["note"] == "=1+1"
    assert photos["sub/2.jpg"]["consent_ref"] == "r-2"
    third = photos["sub/3.jpg"]
    assert third["photographer_name"] == "Cy"
    assert third["person"] == "p-1"
    assert third["consent_ref"] == "r-3"
    assert third["note"] == "by hand"
    assert third["licence_basis"] == "other:loan"
    assert photos["sub/4.jpg"]["photographer_name"] == "Di"
    assert "photographer_name" not in photos["5.jpg"]
    assert len(skipped) == 1
    assert "1 row without a picture (first: missing.jpg)" in skipped[0]


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


def test_ffhq_is_described_with_and_without_its_json(tmp_path, workspace):
    root = tmp_path / "images1024x1024"
    for name in ("00000/00000.png", "00000/00001.png", "00000/00002.png", "00003.png"):
        save_image(root / name)
    photos, skipped = describe_photos(FfhqSource, workspace, root)
    photo_ids = sorted(photo["photo_id"] for photo in photos.values())
    assert photo_ids == [f"ffhq_0000{n}" for n in range(4)]
    assert all(photo["aligned"] for photo in photos.values())
    assert not skipped

    public_domain_metadata = {**FFHQ_ENTRY["metadata"], "license": "Public Domain Mark"}
    entries = {
        "0": FFHQ_ENTRY,
        "1": {**FFHQ_ENTRY, "metadata": public_domain_metadata},
        "2": {"metadata": {}, "image": {"face_landmarks": [[1, 2]]}},
        "9": FFHQ_ENTRY,
    }
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    photos, skipped = describe_photos(FfhqSource, workspace, root)
    first = photos["00000/00000.png"]
    assert first["licence_basis"] == "other:Attribution-NonCommercial License"
    assert first["photographer_name"] == "Jane"
    assert first["source_url"] == "https://www.flickr.com/photos/x/1/"
    assert np.array(first["landmarks68_px"]).shape == (68, 2)
    assert photos["00000/00001.png"]["licence_basis"] == "public-domain"
    assert "licence_basis" not in photos["00003.png"]
    assert len(skipped) == 1
    assert "entry 2" in skipped[0]


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a woman, Red hair; smiling.", ["a woman", "red hair", "smiling"]),
        ({"caption": "a man\nbeard"}, ["a man", "beard"]),
        ({"id": "7", "response": ["young woman", "soft light"]}, ["young woman", "soft light"]),
        ([{"text": "one"}, {"text": "two, one"}], ["one", "two"]),
        ({"hair": "brown", "eyes": {"colour": "blue"}}, ["brown", "blue"]),
        ({"count": 3}, None),
    ],
)
def test_authface_hq_captions_are_read_in_any_form(tmp_path, workspace, caption, tags):
    save_image(tmp_path / "woman/woman_1.png")
    (tmp_path / "woman/woman_1_qwen.json").write_text(json.dumps(caption))
    photos, skipped = describe_photos(AuthfaceHqSource, workspace, tmp_path)
    photo = photos["woman/woman_1.png"]
    assert photo["photo_id"] == "afhq_woman_woman_1"
    assert photo["source_tags"] == tags
    assert bool(skipped) == (tags is None)


@pytest.mark.slow
def test_authface_hq_pictures_and_captions_reach_the_training_view(
    tmp_path, authface_here, filled, weights
):
    """Pictures are used as crops with the captions of qwen; a missing basis is refused."""
    faces = read_manifest(filled, "faces")
    pictures = tmp_path / "hq/woman"
    pictures.mkdir(parents=True)
    for number, path in enumerate(faces["crop_path"][:3]):
        (pictures / f"woman_{number}.png").write_bytes((filled / path).read_bytes())
        caption = {"caption": "a portrait, blue suit, headshot"}
        (pictures / f"woman_{number}_qwen.json").write_text(json.dumps(caption))
    root = make_workspace(tmp_path / "ws", authface_here)
    collect = ("collect", "-w", root, "--source", "authface-hq", "--path", tmp_path / "hq")

    collected = authface_here(*collect)
    assert collected.returncode == 0, collected.stderr
    assert "without a licence basis" in collected.stdout
    assert "3 captions by qwen" in collected.stdout
    captions = read_manifest(root, "captions")
    assert set(captions["captioner"]) == {"qwen"}
    assert len(captions) == 3
    assert list(captions["semantic_tags"].iloc[0]) == ["blue suit"]
    assert list(captions["photographic_tags"].iloc[0]) == ["head and shoulders", "portrait"]

    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    hq_faces = read_manifest(root, "faces")
    assert set(hq_faces["face_id"]) <= set(captions["face_id"])
    assert (hq_faces["pad_fraction"] == 0).all()
    for crop_path in hq_faces["crop_path"]:
        with Image.open(root / crop_path) as crop:
            assert crop.size == (512, 512)
    first = hq_faces[hq_faces["photo_id"] == "afhq_woman_woman_0"].iloc[0]
    with (
        Image.open(pictures / "woman_0.png") as picture,
        Image.open(root / first["crop_path"]) as crop,
    ):
        assert np.array_equal(np.asarray(crop), np.asarray(picture))  # not resampled

    with pytest.raises(UserError, match="no licence basis"):
        training_view(Workspace(root))
    view = training_view(Workspace(root), allow_unknown_licence=True)
    assert set(view["captioner"]) == {"qwen"}
    assert set(view["caption"]) == {"blue suit, head and shoulders, portrait"}

    with_basis = authface_here(*collect, "--licence-basis", "other:x", "--yes")
    assert with_basis.returncode == 0, with_basis.stderr
    assert len(training_view(Workspace(root))) == len(view)


@pytest.mark.slow
def test_ffhq_landmarks_are_used_instead_of_detected_ones(tmp_path, authface_here, filled, weights):
    original = read_manifest(filled, "faces").iloc[0]
    pictures = tmp_path / "ffhq"
    pictures.mkdir()
    with Image.open(filled / original["crop_path"]) as crop:
        crop.resize((1024, 1024)).save(pictures / "00007.png")
    points = [[(x + 0.5) * 2 - 0.5, (y + 0.5) * 2 - 0.5] for x, y in original["landmarks_crop_px"]]
    entry = {**FFHQ_ENTRY, "image": {"pixel_size": [1024, 1024], "face_landmarks": points}}
    (pictures / "ffhq-dataset-v2.json").write_text(json.dumps({"7": entry}))

    root = make_workspace(tmp_path / "ws", authface_here)
    collect = ("collect", "-w", root, "--source", "ffhq", "--path", pictures)
    assert authface_here(*collect).returncode == 0
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0

    face = read_manifest(root, "faces").iloc[0]
    assert face["landmark_backend"] == "source"
    assert np.allclose(
        np.stack(face["landmarks_crop_px"]), np.stack(original["landmarks_crop_px"]), atol=1e-6
    )
    assert np.allclose(np.stack(face["landmarks68_px"]), points)
    assert face["qsize_px"] == 1024
    for region in ("left_eye", "right_eye", "mouth"):
        column = f"{region}_box_crop_px"
        assert np.allclose(face[column], original[column], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("file_mode", ["copy", "hardlink", "reference"])
def test_files_are_copied_or_linked(tmp_path, authface_here, file_mode):
    original = save_image(tmp_path / "in/1.png")
    root = make_workspace(tmp_path / "ws", authface_here)
    collect = ["collect", "-w", root, "--source", "folder", "--path", tmp_path / "in"]
    collect += ["--licence-basis", "own", "--files", file_mode]
    collected = authface_here(*collect)
    assert collected.returncode == 0, collected.stderr

    row = read_manifest(root, "photos").iloc[0]
    kept = root / row["path"]
    assert kept.read_bytes() == original.read_bytes()
    assert kept.is_symlink() == (file_mode == "reference")
    assert (os.stat(kept).st_ino == original.stat().st_ino) == (file_mode != "copy")
    assert not os.path.isabs(row["path"])
    repeated = authface_here(*collect)
    assert repeated.stdout.startswith("0 photographs collected, 1 already in the workspace")

    if file_mode == "reference":
        original.unlink()
        refreshed = authface_here("collect", "-w", root, "--source", "folder", "--refresh")
        assert refreshed.returncode == 4
        assert "forget" not in refreshed.stdout + refreshed.stderr
    elif file_mode == "hardlink":
        assert authface_here("forget", "-w", root, row["photo_id"], "--yes").returncode == 0
        assert original.exists()  # only the workspace's link is removed
        assert not list((root / "photos").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("store_place", [False, True])
def test_place_is_stored_only_if_the_setting_asks_for_it(tmp_path, authface_here, store_place):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 15.5), 3: "W", 4: (13.0, 24.0, 0.5)}
    original = save_image(tmp_path / "in/1.jpg", exif=exif)
    root = make_workspace(tmp_path / "ws", authface_here)
    settings = root / "authface.toml"
    other_settings = settings.read_text().split("\n\n", 1)[1]
    settings.write_text(f"[collect]\nstore_place = {str(store_place).lower()}\n{other_settings}")

    collect = ["collect", "-w", root, "--source", "folder", "--path", tmp_path / "in"]
    collected = authface_here(*collect, "--licence-basis", "own")
    assert collected.returncode == 0, collected.stderr
    row = read_manifest(root, "photos").iloc[0]
    kept = root / row["path"]
    with Image.open(kept) as image:
        assert bool(image.getexif().get_ifd(0x8825)) == store_place
    assert (kept.read_bytes() == original.read_bytes()) == store_place
    if store_place:
        assert row["latitude"] == pytest.approx(52.50430556)
        assert row["longitude"] == pytest.approx(-13.40013889)
    else:
        assert pd.isna(row["latitude"])


@pytest.mark.slow
def test_collect_refuses_a_missing_licence_basis_unless_a_sidecar_has_one(tmp_path, authface_here):
    save_image(tmp_path / "in/1.png")
    root = make_workspace(tmp_path / "ws", authface_here)
    collect = ("collect", "-w", root, "--source", "folder", "--path", tmp_path / "in")
    missing = authface_here(*collect)
    assert missing.returncode == 2
    assert (
        "--licence-basis is required for --source folder: 1 of 1 photograph without"
        in missing.stderr
    )

    (tmp_path / "in/list.csv").write_text("file,licence_basis\n1.png,public-domain\n")
    assert authface_here(*collect).returncode == 0
    assert list(read_manifest(root, "photos")["licence_basis"]) == ["public-domain"]
