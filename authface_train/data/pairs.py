"""Training pairs of Stage II: a crop, its degraded version and the regions of the facial loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from authface_train.data.crops import Crops, load_crop
from authface_train.data.degradation import (
    REFERENCE_PX,
    DegradationParams,
    degrade,
    draw_params,
    get_preset,
    resize_degraded,
)
from authface_train.data.sample_keys import SampleKey, numpy_generator
from authface_train.facial_loss.regions import REGIONS, flip_boxes
from manifests.workspace import Workspace


def region_boxes(view: pd.DataFrame, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the boxes of eyes and mouth from a training view.

    Args:
        view: Training view with box and visibility columns for each of `REGIONS`.
        size_px: Side of the crops that the boxes are scaled to.

    Returns:
        (faces, 3, 4) float32 box edges x0, y0, x1, y1 in pixels, and (faces, 3) bool visibility;
        the regions are left eye, right eye, mouth.
    """
    scale = size_px / view["crop_size_px"].to_numpy(float)
    boxes_by_region = [np.stack(view[f"{name}_box_crop_px"].tolist()) for name in REGIONS]
    boxes = np.stack(boxes_by_region, axis=1)
    visible = view[[f"{name}_visible" for name in REGIONS]].to_numpy(bool, copy=True)
    return torch.from_numpy(boxes * scale[:, None, None]).float(), torch.from_numpy(visible)


@dataclass(frozen=True)
class DegradedPair:
    """The degraded version of a crop and the regions of the facial loss."""

    degraded: torch.Tensor
    """(3, size, size) float32 in [0, 1]."""
    boxes_px: torch.Tensor
    """(3, 4) float32 box edges of left eye, right eye and mouth."""
    visible: torch.Tensor
    """(3,) bool."""


class DegradedPairs:
    """Degrades training crops on the fly, one degradation per seed, epoch and face.

    Run `cache_crops` with `REFERENCE_PX` first; samples then decode no picture.

    Args:
        workspace: The workspace.
        view: Training view.
        size_px: Side of the crops.
        degradation: Name of the degradation preset.
        seed: Seed of the run.

    Raises:
        UserError: If the preset is unknown.
    """

    def __init__(
        self, workspace: Workspace, view: pd.DataFrame, size_px: int, degradation: str, seed: int
    ) -> None:
        self.workspace = workspace
        self.size_px = size_px
        self.seed = seed
        self.face_ids: list[str] = view["face_id"].tolist()
        self.paths: list[str] = view["crop_path"].tolist()
        self.ranges = get_preset(degradation)
        self.boxes_px, self.visible = region_boxes(view, size_px)
        self.reference_crops = Crops(workspace, view, REFERENCE_PX)

    def params(self, key: SampleKey) -> DegradationParams:
        """The degradation of a sample."""
        face_id = self.face_ids[key.index]
        return draw_params(self.ranges, numpy_generator(self.seed, key.epoch, face_id, "degrade"))

    def clean_crop(self, key: SampleKey, flip: bool) -> np.ndarray:
        """Load the crop of a sample.

        Args:
            key: The sample.
            flip: Whether to mirror the crop.

        Returns:
            (size, size, 3) uint8.
        """
        crop = load_crop(self.workspace, self.paths[key.index], self.size_px)
        return np.ascontiguousarray(crop[:, ::-1]) if flip else crop

    def reference_crop(self, key: SampleKey, flip: bool) -> np.ndarray:
        """Load the crop of a sample at `REFERENCE_PX`.

        Args:
            key: The sample.
            flip: Whether to mirror the crop.

        Returns:
            (REFERENCE_PX, REFERENCE_PX, 3) uint8.
        """
        import cv2

        crop = self.reference_crops[key.index]
        return np.asarray(cv2.flip(crop, 1)) if flip else crop

    def regions(self, key: SampleKey, flip: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes of a sample's eyes and mouth, and which are visible.

        Args:
            key: The sample.
            flip: Whether to mirror the boxes.

        Returns:
            `boxes_px` and `visible` of `DegradedPair`.
        """
        boxes_px = self.boxes_px[key.index]
        visible = self.visible[key.index]
        return flip_boxes(boxes_px, visible, self.size_px) if flip else (boxes_px, visible)

    def make_pair(self, key: SampleKey, flip: bool) -> DegradedPair:
        """Degrade the crop of a sample.

        Blur and noise are meant for `REFERENCE_PX`, so the crop is degraded at that size and then
        resized.

        Args:
            key: The sample.
            flip: Whether to mirror crop and boxes.
        """
        degraded = degrade(self.reference_crop(key, flip), self.params(key))
        boxes_px, visible = self.regions(key, flip)
        return DegradedPair(
            degraded=to_planes(resize_degraded(degraded, self.size_px)),
            boxes_px=boxes_px,
            visible=visible,
        )

    def degrade_on_device(self, crops: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Degrade a batch of crops where they are; see `degrade_batch`.

        Args:
            crops: (batch, 3, side, side) uint8 at `REFERENCE_PX`.
            keys: (batch, 2) int64 epoch and index of the samples, on the CPU.

        Returns:
            (batch, 3, size, size) float32 in [0, 1].
        """
        from authface_train.data.degradation_torch import degrade_batch

        params = [self.params(SampleKey(epoch, index)) for epoch, index in keys.tolist()]
        return degrade_batch(crops, params, self.size_px)


def to_planes(image: np.ndarray) -> torch.Tensor:
    """Copy a picture to a tensor of the same type.

    Args:
        image: (height, width, 3).

    Returns:
        (3, height, width).
    """
    import cv2

    planes = np.empty((3, *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)
