"""No-reference IQA metrics, by pyiqa's names, so that a score depends on the face alone."""

from __future__ import annotations

import contextlib
import io
import os
import re
import urllib.error
from importlib import metadata

import numpy as np

from authface_data import weights
from manifests.errors import Missing, UserMistake

SEED = 0
OWN_WEIGHTS = {"niqe": weights.NIQE}


def revision() -> str:
    """Part of every IQA score's fingerprint."""
    return f"pyiqa {metadata.version('pyiqa')}"


class Iqa:
    """One metric. Raises UserMistake for a name pyiqa does not have, Missing where its weights cannot be had."""

    def __init__(self, metric: str, device: str, weights_dir: str | None):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        import pyiqa
        import torch

        if metric not in pyiqa.list_models(metric_mode="NR"):
            raise UserMistake(f"no metric {metric!r}: `authface` has its own, and pyiqa's no-reference metrics")
        options = {}
        if metric in OWN_WEIGHTS:
            options["pretrained_model_path"] = str(weights.find(OWN_WEIGHTS[metric], weights_dir))
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                self._metric = pyiqa.create_metric(metric, device=torch.device(device), **options)
        except (OSError, urllib.error.URLError) as error:
            asked = re.search(r'Downloading: "([^"]+)" to (\S+)', said.getvalue())
            what = f"get {asked[1]} and put it at {asked[2]}" if asked else f"pyiqa says: {str(error).splitlines()[0]}"
            raise Missing(f"the weights of {metric} are not here and could not be fetched: {what}") from error
        self._torch, self._device = torch, device

    def score(self, crop: np.ndarray) -> float:
        """The metric of one (H, W, 3) uint8 crop, alone in its batch, random crops (if it takes any) from a fixed seed."""
        torch = self._torch
        batch = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # some metrics draw their crops from numpy
            return float(self._metric(batch.to(self._device)))
