"""No-reference IQA metrics of pyiqa, computed such that a score depends on the crop only."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import tempfile
import urllib.error
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from authface_data.quality.library_weights import local_files_first, provide_files
from authface_data.weights import NIQE, find_weights
from manifests.support.errors import MissingResourceError

if TYPE_CHECKING:
    import torch

SEED = 0
"""Seed of the random sub-crops that some metrics draw."""


@cache
def pyiqa_revision() -> str:
    """Return the name and version of pyiqa, the metric version of every IQA score."""
    return f"pyiqa {metadata.version('pyiqa')}"


def create_metric(metric: str, device: str, weights_dir: str | None) -> torch.nn.Module:
    """Create a metric of pyiqa.

    Args:
        metric: Its name in pyiqa.
        device: A torch device, such as "cpu" or "cuda:0".
        weights_dir: Folder of the setting `weights_dir`, if any.

    Returns:
        The metric. It takes (batch, 3, height, width) float32 pictures in [0, 1].

    Raises:
        MissingResourceError: If its weights are missing and cannot be downloaded.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # pyiqa would run code of the files that it loads; torch refuses everything but tensors.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import pyiqa
    import torch
    from pyiqa.archs import func_util

    provide_files(metric, weights_dir)
    output = io.StringIO()
    try:
        with (
            local_files_first(weights_dir),
            contextlib.redirect_stdout(output),
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
        ):
            # pyiqa creates torchvision networks with deprecated arguments.
            warnings.simplefilter("ignore")
            options = {}
            func_util.imfilter = _filter
            if metric == "niqe":
                options["pretrained_model_path"] = _save_niqe_parameters(weights_dir, folder)
            return pyiqa.create_metric(metric, device=torch.device(device), **options)
    except pickle.UnpicklingError as error:
        raise MissingResourceError(
            f"the weights of {metric} hold more than tensors and are not loaded, because such "
            "files can run code; use another metric"
        ) from error
    except (OSError, urllib.error.URLError) as error:
        raise MissingResourceError(
            f"the weights of {metric} are missing and could not be downloaded; "
            f"{_instructions(output.getvalue(), error, weights_dir)}"
        ) from error


def _filter(input: torch.Tensor, weight: torch.Tensor, padding: str = "same") -> torch.Tensor:
    """Filter pictures, in place of pyiqa's `imfilter`.

    NIQE filters in float64, for which OpenCV needs a tenth of torch's time on a CPU.

    Args:
        input: (batch, channels, height, width).
        weight: (1, 1, size, size).
        padding: Mode of the padding.
    """
    import cv2
    import torch
    from pyiqa.matlab_utils.functions import imfilter
    from pyiqa.matlab_utils.padding import ExactPadding2d

    if input.dtype != torch.float64 or input.device.type != "cpu" or input.shape[1] != 1:
        return imfilter(input, weight, padding=padding)
    size = weight.shape[-1]
    reach = size // 2
    padded = ExactPadding2d((size, size), 1, 1, mode=padding)(input)
    kernel = weight[0, 0].numpy()
    planes = [cv2.filter2D(picture[0].numpy(), -1, kernel) for picture in padded]
    filtered = torch.from_numpy(np.stack(planes)[:, None])
    return filtered[..., reach:-reach, reach:-reach]


def _save_niqe_parameters(weights_dir: str | None, folder: str) -> str:
    """Save the parameters of NIQE in the .mat layout that pyiqa reads; return the path."""
    import scipy.io

    parameters = np.load(find_weights(NIQE, weights_dir))
    path = f"{folder}/niqe.mat"
    mean = parameters["mu_pris_param"].reshape(1, -1)
    covariance = parameters["cov_pris_param"]
    scipy.io.savemat(path, {"mu_prisparam": mean, "cov_prisparam": covariance})
    return path


def _instructions(output: str, error: Exception, weights_dir: str | None) -> str:
    """Return what the user can do, from what pyiqa printed before a download that failed."""
    download = re.search(r'Downloading: "([^"]+)" to (\S+)', output)
    if download:
        target = Path(weights_dir, Path(download[2]).name) if weights_dir else download[2]
        return f"download {download[1]} and put it at {target}"
    return f"check the network connection (pyiqa reports: {str(error).splitlines()[0]})"


class IqaMetric:
    """A no-reference metric of pyiqa, as the model of a stage.

    Args:
        metric: Its name in pyiqa.
        weights_dir: Folder of the setting `weights_dir`, if any.
    """

    uses_gpu = True
    revision: str | None = None

    def __init__(self, metric: str, weights_dir: str | None) -> None:
        self.metric = metric
        self.weights_dir = weights_dir
        self.device = ""

    def load(self, device: str) -> None:
        """Load the networks of the metric.

        Args:
            device: A torch device, such as "cpu" or "cuda:0".

        Raises:
            MissingResourceError: If weights are missing and cannot be downloaded.
        """
        self.device = device
        self._network = create_metric(self.metric, device, self.weights_dir)

    def predict(self, inputs: Sequence[np.ndarray]) -> list[float]:
        """Compute the metric of crops.

        Each crop is alone in its batch, and metrics that draw random sub-crops get a fixed seed.

        Args:
            inputs: The crops, (height, width, 3) uint8 sRGB each.

        Returns:
            The values, in the range of the metric.
        """
        return [self._score(crop) for crop in inputs]

    def _score(self, crop: np.ndarray) -> float:
        import torch

        batch = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # some metrics draw their crops with NumPy
            return float(self._network(batch.to(self.device)))
