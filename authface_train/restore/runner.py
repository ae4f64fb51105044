"""Restoring files: aligned faces and whole photographs, in batches, with a record of what was done and pictures to look at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.progress import Progress

from authface_data.faces.align import Quad
from authface_data.faces.descriptor import Descriptor
from authface_data.faces.finder import FaceFinder, FoundFace, Which
from authface_data.images.upright import DECODE_ERRORS, upright
from authface_train.restore.image_file import ImageFile
from authface_train.restore.paste import paste
from authface_train.restore.pipeline import Restorer
from authface_train.restore.uncertainty import Certainty, certainty, drawn
from manifests.support.errors import UserError
from manifests.workspace import Workspace

STRIP, STRIP_SIDE_PX, STRIP_FACES = "strip.jpg", 256, 8
RECORD, CERTAINTY = "restored.parquet", "certainty"
SAVE_EVERY_S = 30.0


def weights_dir(workspace: Path | None) -> str | None:
    """The workspace's weights_dir, where there is a workspace: restoring needs none."""
    try:
        return Workspace.find(workspace).weights_dir
    except UserError:
        if workspace is not None:
            raise
        return None


@dataclass(frozen=True)
class RestoreOptions:
    """faces: of whole photographs, which every picture is taken for where it is given; None: squares are aligned faces.

    upscale: of a photograph, before its faces are pasted; seeds: how many to restore each face by; detector: by name.
    """

    faces: Which | None = None
    upscale: int = 1
    seeds: int = 1
    batch: int = 4
    detector: str = "retinaface-mobile"


@dataclass
class Work:
    """A file, its result's name, its faces' crops, and what came of them: for each crop a picture by each seed, in so many
    seconds each."""

    file: Path
    name: Path
    crops: list[np.ndarray]
    original: ImageFile | None = None
    found: list[FoundFace] = field(default_factory=list)
    made: list[list[np.ndarray]] = field(default_factory=list)
    each_s: float = 0.0


def is_aligned(file: Path, faces: Which | None) -> bool:
    """Whether a picture is taken for an aligned face: a square, where it is not said to be a photograph."""
    if faces is not None:
        return False
    try:
        with Image.open(file) as image:
            return image.width == image.height
    except DECODE_ERRORS:
        return False


def target(name: Path, output: Path, aligned: bool) -> Path:
    """Where a file's result goes: a photograph keeps its name, an aligned face becomes a PNG."""
    return output / (name.with_suffix(".png") if aligned else name)


