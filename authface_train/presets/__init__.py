"""Presets: TOML files of trainer settings, with one table per stage.

A preset may extend another one (`extends = "paper"`); command-line options and `--set key=value`
override its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import BaseModel, ValidationError

from authface_train.settings import STAGES, PriorSettings, RestorerSettings
from manifests.support.errors import UserError
from manifests.support.parsing import parse_toml
from manifests.support.text import did_you_mean, excerpt, unknown_name

FOLDER = resources.files("authface_train.presets")


@dataclass(frozen=True)
class Card:
    """The GPUs that a preset is meant for."""

    count: int
    """Number of GPUs."""
    memory_gb: float
    """Memory of each GPU, in GB (10^9 bytes)."""


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    suffix = ".toml"
    files = [item.name for item in FOLDER.iterdir()]
    return sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix))


def card_of(name: str) -> Card | None:
    """The GPUs that a preset is meant for, or None if the preset names none."""
    card = _read_table(name).get("card")
    return None if card is None else Card(**card)


def load_preset(
    stage: str, name: str, overrides: Mapping[str, object] | None = None
) -> PriorSettings | RestorerSettings:
    """Load the settings of one stage from a preset.

    Args:
        stage: "prior" or "restorer".
        name: Name of the preset, such as "paper".
        overrides: Values that replace those of the preset. A dotted key sets a nested setting:
            `{"facial.weight": "off"}`.

    Raises:
        UserError: If the preset or a key is unknown, or a value is out of range.
    """
    if name not in preset_names():
        raise UserError(unknown_name("preset", name, preset_names()))

    values = _stage_values(name, stage)
    for key, value in (overrides or {}).items():
        _set_nested(values, key, value)

    try:
        return STAGES[stage].model_validate(values)
    except ValidationError as error:
        raise UserError(_validation_message(error, STAGES[stage])) from error


def parse_set_option(option: str) -> tuple[str, object]:
    """Parse one `--set` option.

    Args:
        option: `key=value`. The value is a TOML value (`3`, `true`, `[0.8, 0.9]`, `"text"`);
            anything that is not valid TOML is taken as a string.

    Returns:
        The key and the parsed value.

    Raises:
        UserError: If the option has no "=".
    """
    key, equals, text = option.partition("=")
    if not equals:
        raise UserError(f'--set needs key=value; got "{option}"')
    return key.strip(), _parse_value(text.strip())


def _parse_value(text: str) -> object:
    try:
        return parse_toml(f"value = {text}", "--set")["value"]
    except UserError:
        return text


def _read_table(name: str) -> dict[str, Any]:
    file = FOLDER / f"{name}.toml"
    return parse_toml(file.read_bytes(), file)


def _stage_values(name: str, stage: str) -> dict[str, Any]:
    """The values that a preset sets for a stage, including those of the preset it extends."""
    table = _read_table(name)
    inherited = _stage_values(table["extends"], stage) if "extends" in table else {}
    return {**inherited, **table.get(stage, {})}


def _set_nested(values: dict[str, Any], key: str, value: object) -> None:
    """Set a possibly dotted key in nested tables, creating missing tables."""
    *sections, last = key.split(".")
    table = values
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"unknown setting {key}: {section} is a value, not a group of settings")
    table[last] = value


def _validation_message(error: ValidationError, stage: type[BaseModel]) -> str:
    """One line about an unknown setting, or else about the first invalid one."""
    details = error.errors()
    first = next((item for item in details if item["type"] == "extra_forbidden"), details[0])
    path = [str(part) for part in first["loc"]]
    key = excerpt(".".join(path), 80)
    if first["type"] == "extra_forbidden":
        known = setting_names(stage)
        # A setting of a group is often given without the group: `weight` for `facial.weight`.
        of_groups = [name for name in known if name.rpartition(".")[2] == path[-1]]
        hint = f"; did you mean {of_groups[0]}?" if of_groups else did_you_mean(key, known)
        return f"unknown setting {key}{hint}"
    message = first["msg"].lower()
    value = excerpt(repr(first["input"]), 80)
    return f"setting {key}: {message} (got {value})" if key else message


def setting_names(model: type[BaseModel]) -> list[str]:
    """The names of all settings, those of groups with the group: `facial.weight`.

    Args:
        model: Class of the settings.
    """
    names = []
    for name, field in model.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            names += [f"{name}.{inner}" for inner in setting_names(group)]
        else:
            names.append(name)
    return names
