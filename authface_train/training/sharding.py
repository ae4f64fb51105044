"""Distributes a model over processes, and gathers or restores its state.

A model is either replicated (DDP) or sharded (torch's FSDP2). `accelerate launch` has other names
for the same arrangements: ZeRO-2 is `gradients`; ZeRO-3 and full sharding of FSDP are `full`. All
of them are done with FSDP2 here, so that every arrangement writes the same checkpoint files and can
resume from those of another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from authface_train.settings import TrainSettings
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OptimizerState = dict[str, Any]

SHARDED_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D")
"""Blocks of SDXL's U-Net that are sharded one by one, so that few weights are gathered at once."""


def sharding_from_launcher() -> str | None:
    """Read the sharding that `accelerate launch` was configured for.

    The launcher's environment variables are removed, since Accelerate would otherwise shard the
    model a second time.

    Returns:
        "gradients" or "full", or None if the launcher does not shard.
    """
    use_fsdp = os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    use_deepspeed = os.environ.pop("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if use_deepspeed:
        zero_stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
        return "full" if zero_stage == "3" else "gradients"
    if use_fsdp:
        reshard_after_forward = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
        return "gradients" if reshard_after_forward in ("false", "shard_grad_op") else "full"
    return None


def check_distribution(settings: TrainSettings, num_processes: int) -> None:
    """Check that the settings work with a number of processes.

    Args:
        settings: `sharding`, `optimiser`, `mixed_precision` and `step_in_backward` are used.
        num_processes: Number of processes.

    Raises:
        UserError: If they do not.
    """
    if num_processes == 1:
        return
    if settings.step_in_backward:
        raise UserError(
            "step_in_backward works with one process only; with several, use --set sharding=full "
            "to save the memory of gradients"
        )
    is_supported = settings.optimiser == "adamw" and settings.mixed_precision != "fp16"
    if settings.sharding != "none" and not is_supported:
        raise UserError(
            f"sharding={settings.sharding} needs optimiser=adamw and mixed_precision=bf16 or no; "
            "use those, or --set sharding=none"
        )


def distribute_model(
    module: nn.Module,
    make_optimizer: OptimizerFactory,
    settings: TrainSettings,
    accelerator: Accelerator,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Distribute a model over the processes and prepare its optimizer.

    Args:
        module: The model to train.
        make_optimizer: Creates the optimizer from the distributed parameters.
        settings: `sharding`, `optimiser`, `mixed_precision` and `step_in_backward` are used.
        accelerator: The run's accelerator.

    Returns:
        The distributed module and the prepared optimizer.
    """
    if accelerator.num_processes == 1 or settings.sharding == "none":
        return accelerator.prepare(module, make_optimizer(module.parameters()))

    module.to(accelerator.device)
    _shard_module(module, settings)
    return module, accelerator.prepare(make_optimizer(module.parameters()))


def _shard_module(module: nn.Module, settings: TrainSettings) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    low_precision = torch.bfloat16 if settings.mixed_precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low_precision, reduce_dtype=torch.float32)
    reshard_after_forward = settings.sharding == "full"
    for block in module.modules():
        if type(block).__name__ in SHARDED_BLOCKS:
            fully_shard(block, mp_policy=policy, reshard_after_forward=reshard_after_forward)
    fully_shard(module, mp_policy=policy, reshard_after_forward=reshard_after_forward)


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters with `requires_grad`, in the order in which the optimizer numbers them."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def is_sharded(module: nn.Module) -> bool:
    """Whether a module is sharded with FSDP2."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def reshard(module: nn.Module) -> None:
    """Free the gathered weights of a sharded module.

    A forward pass without a backward pass leaves them gathered, and the next one would use them
    even though the shards have changed since.
    """
    from torch.distributed.fsdp import FSDPModule

    for submodule in module.modules():
        if isinstance(submodule, FSDPModule):
            submodule.reshard()


@contextlib.contextmanager
def no_sync(accelerator: Accelerator, module: nn.Module, last: bool) -> Iterator[None]:
    """Exchange gradients between processes only in the last micro-batch of a step.

    Args:
        accelerator: The run's accelerator.
        module: The distributed module.
        last: Whether the context computes the last micro-batch.
    """
    if is_sharded(module):
        cast(Any, module).set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(module):
            yield


def clip_gradients(
    accelerator: Accelerator, weights: Iterable[nn.Parameter], max_norm: float
) -> torch.Tensor:
    """Scale the gradients down to a norm over all weights and processes.

    Args:
        accelerator: The run's accelerator.
        weights: The trained weights.
        max_norm: Largest L2 norm; 0 leaves the gradients unchanged.

    Returns:
        The norm before clipping, a scalar tensor.
    """
    accelerator.unscale_gradients()
    norm = torch.nn.utils.clip_grad_norm_(weights, max_norm or float("inf"))
    return cast("DTensor", norm).full_tensor() if _is_dtensor(norm) else norm


def model_state(module: nn.Module, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Gather the trained weights and the buffers of a module. All processes must call it together.

    Args:
        module: The distributed module.
        accelerator: The run's accelerator.

    Returns:
        Full tensors by name on the CPU. For a sharded module they exist on the main process only.
    """
    if is_sharded(module):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return cast(dict[str, torch.Tensor], get_model_state_dict(module, options=options))

    unwrapped = accelerator.unwrap_model(module)
    frozen = _frozen_parameters(unwrapped)
    return {
        name: value.detach().cpu().contiguous()
        for name, value in unwrapped.state_dict().items()
        if name not in frozen
    }


def load_model_state(
    module: nn.Module, state: dict[str, torch.Tensor], accelerator: Accelerator
) -> None:
    """Load a state from `model_state`.

    Args:
        module: The distributed module.
        state: The full state, on every process.
        accelerator: The run's accelerator.
    """
    if is_sharded(module):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(module, dict(state), options=options)
    else:
        unwrapped = accelerator.unwrap_model(module)
        unwrapped.load_state_dict({**_frozen_parameters(unwrapped), **state})


def _frozen_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad
    }


def optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> OptimizerState:
    """Gather the state of an optimizer. All processes must call it together.

    Args:
        module: The distributed module.
        optimizer: Its optimizer.
        accelerator: The run's accelerator.

    Returns:
        The full state dict. For a sharded module the moments exist on the main process only.
    """
    state = optimizer.state_dict()
    if not is_sharded(module):
        return state

    gathered: OptimizerState = {"state": {}, "param_groups": state["param_groups"]}
    for index, parameter_state in state["state"].items():
        # Gathering is collective: every process takes part, the main process keeps the result.
        full_state = {name: _gather_to_cpu(value) for name, value in parameter_state.items()}
        if accelerator.is_main_process:
            gathered["state"][index] = full_state
    return gathered


def load_optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState
) -> None:
    """Load a state from `optimizer_state`.

    Args:
        module: The distributed module.
        optimizer: Its optimizer.
        state: The full state, on every process.
    """
    if is_sharded(module):
        for index, parameter in enumerate(trainable_parameters(module)):
            parameter_state = state["state"].get(index, {})
            state["state"][index] = {
                name: _shard_moment(value, parameter) for name, value in parameter_state.items()
            }
    optimizer.load_state_dict(state)


def _shard_moment(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """Shard a moment like its parameter; the step counter, a scalar, is kept on every process."""
    is_moment = value.shape == parameter.shape and value.dim() > 0
    return shard_like(value, parameter) if is_moment else value


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds.

    Returns:
        The local shard of a DTensor; any other tensor itself.
    """
    return cast("DTensor", tensor).to_local() if _is_dtensor(tensor) else tensor


def full_tensor(shard: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Gather a full tensor from the shards of all processes. They must call it together.

    Args:
        shard: This process's shard.
        like: A parameter that is sharded in the same way.

    Returns:
        The full tensor on the CPU, of the shape of `like`.
    """
    if not _is_dtensor(like):
        return shard.detach().cpu()
    from torch.distributed.tensor import DTensor

    sharded_like = cast(DTensor, like)
    distributed = DTensor.from_local(
        shard.to(like.device),
        sharded_like.device_mesh,
        sharded_like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return distributed.full_tensor().cpu()


def shard_like(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shard a full tensor over the processes.

    Args:
        full: The full tensor, on every process.
        like: The parameter that decides the sharding.

    Returns:
        A DTensor on the device of `like`, or `full` itself if `like` is not sharded.
    """
    if not _is_dtensor(like):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    sharded_like = cast(DTensor, like)
    return distribute_tensor(
        full.to(like.device), sharded_like.device_mesh, sharded_like.placements
    )


def _gather_to_cpu(value: torch.Tensor) -> torch.Tensor:
    return cast("DTensor", value).full_tensor().cpu() if _is_dtensor(value) else value


def _is_dtensor(tensor: object) -> bool:
    return hasattr(tensor, "to_local")


def broadcast_decision(decision: bool) -> bool:
    """Return the main process's decision on every process.

    Decisions that depend on files must be shared: the processes may see different disks, and a
    process that skips a collective operation would leave the others waiting.
    """
    decisions = [decision]
    broadcast_object_list(decisions)
    return decisions[0]
