"""`authface degrade`: a paired test set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.input_images import pictures_in
from manifests.support.console import console, quote_path
from manifests.support.errors import PartialFailureError, UserError


def degrade(
    input: Annotated[Path, typer.Option(help="A picture, or a folder of them.")],
    output: Annotated[Path, typer.Option(help="Where `<stem>.png` and draws.parquet go.")],
    preset: Annotated[
        str,
        typer.Option(help="gfpgan | bfrffusion | codeformer-large | codeformer-small | diffbir"),
    ] = "gfpgan",
    seed: Annotated[
        int, typer.Option(help="The same seed and file name give the same degradation.")
    ] = 0,
) -> None:
    """Degrade pictures as training does, their short side brought to 512 px, and record what each was given."""
    import dataclasses

    import numpy as np
    import pandas as pd
    from PIL import Image, ImageOps

    from authface_train.data import degradation
    from authface_train.data.sample_keys import numpy_generator

    ranges = degradation.preset(preset)
    files = pictures_in(input)
    if output.resolve() == (input if input.is_dir() else input.parent).resolve():
        raise UserError(
            "--output is the folder of --input: the degraded pictures would overwrite the clean ones"
        )
    output.mkdir(parents=True, exist_ok=True)
    rows, refused = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            refused.append(f"{file.name} cannot be decoded ({error})")
            continue
        scale = degradation.REFERENCE_PX / min(upright.size)
        if scale != 1:
            size = (round(upright.width * scale), round(upright.height * scale))
            upright = upright.resize(size, Image.Resampling.LANCZOS)
        picture = np.asarray(upright)
        drawn = degradation.draw(ranges, numpy_generator(seed, 0, file.stem, "degrade"))
        made = degradation.degrade(picture, drawn)
        Image.fromarray(np.rint(made * 255).astype(np.uint8)).save(output / f"{file.stem}.png")
        rows.append(
            {"file": file.name, "preset": preset, "seed": seed, **dataclasses.asdict(drawn)}
        )
    pd.DataFrame(rows).to_parquet(output / "draws.parquet", index=False)
    console.print(
        f"{len(rows)} pictures degraded to {quote_path(output)}; what each was given stands in draws.parquet"
    )
    if refused:
        raise PartialFailureError("; ".join(refused))
