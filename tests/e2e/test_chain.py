"""The data commands on real photographs: contents of the workspace, repeated runs and errors."""

import hashlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from commands import collect_folder, init_workspace
from PIL import Image

from authface_data.images.open import Photo
from authface_data.images.strip_location import strip_location
from manifests.schema import MANIFESTS
from manifests.training_view import training_view
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


FFHQ_LEFT_EYE_PX = (188, 243)
"""Centre of the left eye in a crop of 512 px with the alignment of FFHQ."""


def read_manifest(root, name) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def check_crops(root):
    """Check that each face has its crop file and that the file is the one of its row."""
    for row in read_manifest(root, "faces").itertuples():
        assert hashlib.sha256((root / row.crop_path).read_bytes()).hexdigest() == row.crop_sha256


@pytest.fixture
def root(filled, tmp_path):
    """A copy of the filled workspace."""
    copy = tmp_path / "ws"
    shutil.copytree(filled, copy)
    return copy


def test_every_manifest_opens_with_pandas_and_datasets(filled, tmp_path):
    import datasets

    for name, kind in MANIFESTS.items():
        frame = read_manifest(filled, name)
        assert list(frame.columns) == kind.schema.names
        if frame.empty:
            continue  # `datasets` cannot load an empty manifest.
        loaded = datasets.load_dataset(
            "parquet",
            data_files=str(filled / "manifests" / name / "*.parquet"),
            split="train",
            cache_dir=str(tmp_path),
        )
        assert loaded.num_rows == len(frame)
        assert loaded.column_names == kind.schema.names


def test_every_photo_is_kept_or_has_a_reason(filled):
    photos = read_manifest(filled, "photos")
    faces = read_manifest(filled, "faces")
    verdicts = read_manifest(filled, "verdicts")
    assert len(photos) == 6

    all_gates_kept = (verdicts["gate"] == "all_gates") & (verdicts["verdict"] == "kept")
    kept_faces = set(verdicts[all_gates_kept]["id"])
    kept_photos = set(faces[faces["face_id"].isin(kept_faces)]["photo_id"])
    assert len(kept_photos) == 4
    rejected = verdicts["verdict"].isin(["dropped", "failed"])
    rejections = verdicts[rejected & verdicts["reason"].notna()]
    for photo_id in photos["photo_id"]:
        assert photo_id in kept_photos or photo_id in set(rejections["id"])

    broken = rejections[rejections["gate"] == "collect"]
    assert len(broken) == 1
    assert broken["reason"].iloc[0].startswith("undecodable: broken.jpg")
    face_gates = set(rejections[rejections["subject"] == "face"]["gate"])
    assert {"face_size", "padding"} <= face_gates  # Gates on measurements drop real faces.


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
        # Left and right are those of the image.
        assert row.left_eye_box_crop_px[0] < row.right_eye_box_crop_px[0]
        left_eye = landmarks[36:42].mean(axis=0)
        assert np.linalg.norm(left_eye - FFHQ_LEFT_EYE_PX) < 25
        with Image.open(filled / row.crop_path) as crop:
            assert crop.size == (512, 512)
            assert not crop.getexif()


def test_photos_are_stored_unchanged_except_for_their_location(filled, photos):
    frame = read_manifest(filled, "photos").set_index("description")
    for name, path in photos.items():
        row = frame.loc[name]
        stored = (filled / row["path"]).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == row["sha256"]
        assert stored == strip_location(path.read_bytes())
        pixels = Photo((filled / row["path"]).read_bytes).pixels()
        assert np.array_equal(pixels, Photo(path.read_bytes).pixels())
        with Image.open(path) as image:
            assert (row["width"], row["height"]) == image.size
        assert row["source"] == "folder"
        assert row["licence_basis"] == "own"
        assert row["photo_id"].startswith("fs_")
    assert frame.loc["obama.jpg", "camera_make"]


def test_repeated_commands_change_only_verdicts(root, authface_here):
    before = {path: path.read_bytes() for path in root.rglob("*.parquet")}
    for command in ("filter", "caption"):
        completed = authface_here(command, "-w", root)
        assert completed.returncode == 0, completed.stderr
    after = {path: path.read_bytes() for path in root.rglob("*.parquet")}
    changed = {path.parent.name for path in set(before) ^ set(after)}
    assert changed <= {"verdicts"}  # The gates are applied again, but no model runs.


