"""The commands on real photographs: what they leave is whole, plain and accounted for."""

import hashlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.images.open import Photo
from authface_data.images.strip_location import strip_location
from manifests.schema import MANIFESTS
from manifests.training_view import training_view
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


def manifest(root, name) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def test_every_manifest_opens_with_pandas_and_datasets(filled, tmp_path):
    import datasets

    for name, kind in MANIFESTS.items():
        frame = manifest(filled, name)
        assert list(frame.columns) == kind.schema.names
        if frame.empty:
            continue  # `datasets` makes no split of nothing
        loaded = datasets.load_dataset(
            "parquet",
            data_files=str(filled / "manifests" / name / "*.parquet"),
            split="train",
            cache_dir=str(tmp_path),
        )
        assert loaded.num_rows == len(frame)
        assert loaded.column_names == kind.schema.names


def test_every_photo_is_kept_or_says_why_not(filled):
    photos, faces, verdicts = (manifest(filled, name) for name in ("photos", "faces", "verdicts"))
    assert len(photos) == 6
    told = verdicts[verdicts["verdict"].isin(["dropped", "failed"]) & verdicts["reason"].notna()]
    kept_faces = set(
        verdicts[(verdicts["gate"] == "all_gates") & (verdicts["verdict"] == "kept")]["id"]
    )
    kept_photos = set(faces[faces["face_id"].isin(kept_faces)]["photo_id"])
    assert len(kept_photos) == 4
    for photo in photos["photo_id"]:
        assert photo in kept_photos or photo in set(told["id"])
    broken = told[told["gate"] == "collect"]
    assert len(broken) == 1
    assert broken["reason"].iloc[0].startswith("undecodable: broken.jpg")
    reasons = set(told[told["subject"] == "face"]["gate"])
    assert {"face_size", "padding"} <= reasons  # measured gates dropped real faces


def test_every_kept_face_has_caption_landmarks_and_regions(filled):
    view = training_view(Workspace(filled))
    assert len(view) == 4
    for row in view.itertuples():
        assert row.caption
        landmarks = np.array([list(point) for point in row.landmarks_crop_px])
        assert landmarks.shape == (68, 2)
        assert (landmarks > 0).all()
        assert (landmarks < 512).all()
        for name in ("left_eye", "right_eye", "mouth"):
            x0, y0, x1, y1 = getattr(row, f"{name}_box_crop_px")
            assert x1 - x0 == pytest.approx(y1 - y0)
            assert getattr(row, f"{name}_visible")
        assert row.left_eye_box_crop_px[0] < row.right_eye_box_crop_px[0]  # as seen in the image
        assert (
            np.linalg.norm(landmarks[36:42].mean(0) - [188, 243]) < 25
        )  # where FFHQ's alignment puts the left eye
        with Image.open(filled / row.crop_path) as crop:
            assert crop.size == (512, 512)
            assert not crop.getexif()


def test_photos_are_kept_as_they_came(filled, photos):
    frame = manifest(filled, "photos").set_index("description")
    for name, path in photos.items():
        row = frame.loc[name]
        kept = (filled / row["path"]).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == row["sha256"]
        assert kept == strip_location(
            path.read_bytes()
        )  # byte for byte, but for where it was taken
        assert np.array_equal(
            Photo(lambda kept=kept: kept).pixels(), Photo(path.read_bytes).pixels()
        )
        with Image.open(path) as image:
            assert (row["width"], row["height"]) == image.size
        assert row["source"] == "folder"
        assert row["licence_basis"] == "own"
        assert row["photo_id"].startswith("fs_")
    assert frame.loc["obama.jpg", "camera_make"]


