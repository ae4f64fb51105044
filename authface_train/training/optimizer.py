"""The optimisers, and the learning rate as a plain function of the step: nothing of it needs to be saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from authface_train.settings import TrainSettings
from manifests.support.errors import MissingResourceError


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Of the step that comes after `step` are done, whatever the number of processes."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Of all groups. torchao keeps it in a tensor, which its compiled step reads."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """AdamW of the kind that the settings name. Raises MissingResourceError where its library is not installed."""
    own = [parameter for parameter in parameters if parameter.requires_grad]
    if settings.step_in_backward:
        return BackwardStepper(own, settings)
    return _adamw(own, settings)


def bytes_per_parameter(settings: TrainSettings) -> tuple[float, float, float]:
    """Of a trained weight, its gradient and its moments."""
    weight = 2.0 if settings.optimiser == "adamw-8bit-bf16" else 4.0
    return (
        weight,
        weight,
        8.0 if settings.optimiser == "adamw" else 2.0 + 2 * 4 / 256,
    )  # a scale per block of 256


def _adamw(parameters: list[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(
            parameters, fused=True, **options
        )  # the others hold a copy of all weights while stepping
    if settings.optimiser == "adamw-8bit":
        try:
            import bitsandbytes
        except ImportError as error:
            raise _missing("bitsandbytes", error) from error
        return bitsandbytes.optim.AdamW8bit(parameters, **options)
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise _missing("torchao", error) from error
    return AdamW8bit(parameters, bf16_stochastic_round=True, **options)


def _missing(library: str, error: Exception) -> MissingResourceError:
    return MissingResourceError(
        f"this optimiser is {library}'s ({error}): pip install {library}, or --set optimiser=adamw"
    )


class BackwardStepper(torch.optim.Optimizer):
    """Steps each parameter as soon as its gradient is whole and frees it: all gradients are never there at once.

    `step` and `zero_grad` have nothing left to do. Gives what one optimiser over all parameters gives.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], settings: TrainSettings):
        super().__init__(parameters, {"lr": settings.learning_rate})
        self._own = [_adamw([parameter], settings) for parameter in parameters]
        for parameter, own in zip(parameters, self._own, strict=True):
            parameter.register_post_accumulate_grad_hook(lambda _, own=own: self._step_one(own))

    def _step_one(self, own: torch.optim.Optimizer) -> None:
        set_learning_rate(own, self.param_groups[0]["lr"])
        own.step()
        own.zero_grad(set_to_none=True)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"own": [own.state_dict() for own in self._own]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for own, state in zip(self._own, state_dict["own"], strict=True):
            own.load_state_dict(state)
