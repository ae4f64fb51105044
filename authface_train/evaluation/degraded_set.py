"""Makes a paired test set by degrading clean pictures, and reads the record of degradations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from authface_data.images.open import PICTURE_ERRORS, decoding, open_image, read_file
from authface_train.data import degradation
from authface_train.data.sample_keys import numpy_generator
from authface_train.evaluation.image_pairs import find_pictures, match_pictures
from manifests.support.errors import UserError
from manifests.support.files import atomic_path
from manifests.support.progress import track
from manifests.support.text import to_storable

RECORD_FILE = "draws.parquet"
"""One row per degraded picture with the parameters that were drawn for it."""
MAX_SIDE_PX = 32_768
"""A picture whose longer side would be larger at the reference size is refused."""


@dataclass(frozen=True)
class DegradedSet:
    """Result of `degrade_pictures`.

    Attributes:
        count: Number of degraded pictures.
        failures: One message per picture that cannot be decoded.
    """

    count: int
    failures: list[str]


def degrade_pictures(
    files: Mapping[Path, Path], output: Path, *, preset: str, seed: int
) -> DegradedSet:
    """Degrade pictures as in training, and record the parameters of each degradation.

    The shorter side of a picture is resized to 512 px first. The degradation of a picture depends
    on the seed and the stem of its result alone.

    Args:
        files: The clean pictures, and the name of the PNG file that each one becomes.
        output: Folder for the results and the record.
        preset: Name of the degradation ranges.
        seed: Seed of the degradations.

    Raises:
        UserError: If the preset is unknown, or the output is the folder of an input.
    """
    ranges = degradation.get_preset(preset)
    if output.resolve() in {file.parent.resolve() for file in files}:
        raise UserError(
            "--output is the folder of --input: degraded pictures would overwrite the clean ones; "
            "use another folder"
        )
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    failures = []
    for file, name in track(files.items(), "degrade", total=len(files), unit="pictures"):
        try:
            clean = _read_at_reference_size(file)
        except PICTURE_ERRORS as error:
            failures.append(f"{file.name} cannot be decoded ({error})")
            continue
        stem = to_storable(name.with_suffix("").as_posix())
        generator = numpy_generator(seed, 0, stem, "degrade")
        params = degradation.draw_params(ranges, generator)
        degraded = degradation.degrade(clean, params)
        pixels = np.rint(degraded * 255).astype(np.uint8)
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(output / name)
        row = {
            "file": to_storable(file.name),
            "name": stem,
            "preset": preset,
            "seed": seed,
        }
        rows.append({**row, **dataclasses.asdict(params)})
    with atomic_path(output / RECORD_FILE) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    return DegradedSet(len(rows), failures)


def _read_at_reference_size(file: Path) -> np.ndarray:
    """(height, width, 3) uint8 RGB, upright, with the shorter side at 512 px."""
    data = read_file(file)
    with decoding(data), open_image(data) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    scale = degradation.REFERENCE_PX / min(upright.size)
    if max(upright.size) * scale > MAX_SIDE_PX:
        raise ValueError(f"{upright.width} x {upright.height} pixels are too narrow")
    if scale != 1:
        size = (round(upright.width * scale), round(upright.height * scale))
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(upright)


def read_degradations(
    path: Path, folders: Iterable[Path], suffix: str | None = None
) -> pd.DataFrame:
    """Read the strength of the degradations from the record that `authface degrade` writes.

    Args:
        path: The record, `draws.parquet`.
        folders: Folders of pictures, to check that the record belongs to them.
        suffix: Text that a method appended to the names of its pictures.

    Returns:
        One row per picture: `name` (stem), `blur_px` (geometric mean of the sigmas of both axes),
        `down` (downscaling factor), `noise` (standard deviation in levels of 0 to 255), `jpeg`
        (quality).

    Raises:
        UserError: If the file is not such a record, or does not belong to the pictures.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; `authface degrade` writes {RECORD_FILE} next to its pictures"
        )
    record = pd.read_parquet(path)
    missing = {"file", "sigmas_px", "down", "noise", "jpeg"} - set(record.columns)
    if missing:
        raise UserError(
            f"{path} is not a record of degradations (it has no column {min(missing)}); "
            f"use {RECORD_FILE} of `authface degrade`"
        )
    # Records of earlier versions name the input only.
    names = list(record["name"] if "name" in record else map(_stem, record["file"]))
    recorded = {name: Path(name) for name in names}
    if not any(match_pictures(find_pictures(folder), recorded, suffix).pairs for folder in folders):
        raise UserError(
            f"{path} names no picture of the folders; use the {RECORD_FILE} of the same test set"
        )
    return pd.DataFrame(
        {
            "name": names,
            "blur_px": [float(np.sqrt(np.prod(list(sigmas)))) for sigmas in record["sigmas_px"]],
            "down": record["down"].astype(float),
            "noise": record["noise"].astype(float),
            "jpeg": record["jpeg"].astype(float),
        }
    )


def _stem(file: str) -> str:
    return Path(file).stem
