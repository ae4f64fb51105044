"""The scoring stages: one stage per metric. The stages of a face share its decoded crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module

import numpy as np

from authface_data.engine.stage import Dropped, Item, Model, Rows, WritePixels
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
        self.model: Model | None = None if self.is_measure else iqa.IqaMetric(metric, weights_dir)
        self.libraries = ("cv2",) if self.is_measure else ("pyiqa",)

    def settings(self) -> dict[str, object]:
        """Return the version of the metric and the crop policy."""
        return {"metric_version": self._metric_version(), "crop_policy": CROP_POLICY}

    def _metric_version(self) -> str:
        if self.is_measure:
            return import_module(MEASURES[self.name]).VERSION
        return iqa.pyiqa_revision()

    def setup(self, device: str) -> None:
        """Import the measure, or load the networks of the IQA metric."""
        if self.model is None:
            self._measure = import_module(MEASURES[self.name])
        else:
            self.model.load(device)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Score every crop of a batch."""
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, object]:
        crop = item.picture.pixels()
        device = "cpu"
        if self.model is not None:
            (value,) = self.model.predict([crop])
            device = self.model.device.partition(":")[0]
        elif hasattr(self._measure, "USES_QUAD"):
            quad_px = np.array([list(corner) for corner in item.row["quad_px"]])
            value = self._measure.score(crop, quad_px)
        else:
            value = self._measure.score(crop)
        if not math.isfinite(value):
            raise ValueError(f"{self.name} gave {value}")
        return {
            "face_id": item.key,
            "metric": self.name,
            "value": value,
            "metric_version": self._metric_version(),
            "crop_policy": CROP_POLICY,
            "device": device,
            "model_revision": NIQE.sha256 if self.name == "niqe" else None,
        }
