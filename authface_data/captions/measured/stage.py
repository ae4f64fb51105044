"""Measured tags of a crop as a stage. They are photographic by nature: the semantic family stays empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from authface_data.captions.compose import compose_caption
from authface_data.captions.measured.measurement import MIN_CONFIDENCE, FaceCrop, Measurement
from authface_data.captions.measured import camera, colour, focus, framing, gaze, light, view
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.verdicts import Subject

MEASURES = (gaze, light, focus, view, framing, colour, camera)


class MeasuredStage:
    name = "measured"
    version = 3  # 3: measured by landmarks, with confidence
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "measured_mark"
    uses_gpu = False
    batch_size = 1

    def __init__(self, settings: Captions):
        self._settings = settings

    def settings(self) -> dict[str, Any]:
        return {}

    def setup(self, device: str) -> None:
        return

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, Any]:
        facts = measure_face(item.row, item.picture.pixels())
        caption = compose_caption(
            {"semantic": [], "photographic": [fact.tag for fact in facts]}, [], self._settings
        )
        return {
            "face_id": item.key,
            "captioner": self.name,
            "measured_tags": caption.photographic,
            "measurements": [vars(fact) for fact in facts],
            "model": "measured",
            "model_revision": str(self.version),
            **caption.columns(),
        }


def measure_face(row: Mapping[str, Any], crop: np.ndarray) -> list[Measurement]:
    """The facts of one face that are sure enough. row: of faces, with its photo's camera columns; crop: (H, H, 3) uint8."""
    face = FaceCrop.of(row, crop)
    return [
        fact for module in MEASURES for fact in module.measure(face) if fact.confidence >= MIN_CONFIDENCE
    ]
