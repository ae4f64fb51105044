"""Stages for the engine's tests: importable by worker processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import ClassVar

from authface_data.engine.stage import Dropped, Rows
from manifests.schema import SCORES


class Measure:
    """Scores a row by its number; what it does on the way is told by the row."""

    subject = "face"
    manifest = SCORES
    input_hash_column = "mark"
    uses_gpu = False
    version = 1

    def __init__(
        self, name="m", batch_size=1, scale=1.0, marks: Path | None = None, heal: Path | None = None
    ):
        self.name, self.batch_size, self.scale, self.marks, self.heal = (
            name,
            batch_size,
            scale,
            marks,
            heal,
        )
        self.batches: list[int] = []

    def settings(self):
        return {"scale": self.scale}

    def setup(self, device):
        self.device = device

    def process(self, batch, write_pixels):
        self.batches.append(len(batch))
        return [self.one(item, write_pixels) for item in batch]

    def one(self, item, write_pixels):
        number, do = item.row["number"], item.row.get("do", "")
        if self.marks:
            with (self.marks / f"{self.name}-{item.key}").open("a") as file:
                file.write(f"{os.getpid()}\n")
        healed = self.heal is not None and self.heal.exists()
        if do == "raise" and not healed:
            raise RuntimeError(f"row {number} is bad")
        if do == "die" and not healed:
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "drop":
            return Dropped("too small", number, 10.0)
        if do == "nothing":
            return Rows([])
        if do == "alien":
            return Rows([{"face_id": "somebody else", "metric": self.name, "value": 0.0}])
        if do == "pixels":
            write_pixels(f"faces/{item.key}.png", b"pixels")
        return Rows([{"face_id": item.key, "metric": self.name, "value": number * self.scale}])


class Short(Measure):
    def process(self, batch, write_pixels):
        return super().process(batch, write_pixels)[1:]


class Decoded:
    """A picture that counts how often it is opened."""

    opened: ClassVar[list[float]] = []

    def __init__(self, row):
        self.row = row
        Decoded.opened.append(row["number"])


def no_picture(row):
    return None
