"""The pictures of a folder, those of two folders that belong together, and what had to be done to read one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from authface_data.images.upright import IMAGE_SUFFIXES, upright
from authface_train.restore.runner import CERTAINTY, RECORD, STRIP
from manifests.support.errors import UserError


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """Pictures of a folder and its sub-folders by their path without suffix. Raises UserError where there are none, or two of
    one name. What `authface restore` leaves beside its results is none of them."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    restored = (folder / RECORD).is_file()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if (
            path.suffix.lower() not in IMAGE_SUFFIXES
            or path.name.startswith(".")
            or not path.is_file()
        ):
            continue
        if restored and (inside.parts[0] == CERTAINTY or inside == Path(STRIP)):
            continue
        name = inside.with_suffix("").as_posix()
        if name in found:
            raise UserError(
                f"two pictures of {folder} are named {name}: {found[name].name} and {path.name}"
            )
        found[name] = path
    if not found:
        raise UserError(
            f"no pictures in {folder} (looked for {', '.join(IMAGE_SUFFIXES)}, in sub-folders as well)"
        )
    return found


@dataclass(frozen=True)
class Matched:
    """pairs: the partner's name -> the picture and its partner; alone, partnerless: names that are in one folder only."""

    pairs: dict[str, tuple[Path, Path]]
    alone: list[str]
    partnerless: list[str]


def matched(pictures: dict[str, Path], partners: dict[str, Path]) -> Matched:
    """By path without suffix; what is left, by the bare name, where each folder has it once."""
    pairs = {name: (path, partners[name]) for name, path in pictures.items() if name in partners}
    left, wanted = _rest(pictures, pairs), _rest(partners, pairs)
    own, theirs = _bare(left), _bare(wanted)
    pairs |= {
        name: (own[path.stem], path)
        for name, path in wanted.items()
        if theirs.get(path.stem) == path and path.stem in own
    }
    used = {path for pair in pairs.values() for path in pair}
    return Matched(
        dict(sorted(pairs.items())),
        sorted(name for name, path in left.items() if path not in used),
        sorted(name for name, path in wanted.items() if path not in used),
    )


def _rest(pictures: dict[str, Path], pairs: dict[str, tuple[Path, Path]]) -> dict[str, Path]:
    return {name: path for name, path in pictures.items() if name not in pairs}


def _bare(pictures: dict[str, Path]) -> dict[str, Path]:
    """By stem, those whose stem no other has."""
    count = Counter(path.stem for path in pictures.values())
    return {path.stem: path for path in pictures.values() if count[path.stem] == 1}


def is_plain(path: Path) -> bool:
    """Whether any reader sees the same: RGB of 8 bits, upright, without a colour profile."""
    with Image.open(path) as image:
        profiled = (
            image.info.get("icc_profile") or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        )
        return image.mode == "RGB" and ";16" not in str(image.tile) and not profiled


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """The picture (H, W, 3) uint8 sRGB, and a few words for each thing that was done to it. Raises Pillow's errors."""
    with Image.open(path) as image:
        mode, tile = image.mode, str(image.tile)
        clear = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    done = []
    if mode.startswith("I") or ";16" in tile:
        done.append("16 bits, brought to 8")
    if clear:
        done.append("alpha, laid over white")
    if mode in ("L", "LA", "1") or mode.startswith("I"):
        done.append("grey, taken as RGB")
    return upright(path.read_bytes()), done
