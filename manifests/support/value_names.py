"""Names of the values that options take, as help texts and documentation show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from manifests.support.options import MAX_SEED

VALUE_NAMES = {Path: "PATH", str: "TEXT", int: "N", float: "X"}


def name_values(command: Any) -> None:
    """Prepare a command for its help: give options without a metavar one after their type.

    Typer shows Python's types instead, such as <list[str]>, also of arguments. Parameters with
    choices show these. The upper limit of seeds, a number of 19 digits, is not shown.

    Args:
        command: A command of typer. It can only print its help after this.
    """
    annotations = get_type_hints(command.callback) if command.callback else {}
    for param in command.params:
        if getattr(param, "max", None) == MAX_SEED:
            param.max = None
        annotation = annotations.get(param.name)
        if annotation is None or getattr(param, "is_flag", False):
            continue
        kind, choices, _ = value_type(annotation)
        if choices:
            continue
        if param.param_type_name == "argument":
            # Its name stands before it already.
            param.display_type_rich = lambda ctx: None
        elif param.metavar is None:
            param.metavar = VALUE_NAMES.get(kind, "VALUE")


def value_type(annotation: Any) -> tuple[Any, Sequence[object], bool]:
    """Describe the annotation of a parameter.

    Args:
        annotation: The annotation, such as `list[str] | None`.

    Returns:
        Type of a value, its choices, and whether the parameter is repeatable.
    """
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(item for item in get_args(annotation) if item is not NoneType)
    is_repeatable = get_origin(annotation) is list
    if is_repeatable:
        (annotation,) = get_args(annotation)
    if get_origin(annotation) is Literal:
        return str, get_args(annotation), is_repeatable
    return annotation, (), is_repeatable