class RestoreRunner:
    """Restores files with one model. `refused` and `rows` grow with them; `save` writes the record."""

    def __init__(
        self,
        restorer: Restorer,
        output: Path,
        asked: RestoreOptions,
        model: str,
        weights_dir: str | None,
    ):
        self.restorer, self.output, self.asked, self.model, self.weights_dir = (
            restorer,
            output,
            asked,
            model,
            weights_dir,
        )
        self.refused: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.shown: list[tuple[np.ndarray, np.ndarray]] = []
        self.seconds = 0.0
        self.descriptor: Descriptor | None = None
        if asked.seeds > 1:
            self.descriptor = Descriptor()
            self.descriptor.setup(weights_dir)

    def restore(self, files: Mapping[Path, Path]) -> None:
        """Each file to its name in `output`, a batch of faces at a time. What cannot be restored gets a line in `refused` and
        stops nothing."""
        saved = time.monotonic()
        try:
            with Progress() as progress:
                bar = progress.add_task("restore", total=len(files))
                for works in self._batches(files):
                    self._run(works)
                    for work in works:
                        try:
                            self._finish(work)
                        except DECODE_ERRORS as error:
                            self._refuse(work.file, "written", error)
                    if time.monotonic() - saved > SAVE_EVERY_S:
                        self.save()
                        saved = time.monotonic()
                    progress.advance(bar, len(works))
                progress.update(bar, completed=len(files))
        finally:
            self.save()
        if self.shown:
            _strip(self.shown).save(self.output / STRIP, quality=92)

    @cached_property
    def finder(self) -> FaceFinder:
        """Loaded where there is a photograph. May raise Missing."""
        return FaceFinder(self.asked.detector, self.weights_dir)

    def save(self) -> None:
        """`restored.parquet`: a row for each face of this and earlier runs, the latest of a file."""
        if not self.rows:
            return
        path, table = self.output / RECORD, pd.DataFrame(self.rows)
        if path.is_file():
            before = pd.read_parquet(path)
            table = pd.concat(
                [before[~before["output"].isin(table["output"])], table], ignore_index=True
            )
        temp = path.with_name(f".{RECORD}")
        table.to_parquet(temp, index=False)
        temp.replace(path)

    def _batches(self, files: Mapping[Path, Path]) -> Iterator[list[Work]]:
        """Files together whose faces make a batch."""
        waiting: list[Work] = []
        for file, name in files.items():
            if (work := self._work(file, name)) is None:
                continue
            waiting.append(work)
            if sum(len(one.crops) for one in waiting) >= self.asked.batch:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _work(self, file: Path, name: Path) -> Work | None:
        size_px = self.restorer.size_px
        try:
            if is_aligned(file, self.asked.faces):
                if self.asked.upscale > 1:
                    raise ValueError(
                        f"is an aligned face, which comes out at {size_px} px: --upscale is of photographs"
                    )
                return Work(file, name, [_at_size(upright(file.read_bytes()), size_px)])
            original = ImageFile(file)
            found = self.finder.find(original.data, self.asked.faces or "all", size_px)
        except DECODE_ERRORS as error:
            self._refuse(file, "decoded", error)
            return None
        if not found:
            self.refused.append(f"{file.name}: no face was found in it")
            return None
        return Work(file, name, [face.crop for face in found], original, found)

    def _refuse(self, file: Path, what: str, error: Exception) -> None:
        words = (
            str(error) if str(error).startswith(("has ", "is ")) else f"cannot be {what} ({error})"
        )
        self.refused.append(f"{file.name} {words}")

    def _run(self, works: list[Work]) -> None:
        crops = [crop for work in works for crop in work.crops]
        began = time.monotonic()
        by_seed: list[list[np.ndarray]] = []
        for number in range(self.asked.seeds):
            made: list[np.ndarray] = []
            for at in range(0, len(crops), self.asked.batch):
                seed = self.restorer.sampling.seed + number
                made += self.restorer.restore(crops[at : at + self.asked.batch], seed)
            by_seed.append(made)
        self.seconds += (spent := time.monotonic() - began)
        of_crop = iter(zip(*by_seed, strict=True))
        for work in works:
            work.made, work.each_s = [list(next(of_crop)) for _ in work.crops], spent / len(crops)

    def _finish(self, work: Work) -> None:
        path = target(work.name, self.output, work.original is None)
        path.parent.mkdir(parents=True, exist_ok=True)
        if work.original is None:
            temp = path.with_name(f".{path.name}")
            Image.fromarray(work.made[0][0]).save(temp, "PNG")
            temp.replace(path)
        else:
            self._paste(work, path)
        for place, (crop, made) in enumerate(zip(work.crops, work.made, strict=True)):
            self._note(work, path, place, self._certainty(work.name, place, crop, made))
            if len(self.shown) < STRIP_FACES:
                self.shown.append((crop, made[0]))

    def _paste(self, work: Work, path: Path) -> None:
        assert work.original is not None
        pixels, times, touched = work.original.pixels, self.asked.upscale, []
        if times > 1:
            size = (pixels.shape[1] * times, pixels.shape[0] * times)
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        for face, made in zip(work.found, work.made, strict=True):
            quad = Quad((face.quad.corners_px + 0.5) * times - 0.5, face.quad.size_px * times)
            pixels, box = paste(pixels, quad, work.original.own_colours(made[0]))
            touched.append(box)
        work.original.write(pixels, touched, path)

    def _certainty(
        self, name: Path, place: int, crop: np.ndarray, made: list[np.ndarray]
    ) -> Certainty | None:
        if self.descriptor is None:
            return None
        found = certainty(crop, made, self.descriptor)
        path = self.output / CERTAINTY / name.with_name(f"{name.stem}-{place}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(crop, made[0], found.disagreement).save(path)
        return found

    def _note(self, work: Work, path: Path, place: int, sure: Certainty | None) -> None:
        """The row of a face."""
        face = work.found[place] if work.found else None
        self.rows.append(
            {
                "input": str(work.file),
                "output": path.relative_to(self.output).as_posix(),
                "face": place,
                "box_px": None if face is None else face.box_px.tolist(),
                "quad_px": None if face is None else face.quad.corners_px.ravel().tolist(),
                "qsize_px": None if face is None else face.quad.size_px,
                "detector_score": None if face is None else face.score,
                "model": self.model,
                "trained": not self.restorer.notes.get("untrained", False),
                **asdict(self.restorer.sampling),
                "precision": str(self.restorer.pipeline.unet.dtype).removeprefix("torch."),
                "faces": self.asked.faces,
                "detector": self.asked.detector if work.found else None,
                "seeds": self.asked.seeds,
                "upscale": self.asked.upscale,
                **(sure.row() if sure else {}),
                "seconds": work.each_s,
                "restored_at": datetime.now(UTC),
            }
        )


def _at_size(picture: np.ndarray, size_px: int) -> np.ndarray:
    if len(picture) == size_px:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.LANCZOS))


def _strip(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Image.Image:
    """Before above after, side by side."""
    side = STRIP_SIDE_PX
    strip = Image.new("RGB", (side * len(pairs), side * 2))
    for column, pair in enumerate(pairs):
        for row, picture in enumerate(pair):
            strip.paste(
                Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS),
                (column * side, row * side),
            )
    return strip
