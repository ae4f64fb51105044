"""The faces stage: turns a photograph into aligned crops and rows of `faces`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from authface_data.engine.stage import Dropped, Item, Model, Rows, WritePixels
from authface_data.faces.align import (
    Crop,
    Quad,
    align_photo,
    decode_shrink,
    ffhq_quad,
    head_pad_fraction,
    photo_to_crop,
)
from authface_data.faces.boxes import area
from authface_data.faces.detectors import Detection, make_detector
from authface_data.faces.landmarks import (
    alignment_points,
    make_landmarker,
    predictor_square,
    to_five_points,
)
from authface_data.faces.region_features import RegionModels
from authface_data.faces.regions import region_boxes
from authface_data.faces.turned import (
    detect_faces_upright,
    quarter_turns,
    turn_points,
    upright_pose,
)
from authface_data.faces.visibility import region_visibility
from authface_data.images.encode import encode_lossless
from authface_data.images.hashes import (
    fine_hash,
    mirrored_perceptual_hash,
    perceptual_hash,
)
from authface_data.images.open import Photo
from manifests.schema import FACES
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.verdicts import Subject
from manifests.workspace import Workspace


@dataclass(frozen=True)
class _AlignedFace:
    """A face with its landmarks in pixels of the photograph, its quad and its crop."""

    detection: Detection
    landmarks68_px: np.ndarray | None
    landmark_backend: str
    quad: Quad
    crop: Crop

    @property
    def landmarks_px(self) -> np.ndarray:
        """The 68 landmarks if the backend has them, or else the detector's five."""
        if self.landmarks68_px is None:
            return self.detection.landmarks5_px
        return self.landmarks68_px


