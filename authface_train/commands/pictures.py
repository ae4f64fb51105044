"""The pictures that an `--input` names."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import UserMistake

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def pictures_in(path: Path) -> list[Path]:
    """A picture, or those of a folder, sorted. Raises UserMistake where there are none, or two of one stem."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserMistake(f"{path} is not there: --input takes a picture or a folder of pictures")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise UserMistake(f"no pictures in {path} (looked for {', '.join(SUFFIXES)})")
    stems = [file.stem for file in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise UserMistake(f"two pictures in {path} are named {twice[0]}: their results would be one file")
    return files