def test_regate_applies_a_new_threshold_without_models(root, tmp_path, authface_here):
    settings = (root / "authface.toml").read_text()
    (root / "authface.toml").write_text(settings.replace("threshold = 224", "threshold = 500"))
    without_weights = {"AUTHFACE_CACHE": str(tmp_path / "nothing")}
    completed = authface_here("filter", "--regate", "-w", root, env=without_weights)
    assert completed.returncode == 0, completed.stderr
    assert "1 of 6 faces kept" in completed.stdout
    verdicts = read_manifest(root, "verdicts")
    sizes = verdicts[verdicts["gate"] == "face_size"]
    assert (sizes["reason"] == "qsize_px < 500").sum() == 5

    refused = authface_here("filter", "--regate", "--size", 512, "-w", root)
    assert "remove --detector" in refused.stderr


def test_changed_setting_needs_confirmation_and_recomputes_rows(root, filled, authface_here):
    change_landmarks = ("filter", "--landmarks", "retinaface5", "-w", root)
    refused = authface_here(*change_landmarks)
    assert refused.returncode == 2
    assert "6 of faces were made with other settings" in refused.stderr
    assert read_manifest(root, "faces")["landmark_backend"].tolist() == ["dlib"] * 6

    completed = authface_here(*change_landmarks, "--yes")
    assert completed.returncode == 0, completed.stderr
    faces = read_manifest(root, "faces")
    assert faces["landmark_backend"].tolist() == ["retinaface5"] * 6
    assert faces["landmarks68_px"].isna().all()
    scores = read_manifest(root, "scores")
    assert len(scores) == 84
    scores_before = read_manifest(filled, "scores")
    niqe = set(scores[scores["metric"] == "niqe"]["value"])
    niqe_before = set(scores_before[scores_before["metric"] == "niqe"]["value"])
    assert not niqe & niqe_before  # The new crops have new scores.
    check_crops(root)

    outdated = authface_here("caption", "-w", root)
    assert outdated.returncode == 2
    captions = read_manifest(root, "captions")
    assert f"{len(captions)} of measured" in outdated.stderr
    assert authface_here("caption", "-w", root, "--yes").returncode == 0
    crop_files = sorted(path.name for path in (root / "faces").iterdir())
    assert crop_files == sorted(faces["crop_path"].str.removeprefix("faces/"))


def test_status_as_text_and_json(filled, authface_here):
    text = authface_here("status", "-w", filled).stdout
    assert "face_size: qsize_px < 224" in text
    assert "authface train-prior" in text
    status = json.loads(authface_here("status", "-w", filled, "--json").stdout)
    assert status["rows"]["photos"] == 6
    assert status["kept_faces"] == status["captioned"] == 4
    assert status["dropped"]["photo"] == {"collect: undecodable file": 1}


def test_setting_changed_back_after_an_interrupted_change(root, filled, authface_here):
    """Only some photographs have rows of the other setting. Afterwards rows and crops agree."""
    from authface_data.engine.stage import Item
    from authface_data.faces.stage import FacesStage
    from authface_data.images.open import PictureReader
    from manifests.schema import FACES
    from manifests.store import Store

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
    open_picture = PictureReader(ws, "path")
    for row in read_manifest(root, "photos").to_dict("records")[:2]:
        item = Item(row["photo_id"], row, open_picture(row))
        (result,) = stage.process([item], ws.write_bytes)
        Store(ws, FACES).append([{**face, "fingerprint": "another"} for face in result.rows])

    # `--regate` counts each face once although some have rows of both settings.
    assert "of 6 faces kept" in authface_here("filter", "--regate", "-w", root).stdout
    completed = authface_here("filter", "-w", root, "--yes")
    assert completed.returncode == 0, completed.stderr
    face_ids = sorted(read_manifest(root, "faces")["face_id"])
    assert face_ids == sorted(read_manifest(filled, "faces")["face_id"])
    check_crops(root)


def test_collect_from_a_folder_with_unusual_files(tmp_path, authface_here, photos):
    """A name that is not UTF-8, broken links, a loop of links and a workspace in the folder."""
    folder = tmp_path / "in"
    root = folder / "ws"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(photos["obama.jpg"], folder / "deep" / "-a b.JPG")
    shutil.copy(photos["obama2.jpg"], os.fsencode(folder) + b"/caf\xe9.jpg")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nothing")
    assert authface_here(*init_workspace(root)).returncode == 0
    for _ in range(2):
        completed = authface_here(*collect_folder(root, folder))
        assert completed.returncode == 0, completed.stderr
    assert "2 already in the workspace" in completed.stdout
    assert len(read_manifest(root, "photos")) == 2