class FaceDetection:
    """A detector as the model of a stage.

    Args:
        name: Name of the detector, see `make_detector`.
        min_score: Lowest score of a face, 0 to 1.
        weights_dir: Folder of the setting `weights_dir`, if any.

    Raises:
        UserError: If the detector is unknown.
    """

    def __init__(self, name: str, min_score: float, weights_dir: str | None) -> None:
        self.min_score = min_score
        self.weights_dir = weights_dir
        self.detector = make_detector(name)
        self.uses_gpu = self.detector.uses_gpu
        self.batch_size = self.detector.batch_size
        self.revision: str | None = self.detector.revision
        self.device = ""

    def load(self, device: str) -> None:
        """Load the detector."""
        self.device = device
        self.detector.setup(device, self.weights_dir)

    def predict(self, inputs: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Detect the faces of pictures, (height, width, 3) uint8 sRGB each."""
        return self.detector.detect(inputs, self.min_score)


class FacesStage:
    """Detects the faces of a photograph, locates their landmarks and aligns them.

    A photograph without a face is dropped as `no_face`. A picture that its source has already
    aligned (column `aligned`) is used as the crop of its one face. If the source provides the
    landmarks of such a face, these are used.

    Args:
        detector: Name of the detector, see `make_detector`.
        landmarks: Name of the landmark backend, see `make_landmarker`.
        size_px: Side of the crops.
        min_detector_score: Lowest score of a face, 0 to 1.
        detect_long_side_px: Long side of the photographs for detection.
        weights_dir: Folder of the setting `weights_dir`, if any.
        crop_format: File format of the crops.

    Raises:
        UserError: If the detector or the landmark backend is unknown.
    """

    name = "faces"
    # 2: another head model for the pose. 3: perceptual hashes of the crops. 4: detection at two
    # scales, and a single resampling step. 5: faster padding, which differs by rounding. 6: turned
    # photographs, visibility and presence by the face mesh. 7: visibility in small and blurred
    # crops. 8: other models of visibility, and half of the samples
    # of small faces.
    version = 8
    subject: Subject = "photo"
    manifest = FACES
    input_hash_column = "photo_hash"
    libraries = ("cv2", "dlib")

    def __init__(
        self,
        *,
        detector: str,
        landmarks: str,
        size_px: int,
        min_detector_score: float,
        detect_long_side_px: int,
        weights_dir: str | None,
        crop_format: Literal["png", "webp"] = "png",
    ) -> None:
        self.detector_name = detector
        self.landmarks_name = landmarks
        self.size_px = size_px
        self.min_score = min_detector_score
        self.long_side_px = detect_long_side_px
        self.weights_dir = weights_dir
        self.crop_format = crop_format

        detection = FaceDetection(detector, min_detector_score, weights_dir)
        self.model: Model = detection
        self.detector_revision = detection.detector.revision
        self.batch_size = detection.batch_size
        self.landmarker = make_landmarker(landmarks)
        self.region_models = RegionModels()

    def settings(self) -> dict[str, object]:
        """Return the settings and model revisions that the results depend on."""
        return {
            "detector": self._detector_settings(),
            "landmarks": [self.landmarks_name, self.landmarker.revision],
            "size_px": self.size_px,
            "crop_format": self.crop_format,
        }

    def _detector_settings(self) -> list[object]:
        return [self.detector_name, self.detector_revision, self.min_score, self.long_side_px]

    def setup(self, device: str) -> None:
        """Load the detector, the landmark model and the networks for visibility."""
        self.model.load(device)
        self.landmarker.setup(self.weights_dir)
        self.region_models.setup(self.weights_dir)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Detect and align the faces of a batch of photographs."""
        items = [item for item in batch if not _has_source_landmarks(item.row)]
        photos = [item.picture for item in items]
        detections = detect_faces_upright(self.model.predict, photos, self.long_side_px)
        faces_by_key = {item.key: faces for item, faces in zip(items, detections, strict=True)}

        results = []
        for item in batch:
            faces = faces_by_key.get(item.key, [])
            if item.row.get("aligned"):
                results.append(self._process_aligned(item, faces, write_pixels))
            else:
                results.append(self._process_photo(item, faces, write_pixels))
        return results

    def _process_photo(
        self, item: Item, faces: list[Detection], write_pixels: WritePixels
    ) -> Rows | Dropped:
        """Align every detected face of a photograph."""
        if not faces:
            return Dropped("no_face", threshold=self.min_score)

        photo: Photo = item.picture
        detector_hash = fingerprint(detector=self._detector_settings())
        rows = {}
        # Start with the lowest face: the rows of a JPEG decoded for it also contain the others.
        for index in sorted(range(len(faces)), key=lambda index: -faces[index].box_px[3]):
            face = self._align(photo, faces[index])
            box_px = np.rint(face.detection.box_px).astype(int).tolist()
            face_id = f"{item.key}_{short_hash(f'{detector_hash} {box_px}')}"
            rows[index] = self._row(face_id, photo, face, write_pixels)
        return Rows([rows[index] for index in range(len(faces))])

    def _align(self, photo: Photo, detection: Detection) -> _AlignedFace:
        """Locate the landmarks of a detected face and cut out its crop."""
        landmarks68_px = self._locate_landmarks(photo, detection)
        landmarks_px = detection.landmarks5_px if landmarks68_px is None else landmarks68_px
        quad = ffhq_quad(*alignment_points(landmarks_px))
        crop = align_photo(photo, quad, self.size_px)
        return _AlignedFace(detection, landmarks68_px, self.landmarks_name, quad, crop)

    def _locate_landmarks(self, photo: Photo, detection: Detection) -> np.ndarray | None:
        """Locate the 68 landmarks, in pixels of the photograph.

        The region and the scale are those that the crop will need, so they are decoded only once.
        """
        quad = ffhq_quad(*alignment_points(detection.landmarks5_px))
        square = predictor_square(detection.landmarks5_px)
        margin = 0.2 * (square[2] - square[0])
        low = np.floor(square[:2] - margin)
        high = np.ceil(square[2:] + margin)
        box_px = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))

        region = photo.region(box_px, decode_shrink(quad, self.size_px))
        landmarks5 = region.from_photo(detection.landmarks5_px)

        # The models know upright faces only.
        turns = quarter_turns(landmarks5)
        height, width = region.pixels.shape[:2]
        rotated = np.ascontiguousarray(np.rot90(region.pixels, turns))
        rotated5 = turn_points(landmarks5, (width, height), turns)
        rotated68 = self.landmarker.locate(rotated, rotated5)
        if rotated68 is None:
            return None
        rotated_px = (rotated.shape[1], rotated.shape[0])
        return region.to_photo(turn_points(rotated68, rotated_px, (4 - turns) % 4))

    def _process_aligned(
        self, item: Item, faces: list[Detection], write_pixels: WritePixels
    ) -> Rows | Dropped:
        """Use a picture that is already aligned as the crop of its one face."""
        photo: Photo = item.picture
        picture = photo.pixels()
        height, width = picture.shape[:2]
        if width != height:
            return Dropped(
                f"not_square: {width} x {height}, and its source is one of aligned faces"
            )

        landmarks68_px: np.ndarray | None
        if _has_source_landmarks(item.row):
            landmarks68_px = np.array([list(point) for point in item.row["landmarks68_px"]], float)
            if not _are_plausible(landmarks68_px, width):
                return Dropped("landmarks_of_source: the source's 68 points are no face's")
            detection = Detection(
                box_px=np.concatenate([landmarks68_px.min(0), landmarks68_px.max(0)]),
                score=float("nan"),
                landmarks5_px=to_five_points(landmarks68_px),
            )
            backend = "source"
        else:
            if not faces:
                return Dropped("no_face", threshold=self.min_score)
            detection = max(faces, key=lambda face: area(face.box_px))
            landmarks68_px = self.landmarker.locate(picture, detection.landmarks5_px)
            backend = self.landmarks_name

        quad = _whole_picture_quad(width)
        crop = self._resize_aligned(picture)
        face = _AlignedFace(detection, landmarks68_px, backend, quad, crop)
        return Rows([self._row(aligned_face_id(item.key), photo, face, write_pixels)])

    def _resize_aligned(self, picture: np.ndarray) -> Crop:
        """Resize an aligned square picture to the size of the crops."""
        width = picture.shape[1]
        pixels = picture
        if width != self.size_px:
            size_px = (self.size_px, self.size_px)
            pixels = np.asarray(Image.fromarray(picture).resize(size_px, Image.Resampling.LANCZOS))
        return Crop(pixels=pixels, pad_fraction=0.0, upscaled=width < self.size_px)

    def _row(
        self, face_id: str, photo: Photo, face: _AlignedFace, write_pixels: WritePixels
    ) -> dict[str, object]:
        """Measure a face, write its crop and return its row of `faces`."""
        left_eye, right_eye, *_ = alignment_points(face.landmarks_px)
        pose = upright_pose(face.landmarks_px, face.detection.landmarks5_px)
        landmarks_crop_px = photo_to_crop(face.landmarks_px, face.quad, self.size_px)
        boxes = region_boxes(landmarks_crop_px, self.size_px)
        features = self.region_models.measure(face.crop.pixels)
        visibility = region_visibility(
            features,
            boxes,
            size_px=self.size_px,
            quad=face.quad,
            photo_px=photo.size_px,
            yaw_deg=pose.yaw_deg,
        )

        data = encode_lossless(face.crop.pixels, self.crop_format)
        sha256 = hashlib.sha256(data).hexdigest()
        path = Workspace.crop_path(face_id, sha256, f".{self.crop_format}")
        write_pixels(path, data)

        detection = face.detection
        row: dict[str, object] = {
            "face_id": face_id,
            "photo_id": face_id.rsplit("_", 1)[0],
            "detector": self.detector_name,
            "box_px": detection.box_px.tolist(),
            "score": detection.score if np.isfinite(detection.score) else None,
            "landmarks5_px": detection.landmarks5_px.tolist(),
            "landmarks68_px": None,
            "landmark_backend": face.landmark_backend,
            "yaw_deg": pose.yaw_deg,
            "pitch_deg": pose.pitch_deg,
            "roll_deg": pose.roll_deg,
            "interocular_px": float(np.linalg.norm(right_eye - left_eye)),
            "quad_px": face.quad.corners_px.tolist(),
            "qsize_px": face.quad.size_px,
            "upscaled": face.crop.upscaled,
            "pad_fraction": face.crop.pad_fraction,
            "head_pad_fraction": head_pad_fraction(face.quad, *photo.size_px),
            "face_presence": features.presence,
            "crop_path": path,
            "crop_sha256": sha256,
            "crop_phash": perceptual_hash(face.crop.pixels),
            "crop_phash_mirrored": mirrored_perceptual_hash(face.crop.pixels),
            "crop_fine_hash": fine_hash(face.crop.pixels),
            "crop_size_px": self.size_px,
            "landmarks_crop_px": landmarks_crop_px.tolist(),
        }
        if face.landmarks68_px is not None:
            row["landmarks68_px"] = face.landmarks68_px.tolist()
        for name, box in boxes.items():
            row[f"{name}_box_crop_px"] = box.tolist()
            row[f"{name}_visible"] = visibility[name]
        return row


def _has_source_landmarks(row: Mapping[str, object]) -> bool:
    """Whether the source has aligned the picture and provides its landmarks."""
    return bool(row.get("aligned")) and row.get("landmarks68_px") is not None


def _are_plausible(landmarks68_px: np.ndarray, side_px: int) -> bool:
    """Whether landmarks lie near a picture, and the eyes in different places."""
    left_eye, right_eye, *_ = alignment_points(landmarks68_px)
    are_near = bool(np.all(np.abs(landmarks68_px) < 2 * side_px))
    return are_near and bool(np.linalg.norm(right_eye - left_eye) >= 0.02 * side_px)


def _whole_picture_quad(side_px: int) -> Quad:
    """Return the quad that covers a square picture."""
    low = -0.5
    high = side_px - 0.5
    corners_px = np.array([[low, low], [low, high], [high, high], [high, low]])
    return Quad(corners_px, float(side_px))


def aligned_face_id(photo_id: str) -> str:
    """Return the id of the one face of an aligned picture; it does not depend on the detector."""
    return f"{photo_id}_{short_hash('aligned')}"
