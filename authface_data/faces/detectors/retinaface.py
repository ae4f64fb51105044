"""RetinaFace with a ResNet-50 backbone: the network and the weights of retinaface-pytorch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from authface_data.faces.detectors import Detection
from authface_data.faces.detectors.anchors import STRIDES_PX, decode_detections
from authface_data.weights import RETINAFACE, find_weights

# ImageNet mean and standard deviation of RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class RetinaFaceResNet50:
    """RetinaFace with 27 M parameters.

    Each picture is padded to a square of its longer side, so its faces do not depend on the batch.
    Pictures with the same longer side share a forward pass, up to `batch_size` of them.
    """

    revision = RETINAFACE.sha256
    uses_gpu = True
    batch_size = 4

    def setup(self, device: str, weights_dir: str | None) -> None:
        """Load the network."""
        path = find_weights(RETINAFACE, weights_dir)
        # The package imports albumentations, which would check for a newer version online.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import torch
        from retinaface.network import RetinaFace

        self._torch = torch
        self._device = device
        # torch.hub unpacks the zip file; with a local file URL it needs no network.
        state = torch.hub.load_state_dict_from_url(
            path.absolute().as_uri(),
            model_dir=str(path.parent),
            map_location="cpu",
            weights_only=True,
        )
        self._network = RetinaFace(
            "Resnet50",
            False,
            in_channels=256,
            return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
            out_channels=256,
        )
        self._network.load_state_dict(state)
        self._network.to(device).eval()

    def detect(self, pictures: Sequence[np.ndarray], min_score: float) -> list[list[Detection]]:
        """Detect the faces of each picture, highest score first."""
        side_indices: dict[int, list[int]] = {}
        for index, picture in enumerate(pictures):
            stride = STRIDES_PX[-1]
            side_px = -(-max(picture.shape[:2]) // stride) * stride
            side_indices.setdefault(side_px, []).append(index)

        results: list[list[Detection]] = [[] for _ in pictures]
        for side_px, indices in side_indices.items():
            for start in range(0, len(indices), self.batch_size):
                batch_indices = indices[start : start + self.batch_size]
                batch = [pictures[index] for index in batch_indices]
                batch_faces = self._detect_padded(batch, side_px, min_score)
                for index, faces in zip(batch_indices, batch_faces, strict=True):
                    results[index] = faces
        return results

    def _detect_padded(
        self, pictures: list[np.ndarray], side_px: int, min_score: float
    ) -> list[list[Detection]]:
        """Detect faces in pictures that are placed in the top left corner of equal squares."""
        torch = self._torch
        mean = torch.tensor(MEAN)[:, None, None]
        std = torch.tensor(STD)[:, None, None]
        # On a GPU the algorithm, and with it the rounding, depends on the size of the batch.
        batch_size = self.batch_size if self._device.startswith("cuda") else len(pictures)
        batch = torch.zeros(batch_size, 3, side_px, side_px)
        for square, picture in zip(batch, pictures, strict=False):
            height, width = picture.shape[:2]
            channels_first = torch.from_numpy(picture.copy()).permute(2, 0, 1)
            square[:, :height, :width] = (channels_first / 255 - mean) / std

        with torch.inference_mode():
            box_offsets, logits, landmark_offsets = self._network(batch.to(self._device))
            scores = torch.softmax(logits, dim=-1)[..., 1]
        box_offsets = box_offsets.float().cpu().numpy()
        scores = scores.float().cpu().numpy()
        landmark_offsets = landmark_offsets.float().cpu().numpy()
        return [
            decode_detections(
                box_offsets=box_offsets[index],
                scores=scores[index],
                landmark_offsets=landmark_offsets[index],
                size_px=(side_px, side_px),
                min_score=min_score,
            )
            for index in range(len(pictures))
        ]
