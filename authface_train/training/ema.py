"""The exponential moving average of a model's trained weights, in fp32, on the card or beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from authface_train.training.sharding import divided, own_part, reshard, trained, whole


class EMA:
    """ema = decay * ema + (1 - decay) * weights after every step; in the first steps n the decay is (1 + n) / (10 + n) at most.

    Of a sharded model each process averages its own part.
    """

    def __init__(self, module: torch.nn.Module, decay: float, device: torch.device):
        self.module = module
        self.parameters: list[Any] = trained(module)
        self.decay, self.steps = decay, 0
        self.average = [
            own_part(one).detach().to(device, torch.float32, copy=True) for one in self.parameters
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for average, parameter in zip(self.average, self.parameters, strict=True):
            average.lerp_(own_part(parameter).to(average.device, torch.float32), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights meanwhile."""
        before = [own_part(one).detach().to("cpu", copy=True) for one in self.parameters]
        self._put(self.average)
        try:
            yield
        finally:
            self._put(before)

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            own_part(parameter).copy_(value)
        reshard(self.module)

    def state(self) -> dict[str, torch.Tensor]:
        """Whole averages by their parameters' numbers, on the CPU, and the steps. For all processes to call together."""
        averages = {
            str(n): whole(a, p)
            for n, (a, p) in enumerate(zip(self.average, self.parameters, strict=True))
        }
        return {**averages, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """The other way; each process gives the whole state."""
        self.steps = int(state["steps"])
        for number, (average, parameter) in enumerate(
            zip(self.average, self.parameters, strict=True)
        ):
            average.copy_(own_part(divided(state[str(number)], parameter)))
