"""The settings of a workspace, `authface.toml`.

Unknown keys are errors; the message suggests the closest known key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from manifests.names import (
    CAPTION_ORIGINS,
    CAPTIONERS,
    DETECTORS,
    LANDMARKS,
    check_measurement,
    check_metric,
)
from manifests.support.errors import UserError
from manifests.support.parsing import parse_toml
from manifests.support.text import excerpt, unknown_name

SETTINGS_FILE = "authface.toml"


def _known_name(kind: str, name: str, known: Sequence[str]) -> str:
    """Return a name if it is known; otherwise raise ValueError with the nearest one."""
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return name


class Section(BaseModel):
    """Base class of the tables in the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Unsplash(Section):
    """`[collect.unsplash]`: the Unsplash API."""

    base_url: str = "https://api.unsplash.com"
    """Address of the API. Another one may be a proxy or a test server."""
    window_s: float = Field(3600, gt=0)
    """Period of the API's request limit in seconds."""
    app_name: str = Field("authface", min_length=1)
    """Value of `utm_source` in the links of credits."""


class Collect(Section):
    """`[collect]`: which photographs `authface collect` downloads, and how."""

    min_megapixels: float = Field(0, ge=0)
    """Photographs of web sources with fewer megapixels are not downloaded."""
    min_long_side_px: int = Field(0, ge=0)
    """Photographs of web sources with a shorter long side are not downloaded."""
    face_gate: bool = False
    """Download a photograph only if its preview shows a face."""
    store_place: bool = False
    """Keep GPS coordinates and place names."""
    allowed_hosts: list[str] = []
    """Hosts to download from besides the source's own. Private addresses must be listed here."""
    per_host: int = Field(8, ge=1, le=64)
    """Largest number of simultaneous connections to a host."""
    photos_per_second: float = Field(5, gt=0)
    """Largest request rate for a host that is not in `allowed_hosts`."""
    connect_timeout_s: float = Field(10, gt=0)
    """Longest wait for a connection in seconds."""
    read_timeout_s: float = Field(30, gt=0)
    """Longest silence of a connection in seconds."""
    total_timeout_s: float = Field(600, gt=0)
    """Longest duration of one download attempt in seconds."""
    attempts: int = Field(5, ge=1)
    """Attempts per download or request."""
    max_megabytes: float = Field(300, gt=0)
    """Largest file that is downloaded, in MB."""
    keep_free_gb: float = Field(2, ge=0)
    """Disk space in GB that downloads leave free."""
    unsplash: Unsplash = Unsplash()
    """The Unsplash API."""


class Filter(Section):
    """`[filter]`: what `authface filter` measures."""

    detector: str = "retinaface"
    """Face detector: `retinaface` or `retinaface-mobile`."""
    min_detector_score: float = Field(0.7, ge=0, le=1)
    """Detections with a lower score are ignored."""
    detect_long_side_px: int = Field(1920, ge=192)
    """Long side of the photo that the detector sees. Large faces are also detected at a third."""
    landmarks: str = "dlib"
    """Landmarks: `dlib` or `mediapipe` (68 points), or `retinaface5` (the detector's five)."""
    size: Literal[512, 1024, 2048] = 1024
    """Side of the aligned crops in pixels, the same for the whole workspace."""
    crop_format: Literal["png", "webp"] = "png"
    """Format of the crops: PNG or lossless WebP, which is smaller but slower to write."""
    metrics: list[str] = ["musiq"]
    """Image quality metrics by their names in pyiqa."""
    duplicate_radius: int = Field(6, ge=0, le=16)
    """Photographs are duplicates if at most this many of 64 bits of their hashes differ."""
    duplicate_face_radius: int | Literal["auto", "off"] = "auto"
    """Faces are duplicates, mirrored too, if at most this many of 64 bits of their crops' hashes
    differ (0 to 63). `auto`: 8, or 6 with more than 200,000 faces. `off` compares no faces."""

    @field_validator("duplicate_face_radius", mode="before")
    @classmethod
    def _check_face_radius(cls, radius: object) -> object:
        is_radius = isinstance(radius, int) and not isinstance(radius, bool) and 0 <= radius <= 63
        if not is_radius and radius not in ("auto", "off"):
            raise ValueError(
                f'must be a whole number from 0 to 63, "auto" or "off", not {radius!r}'
            )
        return radius

    @field_validator("detector")
    @classmethod
    def _check_detector(cls, name: str) -> str:
        return _known_name("detector", name, DETECTORS)

    @field_validator("landmarks")
    @classmethod
    def _check_landmarks(cls, name: str) -> str:
        return _known_name("landmarks", name, LANDMARKS)

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, names: list[str]) -> list[str]:
        for name in names:
            check_metric(name)
        return names


