"""The scoring stages: one stage per metric. The stages of a face share its decoded crop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.quality import MEASURES, iqa
from authface_data.weights import NIQE
from manifests.schema import SCORES
from manifests.verdicts import Subject

CROP_POLICY = f"whole crop, alone, seed {iqa.SEED}"
"""What the metrics are computed on, and with which seed; stored with every score."""


class ScoreStage:
    """Computes one metric for every crop.

    Args:
        metric: A name of `MEASURES`, or of a no-reference metric of pyiqa.
        weights_dir: Folder of the setting `weights_dir`, if any.
    """

    version = 1
    subject: Subject = "face"
    manifest = SCORES
    input_hash_column = "crop_sha256"
    batch_size = 1

    def __init__(self, metric: str, weights_dir: str | None) -> None:
        self.name = metric
        self.weights_dir = weights_dir
        self.is_measure = metric in MEASURES
        self.uses_gpu = not self.is_measure

    def settings(self) -> dict[str, object]:
        """Return the version of the metric and the crop policy."""
        return {"metric_version": self._metric_version(), "crop_policy": CROP_POLICY}

    def _metric_version(self) -> str:
        if self.is_measure:
            return import_module(MEASURES[self.name]).VERSION
        return iqa.pyiqa_revision()

    def setup(self, device: str) -> None:
        """Import the measure, or load the networks of the IQA metric."""
        self.device = device.partition(":")[0] if self.uses_gpu else "cpu"
        self._score: Callable[..., float]
        if self.is_measure:
            module = import_module(MEASURES[self.name])
            self.uses_quad = hasattr(module, "USES_QUAD")
            self._score = module.score
        else:
            self.uses_quad = False
            self._score = iqa.IqaMetric(self.name, device, self.weights_dir).score

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Score every crop of a batch."""
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, object]:
        crop = item.picture.pixels()
        if self.uses_quad:
            quad_px = np.array([list(corner) for corner in item.row["quad_px"]])
            value = self._score(crop, quad_px)
        else:
            value = self._score(crop)
        if not math.isfinite(value):
            raise ValueError(f"{self.name} gave {value}")
        return {
            "face_id": item.key,
            "metric": self.name,
            "value": value,
            "metric_version": self._metric_version(),
            "crop_policy": CROP_POLICY,
            "device": self.device,
            "model_revision": NIQE.sha256 if self.name == "niqe" else None,
        }
