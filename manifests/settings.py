"""`authface.toml`: what a workspace is set to. Unknown keys are refused, with the nearest known one named."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.support.errors import UserError

SETTINGS_FILE = "authface.toml"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Unsplash(Section):
    """The API source."""

    base_url: str = Field(
        "https://api.unsplash.com", description="another address: a proxy of yours, a test"
    )
    window_s: float = Field(3600, gt=0, description="how long the API's limit of requests runs, s")
    app_name: str = Field(
        "authface", min_length=1, description="utm_source in the links of credits"
    )


class Collect(Section):
    """What `authface collect` takes, and how it asks for it."""

    min_megapixels: float = Field(
        0, ge=0, description="photographs of a web source below this are not downloaded"
    )
    min_long_side_px: int = Field(0, ge=0, description="likewise, by the longer side")
    face_gate: bool = Field(
        False, description="download a photograph only if its preview shows a face"
    )
    store_place: bool = Field(False, description="keep GPS and place")
    allowed_hosts: list[str] = Field(
        [], description="hosts beyond the source's own; private addresses only if named here"
    )
    per_host: int = Field(8, ge=1, le=64, description="connections to one host at a time")
    photos_per_second: float = Field(
        5, gt=0, description="requests to a host that is not one of allowed_hosts"
    )
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(30, gt=0, description="longest silence of a connection")
    total_timeout_s: float = Field(600, gt=0, description="longest time of one try of a download")
    attempts: int = Field(5, ge=1, description="tries of one download or request")
    max_megabytes: float = Field(300, gt=0, description="larger files are refused")
    keep_free_gb: float = Field(2, ge=0, description="disk that downloads leave free")
    unsplash: Unsplash = Unsplash()


class Filter(Section):
    """What `authface filter` measures."""

    detector: str = Field("retinaface", description="retinaface | retinaface-mobile")
    min_detector_score: float = Field(
        0.7, ge=0, le=1, description="detections below this are not faces"
    )
    detect_long_side_px: int = Field(
        1920,
        ge=192,
        description="the photo is scaled down to this for detection, and to a third for large faces",
    )
    landmarks: str = Field(
        "dlib", description="dlib (68 points) | retinaface5 (the detector's five)"
    )
    size: Literal[512, 1024, 2048] = Field(
        1024, description="side of the aligned crops, px; one per workspace"
    )
    crop_format: Literal["png", "webp"] = Field(
        "png", description="png, or lossless webp: smaller, and slower to write"
    )
    metrics: list[str] = Field(["musiq"], description="IQA metrics, by pyiqa's names")
    duplicate_radius: int = Field(
        6,
        ge=0,
        le=16,
        description="perceptual hashes that differ in so few of 64 bits are duplicates",
    )


class Gate(Section):
    """One decision: a face is kept if `metric op threshold` holds, or if it is among the `best` of those that are kept."""

    name: str = Field(min_length=1)
    metric: str = Field(description="a metric of `scores`, or a number or flag of `faces`")
    op: Literal[">=", ">", "<=", "<", "=="]
    threshold: float | None = Field(None, allow_inf_nan=False)
    best: int | None = Field(
        None,
        ge=1,
        description="instead of a threshold: so many; op >= where more is better, else <=",
    )

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Gate:
        if (self.threshold is None) == (self.best is None):
            raise ValueError("a gate takes a threshold, or best = N")
        if self.best is not None and self.op not in (">=", "<="):
            raise ValueError(
                'with best = N, op is ">=" where more is better, or "<=" where less is'
            )
        return self


class Server(Section):
    """The captioner `server`: an OpenAI-compatible endpoint. Its key comes from AUTHFACE_API_KEY."""

    base_url: str = Field(
        "http://127.0.0.1:8000/v1",
        pattern="^https?://",
        description="vLLM's own address by default",
    )
    model: str | None = Field(
        None, description="as the server names it; its only one if it serves one"
    )
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at a time")
    attempts: int = Field(6, ge=1, description="tries of one request")
    timeout_s: float = Field(120, gt=0, description="longest wait for one answer")


class Captions(Section):
    captioner: str = Field(
        "llava", description="what `authface caption` uses: llava | server | measured"
    )
    model: str = Field(
        "llava-hf/llava-v1.6-mistral-7b-hf", description="LLaVA-1.6 checkpoint, hub id or folder"
    )
    precision: Literal["bf16", "8bit", "4bit"] = Field(
        "bf16", description="of LLaVA's weights on a GPU; fp32 without one"
    )
    use: list[str] = Field(
        ["server", "llava", "qwen", "measured"], description="which captions train: first present"
    )
    sensitive: list[Literal["age", "ethnicity", "gender"]] = Field(
        ["age", "ethnicity", "gender"],
        description="what a caption may say of a person, as the paper's do",
    )
    contradictions: Literal["leave out", "keep"] = Field(
        "leave out", description="tags of a model that contradict a confident measurement"
    )
    max_words: int = Field(5, ge=1, description="a tag of more words is none")
    server: Server = Server()


class Splits(Section):
    """Shares of validation and test, by hash of the group that must stay together."""

    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    seed: int = 0
    people: dict[str, Literal["train", "val", "test"]] = Field(
        {}, description="person -> the split it is pinned to"
    )

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> Splits:
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on")
        return self


class Settings(Section):
    weights_dir: str | None = Field(
        None, description="where weights are looked for before the caches"
    )
    collect: Collect = Collect()
    filter: Filter = Filter()
    gates: list[Gate] = []
    captions: Captions = Captions()
    splits: Splits = Splits()


def _known_keys(path: list[str]) -> list[str]:
    """The keys of the section that a path of keys leads to."""
    model: type[BaseModel] = Settings
    for key in path:
        if key == "gates":
            return list(Gate.model_fields)
        field = model.model_fields.get(key)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return []
        model = field.annotation
    return list(model.model_fields)


def load_settings(data: bytes, where: str) -> Settings:
    """Parse and check. Raises UserError, one line, naming the key and what was expected or meant."""
    try:
        return Settings.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is not valid TOML: {error}") from error
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling explains more.
        first = next(
            (e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0]
        )
        keys = [str(key) for key in first["loc"]]
        name = ".".join(keys)
        if first["type"] != "extra_forbidden":
            raise UserError(
                f"{where}: {name}: {first['msg'].lower()} (it is {first['input']!r})"
            ) from error
        near = difflib.get_close_matches(
            keys[-1], _known_keys([k for k in keys[:-1] if not k.isdigit()]), n=1, cutoff=0
        )
        hint = f": did you mean {near[0]}?" if near else ""
        raise UserError(f"{where}: unknown setting {name}{hint}") from error


SectionT = TypeVar("SectionT", bound=Section)


def override(section: SectionT, **values: object) -> SectionT:
    """Replace settings of a section by values from command-line options.

    Args:
        section: The section to copy.
        values: Key -> new value. None keeps the value of the section.

    Returns:
        A validated copy of the section.

    Raises:
        UserError: If a value is not valid. The message names the option, `--key`.
    """
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return type(section).model_validate({**section.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option} {first['input']!r}: {first['msg'].lower()}") from error


def preset_names() -> list[str]:
    """Names of the workspace presets, one TOML file each."""
    folder = resources.files("manifests") / "presets"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def preset_text(name: str) -> str:
    """The TOML text of a workspace preset. Raises UserError for an unknown name."""
    if name not in preset_names():
        raise UserError(f"no preset {name!r}: there are {', '.join(preset_names())}")
    return (resources.files("manifests") / "presets" / f"{name}.toml").read_text("utf-8")
