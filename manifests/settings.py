"""`authface.toml`: what a workspace is set to. Unknown keys are refused, with the nearest known one named."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import UserMistake

SETTINGS_FILE = "authface.toml"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(Section):
    """What `authface filter` measures."""

    detector: str = Field("retinaface", description="retinaface | retinaface-mobile")
    min_detector_score: float = Field(0.7, ge=0, le=1, description="detections below this are not faces")
    detect_long_side_px: int = Field(1280, ge=64, description="the photo is scaled down to this for detection")
    landmarks: str = Field("dlib", description="dlib (68 points) | retinaface5 (the detector's five)")
    size: Literal[512, 1024, 2048] = Field(1024, description="side of the aligned crops, px; one per workspace")
    metrics: list[str] = Field(["musiq"], description="IQA metrics, by pyiqa's names")


class Gate(Section):
    """One decision: a face is kept if `metric op threshold` holds."""

    name: str = Field(min_length=1)
    metric: str = Field(description="a metric of `scores`, or a number or flag column of `faces`")
    op: Literal[">=", ">", "<=", "<", "=="]
    threshold: float


class Captions(Section):
    captioner: str = Field("llava", description="what `authface caption` uses: llava | measured")
    model: str = Field("llava-hf/llava-v1.6-mistral-7b-hf", description="LLaVA-1.6 checkpoint, hub id or folder")
    use: list[str] = Field(["server", "llava", "qwen", "measured"], description="which captions train: first present")


class Splits(Section):
    """Shares of validation and test, by hash of the group that must stay together."""

    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> Splits:
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on")
        return self


class Settings(Section):
    weights_dir: str | None = Field(None, description="where weights are looked for before the caches")
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
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def load_settings(data: bytes, where: str) -> Settings:
    """Parse and check. Raises UserMistake, one line, naming the key and what was expected or meant."""
    try:
        return Settings.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserMistake(f"{where} is not valid TOML: {error}") from error
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling explains more.
        first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
        keys = [str(key) for key in first["loc"]]
        name = ".".join(keys)
        if first["type"] != "extra_forbidden":
            raise UserMistake(f"{where}: {name}: {first['msg'].lower()} (it is {first['input']!r})") from error
        near = difflib.get_close_matches(keys[-1], _known_keys([k for k in keys[:-1] if not k.isdigit()]), n=1, cutoff=0)
        hint = f": did you mean {near[0]}?" if near else ""
        raise UserMistake(f"{where}: unknown setting {name}{hint}") from error


def preset_names() -> list[str]:
    """Names of the workspace presets, one TOML file each."""
    folder = resources.files("manifests") / "presets"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The TOML text of a workspace preset. Raises UserMistake for an unknown name."""
    if name not in preset_names():
        raise UserMistake(f"no preset {name!r}: there are {', '.join(preset_names())}")
    return (resources.files("manifests") / "presets" / f"{name}.toml").read_text("utf-8")
