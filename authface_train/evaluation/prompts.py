"""Prompts of generated pictures, as `authface reproduce draw` lists them beside its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from authface_train.evaluation.csv_file import read_csv_file
from authface_train.evaluation.image_pairs import find_pictures
from manifests.support.errors import UserError

PROMPTS_FILE = "captions.csv"
"""File beside generated pictures."""
FILE_COLUMN = "file"
PROMPT_COLUMN = "caption"


def read_prompts(file: Path) -> dict[str, str]:
    """Read the prompts of pictures.

    Args:
        file: A CSV file with the columns file and caption.

    Returns:
        Name of a picture without its suffix to its prompt.

    Raises:
        UserError: If it is not such a file.
    """
    table = read_csv_file(file)
    missing = {FILE_COLUMN, PROMPT_COLUMN} - set(table.columns)
    if missing:
        raise UserError(
            f"{file} has no column {min(missing)}; prompts need the columns {FILE_COLUMN} and "
            f"{PROMPT_COLUMN}, as `authface reproduce draw` writes them"
        )
    names = [Path(name).with_suffix("").as_posix() for name in table[FILE_COLUMN]]
    return {
        name: prompt for name, prompt in zip(names, table[PROMPT_COLUMN], strict=True) if prompt
    }


def prompts_of_methods(methods: Mapping[str, Path], file: Path | None) -> dict[Path, str]:
    """The prompt of each picture of some methods.

    Args:
        methods: Method to the folder of its pictures.
        file: The prompts of all methods. None takes `PROMPTS_FILE` in the folder of each method;
            the pictures of a method without that file have no prompts.

    Returns:
        File of a picture to its prompt.

    Raises:
        UserError: If a file is no list of prompts, or a folder holds no pictures.
    """
    prompts: dict[Path, str] = {}
    for folder in methods.values():
        source = file or folder / PROMPTS_FILE
        if file is None and not source.is_file():
            continue
        by_name = read_prompts(source)
        for name, path in find_pictures(folder).items():
            if name in by_name:
                prompts[path] = by_name[name]
    return prompts
