"""The sources by name, and their options from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from authface_data.sources.protocol import Source
from manifests.support.errors import UserError
from manifests.workspace import Workspace


def _folder() -> type[Source]:
    from authface_data.sources.folder import FolderSource

    return FolderSource


def _ffhq() -> type[Source]:
    from authface_data.sources.ffhq import FfhqSource

    return FfhqSource


def _authface_hq() -> type[Source]:
    from authface_data.sources.authface_hq import AuthfaceHqSource

    return AuthfaceHqSource


def _unsplash() -> type[Source]:
    from authface_data.sources.unsplash.api_source import UnsplashSource

    return UnsplashSource


def _unsplash_dataset() -> type[Source]:
    from authface_data.sources.unsplash.dataset_source import UnsplashDatasetSource

    return UnsplashDatasetSource


# Functions, so that only the modules of the chosen source are imported.
_LOADERS: Mapping[str, Callable[[], type[Source]]] = {
    "folder": _folder,
    "unsplash": _unsplash,
    "unsplash-dataset": _unsplash_dataset,
    "authface-hq": _authface_hq,
    "ffhq": _ffhq,
}


def source_class(name: str) -> type[Source]:
    """The class of a source.

    Raises:
        UserError: If there is no source of that name.
    """
    if name not in _LOADERS:
        raise UserError(f"unknown source {name!r}; choose from: {', '.join(_LOADERS)}")
    return _LOADERS[name]()


def create_source(name: str, workspace: Workspace, given: Mapping[str, object]) -> Source:
    """Create a source from the options of the command line.

    Args:
        name: Name of the source.
        workspace: The workspace to fill.
        given: Options that the user has given, by the name of their field.

    Returns:
        The source.

    Raises:
        UserError: If an option is not valid for the source, is missing or has a wrong value.
    """
    check_options(name, given)
    cls = source_class(name)
    try:
        options = cls.options_model.model_validate(dict(given))
    except ValidationError as error:
        raise UserError(_option_message(name, error.errors()[0])) from error
    return cls(workspace, options)


def check_options(name: str, given: Mapping[str, object]) -> None:
    """Check that a source accepts the given options.

    Args:
        name: Name of the source.
        given: Options that the user has given, by the name of their field.

    Raises:
        UserError: If an option belongs to other sources.
    """
    accepted = source_class(name).options_model.model_fields
    for field in given:
        if field not in accepted:
            raise UserError(f"{_flag(field)} is only valid with {_sources_accepting(field)}")


def _sources_accepting(field: str) -> str:
    names = [name for name in _LOADERS if field in source_class(name).options_model.model_fields]
    return f"--source {' or '.join(names)}"


def _flag(field: object) -> str:
    return f"--{str(field).replace('_', '-')}"


def _option_message(source_name: str, error: ErrorDetails) -> str:
    """One line for the first problem that the options model found."""
    if error["type"] == "missing":
        return f"{_flag(error['loc'][0])} is required for --source {source_name}"
    message = str(error.get("ctx", {}).get("error", error["msg"]))
    if not error["loc"]:
        return message
    return f"{_flag(error['loc'][0])} {message}"
