"""Checks the losses of every step: stops a diverging run, warns of a useless discriminator."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence

from manifests.support.errors import PartialFailureError

logger = logging.getLogger(__name__)


class LossGuard:
    """Stops a run when its loss becomes non-finite or spikes.

    Args:
        max_spike: A loss above `max_spike` times the median of the last `WINDOW` losses counts as a
            spike. 0 disables the spike check; non-finite losses always stop the run.
        history: Losses of earlier steps when the run is resumed, oldest first.
    """

    WINDOW = 100
    MIN_HISTORY = 20

    def __init__(self, max_spike: float, history: Sequence[float] = ()) -> None:
        self.max_spike = max_spike
        self._recent: deque[float] = deque(history, maxlen=self.WINDOW)

    def check(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Check the metrics of one step.

        The gradient norm is ignored: it may be infinite in an fp16 step that the loss scaler skips.

        Args:
            step: Number of the step, for the message.
            metrics: Values by name; None where no sample of the step contributed.

        Raises:
            PartialFailureError: If a loss is non-finite or spikes. The last checkpoint is kept.
        """
        for name, value in metrics.items():
            if name != "gradient_norm" and value is not None and not math.isfinite(value):
                raise PartialFailureError(
                    f"step {step}: {name} is {value}; training has stopped and the last checkpoint "
                    "is kept. Start a new run with a lower learning_rate and another --output"
                )

        loss = primary_loss(metrics)
        if self.max_spike and len(self._recent) >= self.MIN_HISTORY:
            median = statistics.median(self._recent)
            if loss > self.max_spike * median:
                raise PartialFailureError(
                    f"step {step}: loss {loss:.3g} is more than {self.max_spike:g}x the recent "
                    f"median {median:.3g}; training has stopped and the last checkpoint is kept. "
                    "Resume with --set spike=0 to ignore it"
                )
        self._recent.append(loss)


class DiscriminatorMonitor:
    """Warns when a discriminator separates real and fake patches nearly perfectly.

    Such a discriminator gives the restorer no useful gradient.
    """

    WINDOW = 200
    MAX_ACCURACY = 0.98

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._warned: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Log a warning once for each region whose mean accuracy reaches `MAX_ACCURACY`.

        The warning is repeated only after the accuracy has fallen below the limit in between.

        Args:
            step: Number of the step, for the message.
            metrics: Values by name; `accuracy_REGION` is the share of patches judged correctly.
        """
        for name, value in metrics.items():
            if not name.startswith("accuracy_") or value is None:
                continue

            region = name.removeprefix("accuracy_")
            recent = self._recent.setdefault(region, deque(maxlen=self.WINDOW))
            recent.append(value)
            mean = statistics.fmean(recent)
            if len(recent) < self.WINDOW or mean < self.MAX_ACCURACY:
                self._warned.discard(region)
            elif region not in self._warned:
                self._warned.add(region)
                logger.warning(
                    "step %d: the %s discriminator is right for %.0f %% of its patches; try a "
                    "lower facial.discriminator_learning_rate or a higher facial.r1_gamma",
                    step,
                    region,
                    100 * mean,
                )


def primary_loss(metrics: Mapping[str, float | str | None]) -> float:
    """The loss that tells whether a run diverges: `noise_loss` of Stage II, `loss` of Stage I.

    Args:
        metrics: Metrics of one step, by name, as numbers or as cells of metrics.csv.
    """
    return float(metrics.get("noise_loss") or metrics["loss"] or math.nan)
