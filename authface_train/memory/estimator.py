"""Estimates the memory of a training run without allocating it.

A `FakeTensorPass` runs the forward and backward pass of one or two micro-batches on fake tensors:
torch's FakeTensorMode computes the shape, dtype and device of every tensor but allocates no memory.
A dispatch mode adds up the bytes of the tensors that are alive at the same time. Weights,
gradients, optimizer state and EMA follow from the number of parameters.

torch's own tools do not replace this: `torch.cuda.max_memory_allocated` needs the GPU and a run
that fits into it, and `torch.distributed._tools.mem_tracker` is not a public API. The estimate must
work before the run fits, on any machine and for every preset. All sizes are in bytes per device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from authface_train.data.cores import processes_per_machine
from authface_train.memory.peak_cache import PeakCache
from authface_train.settings import PriorSettings, TrainSettings
from authface_train.training.loop import samples_per_process
from authface_train.training.master_weights import uses_master_weights
from authface_train.training.optimizer import bytes_per_parameter
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.host_memory import available_bytes

USABLE_FRACTION = 0.92
"""Share of the memory that a run may fill. The rest is for the CUDA context and fragmentation."""
MAX_MICRO_BATCH = 16
"""Larger micro-batches do not make training faster."""
FLOAT32_BYTES = 4.0
BFLOAT16_BYTES = 2.0
PASS_SETTINGS = {"resolution_px", "mixed_precision", "gradient_checkpointing", "lora_rank"}
"""Settings that a fake pass depends on, beside the fields of its `PassConfig`."""
PASS_VERSION = 2
"""Increased when fake passes count otherwise, so that cached peaks are made again."""


@dataclass(frozen=True)
class PassConfig:
    """How a fake pass is run.

    Attributes:
        settings: Settings of the run.
        micro_batch: Samples of the forward pass.
        device: Device of the fake tensors. It need not exist on this machine.
        weight_dtype: Dtype of the weights that the models compute with.
        gradients: What happens to a gradient once it is computed. "kept": it stays in the dtype of
            the weight. "float32": it is added to a float32 gradient and freed. "freed": it is
            freed, as with `step_in_backward` or when processes share it at once.
        accumulate: Whether a second micro-batch follows while the first one's gradients are kept.
    """

    settings: TrainSettings
    micro_batch: int
    device: torch.device
    weight_dtype: torch.dtype
    gradients: Literal["kept", "float32", "freed"]
    accumulate: bool


class PeakKey(NamedTuple):
    """What the peak of a pass depends on, beside the models and the version of torch."""

    stage: str
    resolution_px: int
    mixed_precision: str
    gradient_checkpointing: bool
    lora_rank: int
    micro_batch: int
    weight_dtype: str
    gradients: str
    accumulate: bool

    @classmethod
    def of(cls, config: PassConfig) -> PeakKey:
        """The key of a pass."""
        settings = config.settings
        is_prior = isinstance(settings, PriorSettings)
        return cls(
            stage="prior" if is_prior else "restorer",
            resolution_px=settings.resolution_px,
            mixed_precision=settings.mixed_precision,
            gradient_checkpointing=settings.gradient_checkpointing,
            lora_rank=settings.lora_rank if isinstance(settings, PriorSettings) else 0,
            micro_batch=config.micro_batch,
            weight_dtype=str(config.weight_dtype).removeprefix("torch."),
            gradients=config.gradients,
            accumulate=config.accumulate,
        )


class FakeTensorPass(Protocol):
    """The models of a stage, for estimating their memory.

    Attributes:
        num_trainable: Number of trained parameters.
        frozen_bytes: Memory in bytes of everything else that the stage keeps: frozen weights, and
            in Stage II the discriminators with their gradients and optimizer.
        models: Classes and configurations of the models, as JSON. Equal ones need equal memory.
    """

    num_trainable: int
    frozen_bytes: float
    models: str

    def run(self, config: PassConfig, counter: LiveBytes) -> None:
        """Run the forward and backward pass of a micro-batch on fake tensors.

        Args:
            config: How the pass is run.
            counter: Context in which the pass is run, after models and inputs have been created.
                The weights of the models are excluded from its count.
        """
        ...


@dataclass(frozen=True)
class MemoryUse:
    """Estimated memory of one device, in bytes.

    Attributes:
        parameters: Trained and frozen weights, and the bf16 weights beside master weights.
        gradients: Gradients that stay until the optimizer steps.
        optimiser: Optimizer state.
        average: EMA weights on this device.
        activations: Peak of everything else: activations, copies of weights for autocast, gathered
            shards.
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


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, for as long as they are alive.

    Views of a tensor count with it, and those of excluded tensors do not count.

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

    def exclude(self, module: torch.nn.Module) -> None:
        """Do not count the weights and buffers of a module, nor views of them."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._storages.add(tensor.untyped_storage()._cdata)

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


def memory_capacity(device: torch.device) -> float:
    """Memory in bytes that a run may use on a device.

    Args:
        device: The GPU of a process, or the CPU, whose free memory the processes of this machine
            share.
    """
    if device.type == "cuda":
        return USABLE_FRACTION * torch.cuda.get_device_properties(device).total_memory
    return USABLE_FRACTION * available_bytes() / processes_per_machine()


class MemoryEstimator:
    """Estimates the memory that a stage's training takes on a device.

    Args:
        fake_pass: The models of the stage.
        device: Device to train on.
        peak_cache: Keeps the peaks of fake passes for later runs.
        known_peaks: Peaks in bytes that need no fake pass.
    """

    def __init__(
        self,
        fake_pass: FakeTensorPass,
        device: torch.device,
        peak_cache: PeakCache | None = None,
        known_peaks: Mapping[PeakKey, int] | None = None,
    ) -> None:
        self.fake_pass = fake_pass
        self.device = device
        self.peak_cache = peak_cache
        self.known_peaks = known_peaks or {}
        self._peaks: dict[str, int] = {}

    def estimate(self, settings: TrainSettings, micro_batch: int, num_processes: int) -> MemoryUse:
        """Estimate the memory of a run on each device.

        Args:
            settings: Settings of the run.
            micro_batch: Samples per process and forward pass.
            num_processes: Number of processes, one per device.
        """
        num_trainable = self.fake_pass.num_trainable
        per_parameter = bytes_per_parameter(settings)
        weight = per_parameter.weight * num_trainable
        gradient = per_parameter.gradient * num_trainable
        optimizer_state = per_parameter.moments * num_trainable
        frozen = self.fake_pass.frozen_bytes

        is_sharded = settings.sharding != "none" and num_processes > 1
        has_masters = uses_master_weights(settings, num_processes)
        in_bfloat16 = settings.mixed_precision == "bf16"
        weight_dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        accumulate = settings.batch // num_processes > micro_batch
        gradients: Literal["kept", "float32", "freed"] = "kept"
        if settings.step_in_backward or (is_sharded and not accumulate):
            gradients = "freed"
        elif has_masters or is_sharded:
            # FSDP2 adds up whole float32 gradients before it shares them in the last micro-batch.
            gradients = "float32"
        # The peak grows with the micro-batch, and faster once activations exceed the gradients that
        # replace them. The line between the smallest and the largest one is therefore an upper
        # bound, which is exact if the growth is linear.
        pass_of_one = PassConfig(
            settings=settings,
            micro_batch=1,
            device=self.device,
            weight_dtype=weight_dtype,
            gradients=gradients,
            accumulate=accumulate,
        )
        smallest = self._peak_bytes(pass_of_one)
        largest = self._peak_bytes(replace(pass_of_one, micro_batch=MAX_MICRO_BATCH))
        peak = smallest + (largest - smallest) * (micro_batch - 1) / (MAX_MICRO_BATCH - 1)

        ema_on_device = settings.ema_device == "gpu" or self.device.type == "cpu"
        ema = FLOAT32_BYTES * num_trainable if settings.ema_decay and ema_on_device else 0.0
        # The pass counts the gradients that stay until its end.
        kept = 0.0 if gradients == "freed" else gradient
        activations = max(0.0, peak - kept)
        if is_sharded:
            # `gradients` gathers all weights. `full` gathers those of two blocks at a time; the
            # larger blocks of SDXL hold a sixteenth of its weights each.
            gathered_share = 1.0 if settings.sharding == "gradients" else 1 / 8
            gathered_weight = BFLOAT16_BYTES if in_bfloat16 else FLOAT32_BYTES
            gathered = gathered_weight * num_trainable * gathered_share
            return MemoryUse(
                parameters=weight / num_processes + frozen,
                gradients=kept + gradient / num_processes,
                optimiser=optimizer_state / num_processes,
                average=ema / num_processes,
                activations=activations + gathered,
            )

        working = BFLOAT16_BYTES * num_trainable if has_masters else 0.0
        return MemoryUse(
            parameters=weight + working + frozen,
            gradients=kept,
            optimiser=optimizer_state,
            average=ema,
            activations=activations,
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
        known = self.known_peaks.get(PeakKey.of(config))
        if known is not None:
            return known
        key = fingerprint(
            models=self.fake_pass.models,
            device=self.device.type,
            settings=config.settings.model_dump(mode="json", include=PASS_SETTINGS),
            micro_batch=config.micro_batch,
            weight_dtype=str(config.weight_dtype),
            gradients=config.gradients,
            accumulate=config.accumulate,
            versions=[torch.__version__, PASS_VERSION],
        )
        if key in self._peaks:
            return self._peaks[key]
        peak = self.peak_cache.read(key) if self.peak_cache else None
        if peak is None:
            live_bytes = LiveBytes()
            self.fake_pass.run(config, live_bytes)
            peak = live_bytes.peak
            if self.peak_cache:
                self.peak_cache.write(key, peak)
        self._peaks[key] = peak
        return peak


@dataclass(frozen=True)
class DiskUse:
    """Disk space of a run, in bytes.

    Attributes:
        checkpoint: Size of a checkpoint.
        num_kept: Number of checkpoints that are kept.
        model: Size of the finished model.
    """

    checkpoint: float
    num_kept: int
    model: float

    @property
    def peak(self) -> float:
        """Most space that the run takes at once.

        A new checkpoint is written before the oldest one is removed. When the model is written, the
        oldest one has been removed.
        """
        return max(
            (self.num_kept + 1) * self.checkpoint, self.num_kept * self.checkpoint + self.model
        )

    def missing(self, present: float, *, has_steps_left: bool) -> float:
        """Free space that a resumed run needs.

        Args:
            present: Size of the checkpoints that the run has.
            has_steps_left: Whether the run still writes checkpoints.
        """
        if not has_steps_left:
            return self.model
        return max(self.checkpoint, self.peak - present)


def estimate_disk_use(
    fake_pass: FakeTensorPass, settings: TrainSettings, model_bytes: float
) -> DiskUse:
    """Estimate the disk space of a run's checkpoints and its finished model.

    Args:
        fake_pass: The models of the stage.
        settings: `optimiser`, `ema_decay`, `keep_checkpoints` and `audit` are used.
        model_bytes: Size of the finished model.
    """
    per_parameter = bytes_per_parameter(settings)
    ema = FLOAT32_BYTES if settings.ema_decay else 0.0
    # The best checkpoint by the memorisation audit is kept beside the newest ones.
    num_best = 1 if isinstance(settings, PriorSettings) and settings.audit else 0
    return DiskUse(
        checkpoint=fake_pass.num_trainable * (per_parameter.weight + per_parameter.moments + ema),
        num_kept=settings.keep_checkpoints + num_best,
        model=model_bytes,
    )


def count_parameters(*models: torch.nn.Module) -> int:
    """Number of parameters of the models."""
    return sum(parameter.numel() for model in models for parameter in model.parameters())
