"""Finds the pictures of folders, matches them by name, and reads them as 8-bit sRGB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags

from authface_data.images.open import IMAGE_SUFFIXES, decode_image, open_image, read_file
from authface_train.restore.output_folder import is_by_product
from manifests.support.errors import UserError
from manifests.support.text import to_storable

APPENDED = re.compile(r"(?<=.)_(restored|\d\d)$")
"""What methods append to the name of a picture: `_restored`, or the two-digit number of the face,
as GFPGAN and CodeFormer do."""
MAX_NAMES = 4
"""Names that a message lists."""


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find the pictures of a folder and its sub-folders.

    The strip and the maps that `authface restore` writes next to its results are left out.

    Args:
        folder: The folder.

    Returns:
        Name to file. A name is the path relative to the folder without suffix, for example
        "one/face-0"; if files differ in their suffix alone, it is the path with suffix.

    Raises:
        UserError: If the folder holds no pictures, or one whose name is not UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        is_picture = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if not is_picture or not path.is_file() or is_by_product(path, folder):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if to_storable(name) != name:
            raise UserError(f"the name of {path} is not UTF-8; rename the file")
        by_name.setdefault(name, []).append(path)
    if not by_name:
        raise UserError(
            f"no pictures in {folder} or its sub-folders (suffixes: {', '.join(IMAGE_SUFFIXES)})"
        )
    pictures: dict[str, Path] = {}
    for name, paths in by_name.items():
        if len(paths) == 1:
            pictures[name] = paths[0]
        else:
            pictures |= {path.relative_to(folder).as_posix(): path for path in paths}
    return pictures


@dataclass
class MatchedPictures:
    """The pictures of two folders, matched by name.

    Attributes:
        pairs: Name in the second folder to the pictures of both folders, sorted by name.
        only_first: Names that have no match in the second folder.
        only_second: Names that have no match in the first folder.
        ambiguous: One message per group of pictures whose names allow several matches. They are
            not matched, and are not among the names above.
    """

    pairs: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)


def match_pictures(
    first: Mapping[str, Path], second: Mapping[str, Path], suffix: str | None = None
) -> MatchedPictures:
    """Match the pictures of two folders.

    Whole names with their sub-folders are matched first, then bare names, then bare names without
    what methods append to them: `name_restored` and `name_00` match `name`. Only names that are
    unique in both folders are matched.

    Args:
        first: Pictures of the first folder, as `find_pictures` returns them.
        second: Pictures of the second folder.
        suffix: Further text that a method appended to names.
    """

    def base_name(name: str) -> str:
        return _base_name(name, suffix)

    matched = MatchedPictures(
        pairs={name: (path, second[name]) for name, path in first.items() if name in second}
    )
    rest_first = [name for name in first if name not in matched.pairs]
    rest_second = [name for name in second if name not in matched.pairs]
    for first_key, second_key in (
        (_bare_name, _bare_name),
        (base_name, _bare_name),
        (_bare_name, base_name),
        (base_name, base_name),
    ):
        first_by_key = _group(rest_first, first_key)
        second_by_key = _group(rest_second, second_key)
        for key in first_by_key.keys() & second_by_key.keys():
            names_first, names_second = first_by_key[key], second_by_key[key]
            if len(names_first) == len(names_second) == 1:
                name = names_second[0]
                matched.pairs[name] = (first[names_first[0]], second[name])
            else:
                matched.ambiguous.append(
                    f"{_enumerate(names_first)} could match {_enumerate(names_second)}: not "
                    "matched; rename them"
                )
            rest_first = [name for name in rest_first if name not in names_first]
            rest_second = [name for name in rest_second if name not in names_second]

    matched.pairs = dict(sorted(matched.pairs.items()))
    matched.only_first = sorted(rest_first)
    matched.only_second = sorted(rest_second)
    matched.ambiguous.sort()
    return matched


def _bare_name(name: str) -> str:
    """A name without its sub-folders."""
    return name.rpartition("/")[2]


def _base_name(name: str, suffix: str | None) -> str:
    """A bare name without the suffix of its file and without what a method appended to it."""
    bare = _bare_name(name)
    if bare.lower().endswith(IMAGE_SUFFIXES):
        bare = bare.rpartition(".")[0]
    if suffix and bare.endswith(suffix) and bare != suffix:
        return bare.removesuffix(suffix)
    return APPENDED.sub("", bare)


def _group(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Names by their key."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _enumerate(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first ones."""
    if len(names) > MAX_NAMES:
        return f"{', '.join(names[:MAX_NAMES])} and {len(names) - MAX_NAMES} more"
    return " and ".join(names)


def is_plain_rgb(path: Path) -> bool:
    """Whether every reader decodes the same pixels: 8-bit RGB, upright, without colour profile."""
    with open_image(path) as image:
        has_profile = bool(image.info.get("icc_profile"))
        is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        has_16_bits = ";16" in str(getattr(image, "tile", ""))
        return image.mode == "RGB" and not has_16_bits and is_upright and not has_profile


def read_picture(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a picture and describe the conversions that were necessary.

    Args:
        path: The file.

    Returns:
        (height, width, 3) uint8 sRGB, upright; and a short description of each conversion.

    Raises:
        OSError, SyntaxError, ValueError: Pillow's errors for a file that cannot be decoded.
    """
    with open_image(path) as image:
        mode = image.mode
        has_16_bits = mode.startswith("I") or ";16" in str(getattr(image, "tile", ""))
        has_alpha = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    conversions = []
    if has_16_bits:
        conversions.append("16 bits reduced to 8")
    if has_alpha:
        conversions.append("alpha composited over white")
    if mode in ("L", "LA", "1") or mode.startswith("I"):
        conversions.append("grey expanded to RGB")
    return decode_image(read_file(path)), conversions
