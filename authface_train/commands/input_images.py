"""What the commands on folders of pictures share: their inputs, seeds and failures."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.support.console import error_console
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_train.restore.output_folder import ResultNames


def parse_named_folder(option: str, value: str) -> tuple[str, Path]:
    """Split DIR or NAME=DIR into a name and a folder; both parts may contain `=`.

    Args:
        option: The option, for the error message.
        value: Its value.

    Returns:
        The name, which defaults to that of the folder, and the folder.

    Raises:
        UserError: If no part of the value is a folder.
    """
    if Path(value).is_dir():
        return Path(value).resolve().name, Path(value)
    for index, character in enumerate(value):
        if character == "=" and index and Path(value[index + 1 :]).is_dir():
            return value[:index], Path(value[index + 1 :])
    folder = value.partition("=")[2] or value
    raise UserError(f"{option} {value}: {folder} is not a folder; use DIR or NAME=DIR")


def expand_inputs(inputs: Sequence[str]) -> dict[Path, ResultNames]:
    """Expand files, folders and glob patterns (`*`, `**`) to pictures.

    Args:
        inputs: Values of `--input`.

    Returns:
        Each picture once, in the order of the inputs, and the names of its result. A pattern keeps
        the sub-folders that it leaves open.

    Raises:
        UserError: If an input names no picture, or two inputs have the same name.
    """
    # Imported here because this module is loaded for `authface --help`.
    from authface_data.images.open import IMAGE_SUFFIXES
    from authface_train.restore.output_folder import name_results

    names: dict[Path, Path] = {}
    for value in inputs:
        path = Path(value)
        if path.is_file():
            expanded = {path: Path(path.name)}
        elif path.is_dir():
            files = _select_pictures(path.iterdir(), IMAGE_SUFFIXES)
            expanded = {file: Path(file.name) for file in files}
        elif glob.has_magic(value):
            root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            matches = (Path(name) for name in glob.glob(value, recursive=True))
            files = _select_pictures(matches, IMAGE_SUFFIXES)
            expanded = {file: file.relative_to(root) for file in files}
        else:
            raise UserError(
                f"{path} does not exist; --input takes pictures, folders and quoted patterns"
            )
        if not expanded:
            raise UserError(f"no pictures in {path} (suffixes: {', '.join(IMAGE_SUFFIXES)})")
        names |= expanded
    return name_results(names)


def _select_pictures(paths: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """Sort the pictures among some paths; the by-products of `authface restore` are left out."""
    from authface_train.restore.output_folder import is_by_product

    return sorted(
        path
        for path in paths
        if path.suffix.lower() in suffixes
        and not path.name.startswith(".")
        and path.is_file()
        and not is_by_product(path, path.parent)
    )


def report_failures(failures: Sequence[str], count: int, action: str) -> None:
    """Print each failure on a separate line, and end the command with exit code 4.

    Args:
        failures: One message per picture that failed; may be empty.
        count: Number of all pictures.
        action: What was done to them, such as "restored".

    Raises:
        PartialFailureError: If there are failures.
    """
    for failure in failures:
        error_console.print(" ".join(failure.split()), markup=False)
    if failures:
        raise PartialFailureError(f"{len(failures):,} of {count_of(count, 'picture')} not {action}")
