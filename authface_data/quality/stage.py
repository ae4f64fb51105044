"""The scoring stages: one metric each, all of a face's metrics sharing one decoded crop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.quality import MEASURES, iqa
from authface_data.weights import NIQE
from manifests.schema import SCORES
from manifests.verdicts import Subject

CROP_POLICY = f"whole crop, alone, seed {iqa.SEED}"


class ScoreStage:
    """One metric over crops: an artefact measure of ours, or an IQA metric by pyiqa's name."""

    version = 1
    subject: Subject = "face"
    gives = SCORES
    input_mark = "crop_sha256"
    batch_size = 1

    def __init__(self, metric: str, weights_dir: str | None):
        self.name, self.weights_dir = metric, weights_dir
        self.is_own = metric in MEASURES
        self.uses_gpu = not self.is_own

    def settings(self) -> dict[str, Any]:
        return {"metric_version": self._version(), "crop_policy": CROP_POLICY}

    def _version(self) -> str:
        return import_module(MEASURES[self.name]).VERSION if self.is_own else iqa.revision()

    def setup(self, device: str) -> None:
        self.device = device.partition(":")[0] if self.uses_gpu else "cpu"
        module = import_module(MEASURES[self.name]) if self.is_own else None
        self.uses_quad = hasattr(module, "USES_QUAD")
        self._score: Callable[..., float] = (
            module.score if module else iqa.Iqa(self.name, device, self.weights_dir).score
        )

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, Any]:
        quad = (
            [np.array([list(corner) for corner in item.row["quad_px"]])] if self.uses_quad else []
        )
        value = self._score(item.picture.pixels(), *quad)
        if not math.isfinite(value):
            raise ValueError(f"{self.name} gave {value}")
        return {
            "face_id": item.key,
            "metric": self.name,
            "value": value,
            "metric_version": self._version(),
            "crop_policy": CROP_POLICY,
            "device": self.device,
            "model_revision": NIQE.sha256 if self.name == "niqe" else None,
        }