class Gate(Section):
    """`[[gates]]`: a criterion that faces must meet to be kept.

    A face passes if `metric op threshold` holds, or if it is among the `best` faces by that metric.
    """

    name: str = Field(min_length=1)
    """Name of the gate in verdicts."""
    metric: str
    """A metric in `scores`, or a number or flag in `faces`."""
    op: Literal[">=", ">", "<=", "<", "=="]
    """Comparison of the metric with the threshold."""
    threshold: float | None = Field(None, allow_inf_nan=False)
    """Value that the metric is compared with."""
    best: int | None = Field(None, ge=1)
    """Number of faces to keep instead of a threshold: the largest for >=, the smallest for <=."""

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, name: str) -> str:
        check_measurement(name)
        return name

    @model_validator(mode="after")
    def _check_criterion(self) -> Gate:
        if (self.threshold is None) == (self.best is None):
            raise ValueError("a gate needs either threshold or best")
        if self.best is not None and self.op not in (">=", "<="):
            raise ValueError(
                'op must be ">=" (keep the largest) or "<=" (keep the smallest) with best'
            )
        return self


class Server(Section):
    """`[captions.server]`: an OpenAI-compatible server. AUTHFACE_API_KEY holds its key."""

    base_url: str = Field("http://127.0.0.1:8000/v1", pattern="^https?://")
    """Address of the server. The default is vLLM's."""
    model: str | None = None
    """Model name on the server. Default: its only model."""
    concurrency: int = Field(8, ge=1, le=256)
    """Largest number of simultaneous requests."""
    attempts: int = Field(6, ge=1)
    """Attempts per request."""
    timeout_s: float = Field(120, gt=0)
    """Longest wait for an answer in seconds."""


class Captions(Section):
    """`[captions]`: how captions are made, and which are used."""

    captioner: str = "llava"
    """Captioner of `authface caption`: `llava`, `server` or `measured`."""
    model: str = "llava-hf/llava-v1.6-mistral-7b-hf"
    """LLaVA-1.6 checkpoint: hub id or folder."""
    precision: Literal["bf16", "8bit", "4bit"] = "bf16"
    """Precision of LLaVA's weights on a GPU. On a CPU they are fp32."""
    use: list[str] = ["server", "llava", "qwen", "measured"]
    """Captioners in order of preference. The first that captioned a face is used."""
    sensitive: list[Literal["age", "ethnicity", "gender"]] = ["age", "ethnicity", "gender"]
    """Attributes of people that captions may name. The paper's captions name all three."""
    contradictions: Literal["leave out", "keep"] = "leave out"
    """What to do with tags that contradict a confident measurement."""
    max_words: int = Field(5, ge=1)
    """Largest number of words of a tag. Longer tags are ignored."""
    server: Server = Server()
    """The caption server."""

    @field_validator("captioner")
    @classmethod
    def _check_captioner(cls, name: str) -> str:
        return _known_name("captioner", name, CAPTIONERS)

    @field_validator("use")
    @classmethod
    def _check_use(cls, names: list[str]) -> list[str]:
        return [_known_name("captioner", name, CAPTION_ORIGINS) for name in names]


class Splits(Section):
    """`[splits]`: shares of the validation and test splits. Groups of photos are not divided."""

    val: float = Field(0.05, ge=0, lt=1)
    """Share of the validation split."""
    test: float = Field(0.0, ge=0, lt=1)
    """Share of the test split."""
    seed: int = 0
    """Seed of the hash that assigns the splits."""
    people: dict[str, Literal["train", "val", "test"]] = {}
    """Person -> the split that the person's group is pinned to."""

    @model_validator(mode="after")
    def _check_train_share(self) -> Splits:
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on")
        return self


class Limits(Section):
    """`[limits]`: what one picture file may cost. Files above a limit are rows with a reason."""

    picture_gb: float = Field(2.0, gt=0)
    """Memory in GB that decoding one picture may take, per worker. Larger pictures are dropped."""
    file_seconds: float = Field(60.0, gt=0)
    """Time in seconds that one file may take in one stage. Slower files are failed rows."""


