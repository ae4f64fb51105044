"""A model in training: the module, its master weights, its optimizer and its moving average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from authface_train.settings import TrainSettings
from authface_train.training import sharding
from authface_train.training.ema import EMA
from authface_train.training.master_weights import MasterWeights, uses_master_weights
from authface_train.training.optimizer import make_optimizer


@dataclass
class TrainableModel:
    """A module with its optimizer and EMA. A checkpoint holds the states of all three.

    Attributes:
        module: The module. With several processes FSDP2 may shard it, and DDP distributes it if it
            has no master weights.
        optimizer: Optimizer of the trained weights.
        ema: Moving average of the weights, or None if none is kept.
        masters: Float32 weights that the optimizer updates, if the module computes in bf16; None if
            it updates the module's own weights.
        in_bfloat16: Whether the module computes in bf16.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMA | None = None
    masters: MasterWeights | None = None
    in_bfloat16: bool = False

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """The weights that the optimizer updates."""
        if self.masters is not None:
            return list(self.masters.weights.values())
        return sharding.trainable_parameters(self.module)

    @contextlib.contextmanager
    def micro_batch(self, accelerator: Accelerator, *, is_last: bool) -> Iterator[None]:
        """Compute the gradients of a micro-batch.

        DDP and FSDP2 exchange them in the last one of a step; master weights do so in `update`.

        Args:
            accelerator: The run's accelerator.
            is_last: Whether the context computes the last micro-batch of a step.
        """
        if self.masters is not None:
            yield
        else:
            with sharding.no_sync(accelerator, self.module, is_last):
                yield

    def update(self, accelerator: Accelerator, settings: TrainSettings) -> torch.Tensor | None:
        """Clip the gradients, update weights and EMA, and free the gradients.

        All processes must call it together.

        Args:
            accelerator: The run's accelerator.
            settings: `clip_norm` and `step_in_backward` are used.

        Returns:
            The norm of the gradients before clipping, a scalar tensor. None with
            `step_in_backward`, where the backward pass has updated the weights already.
        """
        norm = None
        if not settings.step_in_backward:
            if self.masters is not None:
                self.masters.average_gradients()
            norm = sharding.clip_gradients(accelerator, self.weights, settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters is not None and not settings.step_in_backward:
            self.masters.publish()
        if self.ema is not None:
            self.ema.update()
        return norm

    def state(self, accelerator: Accelerator) -> dict[str, torch.Tensor]:
        """Gather the trained weights and the buffers. All processes must call it together.

        Args:
            accelerator: The run's accelerator.

        Returns:
            Full tensors by name on the CPU. For a sharded module they exist on the main process
            only.
        """
        if self.masters is None:
            return sharding.model_state(self.module, accelerator)
        parameters = dict(self.module.named_parameters())
        buffers = {
            name: value
            for name, value in self.module.state_dict().items()
            if name not in parameters
        }
        tensors = {**buffers, **self.masters.weights}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def load_state(self, state: dict[str, torch.Tensor], accelerator: Accelerator) -> None:
        """Load a state from `state`.

        Args:
            state: The full state, on every process.
            accelerator: The run's accelerator.
        """
        sharding.load_model_state(self.module, state, accelerator)
        if self.masters is not None:
            self.masters.load(state)

    def weights_changed(self) -> None:
        """Make the module compute with the present values of `weights`."""
        if self.masters is not None:
            self.masters.publish()
        else:
            sharding.reshard(self.module)

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
        settings: `optimiser`, `mixed_precision`, `sharding` and the settings of the EMA are used.
        accelerator: Knows the device and the processes.
    """
    # The base may be in half precision, as it is stored. Devices convert faster than the CPU.
    module.to(accelerator.device)
    if uses_master_weights(settings, accelerator.num_processes):
        model = _with_master_weights(module, settings, accelerator)
    else:
        in_bfloat16 = settings.optimiser == "adamw-8bit-bf16"
        torch.nn.Module.to(module, torch.bfloat16 if in_bfloat16 else torch.float32)
        distributed, optimizer = sharding.distribute_model(
            module, lambda parameters: make_optimizer(parameters, settings), settings, accelerator
        )
        model = TrainableModel(distributed, optimizer)
    model.in_bfloat16 = settings.mixed_precision == "bf16"
    if settings.ema_decay:
        on_gpu = settings.ema_device == "gpu"
        device = accelerator.device if on_gpu else torch.device("cpu")
        model.ema = EMA(
            model.weights,
            settings.ema_decay,
            device,
            on_change=model.weights_changed,
            every=settings.ema_every,
        )
    return model


def _with_master_weights(
    module: torch.nn.Module, settings: TrainSettings, accelerator: Accelerator
) -> TrainableModel:
    masters = MasterWeights(module, accelerator.num_processes)
    optimizer = make_optimizer(
        masters.weights.values(), settings, sharding.trainable_parameters(module)
    )
    if settings.step_in_backward:
        masters.publish_in_backward()
    return TrainableModel(module, accelerator.prepare(optimizer), masters=masters)
