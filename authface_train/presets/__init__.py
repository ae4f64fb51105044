"""Presets: TOML files with a table per stage. A preset may extend another; `--set key=value` stands over it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import ValidationError

from authface_train.settings import STAGES, PriorSettings, RestorerSettings
from manifests.support.errors import UserError

FOLDER = resources.files("authface_train.presets")


@dataclass(frozen=True)
class Card:
    """The cards that a preset is meant for: how many, and the memory of each in GB (10^9 bytes)."""

    count: int
    memory_gb: float


def names() -> list[str]:
    """All presets."""
    return sorted(
        item.name.removesuffix(".toml") for item in FOLDER.iterdir() if item.name.endswith(".toml")
    )


def card_of(name: str) -> Card | None:
    """The cards of a preset that is named by them; None of the others."""
    card = _table(name).get("card")
    return None if card is None else Card(**card)


def load_preset(stage: str, name: str, changes: list[str]) -> PriorSettings | RestorerSettings:
    """A preset's settings of one stage with `key=value` changes over them (`facial.weight=off` for nested ones).

    Raises UserError for an unknown preset or key, or a value out of range.
    """
    if name not in names():
        raise UserError(f"no preset {name!r}: there are {', '.join(names())}")
    values = _stage(name, stage)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set takes key=value, not {change!r}")
        *path, last = key.strip().split(".")
        section = values
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"--set {change}: {part} has no settings of its own")
        section[last] = _toml_value(value.strip())
    try:
        return STAGES[stage].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        given = f" (it is {first['input']!r})" if where else ""
        raise UserError(
            f"setting {where}: {first['msg'].lower()}{given}".replace("setting : ", "")
        ) from error


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))


def _stage(name: str, stage: str) -> dict[str, Any]:
    """A stage's values; those of a preset that it extends below them."""
    table = _table(name)
    below = _stage(table["extends"], stage) if "extends" in table else {}
    return {**below, **table.get(stage, {})}


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
