"""Finds the pictures of folders, matches them by name, and reads them as 8-bit sRGB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags

from authface_data.images.open import IMAGE_SUFFIXES, decode_image, open_image, read_file
from authface_train.restore.output_folder import is_by_product
from manifests.support.errors import UserError
from manifests.support.text import to_storable


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find the pictures of a folder and its sub-folders.

    The strip and the maps that `authface restore` writes next to its results are left out.

    Args:
        folder: The folder.

    Returns:
        Path relative to the folder without suffix, for example "one/face-0", to the file.

    Raises:
        UserError: If the folder holds no pictures, two with the same name, or one whose name is
            not UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    pictures: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        is_picture = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if not is_picture or not path.is_file() or is_by_product(path, folder):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if to_storable(name) != name:
            raise UserError(f"the name of {path} is not UTF-8; rename the file")
        if name in pictures:
            raise UserError(
                f"two pictures of {folder} are named {name}: {pictures[name].name} and "
                f"{path.name}; rename one"
            )
        pictures[name] = path
    if not pictures:
        raise UserError(
            f"no pictures in {folder} or its sub-folders (suffixes: {', '.join(IMAGE_SUFFIXES)})"
        )
    return pictures


@dataclass(frozen=True)
class MatchedPictures:
    """The pictures of two folders, matched by name.

    Attributes:
        pairs: Name in the second folder to the pictures of both folders, sorted by name.
        only_first: Names that have no match in the second folder.
        only_second: Names that have no match in the first folder.
    """

    pairs: dict[str, tuple[Path, Path]]
    only_first: list[str]
    only_second: list[str]


def match_pictures(first: Mapping[str, Path], second: Mapping[str, Path]) -> MatchedPictures:
    """Match the pictures of two folders.

    Names are compared with their sub-folders first. The remaining pictures are matched by their
    stem alone if it is unique among the remaining pictures of each folder.

    Args:
        first: Pictures of the first folder, as `find_pictures` returns them.
        second: Pictures of the second folder.
    """
    pairs = {name: (path, second[name]) for name, path in first.items() if name in second}
    rest_first = {name: path for name, path in first.items() if name not in pairs}
    rest_second = {name: path for name, path in second.items() if name not in pairs}

    first_by_stem = _unique_by_stem(rest_first)
    second_by_stem = _unique_by_stem(rest_second)
    for name, path in rest_second.items():
        if path.stem in first_by_stem and second_by_stem.get(path.stem) == path:
            pairs[name] = (first_by_stem[path.stem], path)

    matched = {path for pair in pairs.values() for path in pair}
    return MatchedPictures(
        pairs=dict(sorted(pairs.items())),
        only_first=sorted(name for name, path in rest_first.items() if path not in matched),
        only_second=sorted(name for name, path in rest_second.items() if path not in matched),
    )


def _unique_by_stem(pictures: Mapping[str, Path]) -> dict[str, Path]:
    """Pictures by their stem; those that share a stem are left out."""
    counts = Counter(path.stem for path in pictures.values())
    return {path.stem: path for path in pictures.values() if counts[path.stem] == 1}


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
