"""No-reference IQA metrics, by pyiqa's names, so that a score depends on the face alone."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import urllib.error
import warnings
from importlib import metadata
from typing import Any

import numpy as np

from authface_data import weights
from manifests.support.errors import MissingResourceError, UserError

SEED = 0


def revision() -> str:
    """Part of every IQA score's fingerprint."""
    return f"pyiqa {metadata.version('pyiqa')}"


def _niqe_mat(weights_dir: str | None, folder: str) -> str:
    """NIQE's parameters in the .mat layout that pyiqa reads, as a file in a folder."""
    import scipy.io

    params = np.load(weights.find(weights.NIQE, weights_dir))
    path = f"{folder}/niqe.mat"
    mu, cov = params["mu_pris_param"].reshape(1, -1), params["cov_pris_param"]
    scipy.io.savemat(path, {"mu_prisparam": mu, "cov_prisparam": cov})
    return path


def check(metrics: list[str]) -> None:
    """Raises UserError for a name that pyiqa has no metric by, before anything is measured."""
    import pyiqa

    for metric in metrics:
        if metric not in pyiqa.list_models(metric_mode="NR"):
            raise UserError(
                f"no metric {metric!r}: it takes pyiqa's no-reference metrics (musiq, niqe, piqe, …)"
            )


def create(metric: str, device: str, weights_dir: str | None) -> Any:
    """pyiqa's metric of that name. Raises MissingResourceError where its weights cannot be had, saying what to get and where to put it."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import pyiqa
    import torch

    said = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(said),
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter(
                "ignore"
            )  # pyiqa's way of asking torchvision for a network is an old one
            options = (
                {"pretrained_model_path": _niqe_mat(weights_dir, folder)}
                if metric == "niqe"
                else {}
            )
            return pyiqa.create_metric(metric, device=torch.device(device), **options)
    except (OSError, urllib.error.URLError) as error:
        asked = re.search(r'Downloading: "([^"]+)" to (\S+)', said.getvalue())
        what = (
            f"get {asked[1]} and put it at {asked[2]}"
            if asked
            else f"pyiqa says: {str(error).splitlines()[0]}"
        )
        raise MissingResourceError(
            f"the weights of {metric} are not here and could not be fetched: {what}"
        ) from error


class Iqa:
    """One metric. Raises UserError for a name pyiqa does not have, MissingResourceError where its weights cannot be had."""

    def __init__(self, metric: str, device: str, weights_dir: str | None):
        import torch

        check([metric])
        self._metric = create(metric, device, weights_dir)
        self._torch, self._device = torch, device

    def score(self, crop: np.ndarray) -> float:
        """The metric of one (H, W, 3) uint8 crop, alone in its batch, random crops (if it takes any) from a fixed seed."""
        torch = self._torch
        batch = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # some metrics draw their crops from numpy
            return float(self._metric(batch.to(self._device)))
