"""The optional dependencies of authface: which are installed, and how to install the others."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

from manifests.support.errors import MissingResourceError

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

MODULES = {
    "data": (
        "cv2",
        "dlib",
        "httpcore",
        "httpx",
        "imagehash",
        "pillow_heif",
        "pooch",
        "pyiqa",
        "retinaface",
        "skimage",
        "tenacity",
        "torch",
        "torchvision",
        "transformers",
    ),
    # bitsandbytes, peft and torchao belong to settings of the trainers, which check for them.
    "train": (
        "accelerate",
        "clip",
        "diffusers",
        "jpeglib",
        "matplotlib",
        "safetensors",
        "tensorboard",
        "torch",
        "torchvision",
        "transformers",
    ),
    "hps": ("open_clip",),
    "ray": ("ray",),
    "s3": ("s3fs",),
    "serve": ("starlette", "uvicorn"),
    "xlsx": ("openpyxl",),
    "watch": ("wandb",),
}
"""Extra of pyproject.toml -> the modules that its packages bring."""

ALWAYS_ATTRIBUTE = "extras"
"""Attribute of a command's function with the extras that it needs, see `needs_extras`."""
SOMETIMES_ATTRIBUTE = "extras_of_options"
"""Attribute of a command's function with the extras of some options, see `sometimes_needs`."""


def missing_modules(extra: str) -> list[str]:
    """The modules of an extra that are not installed. Nothing is imported."""
    return [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]


def require_extras(*extras: str, purpose: str = "this command") -> None:
    """Check that extras are installed.

    Args:
        extras: Names of extras.
        purpose: What needs them, as the subject of the message.

    Raises:
        MissingResourceError: If a module is missing. The message has the pip command.
    """
    missing = [extra for extra in extras if missing_modules(extra)]
    if missing:
        raise MissingResourceError(describe_missing(missing, purpose))


def needs_extras(
    *extras: str,
) -> Callable[[Callable[ParamsT, ResultT]], Callable[ParamsT, ResultT]]:
    """Decorate the function of a command that needs extras: they are checked before it starts.

    Commands that need an extra for some of their options have `sometimes_needs` instead.

    Args:
        extras: Names of extras.
    """

    def decorate(command: Callable[ParamsT, ResultT]) -> Callable[ParamsT, ResultT]:
        name = command.__name__.replace("_", "-")

        @functools.wraps(command)
        def checked(*args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ResultT:
            require_extras(*extras, purpose=f"`authface {name}`")
            return command(*args, **kwargs)

        setattr(checked, ALWAYS_ATTRIBUTE, extras)
        return checked

    return decorate


def sometimes_needs(
    *extras: str,
) -> Callable[[Callable[ParamsT, ResultT]], Callable[ParamsT, ResultT]]:
    """Mark the function of a command that needs extras for some of its options.

    The function calls `require_extras` itself; `authface doctor` reads the mark.

    Args:
        extras: Names of extras.
    """

    def decorate(command: Callable[ParamsT, ResultT]) -> Callable[ParamsT, ResultT]:
        setattr(command, SOMETIMES_ATTRIBUTE, extras)
        return command

    return decorate


def required_extras(command: object) -> tuple[Sequence[str], Sequence[str]]:
    """The extras that the function of a command needs always, and for some options."""
    return getattr(command, ALWAYS_ATTRIBUTE, ()), getattr(command, SOMETIMES_ATTRIBUTE, ())


def extra_of_module(module: str | None) -> str | None:
    """The extra that brings a module, or None if no extra does.

    Args:
        module: Full name of the module, such as "torch.nn".
    """
    top_level = (module or "").partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if top_level in modules), None)


def describe_missing(extras: Iterable[str], purpose: str) -> str:
    """One line: what needs the extras, and the pip command that installs them.

    Args:
        extras: Names of the extras.
        purpose: What needs them, as the subject of the message.
    """
    names = ",".join(extras)
    return f"{purpose} needs authface[{names}]: {install_command(names)}"


def install_command(names: str) -> str:
    """The pip command that installs extras, from where authface itself was installed.

    Args:
        names: Names of extras, separated by commas.
    """
    source, is_editable = _installed_from()
    if source is None:
        return f"pip install 'authface[{names}]'"
    if "://" in source:
        return f"pip install 'authface[{names}] @ {source}'"
    # pip of Debian 12 refuses `authface[data] @ git+file:///…`, but every pip takes a path.
    return f"pip install {'-e ' if is_editable else ''}'{source}[{names}]'"


def _installed_from() -> tuple[str | None, bool]:
    """Where authface was installed from, and whether editable.

    pip records it in the file direct_url.json (PEP 610).

    Returns:
        A path, a URL, or None if it was installed from a package index.
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("authface").read_text("direct_url.json")
    except PackageNotFoundError:
        return None, False
    if text is None:
        return None, False
    record = json.loads(text)
    url: str = record["url"]
    is_editable = bool(record.get("dir_info", {}).get("editable"))
    if url.startswith("file://"):
        return url.removeprefix("file://"), is_editable
    prefix = f"{record['vcs_info']['vcs']}+" if "vcs_info" in record else ""
    return prefix + url, is_editable
