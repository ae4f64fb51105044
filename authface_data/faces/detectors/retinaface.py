"""RetinaFace with a ResNet-50, from retinaface-pytorch."""

from __future__ import annotations

import os

import numpy as np

from authface_data.faces.detectors import Detection
from authface_data.weights import RETINAFACE, find


class RetinaFaceResNet50:
    """27 M parameters. Looks at the picture scaled to a square of the picture's long side."""

    revision = RETINAFACE.sha256
    uses_gpu = True

    def setup(self, device: str, weights_dir: str | None) -> None:
        path = find(RETINAFACE, weights_dir)
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import torch
        from retinaface.predict_single import Model

        self._torch, self._model_class, self._device = torch, Model, device
        # The file is one that torch.hub unpacks; as a local file URL it does so without a network.
        self._state = torch.hub.load_state_dict_from_url(
            path.absolute().as_uri(), model_dir=str(path.parent), map_location="cpu", weights_only=True
        )
        self._models: dict[int, Model] = {}

    def _model(self, long_side_px: int):
        if long_side_px not in self._models:
            model = self._model_class(max_size=long_side_px, device=self._device)
            model.load_state_dict(self._state)
            model.eval()
            self._models = {long_side_px: model}  # its anchors are made for one size: keep the last
        return self._models[long_side_px]

    def detect(self, picture: np.ndarray, min_score: float) -> list[Detection]:
        found = self._model(max(picture.shape[:2])).predict_jsons(picture, confidence_threshold=min_score)
        return [
            Detection(np.array(face["bbox"], float), float(face["score"]), np.array(face["landmarks"], float))
            for face in found
            if face["bbox"]
        ]
