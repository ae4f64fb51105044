"""RetinaFace with a ResNet-50: the network and the weights of retinaface-pytorch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from authface_data.faces.detectors import Detection
from authface_data.faces.detectors.anchors import STRIDES_PX, detections
from authface_data.weights import RETINAFACE, find

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RetinaFaceResNet50:
    """27 M parameters. Pictures of one long side go through it together, each in a square of its own long side."""

    revision = RETINAFACE.sha256
    uses_gpu = True
    batch_size = 4

    def setup(self, device: str, weights_dir: str | None) -> None:
        path = find(RETINAFACE, weights_dir)
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import torch
        from retinaface.network import RetinaFace

        self._torch, self._device = torch, device
        # The file is one that torch.hub unpacks; as a local file URL it does so without a network.
        state = torch.hub.load_state_dict_from_url(
            path.absolute().as_uri(),
            model_dir=str(path.parent),
            map_location="cpu",
            weights_only=True,
        )
        layers = {"layer2": 1, "layer3": 2, "layer4": 3}
        self._net = RetinaFace(
            "Resnet50", False, in_channels=256, return_layers=layers, out_channels=256
        )
        self._net.load_state_dict(state)
        self._net.to(device).eval()

    def detect(self, pictures: Sequence[np.ndarray], min_score: float) -> list[list[Detection]]:
        sides = [
            -(-max(picture.shape[:2]) // STRIDES_PX[-1]) * STRIDES_PX[-1] for picture in pictures
        ]
        found: list[list[Detection]] = [[] for _ in pictures]
        for side in set(sides):
            of_side = [index for index, one in enumerate(sides) if one == side]
            for index, faces in zip(
                of_side,
                self._together([pictures[i] for i in of_side], side, min_score),
                strict=True,
            ):
                found[index] = faces
        return found

    def _together(
        self, pictures: list[np.ndarray], side: int, min_score: float
    ) -> list[list[Detection]]:
        """Faces of pictures that all fit a square of that side, at its left upper corner."""
        torch = self._torch
        batch = torch.zeros(len(pictures), 3, side, side)
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        for place, picture in zip(batch, pictures, strict=True):
            height, width = picture.shape[:2]
            place[:, :height, :width] = (
                torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255 - mean
            ) / std
        with torch.inference_mode():
            loc, conf, points = self._net(batch.to(self._device))
            scores = torch.softmax(conf, dim=-1)[..., 1]
        loc, scores, points = (one.float().cpu().numpy() for one in (loc, scores, points))
        return [
            detections(loc[i], scores[i], points[i], (side, side), min_score)
            for i in range(len(pictures))
        ]
