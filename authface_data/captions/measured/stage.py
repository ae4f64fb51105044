"""The stage of the captioner `measured`: runs all measures on a face and composes their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from authface_data.captions.compose import compose_caption
from authface_data.captions.measured.colour import measure_colour
from authface_data.captions.measured.focus import measure_focus
from authface_data.captions.measured.gaze import measure_gaze
from authface_data.captions.measured.light import measure_light
from authface_data.captions.measured.measurement import MIN_CONFIDENCE, FaceCrop, Measurement
from authface_data.captions.measured.metadata import (
    measure_camera,
    measure_framing,
    measure_view,
)
from authface_data.captions.measured.networks import CropNetworks
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.verdicts import Subject

# In the order in which measurements are stored.
MEASURES = (
    measure_gaze,
    measure_light,
    measure_focus,
    measure_view,
    measure_framing,
    measure_colour,
    measure_camera,
)


class MeasuredStage:
    """Stage that captions faces with measured tags. All of them are photographic.

    Args:
        settings: The section `captions` of the workspace's settings.
        weights_dir: Folder of the setting `weights_dir`, if any.
    """

    name = "measured"
    # 3: landmarks instead of fixed regions, and a confidence per measurement. 4: background outside
    # the person, gaze by the irises, key by the face. 5: wider margins, light by mirrored areas of
    # the skin; no tags of hard light, contrast, head and shoulders.
    version = 5
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "measurement_hash"
    model = None
    libraries = ("cv2",)
    batch_size = 1

    def __init__(self, settings: Captions, weights_dir: str | None) -> None:
        self._settings = settings
        self._weights_dir = weights_dir
        self._networks = CropNetworks()

    def settings(self) -> dict[str, Any]:
        """Return no settings: measurements depend on the version only."""
        return {}

    def setup(self, device: str) -> None:
        """Load the networks for gaze and background."""
        self._networks.setup(self._weights_dir)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Measure every crop of the batch."""
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, Any]:
        face = read_face(item.row, item.picture.pixels(), self._networks)
        measurements = measure_face(face)
        tags = [measurement.tag for measurement in measurements]
        caption = compose_caption({"semantic": [], "photographic": tags}, [], self._settings)
        return {
            "face_id": item.key,
            "captioner": self.name,
            "measured_tags": caption.photographic,
            "measurements": [vars(measurement) for measurement in measurements],
            "model": "measured",
            "model_revision": str(self.version),
            **caption.columns(),
        }


def read_face(row: Mapping[str, Any], crop: np.ndarray, networks: CropNetworks) -> FaceCrop:
    """Prepare a crop for the measures.

    Args:
        row: The row of `faces`, with the camera columns and the size of its photo.
        crop: (size, size, 3) uint8 sRGB; the aligned crop of the row.
        networks: Find the background and the irises.

    Returns:
        The crop with its background and irises.
    """
    face = FaceCrop.from_row(row, crop)
    return replace(
        face,
        background=networks.find_background(face.pixels, row),
        iris_positions=networks.locate_irises(face.pixels),
    )


def measure_face(face: FaceCrop) -> list[Measurement]:
    """Measure all tags of a face.

    Args:
        face: The crop.

    Returns:
        The measurements with a confidence of at least `MIN_CONFIDENCE`.
    """
    measurements = [measurement for measure in MEASURES for measurement in measure(face)]
    return [item for item in measurements if item.confidence >= MIN_CONFIDENCE]
