"""Pairs of a crop and its degraded self, with the regions of the facial loss, mirrored together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from authface_train.data.crops import load_crop
from authface_train.data.degradation import (
    REFERENCE_PX,
    DegradationParams,
    at_size,
    degrade,
    draw,
    preset,
)
from authface_train.data.sample_keys import SampleKey, numpy_generator
from authface_train.facial_loss.regions import COLUMNS, flip_boxes
from manifests.workspace import Workspace


def region_boxes(view: pd.DataFrame, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(faces, 3, 4) box edges in pixels of a crop scaled to size_px, and (faces, 3) visibility: left eye, right eye, mouth."""
    scale = size_px / view["crop_size_px"].to_numpy(float)
    boxes = np.stack([np.stack(view[f"{name}_box_crop_px"].tolist()) for name in COLUMNS], axis=1)
    visible = view[[f"{name}_visible" for name in COLUMNS]].to_numpy(bool, copy=True)
    return torch.from_numpy(boxes * scale[:, None, None]).float(), torch.from_numpy(visible)


KEPT = 256  # crops, 200 MB of them


@dataclass(frozen=True)
class DegradedPair:
    """degraded: (3, size, size) in [0, 1]; boxes_px: (3, 4); visible: (3,)."""

    degraded: torch.Tensor
    boxes_px: torch.Tensor
    visible: torch.Tensor


class DegradedPairs:
    """Makes them on the fly: one degradation for each (seed, epoch, face), whoever asks. Raises UserError for its name."""

    def __init__(
        self, workspace: Workspace, view: pd.DataFrame, size_px: int, degradation: str, seed: int
    ):
        self.workspace, self.size_px, self.seed = workspace, size_px, seed
        self.face_ids, self.paths = view["face_id"].tolist(), view["crop_path"].tolist()
        self.ranges = preset(degradation)
        self.boxes_px, self.visible = region_boxes(view, size_px)
        self._decoded: dict[int, np.ndarray] = {}

    def drawn(self, draw_: SampleKey) -> DegradationParams:
        """What a sample's degradation is."""
        return draw(
            self.ranges,
            numpy_generator(self.seed, draw_.epoch, self.face_ids[draw_.index], "degrade"),
        )

    def clean(self, draw_: SampleKey, flip: bool) -> np.ndarray:
        """The crop, (size, size, 3) uint8."""
        crop = load_crop(self.workspace, self.paths[draw_.index], self.size_px)
        return np.ascontiguousarray(crop[:, ::-1]) if flip else crop

    def _crop(self, index: int) -> np.ndarray:
        """At REFERENCE_PX. Those of a small set stay decoded, which takes longer than degrading them."""
        if len(self.paths) > KEPT:
            return load_crop(self.workspace, self.paths[index], REFERENCE_PX)
        if index not in self._decoded:
            self._decoded[index] = load_crop(self.workspace, self.paths[index], REFERENCE_PX)
        return self._decoded[index]

    def pair(self, draw_: SampleKey, flip: bool) -> DegradedPair:
        """Blur and noise are meant for 512 px: the crop is degraded at that size and then brought to its own."""
        crop = self._crop(draw_.index)
        boxes, visible = self.boxes_px[draw_.index], self.visible[draw_.index]
        if flip:
            crop = np.ascontiguousarray(crop[:, ::-1])
            boxes, visible = flip_boxes(boxes, visible, self.size_px)
        degraded = at_size(degrade(crop, self.drawn(draw_)), self.size_px)
        return DegradedPair(
            torch.from_numpy(degraded).permute(2, 0, 1).contiguous(), boxes, visible
        )
