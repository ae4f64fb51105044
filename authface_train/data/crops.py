"""Reads the aligned face crops of a workspace, and caches them at the size that training needs.

A stored crop is a PNG of up to 1024 px: decoding and resizing it takes longer than the rest of a
Stage II sample. The cache holds the raw pixels, memory-mapped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image

from authface_data.images.stored_picture import read_stored_picture
from authface_train.data.cache import Cache, ProgressFunction, Record, fill_cache
from authface_train.data.cores import cores_per_process
from manifests.workspace import Workspace

CHANNELS = 3
MAX_THREADS = 16
"""Threads that decode crops. Containers may have fewer cores than they see."""


def load_crop(workspace: Workspace, path: str, size_px: int) -> np.ndarray:
    """Load a crop, resized with a Lanczos filter if it is stored at another size.

    Args:
        workspace: The workspace.
        path: Path of the crop, relative to the workspace.
        size_px: Side of the result.

    Returns:
        (size_px, size_px, 3) uint8, sRGB.

    Raises:
        UserError: If the crop is missing or damaged.
    """
    crop = read_stored_picture(workspace, path)
    if crop.size != (size_px, size_px):
        crop = crop.resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.asarray(crop)


def crops_cache(workspace: Workspace, size_px: int) -> Cache:
    """The cache of crops of one size, keyed by `crop_sha256`.

    Args:
        workspace: The workspace.
        size_px: Side of the crops.
    """
    return Cache(workspace, f"cache/crops/{size_px}")


def crop_bytes(size_px: int) -> int:
    """Size of a cached crop in bytes."""
    return CHANNELS * size_px**2


class Crops(Sequence[np.ndarray]):
    """The crops of a view at one size. Those that are not in the cache are decoded.

    An item is (size_px, size_px, 3) uint8, sRGB. It may be mapped from a file and must not be
    written to.

    Args:
        workspace: The workspace.
        view: Faces with the columns `crop_sha256` and `crop_path`, one row each.
        size_px: Side of the crops.
    """

    def __init__(self, workspace: Workspace, view: pd.DataFrame, size_px: int) -> None:
        self.workspace = workspace
        self.size_px = size_px
        self.cache = crops_cache(workspace, size_px)
        self.keys: list[str] = view["crop_sha256"].tolist()
        self._paths: dict[str, str] = dict(zip(self.keys, view["crop_path"], strict=True))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        """The crop in row `index` of the view."""
        return self.load(self.keys[index])

    def load(self, key: str) -> np.ndarray:
        """Load the crop with a key.

        Args:
            key: Its `crop_sha256`.

        Returns:
            (size_px, size_px, 3) uint8, sRGB.

        Raises:
            UserError: If the crop is not cached, and its file is missing or damaged.
        """
        if key in self.cache:
            return self.cache[key]["crop"].numpy()
        return load_crop(self.workspace, self._paths[key], self.size_px)

    def load_ahead(self, keys: Iterable[str]) -> Iterator[np.ndarray]:
        """Load crops while threads decode the next ones.

        The time limit of decoding does not apply in threads; crops were written by authface.

        Args:
            keys: `crop_sha256` of the crops.

        Yields:
            The crops in the order of the keys, each (size_px, size_px, 3) uint8.
        """
        num_threads = min(MAX_THREADS, cores_per_process())
        pending: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(num_threads) as executor:
            for key in keys:
                pending.append(executor.submit(self.load, key))
                if len(pending) > 2 * num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


def cache_crops(
    workspace: Workspace,
    view: pd.DataFrame,
    size_px: int,
    accelerator: Accelerator,
    report: ProgressFunction,
) -> None:
    """Cache the crops of a view at one size. All processes must call it together.

    Args:
        workspace: The workspace.
        view: Training view.
        size_px: Side of the cached crops.
        accelerator: The run's accelerator.
        report: Is called with the number of crops done and to do.

    Raises:
        UserError: If a crop is missing or damaged.
    """
    crops = Crops(workspace, view, size_px)

    def compute(keys: list[str]) -> Iterator[Record]:
        for crop in crops.load_ahead(keys):
            yield {"crop": torch.from_numpy(crop.copy())}

    fill_cache(crops.cache, crops.keys, compute, accelerator, report)
