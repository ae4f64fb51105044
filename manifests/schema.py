"""The manifests: their columns, keys and versions, as explicit pyarrow schemas.

Every manifest carries two columns besides its own: `fingerprint` (16 hex digits over the settings, stage version and
model revision that made the row) and `created_at` (UTC). Boxes are pixel edges `[x0, y0, x1, y1]`; points are pixel
centres `[x, y]`; names say the space: `_px` is the upright photograph, `_crop_px` the aligned crop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

TEXT, INT, REAL, FLAG, TIME = (
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.timestamp("us", tz="UTC"),
)
NUMBERS = pa.list_(pa.float64())
POINTS = pa.list_(pa.list_(pa.float64()))
TAGS = pa.list_(pa.string())
# What was measured of a crop: the tag of a facet, the value that it rests on, and how sure it is, .5 to 1.
FACTS = pa.list_(pa.struct([("facet", TEXT), ("tag", TEXT), ("value", REAL), ("confidence", REAL)]))
# Tags of a captioner that are not true of the picture, and what says so.
CONTRADICTIONS = pa.list_(pa.struct([("tag", TEXT), ("against", TEXT), ("confidence", REAL)]))


@dataclass(frozen=True)
class Manifest:
    """One kind of row.

    name: folder under `manifests/` and name in the Parquet metadata.
    version: of the schema; raised by a change of columns, with a step in migrate.py if more than new columns is needed.
    key: columns that identify a row; of two rows with one key the later supersedes the earlier.
    input_column: the column naming the row's input, whose rows are redone together (a photo's faces, a face's scores).
    """

    name: str
    version: int
    key: tuple[str, ...]
    input_column: str
    columns: tuple[tuple[str, pa.DataType], ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The pyarrow schema, common columns included, its name and version in the metadata."""
        fields = [*self.columns, ("fingerprint", TEXT), ("created_at", TIME)]
        metadata = {"authface.manifest": self.name, "authface.version": json.dumps(self.version)}
        return pa.schema([pa.field(name, kind) for name, kind in fields], metadata=metadata)


PHOTOS = Manifest(
    "photos", 2, ("photo_id",), "photo_id",
    (
        ("photo_id", TEXT), ("source", TEXT), ("source_url", TEXT),
        ("photographer_name", TEXT), ("photographer_url", TEXT),
        ("licence", TEXT), ("licence_basis", TEXT), ("terms_date", TEXT), ("consent_ref", TEXT),
        ("person", TEXT), ("note", TEXT),
        ("path", TEXT), ("sha256", TEXT), ("bytes", INT), ("width", INT), ("height", INT), ("format", TEXT),
        ("camera_make", TEXT), ("camera_model", TEXT), ("lens", TEXT),
        ("focal_length_mm", REAL), ("aperture", REAL), ("iso", INT), ("exposure_s", REAL), ("taken_at", TEXT),
        ("description", TEXT), ("source_tags", TAGS), ("phash", TEXT), ("pixel_hash", TEXT),
        ("aligned", FLAG), ("landmarks68_px", POINTS),
        ("place", TEXT), ("latitude", REAL), ("longitude", REAL),
        ("collected_at", TIME), ("download_location", TEXT), ("download_reported_at", TIME), ("details_at", TIME),
    ),
)  # fmt: skip

FACES = Manifest(
    "faces", 2, ("face_id",), "photo_id",
    (
        ("face_id", TEXT), ("photo_id", TEXT), ("detector", TEXT), ("box_px", NUMBERS), ("score", REAL),
        ("landmarks5_px", POINTS), ("landmarks68_px", POINTS), ("landmark_backend", TEXT),
        ("yaw_deg", REAL), ("pitch_deg", REAL), ("roll_deg", REAL), ("interocular_px", REAL),
        ("quad_px", POINTS), ("qsize_px", REAL), ("upscaled", FLAG), ("pad_fraction", REAL),
        ("crop_path", TEXT), ("crop_sha256", TEXT), ("crop_phash", TEXT), ("crop_size_px", INT), ("landmarks_crop_px", POINTS),
        ("left_eye_box_crop_px", NUMBERS), ("right_eye_box_crop_px", NUMBERS), ("mouth_box_crop_px", NUMBERS),
        ("left_eye_visible", FLAG), ("right_eye_visible", FLAG), ("mouth_visible", FLAG),
    ),
)  # fmt: skip

SCORES = Manifest(
    "scores", 2, ("face_id", "metric"), "face_id",
    (
        ("face_id", TEXT), ("metric", TEXT), ("value", REAL), ("metric_version", TEXT), ("crop_policy", TEXT),
        ("device", TEXT), ("model_revision", TEXT),
    ),
)  # fmt: skip

VERDICTS = Manifest(
    "verdicts", 1, ("subject", "id", "gate"), "id",
    (
        ("subject", TEXT), ("id", TEXT), ("gate", TEXT), ("verdict", TEXT), ("reason", TEXT), ("value", REAL),
        ("threshold", REAL),
    ),
)  # fmt: skip

CAPTIONS = Manifest(
    "captions", 2, ("face_id", "captioner"), "face_id",
    (
        ("face_id", TEXT), ("captioner", TEXT), ("semantic_tags", TAGS), ("photographic_tags", TAGS),
        ("measured_tags", TAGS), ("measurements", FACTS), ("unknown_tags", TAGS), ("cut_tags", TAGS),
        ("contradictions", CONTRADICTIONS), ("caption", TEXT), ("raw_answers", TAGS), ("model", TEXT), ("model_revision", TEXT),
        ("prompt_hash", TEXT), ("token_count", INT), ("composition", TEXT),
    ),
)  # fmt: skip

DECISIONS = Manifest(
    "decisions", 3, ("id", "reviewer", "decided_at"), "id",
    (
        ("id", TEXT), ("reviewer", TEXT), ("decision", TEXT), ("rating", INT), ("reason", TEXT), ("semantic_tags", TAGS),
        ("photographic_tags", TAGS), ("renamed_to", TEXT), ("note", TEXT), ("decided_at", TIME), ("photo_id", TEXT),
        ("box_px", NUMBERS),
    ),
)  # fmt: skip

# What was forgotten, and must not come back: hashes under a key of the workspace, of an id or of a file's or picture's hash.
TOMBSTONES = Manifest(
    "tombstones", 1, ("keyed_hash",), "keyed_hash",
    (("keyed_hash", TEXT), ("kind", TEXT), ("why", TEXT), ("forgotten_at", TIME)),
)  # fmt: skip

MANIFESTS: dict[str, Manifest] = {
    m.name: m for m in (PHOTOS, FACES, SCORES, VERDICTS, CAPTIONS, DECISIONS, TOMBSTONES)
}
