"""Estimates the memory of a training run without allocating it.

A `FakeTensorPass` runs the forward and backward pass of one micro-batch on fake tensors: torch's
FakeTensorMode computes the shape, dtype and device of every tensor but allocates no memory. A
dispatch mode adds up the bytes of the tensors that are alive at the same time. Weights, gradients,
optimizer state and EMA follow from the number of parameters.

torch's own tools do not replace this: `torch.cuda.max_memory_allocated` needs the GPU and a run
that fits into it, and `torch.distributed._tools.mem_tracker` is not a public API. The estimate must
work before the run fits, on any machine and for every preset. All sizes are in bytes per device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from authface_train.settings import TrainSettings
from authface_train.training.loop import samples_per_process
from authface_train.training.optimizer import bytes_per_parameter
from manifests.support.errors import UserError

USABLE_FRACTION = 0.92
"""Share of the memory that a run may fill. The rest is for the CUDA context and fragmentation."""
MAX_MICRO_BATCH = 16
"""Larger micro-batches do not make training faster."""
FLOAT32_BYTES = 4.0
BFLOAT16_BYTES = 2.0


@dataclass(frozen=True)
class PassConfig:
    """How a fake pass is run.

    Attributes:
        settings: Settings of the run.
        micro_batch: Samples of the forward pass.
        device: Device of the fake tensors. It need not exist on this machine.
        weight_dtype: Dtype of the trained weights.
        keep_gradients: Whether gradients stay in memory. If not, each is freed once it is computed,
            as with `step_in_backward` or sharded gradients.
        accumulate: Whether a second micro-batch follows while the first one's gradients are kept.
    """

    settings: TrainSettings
    micro_batch: int
    device: torch.device
    weight_dtype: torch.dtype
    keep_gradients: bool
    accumulate: bool


class FakeTensorPass(Protocol):
    """The models of a stage, for estimating their memory.

    Attributes:
        num_trainable: Number of trained parameters.
        frozen_bytes: Memory in bytes of everything else that the stage keeps: frozen weights, and
            in Stage II the discriminators with their gradients and optimizer.
    """

    num_trainable: int
    frozen_bytes: float

    def run(self, config: PassConfig, counter: AbstractContextManager[object]) -> None:
        """Run the forward and backward pass of a micro-batch on fake tensors.

        Args:
            config: How the pass is run.
            counter: Context in which the pass is run, after models and inputs have been created.
        """
        ...


@dataclass(frozen=True)
class MemoryUse:
    """Estimated memory of one device, in bytes.

    Attributes:
        parameters: Trained and frozen weights.
        gradients: Gradients that stay until the optimizer steps.
        optimiser: Optimizer state.
        average: EMA weights on this device.
        activations: Peak of everything else: activations, copies of weights in lower precision,
            gathered shards.
    """

    parameters: float
    gradients: float
    optimiser: float
    average: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.parameters + self.gradients + self.optimiser + self.average + self.activations


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, for as long as they are alive.

    Attributes:
        current: Bytes alive now.
        peak: Most bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        # Views share a storage, which counts once.
        key = storage._cdata
        if key in self._storages:
            return
        num_bytes = storage.nbytes()
        self._storages.add(key)
        self.current += num_bytes
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._remove, key, num_bytes)

    def _remove(self, key: int, num_bytes: int) -> None:
        self._storages.discard(key)
        self.current -= num_bytes


def memory_capacity(device: torch.device, num_local_processes: int) -> float:
    """Memory in bytes that a run may use on a device.

    Args:
        device: The GPU of a process, or the CPU.
        num_local_processes: Number of processes that share the free memory of a CPU.
    """
    if device.type == "cuda":
        return USABLE_FRACTION * torch.cuda.get_device_properties(device).total_memory
    return USABLE_FRACTION * psutil.virtual_memory().available / num_local_processes


class MemoryEstimator:
    """Estimates the memory that a stage's training takes on a device.

    Args:
        fake_pass: The models of the stage.
        device: Device to train on.
    """

    def __init__(self, fake_pass: FakeTensorPass, device: torch.device) -> None:
        self.fake_pass = fake_pass
        self.device = device
        self._peaks: dict[tuple[object, ...], int] = {}

    def estimate(self, settings: TrainSettings, micro_batch: int, num_processes: int) -> MemoryUse:
        """Estimate the memory of a run on each device.

        Args:
            settings: Settings of the run.
            micro_batch: Samples per process and forward pass.
            num_processes: Number of processes, one per device.
        """
        num_trainable = self.fake_pass.num_trainable
        per_parameter = bytes_per_parameter(settings)
        weight, gradient, optimizer_state = (num_trainable * size for size in per_parameter)
        frozen = self.fake_pass.frozen_bytes

        is_sharded = settings.sharding != "none" and num_processes > 1
        in_bfloat16 = settings.mixed_precision == "bf16" and (
            is_sharded or settings.optimiser == "adamw-8bit-bf16"
        )
        keep_gradients = not (settings.step_in_backward or is_sharded)
        accumulate = keep_gradients and settings.batch // num_processes > micro_batch
        weight_dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        # Memory grows linearly with the micro-batch: passes of one and two samples determine it.
        pass_of_one = PassConfig(
            settings=settings,
            micro_batch=1,
            device=self.device,
            weight_dtype=weight_dtype,
            keep_gradients=keep_gradients,
            accumulate=accumulate,
        )
        peak_of_one = self._peak_bytes(pass_of_one)
        peak_of_two = self._peak_bytes(replace(pass_of_one, micro_batch=2))
        peak = peak_of_one + (peak_of_two - peak_of_one) * (micro_batch - 1)

        ema_on_device = settings.ema_device == "gpu" or self.device.type == "cpu"
        ema = FLOAT32_BYTES * num_trainable if settings.ema_decay and ema_on_device else 0.0
        if is_sharded:
            # `gradients` gathers all weights. `full` gathers those of two blocks at a time; the
            # larger blocks of SDXL hold a sixteenth of its weights each.
            gathered_share = 1.0 if settings.sharding == "gradients" else 1 / 8
            gathered_weight = BFLOAT16_BYTES if in_bfloat16 else FLOAT32_BYTES
            gathered = gathered_weight * num_trainable * gathered_share
            return MemoryUse(
                parameters=weight / num_processes + frozen,
                gradients=gradient / num_processes,
                optimiser=optimizer_state / num_processes,
                average=ema / num_processes,
                activations=peak + gathered,
            )

        gradients = gradient if keep_gradients else 0.0
        return MemoryUse(
            parameters=weight + frozen,
            gradients=gradients,
            optimiser=optimizer_state,
            average=ema,
            # The pass counts the gradients that it keeps.
            activations=max(0.0, peak - gradients),
        )

    def derive_micro_batch(
        self, settings: TrainSettings, num_processes: int, available_bytes: float
    ) -> int:
        """The largest micro-batch that fits into memory and divides a process's share of the batch.

        Args:
            settings: Settings of the run; `batch` is the global batch.
            num_processes: Number of processes, one per device.
            available_bytes: Memory in bytes that a run may use on each device.

        Raises:
            UserError: If not even one sample fits.
        """
        share = samples_per_process(settings, num_processes)
        largest = min(MAX_MICRO_BATCH, share)
        for micro_batch in range(largest, 0, -1):
            if share % micro_batch:
                continue
            needed_bytes = self.estimate(settings, micro_batch, num_processes).total
            if needed_bytes <= available_bytes:
                return micro_batch
        raise UserError(
            f"the run does not fit into memory: a micro-batch of one sample needs "
            f"{needed_bytes / 1e9:.3g} GB and {available_bytes / 1e9:.3g} GB are available; "
            "--dry-run names a preset that fits"
        )

    def _peak_bytes(self, config: PassConfig) -> int:
        """Peak bytes of a fake pass, without the trained and frozen weights; computed once."""
        key = (
            # These settings do not change a pass of a given micro-batch.
            config.settings.model_dump_json(exclude={"batch", "micro_batch", "steps"}),
            config.micro_batch,
            config.weight_dtype,
            config.keep_gradients,
            config.accumulate,
        )
        if key not in self._peaks:
            live_bytes = _LiveBytes()
            self.fake_pass.run(config, live_bytes)
            self._peaks[key] = live_bytes.peak
        return self._peaks[key]


def estimate_disk_bytes(
    fake_pass: FakeTensorPass, settings: TrainSettings, model_bytes: float
) -> float:
    """Maximum disk space in bytes that a run's checkpoints and its finished model take.

    Args:
        fake_pass: The models of the stage.
        settings: `optimiser`, `ema_decay` and `keep_checkpoints` are used.
        model_bytes: Size of the finished model.
    """
    weight, _, optimizer_state = bytes_per_parameter(settings)
    ema = FLOAT32_BYTES if settings.ema_decay else 0.0
    checkpoint_bytes = fake_pass.num_trainable * (weight + optimizer_state + ema)
    # A new checkpoint is written before the oldest one is removed.
    return (settings.keep_checkpoints + 1) * checkpoint_bytes + model_bytes


def parameter_bytes(*models: torch.nn.Module) -> float:
    """Size of the models' parameters in bytes."""
    total = 0
    for model in models:
        for parameter in model.parameters():
            total += parameter.numel() * parameter.element_size()
    return float(total)
