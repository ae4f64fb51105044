"""Weights that libraries (pyiqa, torchvision, timm, CLIP) would download for themselves.

The metrics of the paper's Table 1 read several files, each from another place and with other
retries. Here their files are known: each is looked up in `weights_dir` and in the caches, downloaded
once if it is in neither, and named if that fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from manifests.support.cache_folder import cache_dir
from manifests.support.errors import MissingResourceError

HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
PYIQA_REPOSITORY = f"{HUB}/chaofengc/IQA-PyTorch-Weights/resolve/main"
VIT_REPOSITORY = "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"


@dataclass(frozen=True)
class LibraryFile:
    """A file of weights that a library reads.

    Attributes:
        url: Its address.
        folder: Folder below that of torch.hub in which the library expects it; for a model of the
            hub, its id.
        is_hub_model: Whether it belongs to a model of the Hugging Face hub that timm loads.
    """

    url: str
    folder: str
    is_hub_model: bool = False

    @property
    def file(self) -> str:
        """Its path in `weights_dir`."""
        name = self.url.rpartition("/")[2]
        return f"{self.folder}/{name}" if self.is_hub_model else name

    @property
    def library_path(self) -> Path:
        """Where the library expects it."""
        if self.is_hub_model:
            return cache_dir() / "weights" / self.file
        return torch_hub_folder() / self.folder / self.file

    def find(self, weights_dir: str | None) -> Path | None:
        """The file on this machine, or None. Nothing is downloaded.

        Args:
            weights_dir: Folder of the setting `weights_dir`, if any.
        """
        places = [cache_dir() / "weights" / self.file, self.library_path]
        if weights_dir:
            places.insert(0, Path(weights_dir, self.file))
        if self.is_hub_model:
            places += find_in_hub_cache(self.folder, self.url.rpartition("/")[2])
        return next((path for path in places if path.is_file()), None)

    def describe_missing(self, weights_dir: str | None) -> str:
        """The file, its source and its place, as the instruction of an error message.

        Args:
            weights_dir: Folder of the setting `weights_dir`, if any.
        """
        target = Path(weights_dir or cache_dir() / "weights", self.file)
        return f"download {self.url} and put it at {target}"


LIBRARY_FILES: dict[str, tuple[LibraryFile, ...]] = {
    "lpips": (
        LibraryFile(f"{PYIQA_REPOSITORY}/LPIPS_v0.1_alex-df73285e.pth", "pyiqa"),
        LibraryFile("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "checkpoints"),
    ),
    "maniqa": (
        LibraryFile(f"{PYIQA_REPOSITORY}/ckpt_koniq10k.pt", "pyiqa"),
        LibraryFile(f"{HUB}/{VIT_REPOSITORY}/resolve/main/model.safetensors", VIT_REPOSITORY, True),
    ),
    "musiq": (LibraryFile(f"{PYIQA_REPOSITORY}/musiq_koniq_ckpt-e95806b9.pth", "pyiqa"),),
    "fid": (LibraryFile(f"{PYIQA_REPOSITORY}/pt_inception-2015-12-05-6726825d.pth", "pyiqa"),),
    "clipiqa": (
        LibraryFile(
            "https://openaipublic.azureedge.net/clip/models/"
            "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
            "clip",
        ),
    ),
}
"""Metric of pyiqa -> the files that it reads. Metrics that are not listed load their own."""


def torch_hub_folder() -> Path:
    """The folder of torch.hub, without importing torch."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache_home / "torch") / "hub"


def find_missing(metrics: Sequence[str], weights_dir: str | None) -> dict[str, list[LibraryFile]]:
    """The files of metrics that are not on this machine, by metric. Nothing is downloaded.

    Args:
        metrics: Names of metrics; those without known files are left out.
        weights_dir: Folder of the setting `weights_dir`, if any.
    """
    missing = {}
    for metric in metrics:
        files = [file for file in LIBRARY_FILES.get(metric, ()) if file.find(weights_dir) is None]
        if files:
            missing[metric] = files
    return missing


def provide_files(metric: str, weights_dir: str | None) -> None:
    """Put the files of a metric where its library expects them; download what is missing.

    Args:
        metric: Name of a metric of pyiqa.
        weights_dir: Folder of the setting `weights_dir`, if any.

    Raises:
        MissingResourceError: If files are missing and cannot be downloaded. The message has one
            line per file.
    """
    errors = []
    for file in LIBRARY_FILES.get(metric, ()):
        path = file.find(weights_dir)
        if path is None:
            try:
                _download(file)
            except (OSError, urllib.error.URLError):
                errors.append(
                    f"the weights of {metric} are missing and could not be downloaded; "
                    f"{file.describe_missing(weights_dir)}"
                )
        elif not file.library_path.exists():
            _link(path, file.library_path)
    if errors:
        raise MissingResourceError("\n".join(errors))


def _download(file: LibraryFile) -> None:
    """Download a file in one attempt to where its library expects it."""
    from torch.hub import download_url_to_file

    file.library_path.parent.mkdir(parents=True, exist_ok=True)
    download_url_to_file(file.url, str(file.library_path), progress=False)


def _link(path: Path, target: Path) -> None:
    """Make a file available at another path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a broken link
    try:
        target.symlink_to(path.absolute())
    except OSError:  # file systems without links
        shutil.copyfile(path, target)


@contextlib.contextmanager
def local_files_first(weights_dir: str | None) -> Iterator[None]:
    """Let the libraries read what they would download from this machine, if it is here.

    pyiqa and torchvision find their files in `weights_dir`, and timm the hub models of
    `LIBRARY_FILES`.

    Args:
        weights_dir: Folder of the setting `weights_dir`, if any.
    """
    import torch
    from pyiqa.utils import download_util
    from timm.models import _builder

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            _replaced(_builder, "load_state_dict_from_hf", _hub_loader(weights_dir))
        )
        if weights_dir:
            for module in (download_util, torch.hub):
                download = _downloader(module.download_url_to_file, Path(weights_dir))
                stack.enter_context(_replaced(module, "download_url_to_file", download))
        yield


def _downloader(download: Callable[..., None], weights_dir: Path) -> Callable[..., None]:
    """A replacement of `download_url_to_file` that prefers the file in `weights_dir`."""

    def download_or_link(url: str, target: str, *arguments: object, **options: object) -> None:
        local = weights_dir / Path(target).name
        if local.is_file():
            _link(local, Path(target))
        else:
            download(url, target, *arguments, **options)

    return download_or_link


def _hub_loader(weights_dir: str | None) -> Callable[..., object]:
    """A replacement of timm's `load_state_dict_from_hf` that prefers the files of this machine."""
    from timm.models import _builder

    original: Callable[..., object] = _builder.load_state_dict_from_hf

    def load(model_id: str, *arguments: object, **options: object) -> object:
        for files in LIBRARY_FILES.values():
            for file in files:
                path = file.find(weights_dir)
                if file.is_hub_model and file.folder == model_id and path is not None:
                    from safetensors.torch import load_file

                    return load_file(path)
        return original(model_id, *arguments, **options)

    return load


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def find_in_hub_cache(model: str, file: str) -> list[Path]:
    """A file of a model in the cache of huggingface_hub.

    Args:
        model: Id of the model.
        file: Name of the file.

    Returns:
        One path, or none.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return []
    path = try_to_load_from_cache(model, file)
    return [Path(path)] if isinstance(path, str) else []
