"""Writes the tables of settings in the docs from the docstrings of the settings.

python -m authface_train.settings_table docs/train-prior.md docs/train-restore.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from authface_train.presets import load_preset
from authface_train.settings import STAGES

BEGIN_MARKER = "<!-- settings of {stage} -->"
END_MARKER = "<!-- end of settings -->"


def settings_table(stage: str) -> str:
    """The settings of a stage as a Markdown table.

    Columns: the key for `--set`, the value in the preset `paper`, whether the paper or this project
    chose it, and the description.
    """
    lines = ["| setting | in `paper` | chosen by | description |", "|---|---|---|---|"]
    preset = load_preset(stage, "paper")
    for key, field, value in _iterate_fields(STAGES[stage], preset):
        description = " ".join((field.description or "").split())
        lines.append(f"| `{key}` | {_format_value(value)} | {_chosen_by(field)} | {description} |")
    return "\n".join(lines)


def update_tables(text: str) -> str:
    """Replace the tables between the markers of a Markdown document."""
    for stage in STAGES:
        begin = BEGIN_MARKER.format(stage=stage)
        if begin in text:
            before, rest = text.split(begin, 1)
            after = rest.split(END_MARKER, 1)[1]
            text = f"{before}{begin}\n{settings_table(stage)}\n{END_MARKER}{after}"
    return text


def _iterate_fields(
    section_class: type[BaseModel], values: BaseModel, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, object]]:
    """Dotted key, field and value of every setting, in order of definition."""
    for name, field in section_class.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            yield from _iterate_fields(type(value), value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def _chosen_by(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("chosen_by", "ours")) if isinstance(extra, dict) else "ours"


def _format_value(value: object) -> str:
    if value is None:
        return "derived"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(update_tables(path.read_text("utf-8")), "utf-8")
