"""The pictures that an `--input` names."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from manifests.support.errors import UserError


def named_folder(option: str, given: str) -> tuple[str, Path]:
    """The name and the folder of DIR or NAME=DIR; either may hold a `=`. Raises UserError where no reading is a folder."""
    if Path(given).is_dir():
        return Path(given).resolve().name, Path(given)
    for place, letter in enumerate(given):
        if letter == "=" and place and Path(given[place + 1 :]).is_dir():
            return given[:place], Path(given[place + 1 :])
    raise UserError(f"{option} {given}: {given.partition('=')[2] or given} is no folder")


def pictures_in(path: Path) -> list[Path]:
    """A picture, or those of a folder, sorted. Raises UserError where there are none, or two of one stem."""
    return list(pictures_of([str(path)]))


def pictures_of(inputs: Sequence[str]) -> dict[Path, Path]:
    """The pictures that files, folders and patterns (`*`, `**`) name, each once, in order; and the name of each one's result,
    which for a pattern keeps the sub-folders that the pattern leaves open.

    Raises UserError for one that names none, and for two pictures of one name.
    """
    from authface_data.images.upright import IMAGE_SUFFIXES

    names: dict[Path, Path] = {}
    for one in inputs:
        path = Path(one)
        if path.is_file():
            own = {path: Path(path.name)}
        elif path.is_dir():
            own = {file: Path(file.name) for file in _pictures(path.iterdir(), IMAGE_SUFFIXES)}
        elif glob.has_magic(one):
            root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            found = _pictures(
                (Path(name) for name in glob.glob(one, recursive=True)), IMAGE_SUFFIXES
            )
            own = {file: file.relative_to(root) for file in found}
        else:
            raise UserError(
                f"{path} is not there: --input takes pictures, folders of them, and quoted patterns"
            )
        if not own:
            raise UserError(f"no pictures in {path} (looked for {', '.join(IMAGE_SUFFIXES)})")
        names |= own
    counted = Counter(name.with_suffix("") for name in names.values())
    twice = sorted(str(result) for result, count in counted.items() if count > 1)
    if twice:
        raise UserError(
            f"two pictures of --input are named {twice[0]}: their results would be one file"
        )
    return names


def _pictures(paths: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """Those that are pictures, sorted; not the strip that `authface restore` leaves beside its results."""
    own = sorted(
        path
        for path in paths
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    return [
        path
        for path in own
        if path.name != "strip.jpg" or not path.with_name("restored.parquet").is_file()
    ]
