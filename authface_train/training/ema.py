"""Exponential moving average of a model's trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from authface_train.training.sharding import full_tensor, local_shard, shard_like


class EMA:
    """Averages the trained weights in fp32: `ema = d * ema + (1 - d) * weights`.

    d is the decay to the power of `every`. After n updates it is at most (1 + n) / (10 + n), so
    that the average follows the first steps closely.

    `diffusers.training_utils.EMAModel` is not used: it needs the average in the dtype of the
    weights (in bf16 most updates would round to nothing) and on their device, and it cannot gather
    the shards of an FSDP2 model into one state.

    Args:
        parameters: The trained weights. If they are sharded, each process averages its shards.
        decay: Weight of the average after one step, in [0, 1).
        device: Device that holds the average.
        on_change: Is called when `swapped_in` has changed the weights.
        every: Steps between updates.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        decay: float,
        device: torch.device,
        on_change: Callable[[], None],
        every: int = 1,
    ) -> None:
        self.parameters = parameters
        self.decay = decay
        self.every = every
        self.on_change = on_change
        self.steps = 0
        self.average = [
            local_shard(parameter).detach().to(device, torch.float32, copy=True)
            for parameter in self.parameters
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Include the current weights in the average if it is due. Call it after each step."""
        self.steps += 1
        if self.steps % self.every:
            return
        num_updates = self.steps // self.every - 1
        decay = min(self.decay**self.every, (1 + num_updates) / (10 + num_updates))
        for average, parameter in zip(self.average, self.parameters, strict=True):
            weights = local_shard(parameter).to(average.device, torch.float32)
            average.lerp_(weights, 1 - decay)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Replace the weights by the average inside the context."""
        trained = [
            local_shard(parameter).detach().to("cpu", copy=True) for parameter in self.parameters
        ]
        self._set_weights(self.average)
        try:
            yield
        finally:
            self._set_weights(trained)

    @torch.no_grad()
    def _set_weights(self, shards: list[torch.Tensor]) -> None:
        for parameter, shard in zip(self.parameters, shards, strict=True):
            local_shard(parameter).copy_(shard)
        self.on_change()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Gather the state on the CPU. All processes must call it together.

        Returns:
            The full averages by index of their parameter ("0", "1", ...), and `steps`.
        """
        state = {
            str(index): full_tensor(average, parameter)
            for index, (average, parameter) in enumerate(
                zip(self.average, self.parameters, strict=True)
            )
        }
        state["steps"] = torch.tensor(self.steps)
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load a state from `state_dict`; every process passes the full state."""
        self.steps = int(state["steps"])
        pairs = zip(self.average, self.parameters, strict=True)
        for index, (average, parameter) in enumerate(pairs):
            average.copy_(local_shard(shard_like(state[str(index)], parameter)))
