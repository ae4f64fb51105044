"""The manifests as explicit pyarrow schemas: columns, keys and versions.

All manifests have two columns in common: `fingerprint`, 16 hexadecimal digits over the settings,
the stage version and the model revision that made the row, and `created_at` in UTC.

Boxes are pixel edges `[x0, y0, x1, y1]`, and points are pixel centres `[x, y]`. The suffix of a
column names the space: `_px` is the upright photograph, `_crop_px` the aligned crop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

TEXT = pa.string()
INT = pa.int64()
REAL = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
NUMBERS = pa.list_(pa.float64())
POINTS = pa.list_(pa.list_(pa.float64()))
TAGS = pa.list_(pa.string())
FACTS = pa.list_(pa.struct([("facet", TEXT), ("tag", TEXT), ("value", REAL), ("confidence", REAL)]))
"""Measurements of a crop: a facet's tag, the value it rests on, and its confidence, 0.5 to 1."""
CONTRADICTIONS = pa.list_(pa.struct([("tag", TEXT), ("against", TEXT), ("confidence", REAL)]))
"""Tags of a captioner that contradict a measurement, or an earlier tag (`against`)."""


@dataclass(frozen=True)
class Manifest:
    """The definition of one manifest.

    Attributes:
        name: Folder under `manifests/` of a workspace, and name in the Parquet metadata.
        version: Version of the schema. A change of columns increases it; a change beyond added and
            removed columns also needs a step in migrate.py.
        key: Columns that identify a row. A later row supersedes an earlier row with the same key.
        input_column: Column with the key of the row's input. All rows of one input are made
            together, such as the faces of a photo.
        columns: Pairs of column name and type, without the common columns.
    """

    name: str
    version: int
    key: tuple[str, ...]
    input_column: str
    columns: tuple[tuple[str, pa.DataType], ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The pyarrow schema with the common columns; its metadata holds the name and version."""
        fields = [*self.columns, ("fingerprint", TEXT), ("created_at", TIME)]
        metadata = {"authface.manifest": self.name, "authface.version": json.dumps(self.version)}
        return pa.schema([pa.field(name, kind) for name, kind in fields], metadata=metadata)


PHOTOS = Manifest(
    "photos", 4, ("photo_id",), "photo_id",
    (
        ("photo_id", TEXT), ("source", TEXT), ("source_url", TEXT),
        ("photographer_name", TEXT), ("photographer_url", TEXT),
        ("licence", TEXT), ("licence_basis", TEXT), ("terms_date", TEXT), ("consent_ref", TEXT),
        ("person", TEXT), ("note", TEXT),
        ("path", TEXT), ("sha256", TEXT), ("bytes", INT), ("width", INT), ("height", INT),
        ("format", TEXT),
        ("camera_make", TEXT), ("camera_model", TEXT), ("lens", TEXT),
        ("focal_length_mm", REAL), ("aperture", REAL), ("iso", INT), ("exposure_s", REAL),
        ("taken_at", TEXT),
        ("description", TEXT), ("source_tags", TAGS), ("phash", TEXT), ("pixel_hash", TEXT),
        ("detail_spectrum", NUMBERS), ("coefficient_share", REAL),
        ("aligned", FLAG), ("landmarks68_px", POINTS),
        ("place", TEXT), ("latitude", REAL), ("longitude", REAL),
        ("collected_at", TIME), ("download_location", TEXT), ("download_reported_at", TIME),
        ("details_at", TIME), ("warnings", TEXT),
    ),
)  # fmt: skip

FACES = Manifest(
    "faces", 4, ("face_id",), "photo_id",
    (
        ("face_id", TEXT), ("photo_id", TEXT), ("detector", TEXT), ("box_px", NUMBERS),
        ("score", REAL),
        ("landmarks5_px", POINTS), ("landmarks68_px", POINTS), ("landmark_backend", TEXT),
        ("yaw_deg", REAL), ("pitch_deg", REAL), ("roll_deg", REAL), ("interocular_px", REAL),
        ("quad_px", POINTS), ("qsize_px", REAL), ("upscaled", FLAG), ("pad_fraction", REAL),
        ("head_pad_fraction", REAL), ("face_presence", REAL),
        ("crop_path", TEXT), ("crop_sha256", TEXT), ("crop_phash", TEXT),
        ("crop_phash_mirrored", TEXT), ("crop_fine_hash", TEXT), ("crop_size_px", INT),
        ("landmarks_crop_px", POINTS),
        ("left_eye_box_crop_px", NUMBERS), ("right_eye_box_crop_px", NUMBERS),
        ("mouth_box_crop_px", NUMBERS),
        ("left_eye_visible", FLAG), ("right_eye_visible", FLAG), ("mouth_visible", FLAG),
    ),
)  # fmt: skip

SCORES = Manifest(
    "scores", 2, ("face_id", "metric"), "face_id",
    (
        ("face_id", TEXT), ("metric", TEXT), ("value", REAL), ("metric_version", TEXT),
        ("crop_policy", TEXT),
        ("device", TEXT), ("model_revision", TEXT),
    ),
)  # fmt: skip

VERDICTS = Manifest(
    "verdicts", 1, ("subject", "id", "gate"), "id",
    (
        ("subject", TEXT), ("id", TEXT), ("gate", TEXT), ("verdict", TEXT), ("reason", TEXT),
        ("value", REAL),
        ("threshold", REAL),
    ),
)  # fmt: skip

CAPTIONS = Manifest(
    "captions", 2, ("face_id", "captioner"), "face_id",
    (
        ("face_id", TEXT), ("captioner", TEXT), ("semantic_tags", TAGS),
        ("photographic_tags", TAGS),
        ("measured_tags", TAGS), ("measurements", FACTS), ("unknown_tags", TAGS),
        ("cut_tags", TAGS),
        ("contradictions", CONTRADICTIONS), ("caption", TEXT), ("raw_answers", TAGS),
        ("model", TEXT), ("model_revision", TEXT),
        ("prompt_hash", TEXT), ("token_count", INT), ("composition", TEXT),
    ),
)  # fmt: skip

DECISIONS = Manifest(
    "decisions", 4, ("id", "reviewer", "decided_at"), "id",
    (
        ("id", TEXT), ("reviewer", TEXT), ("decision", TEXT), ("rating", INT), ("reason", TEXT),
        ("semantic_tags", TAGS),
        ("photographic_tags", TAGS), ("renamed_to", TEXT), ("note", TEXT), ("decided_at", TIME),
        ("photo_id", TEXT),
        ("box_px", NUMBERS), ("pixel_hash", TEXT), ("crop_phash", TEXT),
    ),
)  # fmt: skip

# Keyed hashes of what was forgotten and must not be collected again; see tombstones.py.
TOMBSTONES = Manifest(
    "tombstones", 1, ("keyed_hash",), "keyed_hash",
    (("keyed_hash", TEXT), ("kind", TEXT), ("why", TEXT), ("forgotten_at", TIME)),
)  # fmt: skip

MANIFESTS: dict[str, Manifest] = {
    manifest.name: manifest
    for manifest in (PHOTOS, FACES, SCORES, VERDICTS, CAPTIONS, DECISIONS, TOMBSTONES)
}
"""Every manifest by name."""
