"""`authface hashes`: a list of pictures to keep out of a set, without the pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from manifests.support.console import console, quote_path


def hashes(
    input: Annotated[Path, typer.Option(help="The folder of pictures: a test set, say.")],
    output: Annotated[
        Path, typer.Option(help="The text file to write, for `authface filter --exclude-hashes`.")
    ],
) -> None:
    """Write the hashes of a folder's pictures, to keep them out of a training set (`filter --exclude-hashes`)."""
    from rich.progress import track

    from authface_data.images.hashes import hash_of_pixels, perceptual_hash
    from authface_data.images.open import DECODE_ERRORS, Photo
    from authface_data.sources.folder import walk
    from manifests.support.errors import UserError

    passed_over: list[str] = []
    lines = []
    for path, name in track(list(walk(input, passed_over)), description="hashes"):
        photo = Photo(path.read_bytes)
        try:
            perceptual, pixels = perceptual_hash(photo.pixels()), hash_of_pixels(photo.pixels())
        except DECODE_ERRORS as error:
            passed_over.append(f"{path}: {error}")
            continue
        shown_name = " ".join(
            os.fsencode(name).decode("utf-8", "replace").replace("#", "_").split()
        )
        lines += [f"{perceptual} {shown_name}", f"{pixels} {shown_name}"]
    for words in passed_over:
        console.print(f"[yellow]Passed over:[/] {escape(words)}")
    if not lines:
        raise UserError(f"no pictures in {input}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        "\n".join(
            [
                "# perceptual hashes (16 digits) and hashes of pixels (32), by authface hashes",
                *lines,
            ]
        )
        + "\n"
    )
    console.print(f"{len(lines) // 2} pictures hashed into {quote_path(output)}")
    console.print(f"Next: [bold]authface filter --exclude-hashes {quote_path(output)}[/]")
