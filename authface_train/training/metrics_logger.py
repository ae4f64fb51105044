"""What a run shows and records: progress, metrics.csv, TensorBoard, Weights & Biases; and whether its losses are sane."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from types import TracebackType
from typing import Any

import psutil
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from authface_train.runs.run_folder import RunFolder
from authface_train.settings import TrainSettings
from manifests.support.console import console
from manifests.support.errors import MissingResourceError, PartialFailureError
from manifests.support.fingerprint import short_hash

SPIKE_WINDOW, SPIKE_LEAST = 100, 20
PROCESS = psutil.Process()


class MetricsLogger:
    """For the main process: a context in which every step is told. done: steps that a resumed run has behind it."""

    def __init__(self, run: RunFolder, settings: TrainSettings, done: int):
        self.run, self.settings, self.done = run, settings, done
        self._busy_s, self._since = 0.0, time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, speed_estimate_period=600, refresh_per_second=2)

    def __enter__(self) -> MetricsLogger:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.run.folder / "logs"), purge_step=self.done + 1)
        self._wandb = _wandb(self.run, self.settings) if self.settings.wandb else None
        self.run.open_metrics(self.done)
        self._progress.start()
        self._bar = self._progress.add_task(
            self.run.stage, total=self.settings.steps, completed=self.done, state=""
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self.board.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))

    def told(self, step: int, values: dict[str, float | None], learning_rate: float) -> None:
        """A step is done. values: the losses of it, None where no sample has any."""
        self.run.log(step, values)
        known = {name: value for name, value in values.items() if value is not None} | {
            "learning_rate": learning_rate
        }
        for name, value in known.items():
            self.board.add_scalar(f"{self.run.stage}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log(known, step=step)
        now = time.monotonic()
        self._busy_s, self._since = self._busy_s + now - self._since, now
        rate = (step - self.done) * self.settings.batch / self._busy_s
        state = f"loss {values['loss']:.4f}  lr {learning_rate:.1e}  {rate:.1f} images/s  {memory_gb():.1f} GB"
        self._progress.update(self._bar, completed=step, state=state)

    def go_on(self) -> None:
        """Whatever was done since the last step was no step: the rate leaves it out."""
        self._since = time.monotonic()

    def picture(self, name: str, step: int, picture: Any) -> None:
        """A PIL image into TensorBoard."""
        import numpy as np

        self.board.add_image(
            f"{self.run.stage}/{name}", np.asarray(picture), step, dataformats="HWC"
        )


def memory_gb() -> float:
    """The most that torch has held on the card, or what this process holds now where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return PROCESS.memory_info().rss / 1e9


class LossGuard:
    """Stops a run whose loss is not finite, or jumps. before: the losses of earlier steps, of a resumed run."""

    def __init__(self, settings: TrainSettings, before: list[float]):
        self.most = settings.spike
        self._last: deque[float] = deque(before[-SPIKE_WINDOW:], maxlen=SPIKE_WINDOW)

    def check(self, step: int, values: dict[str, float | None]) -> None:
        """Raises PartialFailureError. A scaled-down fp16 step may have an infinite gradient: that norm is not looked at."""
        wrong = [
            name
            for name, value in values.items()
            if name != "gradient_norm" and not math.isfinite(value or 0)
        ]
        if wrong:
            raise PartialFailureError(
                f"step {step}: {', '.join(wrong)} is not a number; {_KEPT} Try a lower learning_rate"
            )
        loss = primary_loss(values)
        if (
            self.most
            and len(self._last) >= SPIKE_LEAST
            and loss > self.most * (usual := statistics.median(self._last))
        ):
            raise PartialFailureError(
                f"step {step}: the loss is {loss:.3g}, and {usual:.3g} is usual; {_KEPT} --set spike=0 goes through it, "
                "a lower learning_rate needs a new --output"
            )
        self._last.append(loss)


_KEPT = "stopped, the last checkpoint is kept and --resume goes on from it."


COLLAPSE_WINDOW, COLLAPSED = 200, 0.98


class DiscriminatorMonitor:
    """Tells when a discriminator has won: what it sees through always teaches nothing."""

    def __init__(self) -> None:
        self._last: dict[str, deque[float]] = {}
        self._told: set[str] = set()

    def check(self, step: int, values: dict[str, float | None]) -> None:
        """Warns once for each region whose accuracy over COLLAPSE_WINDOW steps has come to COLLAPSED; again after it fell."""
        for name, value in values.items():
            if not name.startswith("accuracy_") or value is None:
                continue
            last = self._last.setdefault(name, deque(maxlen=COLLAPSE_WINDOW))
            last.append(value)
            region, mean = name.removeprefix("accuracy_"), statistics.fmean(last)
            if len(last) < COLLAPSE_WINDOW or mean < COLLAPSED:
                self._told.discard(region)
            elif region not in self._told:
                self._told.add(region)
                console.print(
                    f"[yellow]step {step}: the discriminator of the {region} tells {100 * mean:.0f} % of patches rightly[/] "
                    "and has little left to teach: a lower facial.discriminator_learning_rate or a higher facial.r1_gamma"
                )


def primary_loss(values: dict[str, Any]) -> float:
    """The loss that tells whether training goes well: of the noise, where others are added to it."""
    return float(values.get("noise_loss") or values["loss"])


def _wandb(run: RunFolder, settings: TrainSettings) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingResourceError(
            "wandb=true needs Weights & Biases: pip install wandb, or leave it out"
        ) from error
    return wandb.init(
        project="authface",
        name=run.folder.name,
        id=f"{run.folder.name}-{short_hash(str(run.folder.absolute()))}",  # a resumed run goes on in its own
        dir=str(run.folder),
        resume="allow",
        config=settings.model_dump(mode="json"),
    )
