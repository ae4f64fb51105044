"""The installation: Python, extras, GPUs, disk space, and which keys are present."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from manifests.support.cache_folder import cache_dir
from manifests.support.extras import MODULES, missing_modules

KEYS = {
    "UNSPLASH_ACCESS_KEY": "collect --source unsplash",
    "AUTHFACE_API_KEY": "caption --captioner server",
    "HF_TOKEN": "private or gated models of the Hugging Face hub, push",
    "WANDB_API_KEY": "train-* --set wandb=true",
    "AWS_ACCESS_KEY_ID": "workspaces on S3",
}
"""Environment variable with a secret -> what needs it."""
GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use. Memory in GB (10^9 bytes)."""

    name: str
    memory_gb: float


@dataclass(frozen=True)
class Installation:
    """The installation of authface.

    Attributes:
        authface: Version of authface.
        python: Version of Python.
        missing: Extra -> its modules that are not installed.
        torch: Version of torch, or None.
        gpus: GPUs that torch can use.
        cores: Number of CPU cores.
        memory_gb: Memory of the machine.
        cache: Folder for weights.
        cache_free_gb: Free disk space there.
        keys: Environment variable with a secret -> whether it is set. Values are never read.
    """

    authface: str
    python: str
    missing: dict[str, list[str]]
    torch: str | None
    gpus: list[Gpu]
    cores: int
    memory_gb: float
    cache: str
    cache_free_gb: float
    keys: dict[str, bool]


def inspect_installation() -> Installation:
    """Find out what is installed on this machine. torch is imported if it is there."""
    missing = {extra: missing_modules(extra) for extra in MODULES}
    torch_version, gpus = (None, []) if "torch" in missing["data"] else _inspect_torch()
    return Installation(
        authface=importlib.metadata.version("authface"),
        python=platform.python_version(),
        missing=missing,
        torch=torch_version,
        gpus=gpus,
        cores=os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / GB,
        cache=str(cache_dir()),
        cache_free_gb=free_bytes(cache_dir()) / GB,
        keys={name: bool(os.environ.get(name)) for name in KEYS},
    )


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is on, or would be on, in bytes."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _inspect_torch() -> tuple[str, list[Gpu]]:
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(properties.name, properties.total_memory / GB))
    return torch.__version__, gpus