def test_running_again_changes_nothing(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    before = {path: path.read_bytes() for path in root.rglob("*.parquet")}
    for command in ("filter", "caption"):
        done = authface_here(command, "-w", root)
        assert done.returncode == 0, done.stderr
    after = {path: path.read_bytes() for path in root.rglob("*.parquet")}
    changed = {path.parent.name for path in set(before) ^ set(after)}
    assert changed <= {"verdicts"}  # the gates decide anew, the models do not run


def test_regate_decides_again_without_a_model(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    settings = (root / "authface.toml").read_text()
    (root / "authface.toml").write_text(settings.replace("threshold = 224", "threshold = 500"))
    done = authface_here(
        "filter", "--regate", "-w", root, env={"AUTHFACE_CACHE": str(tmp_path / "nothing")}
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 6 faces kept" in done.stdout
    verdicts = manifest(root, "verdicts")
    sizes = verdicts[verdicts["gate"] == "face_size"]
    assert (sizes["reason"] == "qsize_px < 500").sum() == 5
    assert (
        "remove --detector" in authface_here("filter", "--regate", "--size", 512, "-w", root).stderr
    )


def test_a_changed_setting_asks_and_then_redoes(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    asked = authface_here("filter", "--landmarks", "retinaface5", "-w", root)
    assert asked.returncode == 2
    assert "6 of faces were made with other settings" in asked.stderr
    assert manifest(root, "faces")["landmark_backend"].tolist() == ["dlib"] * 6
    done = authface_here("filter", "--landmarks", "retinaface5", "-w", root, "--yes")
    assert done.returncode == 0, done.stderr
    faces = manifest(root, "faces")
    assert faces["landmark_backend"].tolist() == ["retinaface5"] * 6
    assert faces["landmarks68_px"].isna().all()
    scores, captions = manifest(root, "scores"), manifest(root, "captions")
    assert len(scores) == 78
    niqe, before = (
        frame[frame["metric"] == "niqe"]["value"] for frame in (scores, manifest(filled, "scores"))
    )
    assert not set(niqe) & set(before)  # new crops, new scores
    for row in faces.itertuples():
        assert hashlib.sha256((root / row.crop_path).read_bytes()).hexdigest() == row.crop_sha256
    stale = authface_here("caption", "-w", root)
    assert stale.returncode == 2
    assert f"{len(captions)} of measured" in stale.stderr
    assert authface_here("caption", "-w", root, "--yes").returncode == 0
    assert sorted(path.name for path in (root / "faces").iterdir()) == sorted(
        faces["crop_path"].str.removeprefix("faces/")
    )


def test_status_for_people_and_machines(filled, authface_here):
    words = authface_here("status", "-w", filled)
    assert "face_size: qsize_px < 224" in words.stdout
    assert "authface train-prior" in words.stdout
    facts = json.loads(authface_here("status", "-w", filled, "--json").stdout)
    assert facts["rows"]["photos"] == 6
    assert facts["kept_faces"] == facts["captioned"] == 4
    assert facts["dropped"]["photo"] == {"collect: undecodable file": 1}


def test_killed_in_the_middle_of_a_redo_and_set_back(filled, tmp_path, authface_here):
    """Some photographs redone, then the old setting again: rows and crops agree, and `--regate` sees one generation."""
    from authface_data.engine.stage import Chain, Item
    from authface_data.faces.stage import FacesStage
    from authface_data.images.open import PictureReader
    from manifests.schema import FACES
    from manifests.store import Store

    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    ws = Workspace(root)
    stage = FacesStage(
        detector="retinaface-mobile",
        landmarks="dlib",
        size_px=512,
        min_detector_score=0.6,
        detect_long_side_px=1280,
        weights_dir=None,
    )
    stage.setup("cpu")
    chain = Chain([stage], PictureReader(ws, "path"))
    for row in manifest(root, "photos").to_dict("records")[:2]:
        (made,) = stage.process(
            [Item(row["photo_id"], row, chain.open_picture(row))], ws.write_bytes
        )
        Store(ws, FACES).append([{**face, "fingerprint": "another"} for face in made.rows])
    assert "of 6 faces kept" in authface_here("filter", "--regate", "-w", root).stdout
    done = authface_here("filter", "-w", root, "--yes")
    assert done.returncode == 0, done.stderr
    faces = manifest(root, "faces")
    assert sorted(faces["face_id"]) == sorted(manifest(filled, "faces")["face_id"])
    for row in faces.itertuples():
        assert hashlib.sha256((root / row.crop_path).read_bytes()).hexdigest() == row.crop_sha256


def test_odd_files_and_folders(tmp_path, authface_here, photos):
    """Names that are no text, unreadable files, loops of links, a workspace within: none is fatal, none comes in twice."""
    folder = tmp_path / "in"
    root = folder / "ws"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(photos["obama.jpg"], folder / "deep" / "-a b.JPG")
    shutil.copy(photos["obama2.jpg"], os.fsencode(folder) + b"/caf\xe9.jpg")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nothing")
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    for _ in range(2):
        done = authface_here(
            "collect", "-w", root, "--source", "folder", "--path", folder, "--licence-basis", "own"
        )
        assert done.returncode == 0, done.stderr
    assert "2 already in the workspace" in done.stdout
    assert len(manifest(root, "photos")) == 2


def test_a_photo_without_a_face_is_a_result(tmp_path, authface_here, weights):
    root, folder = tmp_path / "ws", tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    assert (
        authface_here(
            "collect", "-w", root, "--source", "folder", "--path", folder, "--licence-basis", "own"
        ).returncode
        == 0
    )
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    verdicts = manifest(root, "verdicts")
    assert verdicts[["subject", "gate", "verdict", "reason"]].to_dict("records") == [
        {"subject": "photo", "gate": "faces", "verdict": "dropped", "reason": "no_face"}
    ]
    assert authface_here("caption", "-w", root).returncode == 2


def test_a_sidecar_credits_the_photographer(tmp_path, authface_here, photos):
    root, folder = tmp_path / "ws", tmp_path / "in"
    folder.mkdir()
    shutil.copy(photos["obama.jpg"], folder / "a.jpg")
    (folder / "a.jpg.json").write_text(
        json.dumps({"photographer": "P. S.", "consent_ref": "form 7", "licence": "CC0-1.0"})
    )
    authface_here("init", root, "--preset", "embedded")
    collect = (
        "collect",
        "-w",
        root,
        "--source",
        "folder",
        "--path",
        folder,
        "--licence-basis",
        "own",
    )
    assert authface_here(*collect).returncode == 0
    row = manifest(root, "photos").iloc[0]
    assert (row["photographer_name"], row["consent_ref"], row["licence"]) == (
        "P. S.",
        "form 7",
        "CC0-1.0",
    )
    (folder / "a.jpg.json").write_text(json.dumps({"photographer": "Q. T.", "licence": None}))
    assert "1 of collect" in authface_here(*collect).stderr
    assert authface_here(*collect, "--yes").returncode == 0
    row = manifest(root, "photos").iloc[0]
    assert row["photographer_name"] == "Q. T."
    assert pd.isna(row["licence"])
    for wrong in ('{"fotographer": "P. S."}', '["P. S."]', '{"photographer": 3}', "{"):
        (folder / "a.jpg.json").write_text(wrong)
        done = authface_here(*collect)
        assert done.returncode == 2
        assert "a.jpg.json" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "say"),
    [
        (
            ("collect", "--source", "folder", "--path", "/nowhere", "--licence-basis", "own"),
            2,
            "is no folder",
        ),
        (
            ("collect", "--source", "folder", "--path", ".", "--licence-basis", " "),
            2,
            "--licence-basis is empty",
        ),
        (("collect", "--source", "folder"), 2, "--path"),
        (("filter",), 2, "authface collect"),
        (("filter", "--detector", "yolo"), 2, "retinaface-mobile"),
        (("filter", "--size", "700"), 2, "--size"),
        (("caption",), 2, "authface filter"),
        (("train-prior", "--preset", "tiny"), 2, "authface filter"),
        (("train-prior", "--preset", "tinny"), 2, "paper, tiny"),
        (("train-restore", "--preset", "tiny", "--degradation", "rain"), 2, "gfpgan"),
        (("train-restore", "--preset", "tiny", "--prior", "/nowhere"), 2, "no finished prior"),
        (("restore", "--model", "x", "--input", "/nowhere", "--output", "y"), 2, "is not there"),
        (("init", "."), 2, "is a workspace already"),
        (("init", "authface.toml"), 2, "authface.toml"),
        (("nonsense",), 2, "No such command"),
        (("filter", "--size", "abc"), 2, "--size"),
        (("filter", "--retry", "all"), 2, "`failed`"),
        (("filter", "--regate"), 2, "`authface filter` first"),
        (("init", "other", "--preset", "papper"), 2, "embedded, paper"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(workspace, authface_here, words, code, say):
    words = (*words, *(() if words[0] in ("init", "nonsense") else ("-w", workspace.root)))
    if words[:2] == ("filter", "--detector"):
        workspace.local_path("in").mkdir()
        Image.new("RGB", (8, 8)).save(workspace.local_path("in/x.png"))
        collect = (
            "collect",
            "--source",
            "folder",
            "--path",
            workspace.local_path("in"),
            "--licence-basis",
            "own",
        )
        assert authface_here(*collect, "-w", workspace.root).returncode == 0
    done = authface_here(*words, cwd=workspace.local_path("."))
    assert done.returncode == code, done.stderr
    assert say in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
