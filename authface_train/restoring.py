"""Restoring files: read, restore, write, and a strip to look at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import Progress

from authface_train.pipeline import Restorer
from manifests.errors import UserMistake
from manifests.workspace import Workspace

BATCH = 4
STRIP, STRIP_SIDE_PX, STRIP_FACES = "strip.jpg", 256, 8


def weights_dir(workspace: Path | None) -> str | None:
    """The workspace's weights_dir, where there is a workspace: restoring needs none."""
    try:
        return Workspace.find(workspace).weights_dir
    except UserMistake:
        if workspace is not None:
            raise
        return None


def restore_files(restorer: Restorer, files: list[Path], output: Path, steps: int, seed: int) -> list[str]:
    """Restore each file to `<stem>.png`. Returns a line for each that could not be: not decodable, not square."""
    refused: list[str] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    with Progress() as progress:
        bar = progress.add_task("restore", total=len(files))
        pictures = _square_pictures(files, refused)
        while batch := list(itertools.islice(pictures, BATCH)):
            for (file, before), after in zip(batch, restorer.restore([p for _, p in batch], steps, seed), strict=True):
                temp = output / f".{file.stem}.png"
                Image.fromarray(after).save(temp)
                temp.replace(output / f"{file.stem}.png")
                if len(shown) < STRIP_FACES:
                    shown.append((before, after))
            progress.advance(bar, len(batch))
        progress.update(bar, completed=len(files))
    if shown:
        _strip(shown).save(output / STRIP, quality=92)
    return refused


def _square_pictures(files: list[Path], refused: list[str]) -> Iterator[tuple[Path, np.ndarray]]:
    """Each file's upright picture, (H, H, 3) uint8; what cannot be used gets a line in `refused`."""
    for file in files:
        try:
            with Image.open(file) as image:
                picture = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            refused.append(f"{file.name} cannot be decoded ({error})")
            continue
        if picture.shape[0] != picture.shape[1]:
            refused.append(f"{file.name} is not square: restore takes aligned faces, as `authface filter` makes them")
            continue
        yield file, picture


def _strip(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Image.Image:
    """Before above after, side by side."""
    side = STRIP_SIDE_PX
    strip = Image.new("RGB", (side * len(pairs), side * 2))
    for column, pair in enumerate(pairs):
        for row, picture in enumerate(pair):
            strip.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (column * side, row * side))
    return strip