class Settings(Section):
    """All settings of a workspace."""

    weights_dir: str | None = None
    """Folder that is searched for weights before the caches."""
    limits: Limits = Limits()
    """Memory and time of one picture file."""
    collect: Collect = Collect()
    """Downloads."""
    filter: Filter = Filter()
    """Measurements."""
    gates: list[Gate] = []
    """Criteria that faces must meet."""
    captions: Captions = Captions()
    """Captions."""
    splits: Splits = Splits()
    """Splits."""


def load_settings(data: bytes, path: str) -> Settings:
    """Parse and validate the content of an `authface.toml`.

    Args:
        data: The content, UTF-8 with or without a byte order mark.
        path: Path of the file, for messages.

    Raises:
        UserError: If the file is not valid. The message is one line and names the key.
    """
    table = parse_toml(data, path)
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{path}: {_describe(error, table)}") from error


SectionT = TypeVar("SectionT", bound=Section)


def override(section: SectionT, **values: object) -> SectionT:
    """Replace settings of a section by values from command-line options.

    Args:
        section: The section; it is not changed.
        values: Key -> new value. None keeps the value of the section.

    Returns:
        A validated copy of the section.

    Raises:
        UserError: If a value is not valid. The message is one line and names the option, `--key`.
    """
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return type(section).model_validate({**section.model_dump(), **given})
    except ValidationError as error:
        details = error.errors()[0]
        option = "--" + str(details["loc"][0]).replace("_", "-")
        if details["type"] == "value_error":
            raise UserError(f"{option}: {details['ctx']['error']}") from error
        raise UserError(f"{option} {details['input']!r}: {details['msg'].lower()}") from error


def _describe(error: ValidationError, table: Mapping[str, object]) -> str:
    """Describe the most helpful of the validation errors of a table, the content of the file."""
    # A misspelt key often causes a second error, a missing key. The misspelling explains both.
    details: ErrorDetails = error.errors()[0]
    for candidate in error.errors():
        if candidate["type"] == "extra_forbidden":
            details = candidate
            break

    keys = [excerpt(str(key), 80) for key in details["loc"]]
    place = ""
    keys_in_place = keys
    if keys[0] == "gates" and len(keys) > 1:
        place = f"{_name_gate(table['gates'], keys[1])}: "
        keys_in_place = keys[2:]
    name = ".".join(keys_in_place)
    if details["type"] == "value_error":  # raised by a validator of this module
        return place + ": ".join(filter(None, [name, str(details["ctx"]["error"])]))
    if details["type"] != "extra_forbidden":
        value = excerpt(repr(details["input"]), 80)
        message = f"{details['msg'].lower()} (the value is {value})"
        return place + ": ".join(filter(None, [name, message]))
    section_keys = [key for key in keys[:-1] if not key.isdigit()]
    matches = difflib.get_close_matches(keys[-1], _known_keys(section_keys), n=1, cutoff=0)
    hint = f"; did you mean {matches[0]}?" if matches else ""
    return f"{place}unknown setting {name}{hint}"


def _name_gate(gates: object, index: str) -> str:
    """The name of a gate in a message: `gate "sharp"`, or its number if it has no name."""
    if isinstance(gates, list) and index.isdigit():
        gate = gates[int(index)]
        if isinstance(gate, dict) and isinstance(gate.get("name"), str) and gate["name"]:
            return f'gate "{excerpt(gate["name"], 80)}"'
    return f"gate {int(index) + 1}" if index.isdigit() else "gates"


def _known_keys(section_keys: list[str]) -> list[str]:
    """The keys of a section, such as ["collect", "unsplash"]."""
    model: type[BaseModel] = Settings
    for key in section_keys:
        if key == "gates":
            return list(Gate.model_fields)
        field = model.model_fields.get(key)
        annotation = field.annotation if field is not None else None
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return []
        model = annotation
    return list(model.model_fields)


def preset_names() -> list[str]:
    """Names of the workspace presets."""
    folder = resources.files("manifests") / "presets"
    file_names = [item.name for item in folder.iterdir()]
    return sorted(name.removesuffix(".toml") for name in file_names if name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Read the TOML text of a workspace preset.

    Raises:
        UserError: If there is no such preset.
    """
    if name not in preset_names():
        raise UserError(f'unknown preset "{name}"; choose from: {", ".join(preset_names())}')
    return (resources.files("manifests") / "presets" / f"{name}.toml").read_text("utf-8")
