"""Callbacks of the training loop: previews, validation, audits.

Each is called after every step on every process and checks itself whether it is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from authface_train.training.metrics_logger import MetricsLogger


class Callback(Protocol):
    """Called by the training loop after every step."""

    def on_step_end(self, step: int, metrics_logger: MetricsLogger | None) -> None:
        """React to a finished step.

        All processes call it together, because the model may be sharded over them. It is also
        called once before the first step. A resumed run thereby does what the interruption
        prevented after its last step.

        Args:
            step: Number of finished steps.
            metrics_logger: Records scalars and images; None on all but the main process.
        """
        ...
