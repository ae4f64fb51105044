"""Checks the values in the configuration of a model's part against the part's class.

The libraries accept many wrong values and fail only when the model is used.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from diffusers import ConfigMixin

from manifests.support.errors import UserError
from manifests.support.model_folder import ADVICE, CONFIG_FILES, explain_loading, read_config
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pydantic import JsonValue

SIGNED_VALUES = {"lambda_min_clipped", "latents_mean", "shift_factor"}
"""Keys whose values may be negative."""
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list",
    list: "a list",
    types.NoneType: "null",
}
CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
}
"""Values that the annotations of diffusers do not list and that fail only in use."""
LIMITS = {"downsample_padding": 10, "steps_offset": 100}
"""Largest values of numbers that fail only in use if they are too large."""


def check_config(folder: Path, part_class: type[Any]) -> dict[str, Any]:
    """Check the types of the values in the configuration of a part.

    Args:
        folder: Folder of the part, with `config.json` or `scheduler_config.json`.
        part_class: The class of the part, of diffusers or transformers.

    Returns:
        The complete configuration: the file's values and the defaults of the class.

    Raises:
        UserError: If the file is missing or damaged, or a value does not fit the class.
    """
    path = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} cannot be loaded (it has no config.json); {ADVICE}")
    return check_values(read_config(path), part_class, folder, path.name)


def check_values(
    values: dict[str, Any], part_class: type[Any], part: object, file_name: str
) -> dict[str, Any]:
    """Check the types of the values in a configuration.

    Args:
        values: The values.
        part_class: The class of the part, of diffusers or transformers.
        part: Folder or name of the part, for messages.
        file_name: Name of the file that holds the values, for messages.

    Returns:
        The complete configuration: the values and the defaults of the class.

    Raises:
        UserError: If a value does not fit the class.
    """
    reason = next(
        (f"{name} must not be negative" for name in values if _is_negative(name, values[name])),
        None,
    )
    if reason is None and issubclass(part_class, ConfigMixin):
        reason = _misfit(values, part_class)
    elif reason is None:
        reason = _empty_value(values, part_class.config_class)
    if reason is not None:
        raise UserError(f"{part} cannot be loaded ({file_name}: {reason}); {ADVICE}")

    if not issubclass(part_class, ConfigMixin):
        with explain_loading(part):  # transformers checks the types
            return dict(part_class.config_class.from_dict(values).to_dict())
    parameters = inspect.signature(part_class.__init__).parameters.values()
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **values}


def _is_negative(name: str, value: JsonValue) -> bool:
    if isinstance(value, list):
        return any(_is_negative(name, item) for item in value)
    return name not in SIGNED_VALUES and isinstance(value, int | float) and value < 0


def _empty_value(values: dict[str, JsonValue], config_class: type[Any]) -> str | None:
    """Which value is empty although the class of transformers needs one, or None."""
    for field in dataclasses.fields(config_class):
        is_needed = field.default not in (None, dataclasses.MISSING)
        if is_needed and values.get(field.name, field.default) in (None, []):
            return f"{field.name} must not be empty"
    return None


def _misfit(values: dict[str, JsonValue], part_class: type[ConfigMixin]) -> str | None:
    """Why the values do not fit a class of diffusers, or None if they do."""
    hints = get_type_hints(part_class.__init__)
    defaults = inspect.signature(part_class.__init__).parameters
    class_name = values.get("_class_name")
    if class_name is not None and not isinstance(class_name, str):
        return "_class_name must be a text"
    for name, value in values.items():
        default = defaults[name].default if name in hints else value
        if value == default and isinstance(value, bool) == isinstance(default, bool):
            continue
        if not _fits(value, hints[name]):
            found = excerpt(repr(value), 40)
            return f"{excerpt(name, 40)} must be {_describe(hints[name])}, not {found}"
        if name in LIMITS and isinstance(value, int) and value > LIMITS[name]:
            return f"{name} must be at most {LIMITS[name]}, not {value}"
        choices = CHOICES.get(name)
        if choices and value not in choices:
            return f"{name} must be one of {', '.join(choices)}, not {excerpt(repr(value), 40)}"
    return None


def _fits(value: JsonValue, hint: Any) -> bool:
    """Whether a value from JSON has the annotated type.

    Tuples are lists in JSON, and the annotations of diffusers do not give their lengths reliably.
    """
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin in (tuple, list):
        items = get_args(hint)[:1]
        return (
            isinstance(value, list | tuple)
            and len(value) > 0
            and all(_fits(item, option) for item in value for option in items)
        )
    if origin is bool:  # older configurations have null for false
        return value is None or isinstance(value, bool)
    if origin in (int, float):
        is_number = isinstance(value, int) or (origin is float and isinstance(value, float))
        return is_number and not isinstance(value, bool)
    return isinstance(value, origin) if origin in KINDS else False


def _describe(hint: Any) -> str:
    """An annotation in English, such as "a whole number or a list"."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    choices: list[str] = []
    for option in options:
        if get_origin(option) is Literal:
            choices += [str(choice) for choice in get_args(option)]
        else:
            choices.append(KINDS.get(get_origin(option) or option, ""))
    return " or ".join(dict.fromkeys(filter(None, choices)))
