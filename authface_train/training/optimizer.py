"""Optimizers, and the learning rate as a function of the step, which needs no saved state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from authface_train.settings import TrainSettings
from manifests.support.errors import MissingResourceError

EIGHT_BIT_MOMENT_BYTES = 1 + 4 / 256
"""Bytes per 8-bit moment, with its share of the float32 scale of each block of 256 moments."""


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Learning rate of one optimizer step.

    Args:
        settings: `learning_rate`, `schedule`, `warmup_steps` and `steps` are used.
        step: Number of the step, from 0.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups.

    Args:
        optimizer: The optimizer.
        rate: The learning rate.
    """
    # torchao's compiled step reads the rate from a tensor, which must be filled in place.
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    settings: TrainSettings,
    working_weights: Sequence[torch.nn.Parameter] | None = None,
) -> torch.optim.Optimizer:
    """Create the AdamW variant of the setting `optimiser`.

    Args:
        parameters: The weights to update; those without `requires_grad` are ignored.
        settings: `optimiser`, `learning_rate`, `betas`, `epsilon`, `weight_decay` and
            `step_in_backward` are used.
        working_weights: The weights that the model computes with, if `parameters` are their
            masters; see `MasterWeights`.

    Raises:
        MissingResourceError: If the optimizer's library is not installed.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if settings.step_in_backward:
        return BackwardStepper(trainable, settings, working_weights or trainable)
    return _make_adamw(trainable, settings)


@dataclass(frozen=True)
class ParameterBytes:
    """Bytes per trained parameter.

    Attributes:
        weight: The weight that the optimizer updates and checkpoints hold.
        gradient: Its gradient.
        moments: Its two moments.
    """

    weight: float
    gradient: float
    moments: float


def bytes_per_parameter(settings: TrainSettings) -> ParameterBytes:
    """Memory that an optimizer takes per trained parameter.

    Args:
        settings: `optimiser` is used.
    """
    weight_bytes = 2.0 if settings.optimiser == "adamw-8bit-bf16" else 4.0
    moment_bytes = 4.0 if settings.optimiser == "adamw" else EIGHT_BIT_MOMENT_BYTES
    return ParameterBytes(weight_bytes, weight_bytes, 2 * moment_bytes)


def _make_adamw(
    parameters: list[torch.nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimiser == "adamw":
        # The implementations that are not fused hold a copy of all weights during a step.
        return torch.optim.AdamW(parameters, fused=True, **options)

    if settings.optimiser == "adamw-8bit":
        try:
            import bitsandbytes
        except ImportError as error:
            raise _missing_library("bitsandbytes", error) from error
        return bitsandbytes.optim.AdamW8bit(parameters, **options)

    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise _missing_library("torchao", error) from error
    return AdamW8bit(parameters, bf16_stochastic_round=True, **options)


def _missing_library(library: str, error: Exception) -> MissingResourceError:
    return MissingResourceError(
        f"this optimiser needs {library} ({error}); "
        f"pip install {library}, or use --set optimiser=adamw"
    )


class BackwardStepper(torch.optim.Optimizer):
    """Updates each parameter during the backward pass, as soon as its gradient is complete.

    The gradient is freed at once, so that the gradients of all parameters never exist together. The
    result equals that of one optimizer over all parameters. `step` and `zero_grad` do nothing.

    Args:
        parameters: The parameters to train.
        settings: Settings of the optimizer, see `make_optimizer`.
        working_weights: The weights of the backward pass: the parameters themselves, or the weights
            that they are the masters of.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        settings: TrainSettings,
        working_weights: Sequence[torch.nn.Parameter],
    ) -> None:
        super().__init__(parameters, {"lr": settings.learning_rate})
        self._optimizers = [_make_adamw([parameter], settings) for parameter in parameters]
        for weight, optimizer in zip(working_weights, self._optimizers, strict=True):
            hook = functools.partial(self._step_parameter, optimizer)
            weight.register_post_accumulate_grad_hook(hook)

    def _step_parameter(self, optimizer: torch.optim.Optimizer, _: torch.Tensor) -> None:
        set_learning_rate(optimizer, self.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing: the backward pass has updated the parameters."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the gradients are freed already."""

    def state_dict(self) -> dict[str, Any]:
        """The states of the optimizers of all parameters, in order."""
        return {"own": [optimizer.state_dict() for optimizer in self._optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state from `state_dict`."""
        for optimizer, state in zip(self._optimizers, state_dict["own"], strict=True):
            optimizer.load_state_dict(state)
