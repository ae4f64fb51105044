"""`authface hashes`: hash a folder of pictures, to keep them out of a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from manifests.support.console import console, quote_path
from manifests.support.extras import needs_extras
from manifests.support.text import count_of

HEADER = "# perceptual hashes (16 digits) and hashes of pixels (32), by authface hashes"


@needs_extras("data")
def hashes(
    input: Annotated[
        Path,
        typer.Option("--input", "--path", help="Folder of pictures, for example a test set."),
    ],
    output: Annotated[
        Path, typer.Option(help="Text file to write, for `authface filter --exclude-hashes`.")
    ],
) -> None:
    """Hash the pictures of a folder, so that `filter --exclude-hashes` can keep them out.

    ```
    authface hashes --input celeba-test --output celeba-test.txt
    ```
    """
    from authface_data.duplicates import hash_pictures
    from authface_data.sources.image_files import find_image_files
    from manifests.support.errors import UserError
    from manifests.support.files import write_atomic
    from manifests.support.progress import track

    skipped: list[str] = []
    files = list(find_image_files(input, skipped))
    lines = hash_pictures(track(files, "hashes", unit="pictures"), skipped)
    for message in skipped:
        console.print(f"[yellow]Skipped:[/] {escape(message)}")
    if not lines:
        raise UserError(f"{input} contains no pictures; use a folder that does")
    write_atomic(output, "\n".join([HEADER, *lines]) + "\n")
    console.print(
        f"{count_of(len(lines), 'hash', 'hashes')} of {count_of(len(lines) // 2, 'picture')} "
        f"written to {quote_path(output)}"
    )
    console.print(f"Next: [bold]authface filter --exclude-hashes {quote_path(output)}[/]")