def test_photo_without_a_face_is_dropped_with_a_reason(tmp_path, authface_here, weights):
    root = tmp_path / "ws"
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    assert authface_here(*init_workspace(root)).returncode == 0
    assert authface_here(*collect_folder(root, folder)).returncode == 0
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    verdicts = read_manifest(root, "verdicts")
    assert verdicts[["subject", "gate", "verdict", "reason"]].to_dict("records") == [
        {"subject": "photo", "gate": "faces", "verdict": "dropped", "reason": "no_face"}
    ]
    assert authface_here("caption", "-w", root).returncode == 2


def test_sidecar_file_names_the_photographer(tmp_path, authface_here, photos):
    root = tmp_path / "ws"
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(photos["obama.jpg"], folder / "a.jpg")
    sidecar = folder / "a.jpg.json"
    credit = {"photographer": "P. S.", "consent_ref": "form 7", "licence": "CC0-1.0"}
    sidecar.write_text(json.dumps(credit))
    authface_here(*init_workspace(root))
    collect = collect_folder(root, folder)
    assert authface_here(*collect).returncode == 0
    photo = read_manifest(root, "photos").iloc[0]
    assert photo["photographer_name"] == "P. S."
    assert photo["consent_ref"] == "form 7"
    assert photo["licence"] == "CC0-1.0"

    sidecar.write_text(json.dumps({"photographer": "Q. T.", "licence": None}))
    assert "1 of collect" in authface_here(*collect).stderr
    assert authface_here(*collect, "--yes").returncode == 0
    photo = read_manifest(root, "photos").iloc[0]
    assert photo["photographer_name"] == "Q. T."
    assert pd.isna(photo["licence"])

    # What cannot be used is named, and the photograph is stale.
    for invalid in ('["P. S."]', '{"photographer": 3}', "{"):
        sidecar.write_text(invalid)
        refused = authface_here(*collect)
        assert refused.returncode == 2
        assert "a.jpg.json" in refused.stderr
        assert "1 of collect" in refused.stderr
        assert refused.stderr.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("collect", "--source", "folder", "--path", "/nowhere", "--licence-basis", "own"),
            "is no folder",
        ),
        (
            ("collect", "--source", "folder", "--path", ".", "--licence-basis", " "),
            "--licence-basis is empty",
        ),
        (("collect", "--source", "folder"), "--path"),
        (("filter",), "authface collect"),
        (("filter", "--detector", "yolo"), "retinaface-mobile"),
        (("filter", "--size", "700"), "--size"),
        (("caption",), "authface filter"),
        (("train-prior", "--preset", "tiny"), "authface filter"),
        (("train-prior", "--preset", "tinny"), "'paper', 'tiny'"),
        (("train-restore", "--preset", "tiny", "--degradation", "rain"), "gfpgan"),
        (("train-restore", "--preset", "tiny", "--prior", "/nowhere"), "no finished prior"),
        (("restore", "--model", "x", "--input", "/nowhere", "--output", "y"), "does not exist"),
        (("init", "."), "is a workspace already"),
        (("init", "authface.toml"), "authface.toml"),
        (("nonsense",), "No such command"),
        (("filter", "--size", "abc"), "--size"),
        (("filter", "--retry", "all"), "`failed`"),
        (("filter", "--regate"), "`authface filter` first"),
        (("init", "other", "--preset", "papper"), "'paper', 'embedded'"),
    ],
)
def test_mistake_ends_with_code_2_and_one_line(workspace, authface_here, arguments, message):
    if arguments[0] not in ("init", "nonsense"):
        arguments = (*arguments, "-w", workspace.root)
    if arguments[:2] == ("filter", "--detector"):  # The command needs a photograph.
        folder = workspace.local_path("..") / "in"
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "x.png")
        assert authface_here(*collect_folder(workspace.root, folder)).returncode == 0
    refused = authface_here(*arguments, cwd=workspace.local_path("."))
    assert refused.returncode == 2, refused.stderr
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr
