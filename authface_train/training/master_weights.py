"""Float32 master weights of a model that computes in bf16.

A bf16 weight has 8 significant bits, so that an update at a learning rate of 5e-7 rounds to
nothing. The optimizer therefore updates float32 weights, and after each step they are rounded to
the weights that the model computes with. The gradients of micro-batches are added up in float32,
too (Micikevicius et al. 2018, "Mixed Precision Training").

Autocast, in contrast, casts all weights in every micro-batch and computes norms in float32, which
doubles the memory traffic of the activations around them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn

from authface_train.settings import TrainSettings

FROZEN_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Dtypes of a frozen model's weights by `mixed_precision`."""


def uses_master_weights(settings: TrainSettings, num_processes: int) -> bool:
    """Whether a model in training has master weights.

    FSDP2 keeps float32 shards itself, and `adamw-8bit-bf16` rounds stochastically instead.

    Args:
        settings: `mixed_precision`, `optimiser` and `sharding` are used.
        num_processes: Number of processes.
    """
    is_sharded = settings.sharding != "none" and num_processes > 1
    return (
        settings.mixed_precision == "bf16"
        and settings.optimiser != "adamw-8bit-bf16"
        and not is_sharded
    )


class MasterWeights:
    """Keeps float32 copies of a module's trained weights and collects their gradients.

    Args:
        module: The module, on its device. It is converted to bf16 in place.
        num_processes: Number of processes that train the module. They start with the weights of the
            main process and average their gradients.

    Attributes:
        weights: Float32 parameters by name. Their `grad` is the sum over the micro-batches.
    """

    def __init__(self, module: nn.Module, num_processes: int) -> None:
        self.num_processes = num_processes
        if num_processes > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)
        self._working = {
            name: weight for name, weight in module.named_parameters() if weight.requires_grad
        }
        # Float32 memory of the module becomes that of the master weights.
        self.weights = {
            name: nn.Parameter(value.detach().float()) for name, value in self._working.items()
        }
        # The `to` of diffusers' models warns about modules that SDXL does not have.
        nn.Module.to(module, torch.bfloat16)
        for name, weight in self._working.items():
            # A hook that refers to this object would keep it and the module alive for ever.
            weight.register_post_accumulate_grad_hook(
                functools.partial(_collect, self.weights[name])
            )

    def average_gradients(self) -> None:
        """Average the gradients over the processes. All processes must call it together."""
        if self.num_processes == 1:
            return
        reductions = []
        for weight in self.weights.values():  # the same order on every process
            assert weight.grad is not None
            weight.grad.div_(self.num_processes)
            reductions.append(dist.all_reduce(weight.grad, async_op=True))
        for reduction in reductions:
            assert reduction is not None
            reduction.wait()

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set the master weights. The module's own weights are not changed.

        Args:
            state: Float32 values by name; other names are ignored.
        """
        for name, weight in self.weights.items():
            weight.copy_(state[name])

    @torch.no_grad()
    def publish(self) -> None:
        """Round the master weights to the module's bf16 weights. Call it after each change."""
        for name, weight in self._working.items():
            weight.copy_(self.weights[name])

    def publish_in_backward(self) -> None:
        """Publish each weight as soon as its gradient is complete, for `step_in_backward`.

        Call it after the optimizer has registered its own hooks.
        """
        for name, weight in self._working.items():
            hook = functools.partial(_copy, self.weights[name])
            weight.register_post_accumulate_grad_hook(hook)


def _collect(master: nn.Parameter, weight: torch.Tensor) -> None:
    """Add the gradient of a bf16 weight to that of its master weight, and free it."""
    assert weight.grad is not None
    if master.grad is None:
        master.grad = weight.grad.float()
    else:
        master.grad.add_(weight.grad)
    weight.grad = None


@torch.no_grad()
def _copy(master: nn.Parameter, weight: torch.Tensor) -> None:
    weight.copy_(master)
