"""The faces stage: from a photograph to rows of `faces` and aligned crops."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.faces.align import Crop, Quad, align_photo, ffhq_quad, shrink_of, to_crop
from authface_data.faces.detect import detect
from authface_data.faces.detectors import Detection, make_detector
from authface_data.faces.landmarks import eyes_and_mouth, five_of, make_landmarker, predictor_square
from authface_data.faces.pose import head_pose
from authface_data.faces.regions import regions
from authface_data.faces.visibility import visible
from authface_data.images.hashes import perceptual_hash
from authface_data.images.open import Photo
from manifests.schema import FACES
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.verdicts import Subject
from manifests.workspace import Workspace


class FacesStage:
    """Detects faces at a reduced scale, locates landmarks, estimates pose, and aligns every face found.

    A photograph without a face is dropped as `no_face`. Of a picture that its source has aligned already (`aligned`), the whole
    is the crop, with the landmarks that came with it or those found.
    """

    name = "faces"
    version = 4  # 2: another model of the head under the pose; 3: perceptual hashes of crops; 4: two scales, one resampling
    subject: Subject = "photo"
    gives = FACES
    input_mark = "mark"

    def __init__(
        self,
        detector: str,
        landmarks: str,
        size_px: int,
        min_detector_score: float,
        detect_long_side_px: int,
        weights_dir: str | None,
        crop_format: str = "png",
    ):
        self.detector_name, self.landmarks_name, self.size_px = detector, landmarks, size_px
        self.min_score, self.long_side_px, self.weights_dir = (
            min_detector_score,
            detect_long_side_px,
            weights_dir,
        )
        self.crop_format = crop_format
        self.detector, self.landmarker = make_detector(detector), make_landmarker(landmarks)
        self.uses_gpu, self.batch_size = self.detector.uses_gpu, self.detector.batch_size

    def settings(self) -> dict[str, Any]:
        return {
            "detector": self._detector_settings(),
            "landmarks": [self.landmarks_name, self.landmarker.revision],
            "size_px": self.size_px,
            "crop_format": self.crop_format,
        }

    def _detector_settings(self) -> list:
        return [self.detector_name, self.detector.revision, self.min_score, self.long_side_px]

    def setup(self, device: str) -> None:
        self.detector.setup(device, self.weights_dir)
        self.landmarker.setup(self.weights_dir)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        looked_for = [
            item
            for item in batch
            if not (item.row.get("aligned") and item.row.get("landmarks68_px") is not None)
        ]
        faces = detect(
            self.detector, [item.picture for item in looked_for], self.long_side_px, self.min_score
        )
        found = {item.key: of_photo for item, of_photo in zip(looked_for, faces, strict=True)}
        return [self._one(item, found.get(item.key, []), write_pixels) for item in batch]

    def _one(self, item: Item, found: list[Detection], write_pixels: WritePixels) -> Rows | Dropped:
        if item.row.get("aligned"):
            return self._aligned(item, found, write_pixels)
        if not found:
            return Dropped("no_face", threshold=self.min_score)
        photo: Photo = item.picture
        mark = fingerprint(detector=self._detector_settings())
        rows = {}
        # The lowest face first: a JPEG is decoded down to it, and that serves the others.
        for face in sorted(found, key=lambda face: -face.box_px[3]):
            sixty_eight = self._landmarks(photo, face)
            quad = ffhq_quad(
                *eyes_and_mouth(face.landmarks5_px if sixty_eight is None else sixty_eight)
            )
            crop = align_photo(photo, quad, self.size_px)
            face_id = (
                f"{item.key}_{short_hash(f'{mark} {np.rint(face.box_px).astype(int).tolist()}')}"
            )
            rows[id(face)] = self._row(
                face_id, photo, face, sixty_eight, self.landmarks_name, quad, crop, write_pixels
            )
        return Rows([rows[id(face)] for face in found])

    def _landmarks(self, photo: Photo, face: Detection) -> np.ndarray | None:
        """The 68 points in pixels of the photograph, found where the crop will come from: at its scale, in its part."""
        quad = ffhq_quad(*eyes_and_mouth(face.landmarks5_px))
        square = predictor_square(face.landmarks5_px)
        margin = 0.2 * (square[2] - square[0])
        low, high = np.floor(square[:2] - margin), np.ceil(square[2:] + margin)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        piece = photo.region(box, shrink_of(quad, self.size_px))
        points = self.landmarker.locate(piece.pixels, piece.from_photo(face.landmarks5_px))
        return None if points is None else piece.to_photo(points)

    def _aligned(
        self, item: Item, found: list[Detection], write_pixels: WritePixels
    ) -> Rows | Dropped:
        """The one face of a picture that its source has aligned already: the whole picture is the quad."""
        photo: Photo = item.picture
        picture = photo.pixels()
        height, width = picture.shape[:2]
        if width != height:
            return Dropped(
                f"not_square: {width} x {height}, and its source is one of aligned faces"
            )
        given = item.row.get("landmarks68_px")
        sixty_eight: np.ndarray | None
        if given is not None:
            points = np.array([list(point) for point in given], float)
            features = eyes_and_mouth(points)
            if np.linalg.norm(features[1] - features[0]) < 0.02 * width or not np.all(
                np.abs(points) < 2 * width
            ):
                return Dropped("landmarks_of_source: the source's 68 points are no face's")
            face = Detection(
                np.concatenate([points.min(0), points.max(0)]), float("nan"), five_of(points)
            )
            sixty_eight, backend = points, "source"
        else:
            if not found:
                return Dropped("no_face", threshold=self.min_score)
            face = max(found, key=lambda one: float(np.prod(one.box_px[2:] - one.box_px[:2])))
            sixty_eight, backend = (
                self.landmarker.locate(picture, face.landmarks5_px),
                self.landmarks_name,
            )
        low, high = -0.5, width - 0.5
        quad = Quad(np.array([[low, low], [low, high], [high, high], [high, low]]), float(width))
        pixels = picture
        if width != self.size_px:
            pixels = np.asarray(
                Image.fromarray(picture).resize((self.size_px,) * 2, Image.Resampling.LANCZOS)
            )
        crop = Crop(pixels, 0.0, width < self.size_px)
        face_id = aligned_face_id(item.key)
        return Rows(
            [self._row(face_id, photo, face, sixty_eight, backend, quad, crop, write_pixels)]
        )

    def _row(
        self,
        face_id: str,
        photo: Photo,
        face: Detection,
        sixty_eight: np.ndarray | None,
        backend: str,
        quad: Quad,
        crop: Crop,
        write_pixels: WritePixels,
    ) -> dict[str, Any]:
        landmarks = face.landmarks5_px if sixty_eight is None else sixty_eight
        features = eyes_and_mouth(landmarks)
        pose = head_pose(landmarks, face.landmarks5_px)
        landmarks_crop = to_crop(landmarks, quad, self.size_px)
        boxes = regions(landmarks_crop, self.size_px)
        seen = visible(crop.pixels, boxes, quad, photo.size_px, pose.yaw_deg)
        data = lossless(crop.pixels, self.crop_format)
        sha256 = hashlib.sha256(data).hexdigest()
        path = Workspace.crop_path(face_id, sha256, f".{self.crop_format}")
        write_pixels(path, data)
        row: dict[str, Any] = {
            "face_id": face_id,
            "photo_id": face_id.rsplit("_", 1)[0],
            "detector": self.detector_name,
            "box_px": face.box_px.tolist(),
            "score": face.score if np.isfinite(face.score) else None,
            "landmarks5_px": face.landmarks5_px.tolist(),
            "landmarks68_px": None if sixty_eight is None else sixty_eight.tolist(),
            "landmark_backend": backend,
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
            "crop_phash": perceptual_hash(crop.pixels),
            "crop_size_px": self.size_px,
            "landmarks_crop_px": landmarks_crop.tolist(),
        }
        for name, box in boxes.items():
            row[f"{name}_box_crop_px"] = box.tolist()
            row[f"{name}_visible"] = seen[name]
        return row


def aligned_face_id(photo_id: str) -> str:
    """The id of the one face of an aligned picture: no detector has a say in it, so it is known before one has looked."""
    return f"{photo_id}_{short_hash('aligned')}"


def lossless(pixels: np.ndarray, crop_format: str) -> bytes:
    """(H, W, 3) uint8 as a PNG or a lossless WebP, quick to write, with no metadata."""
    out = io.BytesIO()
    if crop_format == "webp":
        Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=0, method=0)
    else:
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
