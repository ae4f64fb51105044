"""The memory that training takes, found without taking it: one micro-batch is rehearsed on tensors that have no data."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from authface_train.settings import TrainSettings
from authface_train.training.loop import samples_per_process
from authface_train.training.optimizer import bytes_per_parameter
from manifests.support.errors import UserError

FILL = 0.92  # of a card: the rest is for its context and for what the allocator cannot use
MOST_MICRO = 16  # more samples at once make nothing faster


class FakeTensorPass(Protocol):
    """What a stage trains, for its memory's sake. trained: parameters; frozen_bytes: of models that stay beside it."""

    trained: int
    frozen_bytes: float

    def __call__(
        self,
        settings: Any,
        micro_batch: int,
        device: torch.device,
        dtype: torch.dtype,
        keep: bool,
        again: bool,
        live: Any,
    ) -> None:
        """Forward and backward of a micro-batch through a model of its own, made of tensors without data, its weights in dtype.

        keep: gradients stay, else each goes as soon as it is there. again: a second micro-batch follows the first. live: the
        context for what is to be counted.
        """
        ...


@dataclass(frozen=True)
class MemoryUse:
    """Bytes per card. activations: the most that is there beside the rest; copies in lower precision, gathered shards."""

    parameters: float
    gradients: float
    optimiser: float
    average: float
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimiser + self.average + self.activations


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.most = 0, 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_iter(made):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                key = storage._cdata
                if key not in self._storages:
                    self._storages.add(key)
                    size = storage.nbytes()
                    self.bytes += size
                    self.most = max(self.most, self.bytes)
                    weakref.finalize(storage, self._gone, key, size)
        return made

    def _gone(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.bytes -= size


def capacity(device: torch.device, local_world: int) -> float:
    """Bytes that a process may fill: of its card, or its share of what memory is free."""
    if device.type == "cuda":
        return FILL * torch.cuda.get_device_properties(device).total_memory
    return FILL * psutil.virtual_memory().available / local_world


class MemoryEstimator:
    """What a stage's training takes of a card of that device."""

    def __init__(self, rehearsal: FakeTensorPass, device: torch.device):
        self.rehearsal, self.device = rehearsal, device
        self._measured: dict[tuple, int] = {}

    def memory(self, settings: TrainSettings, micro_batch: int, world: int) -> MemoryUse:
        """For a micro-batch and so many processes."""
        trained, frozen = self.rehearsal.trained, self.rehearsal.frozen_bytes
        weight, gradient, moments = (trained * size for size in bytes_per_parameter(settings))
        sharded = settings.sharding != "none" and world > 1
        low = settings.mixed_precision == "bf16" and (
            sharded or settings.optimiser == "adamw-8bit-bf16"
        )
        keep = not (settings.step_in_backward or sharded)
        again = keep and settings.batch // world > micro_batch
        one, two = (
            self._most(settings, many, torch.bfloat16 if low else torch.float32, keep, again)
            for many in (1, 2)
        )
        most = one + (two - one) * (
            micro_batch - 1
        )  # beyond two samples it goes on in a straight line
        on_card = settings.ema_device == "gpu" or self.device.type == "cpu"
        average = 4.0 * trained if settings.ema_decay and on_card else 0.0
        if sharded:
            # Gathered weights: all of them, or those of two blocks, of which SDXL's larger ones are a sixteenth each.
            gathered = (
                (2.0 if low else 4.0)
                * trained
                * (1.0 if settings.sharding == "gradients" else 1 / 8)
            )
            return MemoryUse(
                weight / world + frozen,
                gradient / world,
                moments / world,
                average / world,
                most + gathered,
            )
        gradients = gradient if keep else 0.0
        return MemoryUse(weight + frozen, gradients, moments, average, max(0.0, most - gradients))

    def derive_micro_batch(self, settings: TrainSettings, world: int, room: float) -> int:
        """The most samples that fit into `room` bytes, of those that divide a process's share of the batch.

        Raises UserError where not one does.
        """
        share = samples_per_process(settings, world)
        for micro in sorted(
            (n for n in range(1, min(MOST_MICRO, share) + 1) if share % n == 0), reverse=True
        ):
            needed = self.memory(settings, micro, world).total
            if needed <= room:
                return micro
        raise UserError(
            f"it does not fit: one sample at a time takes {needed / 1e9:.3g} GB and there are {room / 1e9:.3g} GB; --dry-run "
            "says which preset does"
        )

    def _most(
        self, settings: TrainSettings, many: int, dtype: torch.dtype, keep: bool, again: bool
    ) -> int:
        key = (
            settings.model_dump_json(exclude={"batch", "micro_batch", "steps"}),
            many,
            dtype,
            keep,
            again,
        )
        if key not in self._measured:
            live = _Live()
            self.rehearsal(settings, many, self.device, dtype, keep, again, live)
            self._measured[key] = live.most
        return self._measured[key]


def disk_bytes(rehearsal: FakeTensorPass, settings: TrainSettings, model_bytes: float) -> float:
    """What a run writes at most: its checkpoints, one more while the oldest is still there, and the finished model."""
    weight, _, moments = bytes_per_parameter(settings)
    checkpoint = rehearsal.trained * (weight + moments + (4.0 if settings.ema_decay else 0.0))
    return (settings.keep_checkpoints + 1) * checkpoint + model_bytes


def bytes_of(*models: torch.nn.Module) -> float:
    """Of their weights."""
    return float(
        sum(
            parameter.numel() * parameter.element_size()
            for model in models
            for parameter in model.parameters()
        )
    )
