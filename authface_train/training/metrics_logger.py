"""Records a run: progress, metrics.csv, TensorBoard and Weights & Biases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch

from authface_train.settings import TrainSettings
from manifests.run_folder import LOGS
from manifests.support.errors import MissingResourceError
from manifests.support.files import explain_write_errors
from manifests.support.fingerprint import short_hash
from manifests.support.progress import ProgressBar

if TYPE_CHECKING:
    from PIL import Image
    from wandb.sdk.wandb_run import Run as WandbRun

    from authface_train.runs.training_run import TrainingRun

_PROCESS = psutil.Process()


class MetricsLogger:
    """Context manager that records every step of a run. Used on the main process only.

    Args:
        run: The run whose metrics are recorded.
        settings: The run's settings; `batch`, `steps` and `wandb` are used.
        first_step: Number of steps that were done before; 0 for a new run.
    """

    def __init__(self, run: TrainingRun, settings: TrainSettings, first_step: int) -> None:
        self.run = run
        self.settings = settings
        self.first_step = first_step
        self._training_s = 0.0
        self._timer_start = time.monotonic()
        self._progress = ProgressBar(run.stage, settings.steps, unit="steps", completed=first_step)

    def __enter__(self) -> MetricsLogger:
        from torch.utils.tensorboard import SummaryWriter

        with self._explain_tensorboard_errors():
            self._tensorboard = SummaryWriter(
                str(self.run.folder / LOGS), purge_step=self.first_step + 1
            )
        self._wandb = _start_wandb(self.run, self.settings) if self.settings.wandb else None
        self.run.discard_after(self.first_step)
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.__exit__(error_type, error, traceback)
        # On a full disk closing fails too; the first error is the one to report.
        with self._explain_tensorboard_errors() if error is None else suppress(OSError):
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(error is not None))

    def log_step(
        self, step: int, metrics: Mapping[str, float | None], learning_rate: float
    ) -> None:
        """Record the metrics of a finished step.

        Args:
            step: Number of the step, from 1.
            metrics: Values by name; None where no sample of the step contributed.
            learning_rate: Learning rate of the step.
        """
        self.run.log_metrics(step, metrics)
        values = {name: value for name, value in metrics.items() if value is not None}
        values["learning_rate"] = learning_rate
        self.log_scalars(self.run.stage, step, values)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

        now = time.monotonic()
        self._training_s += now - self._timer_start
        self._timer_start = now
        images_per_s = (step - self.first_step) * self.settings.batch / self._training_s
        note = (
            f"loss {metrics['loss']:.4f}  lr {learning_rate:.1e}  "
            f"{images_per_s:.1f} images/s  {peak_memory_gb():.1f} GB"
        )
        self._progress.update(step, note=note)

    def resume_timer(self) -> None:
        """Exclude the time since the last step, spent on callbacks, from the rate."""
        self._timer_start = time.monotonic()

    def log_scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Write scalars to TensorBoard as `group/name`.

        Args:
            group: Heading in TensorBoard.
            step: Step on the horizontal axis.
            values: Values by name.
        """
        with self._explain_tensorboard_errors():
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{group}/{name}", value, step)

    def log_image(self, name: str, step: int, image: Image.Image) -> None:
        """Write an image to TensorBoard.

        Args:
            name: Name below the stage's heading.
            step: Step it belongs to.
            image: An RGB image.
        """
        with self._explain_tensorboard_errors():
            self._tensorboard.add_image(
                f"{self.run.stage}/{name}", np.asarray(image), step, dataformats="HWC"
            )

    def _explain_tensorboard_errors(self) -> AbstractContextManager[None]:
        return explain_write_errors(self.run.folder / LOGS)


def peak_memory_gb() -> float:
    """Peak GPU memory of torch in GB (10^9 bytes); without a GPU the process's current memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return _PROCESS.memory_info().rss / 1e9


def _start_wandb(run: TrainingRun, settings: TrainSettings) -> WandbRun:
    try:
        import wandb
    except ImportError as error:
        raise MissingResourceError(
            "wandb=true needs Weights & Biases; install it with `pip install wandb`, "
            "or remove --set wandb=true"
        ) from error
    return wandb.init(
        project="authface",
        name=run.folder.name,
        # A resumed run continues its own record.
        id=f"{run.folder.name}-{short_hash(str(run.folder.absolute()))}",
        dir=str(run.folder),
        resume="allow",
        config=settings.model_dump(mode="json"),
    )
