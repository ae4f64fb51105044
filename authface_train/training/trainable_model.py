"""A model in training: the module, its optimizer and the moving average of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from authface_train.settings import TrainSettings
from authface_train.training.ema import EMA
from authface_train.training.optimizer import make_optimizer
from authface_train.training.sharding import distribute_model


@dataclass
class TrainableModel:
    """A module with its optimizer and EMA. A checkpoint holds the states of all three.

    Attributes:
        module: The module; with several processes, distributed with DDP or FSDP2.
        optimizer: Optimizer of the trainable parameters.
        ema: Moving average of the weights, or None if none is kept.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMA | None = None

    @contextlib.contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Replace the weights by their average inside the context; without an EMA do nothing."""
        if self.ema is None:
            yield
        else:
            with self.ema.swapped_in():
                yield


def prepare_for_training(
    module: torch.nn.Module, settings: TrainSettings, accelerator: Accelerator
) -> TrainableModel:
    """Distribute a module over the processes and give it an optimizer and, if set, an EMA.

    Args:
        module: The module; its parameters with `requires_grad` are trained.
        settings: `optimiser`, `sharding`, `ema_decay` and `ema_device` are used.
        accelerator: Knows the device and the processes.
    """
    distributed, optimizer = distribute_model(
        module, lambda parameters: make_optimizer(parameters, settings), settings, accelerator
    )
    ema = None
    if settings.ema_decay:
        on_gpu = settings.ema_device == "gpu"
        device = accelerator.device if on_gpu else torch.device("cpu")
        ema = EMA(accelerator.unwrap_model(distributed), settings.ema_decay, device)
    return TrainableModel(distributed, optimizer, ema)
