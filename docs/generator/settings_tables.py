"""The tables of settings in docs/configuration.md, generated from the pydantic models."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from authface_train.presets import load_preset
from authface_train.presets import preset_names as train_preset_names
from authface_train.settings import STAGES, TrainSettings
from manifests.names import MEASURED_COLUMNS, QUALITY_MEASURES
from manifests.settings import Gate, Settings, load_settings, preset_names, preset_text

PRESETS = sorted(preset_names(), reverse=True)
BEGIN = "<!-- generated: {name} -->"
END = "<!-- end -->"
TYPE_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "table",
}


@dataclass(frozen=True)
class Setting:
    """One setting, as the page shows it.

    Attributes:
        key: Dotted key.
        kind: Type and range, in Markdown.
        default: Default, in Markdown.
        meaning: Description, in Markdown.
        is_from_paper: Whether the paper states the value of the preset `paper`.
    """

    key: str
    kind: str
    default: str
    meaning: str
    is_from_paper: bool


def update(text: str) -> str:
    """Replace the tables between the markers of a Markdown document."""
    for name, table in TABLES.items():
        begin = BEGIN.format(name=name)
        if begin not in text:
            continue
        before, rest = text.split(begin, 1)
        after = rest.split(END, 1)[1]
        text = f"{before}{begin}\n\n{table()}\n\n{END}{after}"
    return text


def workspace_tables() -> str:
    """One section per table of authface.toml."""
    blocks = []
    for name, model in _sections(Settings):
        rows = [setting for setting in settings_of(model) if setting.default != "section"]
        if not rows:
            continue
        lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(f"`{s.key}`", s.kind, s.default, s.meaning) for s in rows]
        title = f"### `[{name}]`" if name else "### Keys before the first table"
        if model is Gate:
            title = "### `[[gates]]`"
        blocks += [title, _introduction(model) if name else "", "\n".join(lines)]
    return "\n\n".join(block for block in blocks if block)


def workspace_presets() -> str:
    """The keys of authface.toml, apart from gates, in which the presets differ."""
    presets = {name: load_settings(preset_text(name).encode(), name) for name in PRESETS}
    values = {name: _flatten(preset.model_dump()) for name, preset in presets.items()}
    lines = [_row("key", *(f"`{name}`" for name in PRESETS)), "|---" * (len(PRESETS) + 1) + "|"]
    for key in values["paper"]:
        cells = [_value(values[name][key]) for name in PRESETS]
        if key != "gates" and len(set(cells)) > 1:
            lines.append(_row(f"`{key}`", *cells))
    return "\n".join(lines)


def preset_gates() -> str:
    """The gates of the presets of `authface init`."""
    values = {name: tomllib.loads(preset_text(name))["gates"] for name in PRESETS}
    thresholds: dict[tuple[str, str], dict[str, str]] = {}
    for preset, gates in values.items():
        for gate in gates:
            criterion = (gate["name"], f"`{gate['metric']} {gate['op']}`")
            thresholds.setdefault(criterion, {})[preset] = f"{gate['threshold']:g}"
    lines = [_row("gate", "kept if", *(f"`{name}`" for name in values)), "|---" * 4 + "|"]
    # The order of the preset with the most gates.
    order = [gate["name"] for gate in max(values.values(), key=len)]
    for (gate_name, condition), by_preset in sorted(
        thresholds.items(), key=lambda item: order.index(item[0][0])
    ):
        cells = [by_preset.get(preset, "no gate") for preset in values]
        lines.append(_row(f"`{gate_name}`", condition, *cells))
    return "\n".join(lines)


def measurements() -> str:
    """The names that a gate may use, apart from the metrics of pyiqa."""
    lines = ["| from | measurements |", "|---|---|"]
    for source, names in (("`scores`", QUALITY_MEASURES), ("`faces`", MEASURED_COLUMNS)):
        lines.append(_row(source, ", ".join(f"`{name}`" for name in names)))
    return "\n".join(lines)


def shared_train_table() -> str:
    """Settings of both trainers, with the values of the preset `paper` in both stages."""
    values = {stage: _flatten(load_preset(stage, "paper").model_dump()) for stage in STAGES}
    shared = set(TrainSettings.model_fields)
    lines = [
        "| setting | type | Stage I | Stage II | chosen by | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for setting in settings_of(STAGES["prior"]):
        if setting.key in shared:
            cells = [_value(values[stage][setting.key]) for stage in STAGES]
            lines.append(
                _row(f"`{setting.key}`", setting.kind, *cells, _chooser(setting), setting.meaning)
            )
    return "\n".join(lines)


def stage_table(stage: str) -> str:
    """Settings of one stage only, with the values of the preset `paper`."""
    values = _flatten(load_preset(stage, "paper").model_dump())
    shared = set(TrainSettings.model_fields)
    lines = ["| setting | type | `paper` | chosen by | meaning |", "|---|---|---|---|---|"]
    for setting in settings_of(STAGES[stage]):
        if setting.key not in shared:
            lines.append(
                _row(
                    f"`{setting.key}`",
                    setting.kind,
                    _value(values[setting.key]),
                    _chooser(setting),
                    setting.meaning,
                )
            )
    return "\n".join(lines)


def train_presets() -> str:
    """The settings in which the presets of the trainers differ from `paper`."""
    lines = ["| preset | Stage I | Stage II |", "|---|---|---|"]
    for name in train_preset_names():
        cells = []
        for stage in STAGES:
            paper = _flatten(load_preset(stage, "paper").model_dump())
            values = _flatten(load_preset(stage, name).model_dump())
            changed = [
                f"`{key}={_plain(value)}`" for key, value in values.items() if value != paper[key]
            ]
            cells.append(", ".join(changed) or "as `paper`")
        if name != "paper":
            lines.append(_row(f"`{name}`", *cells))
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "authface.toml": workspace_tables,
    "presets of a workspace": workspace_presets,
    "gates of the presets": preset_gates,
    "measurements": measurements,
    "settings of both stages": shared_train_table,
    "settings of Stage I": lambda: stage_table("prior"),
    "settings of Stage II": lambda: stage_table("restorer"),
    "presets of the trainers": train_presets,
}
"""Name in the marker -> what makes the table."""


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Every setting of a model; those of groups have the group before the key.

    The sub-tables of authface.toml are single settings with the default "section".
    """
    schema = model.model_json_schema()
    descriptions = _descriptions(model)
    for name, field in model.model_fields.items():
        group = _group(field)
        if group is not None and issubclass(model, TrainSettings):
            yield from settings_of(group, f"{prefix}{name}.")
            continue
        part = schema["properties"][name]
        is_section = group is not None or name == "gates"
        default = "required" if field.is_required() else _value(part.get("default"))
        yield Setting(
            key=prefix + name,
            kind="table" if is_section else _kind(part),
            default="section" if is_section else default,
            meaning=descriptions[name],
            is_from_paper=part.get("chosen_by") == "paper",
        )


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables of authface.toml: name and model, in order."""
    yield prefix, model
    for name, field in model.model_fields.items():
        inner = Gate if name == "gates" else _group(field)
        if inner is not None:
            yield from _sections(inner, f"{prefix}.{name}" if prefix else name)


def _group(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a group of settings."""
    annotation: object = field.annotation
    is_group = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return cast("type[BaseModel]", annotation) if is_group else None


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a model and of the models that it extends."""
    found = {}
    for base in reversed(model.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _introduction(model: type[BaseModel]) -> str:
    """The docstring of a table, without the name of the table at its start."""
    text = " ".join((inspect.getdoc(model) or "").split()).split(": ", 1)[-1]
    return text[0].upper() + text[1:]


def _kind(part: Mapping[str, Any]) -> str:
    """Type and range of a value, from its JSON schema."""
    options = [option for option in part.get("anyOf", [part]) if option.get("type") != "null"]
    return " or ".join(_kind_of_one(option) for option in options)


def _kind_of_one(part: Mapping[str, Any]) -> str:
    if "enum" in part or "const" in part:
        return ", ".join(_value(choice) for choice in part.get("enum", [part.get("const")]))
    if part["type"] == "array":
        items = part.get("items") or part["prefixItems"][0]
        count = f"{part['minItems']}, each " if "prefixItems" in part else ""
        return f"list of {count}{_kind(items)}".replace("list of text", "list of texts")
    if part["type"] == "object" and "additionalProperties" in part:
        return f"table of {_kind(part['additionalProperties'])}"
    return TYPE_NAMES[part["type"]] + _range(part)


def _range(part: Mapping[str, Any]) -> str:
    limits = [
        ("minimum", "from {:g}"),
        ("exclusiveMinimum", "above {:g}"),
        ("maximum", "to {:g}"),
        ("exclusiveMaximum", "below {:g}"),
    ]
    # Seeds have the largest number that fits into 64 bits, which is no limit in practice.
    words = [text.format(part[key]) for key, text in limits if abs(part.get(key, 1e18)) < 1e18]
    return f", {' '.join(words)}" if words else ""


def _chooser(setting: Setting) -> str:
    return "paper" if setting.is_from_paper else "ours"


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by dotted key."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            values |= _flatten(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values


def _value(value: object) -> str:
    return "not set" if value is None else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    """A value as TOML writes it, texts without quotes."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
