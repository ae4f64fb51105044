"""Settings of the two trainers. A preset is one TOML file with a table for each; `--set key=value` stands over it."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.errors import UserMistake

Beta = Annotated[float, Field(ge=0, lt=1)]
WeightKind = Literal["time-aware", "constant", "constant-matched", "off"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrainSettings(Section):
    """What both stages share."""

    resolution_px: int = Field(ge=64, multiple_of=8)
    steps: int = Field(ge=1, description="optimiser steps of the whole run")
    batch: int = Field(ge=1, description="global batch: samples of one optimiser step, over all processes")
    micro_batch: int = Field(ge=1, description="samples per process and forward pass, at most; accumulation follows from it")
    learning_rate: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    epsilon: float = Field(1e-8, gt=0)
    clip_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("bf16", description="autocast; the weights stay fp32")
    gradient_checkpointing: bool = True
    seed: int = 0
    workers: int = Field(0, ge=0, description="processes that prepare samples; 0 prepares them in this one")
    checkpoint_every: int = Field(1000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


class PriorSettings(TrainSettings):
    """Stage I: the whole U-Net on captioned faces."""

    base: str = Field(description="SDXL to start from: hub id or folder; `tiny` builds a random one")
    tags: Literal["none", "semantic", "photographic", "both"] = "both"
    tag_order: Literal["fixed", "shuffled"] = "fixed"
    tag_orders: int = Field(
        4, ge=1, description="where shuffled: how many orders of a caption are encoded, an epoch each in turn"
    )

    @property
    def orders(self) -> int:
        """How many captions each face has."""
        return self.tag_orders if self.tag_order == "shuffled" else 1


class FacialSettings(Section):
    """The time-aware latent facial feature loss (paper Eq. 3 to 5); values are ours where the paper gives none."""

    weight: WeightKind = "time-aware"
    m: float = -0.5
    s: float = Field(1.0, gt=0)
    lambda_d: float = Field(0.05, ge=0)
    lambda_s: float = Field(10.0, ge=0)
    adversarial: Literal["non-saturating", "paper-literal"] = "non-saturating"
    eye_cells: int = Field(10, ge=2, description="side of an eye patch, latent cells")
    mouth_cells: int = Field(15, ge=2)
    discriminator_width: int = Field(64, ge=4)
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    discriminator_betas: tuple[Beta, Beta] = (0.5, 0.99)
    r1_gamma: float = Field(1.0, ge=0)
    r1_every: int = Field(16, ge=1)
    start_step: int = Field(5000, ge=0, description="the discriminators start here")
    discriminator_only_steps: int = Field(1000, ge=0, description="steps before the loss reaches the ControlNet")
    ramp_steps: int = Field(2000, ge=0, description="steps over which it grows to its full weight")


class RestorerSettings(TrainSettings):
    """Stage II: a ControlNet on the frozen prior, null prompt, degradations on the fly."""

    degradation: str = "gfpgan"
    facial: FacialSettings = FacialSettings()


STAGES: dict[str, type[PriorSettings] | type[RestorerSettings]] = {"prior": PriorSettings, "restorer": RestorerSettings}
# Settings that may change between a run and its resumption: they do not change what is computed at a step.
FREE_ON_RESUME = {"steps", "workers", "micro_batch", "gradient_checkpointing", "checkpoint_every", "keep_checkpoints"}


def load_preset(stage: str, name: str, changes: list[str]) -> PriorSettings | RestorerSettings:
    """A preset's settings of one stage with `key=value` changes over them (`facial.weight=off` for nested ones).

    Raises UserMistake for an unknown preset or key, or a value out of range.
    """
    folder = resources.files("authface_train") / "presets"
    names = sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))
    if name not in names:
        raise UserMistake(f"no preset {name!r}: there are {', '.join(names)}")
    values = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))[stage]
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserMistake(f"--set takes key=value, not {change!r}")
        *path, last = key.strip().split(".")
        section = values
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserMistake(f"--set {change}: {part} has no settings of its own")
        section[last] = _toml_value(value.strip())
    try:
        return STAGES[stage].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserMistake(f"setting {where}: {first['msg'].lower()} (it is {first['input']!r})") from error


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
