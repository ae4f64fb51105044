"""The faces stage: from a photograph to rows of `faces` and aligned crops."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.faces.align import align, ffhq_quad, to_crop
from authface_data.faces.detectors import Detection, make_detector
from authface_data.faces.landmarks import eyes_and_mouth, make_landmarker
from authface_data.faces.pose import head_pose
from authface_data.faces.regions import regions
from authface_data.photo import Photo
from manifests.fingerprint import fingerprint, short_hash
from manifests.ledger import Subject
from manifests.schema import FACES
from manifests.workspace import Workspace


class FacesStage:
    """Detects faces at a reduced scale, locates landmarks, estimates pose, and aligns every face found.

    A photograph without a face is dropped as `no_face`.
    """

    name = "faces"
    version = 2  # 2: another model of the head under the pose
    subject: Subject = "photo"
    gives = FACES
    input_mark = "sha256"
    batch_size = 1

    def __init__(
        self,
        detector: str,
        landmarks: str,
        size_px: int,
        min_detector_score: float,
        detect_long_side_px: int,
        weights_dir: str | None,
    ):
        self.detector_name, self.landmarks_name, self.size_px = detector, landmarks, size_px
        self.min_score, self.long_side_px, self.weights_dir = min_detector_score, detect_long_side_px, weights_dir
        self.detector, self.landmarker = make_detector(detector), make_landmarker(landmarks)
        self.uses_gpu = self.detector.uses_gpu

    def settings(self) -> dict[str, Any]:
        return {
            "detector": self._detector_settings(),
            "landmarks": [self.landmarks_name, self.landmarker.revision],
            "size_px": self.size_px,
        }

    def _detector_settings(self) -> list:
        return [self.detector_name, self.detector.revision, self.min_score, self.long_side_px]

    def setup(self, device: str) -> None:
        self.detector.setup(device, self.weights_dir)
        self.landmarker.setup(self.weights_dir)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [self._one(item, write_pixels) for item in batch]

    def _one(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        photo: Photo = item.picture
        small = photo.pixels(self.long_side_px)
        scale = np.array(photo.size_px) / (small.shape[1], small.shape[0])
        found = self.detector.detect(small, self.min_score)
        if not found:
            return Dropped("no_face", threshold=self.min_score)
        return Rows([self._row(item.key, photo, face, scale, write_pixels) for face in found])

    def _row(
        self, photo_id: str, photo: Photo, face: Detection, scale: np.ndarray, write_pixels: WritePixels
    ) -> dict[str, Any]:
        picture = photo.pixels()
        box_px = face.box_px * np.tile(scale, 2)
        # Points are pixel centres: half a pixel is added before scaling and taken off after.
        five = (face.landmarks5_px + 0.5) * scale - 0.5
        sixty_eight = self.landmarker.locate(picture, five)
        landmarks = five if sixty_eight is None else sixty_eight
        features = eyes_and_mouth(landmarks)
        quad = ffhq_quad(*features)
        crop = align(picture, quad, self.size_px)
        pose = head_pose(landmarks, photo.size_px)
        landmarks_crop = to_crop(landmarks, quad, self.size_px)
        on_photo = np.all((landmarks >= 0) & (landmarks < photo.size_px), axis=1)
        seen = regions(landmarks_crop, self.size_px, pose.yaw_deg, on_photo)

        mark = fingerprint(detector=self._detector_settings())
        face_id = f"{photo_id}_{short_hash(f'{mark} {np.rint(box_px).astype(int).tolist()}')}"
        data = png_bytes(crop.pixels)
        sha256 = hashlib.sha256(data).hexdigest()
        path = Workspace.crop_path(face_id, sha256)
        write_pixels(path, data)
        row: dict[str, Any] = {
            "face_id": face_id,
            "photo_id": photo_id,
            "detector": self.detector_name,
            "box_px": box_px.tolist(),
            "score": face.score,
            "landmarks5_px": five.tolist(),
            "landmarks68_px": None if sixty_eight is None else sixty_eight.tolist(),
            "landmark_backend": self.landmarks_name,
            "yaw_deg": pose.yaw_deg,
            "pitch_deg": pose.pitch_deg,
            "roll_deg": pose.roll_deg,
            "interocular_px": float(np.linalg.norm(features[1] - features[0])),
            "quad_px": quad.corners_px.tolist(),
            "qsize_px": quad.size_px,
            "upscaled": crop.upscaled,
            "pad_fraction": crop.pad_fraction,
            "crop_path": path,
            "crop_sha256": sha256,
            "crop_size_px": self.size_px,
            "landmarks_crop_px": landmarks_crop.tolist(),
        }
        for name, region in seen.items():
            row[f"{name}_box_crop_px"] = region.box_crop_px.tolist()
            row[f"{name}_visible"] = region.visible
        return row


def png_bytes(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG, lossless and quick to write, with no metadata."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
