"""The settings as a Markdown table for the docs, from the docstrings beside them.

python -m authface_train.settings_table docs/train-prior.md     writes it between the file's marks
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from authface_train.presets import load_preset
from authface_train.settings import STAGES

BEGIN, END = "<!-- settings of {stage} -->", "<!-- end of settings -->"


def table(stage: str) -> str:
    """A row per setting: its name for --set, the preset `paper`'s value, whose choice that is, and what it is."""
    lines = ["| setting | in `paper` | whose | what it is |", "|---|---|---|---|"]
    paper = load_preset(stage, "paper")
    for name, field, value in _fields(STAGES[stage], paper, ""):
        whose = (
            (field.json_schema_extra or {}).get("whose", "ours")
            if not callable(field.json_schema_extra)
            else "ours"
        )
        lines.append(
            f"| `{name}` | {_shown(value)} | {whose} | {' '.join((field.description or '').split())} |"
        )
    return "\n".join(lines)


def _fields(
    kind: type[BaseModel], values: BaseModel, prefix: str
) -> Iterator[tuple[str, FieldInfo, object]]:
    for name, field in kind.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            yield from _fields(type(value), value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def _shown(value: object) -> str:
    if value is None:
        return "derived"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def written(text: str) -> str:
    """A document with its tables anew."""
    for stage in STAGES:
        begin = BEGIN.format(stage=stage)
        if begin in text:
            head, rest = text.split(begin, 1)
            text = f"{head}{begin}\n{table(stage)}\n{END}{rest.split(END, 1)[1]}"
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(written(path.read_text()))
