"""Stages for the tests of the engine, importable by worker processes."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.images.open import PictureReadError
from manifests.schema import FACES, PHOTOS, SCORES
from manifests.support.errors import MissingResourceError
from manifests.workspace import Workspace


class NumberStage:
    """Scores a face by the number in its row. The column `action` of a row makes it misbehave.

    Args:
        name: The metric.
        batch_size: Items per batch.
        scale: Factor of the score; a setting of the stage.
        log_folder: Folder with one file per processed face; each call adds the process id.
        healed: While this file exists, the actions "raise" and "die" do nothing.
    """

    subject = "face"
    manifest = SCORES
    input_hash_column = "mark"
    model = None
    libraries = ()
    version = 1

    def __init__(
        self,
        name: str = "m",
        batch_size: int = 1,
        scale: float = 1.0,
        log_folder: Path | None = None,
        healed: Path | None = None,
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self.scale = scale
        self.log_folder = log_folder
        self.healed = healed
        self.batch_sizes: list[int] = []

    def settings(self) -> dict[str, object]:
        return {"scale": self.scale}

    def setup(self, device: str) -> None:
        self.device = device

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        self.batch_sizes.append(len(batch))
        return [self.process_item(item, write_pixels) for item in batch]

    def process_item(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        number = item.row["number"]
        action = item.row.get("action", "")
        is_healed = self.healed is not None and self.healed.exists()
        if self.log_folder:
            with (self.log_folder / f"{self.name}-{item.key}").open("a") as file:
                file.write(f"{os.getpid()}\n")

        if action == "raise" and not is_healed:
            raise RuntimeError(f"row {number} is bad")
        if action == "die" and not is_healed:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "pause":
            time.sleep(0.1)
        if action == "drop":
            return Dropped("too small", number, 10.0)
        if action == "no rows":
            return Rows([])
        if action == "other key":
            return Rows([{"face_id": "another face", "metric": self.name, "value": 0.0}])
        if action == "write pixels":
            write_pixels(f"faces/{item.key}.png", b"pixels")
        return Rows([{"face_id": item.key, "metric": self.name, "value": number * self.scale}])


class TooFewResults(NumberStage):
    """Gives one result less than it got items."""

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return super().process(batch, write_pixels)[1:]


class CountedPicture:
    """A picture that records when it is opened."""

    opened: ClassVar[list[float]] = []

    def __init__(self, row) -> None:
        self.row = row
        CountedPicture.opened.append(row["number"])


def no_picture(row) -> None:
    return None


class CropStage(NumberStage):
    """Writes a crop for a photo and names it in a row of `faces`."""

    subject = "photo"
    manifest = FACES

    def process_item(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        result = super().process_item(item, write_pixels)
        if not isinstance(result, Rows):
            return result
        path = Workspace.crop_path(f"{item.key}_0", item.key)
        write_pixels(path, item.key.encode())
        return Rows([{"face_id": f"{item.key}_0", "photo_id": item.key, "crop_path": path}])


class PhotoStage(NumberStage):
    """Describes a photo. Its rows may misbehave as files from outside do."""

    subject = "photo"
    manifest = PHOTOS

    def process_item(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        action = item.row.get("action", "")
        if action == "slow":
            time.sleep(30)
        if action == "stuck":  # as a C library that never returns
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(30)
        if action == "unreadable":
            raise PictureReadError(f"cannot read {item.key}: Input/output error")
        if action == "warn":
            warnings.warn("corrupt EXIF data", stacklevel=1)
            warnings.warn("corrupt EXIF data", stacklevel=1)
        return Rows([{"photo_id": item.key, "width": 1}])


class Scaler:
    """A model: multiplies numbers. It fails for -1, and ends its process for -2.

    Args:
        factor: The factor. Loading fails for 0.
    """

    uses_gpu = True

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.device = ""
        self.revision = None

    def load(self, device: str) -> None:
        if not self.factor:
            raise MissingResourceError("the weights are missing")
        self.device = device
        self.revision = f"process {os.getpid()}"

    def predict(self, inputs: Sequence[float]) -> list[float]:
        if -2 in inputs:
            os.kill(os.getpid(), signal.SIGKILL)
        if -1 in inputs:
            raise RuntimeError("the model cannot compute -1")
        return [self.factor * number for number in inputs]


class ModelStage(NumberStage):
    """Scores a face by a model; its name and version come from the place where that runs."""

    def __init__(self, name: str, factor: float, batch_size: int = 1) -> None:
        super().__init__(name, batch_size)
        self.model = Scaler(factor)

    def setup(self, device: str) -> None:
        self.model.load(device)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        values = self.model.predict([item.row["number"] for item in batch])
        place = {"device": self.model.device, "model_revision": self.model.revision}
        return [
            Rows([{"face_id": item.key, "metric": self.name, "value": value, **place}])
            for item, value in zip(batch, values, strict=True)
        ]
