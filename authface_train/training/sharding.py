"""A model over several processes: a copy each (DDP), or divided (torch's FSDP2), and its whole state whichever it is.

`accelerate launch` with FSDP or DeepSpeed in its configuration asks for the same things by other names: ZeRO-2 is `gradients`,
ZeRO-3 and FSDP's full shard are `full`. They are done here with FSDP2, so that a checkpoint is the same file for all and can be
taken up by any.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from accelerate import Accelerator

from authface_train.settings import TrainSettings
from manifests.support.errors import UserError

# Blocks of SDXL's U-Net whose weights are gathered together.
BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D")


def sharding_from_launcher() -> str | None:
    """The sharding that `accelerate launch` was configured for; None where it was not. Takes the request out of its hands."""
    sharded = os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    deepspeed = os.environ.pop("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if deepspeed:
        return "full" if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else "gradients"
    if sharded:
        wanted = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
        return "gradients" if wanted in ("false", "shard_grad_op") else "full"
    return None


def distribute_model(
    module: Any, make_optimiser: Any, settings: TrainSettings, accelerator: Accelerator
) -> tuple[Any, torch.optim.Optimizer]:
    """A trained model as the processes share it, and its prepared optimiser. make_optimiser: from parameters.

    Raises UserError for settings that do not go with several processes.
    """
    several = accelerator.num_processes > 1
    if several and settings.step_in_backward:
        raise UserError(
            "step_in_backward is for one process: over several, --set sharding=full saves the gradients' memory"
        )
    if not several or settings.sharding == "none":
        return accelerator.prepare(module, make_optimiser(module.parameters()))
    if settings.optimiser != "adamw" or settings.mixed_precision == "fp16":
        raise UserError("sharding goes with optimiser=adamw and mixed_precision=bf16 or no")
    module.to(accelerator.device)
    _shard(module, settings)
    return module, accelerator.prepare(make_optimiser(module.parameters()))


def _shard(module: torch.nn.Module, settings: TrainSettings) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    lower = torch.bfloat16 if settings.mixed_precision == "bf16" else None
    options: dict[str, Any] = {
        "mp_policy": MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=torch.float32),
        "reshard_after_forward": settings.sharding == "full",
    }
    for part in module.modules():
        if type(part).__name__ in BLOCKS:
            fully_shard(part, **options)
    fully_shard(module, **options)


def trained(module: torch.nn.Module) -> list[Any]:
    """The parameters that are trained, in the order in which their optimiser knows them."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def is_sharded(module: torch.nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def reshard(module: torch.nn.Module) -> None:
    """Gathered weights are given up after a forward pass without a backward one: they would outlive a change of the weights."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@contextlib.contextmanager
def no_sync(accelerator: Accelerator, module: Any, last: bool) -> Any:
    """Gradients travel between processes with the last micro-batch only."""
    if is_sharded(module):
        module.set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(module):
            yield


def clip_gradients(accelerator: Accelerator, module: torch.nn.Module, norm: float) -> torch.Tensor:
    """Scale the gradients down to a norm over all parameters and processes, 0 for never. Returns the norm before, ()."""
    accelerator.unscale_gradients()
    found = torch.nn.utils.clip_grad_norm_(module.parameters(), norm or float("inf"))
    return found.full_tensor() if hasattr(found, "full_tensor") else found


def model_state(module: torch.nn.Module, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """What is trained of a model, and its buffers, whole and on the CPU; of sharded ones on the main process alone.

    For all processes to call together.
    """
    if is_sharded(module):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        sharded: Any = get_model_state_dict(
            module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        return sharded
    own = accelerator.unwrap_model(module)
    frozen = {name for name, parameter in own.named_parameters() if not parameter.requires_grad}
    state = own.state_dict()
    return {
        name: value.detach().cpu().contiguous()
        for name, value in state.items()
        if name not in frozen
    }


def load_model_state(
    module: torch.nn.Module, state: dict[str, torch.Tensor], accelerator: Accelerator
) -> None:
    """The other way; each process gives the whole state."""
    if is_sharded(module):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))
    else:
        own = accelerator.unwrap_model(module)
        frozen = {
            name: parameter
            for name, parameter in own.named_parameters()
            if not parameter.requires_grad
        }
        own.load_state_dict({**frozen, **state})


def optimiser_state(
    module: torch.nn.Module, optimiser: Any, accelerator: Accelerator
) -> dict[str, Any]:
    """An optimiser's whole state, by the parameters' numbers; of sharded ones on the main process alone."""
    if not is_sharded(module):
        return optimiser.state_dict()
    gathered_state: dict[str, Any] = {
        "state": {},
        "param_groups": optimiser.state_dict()["param_groups"],
    }
    for number, own in optimiser.state_dict()["state"].items():
        gathered = {name: _full(value) for name, value in own.items()}
        if accelerator.is_main_process:
            gathered_state["state"][number] = gathered
    return gathered_state


def load_optimiser_state(module: torch.nn.Module, optimiser: Any, state: dict[str, Any]) -> None:
    """The other way; each process gives the whole state."""
    if is_sharded(module):
        for number, parameter in enumerate(trained(module)):
            own = state["state"].get(number, {})
            state["state"][number] = {
                name: divided(value, parameter)
                if value.shape == parameter.shape and value.dim()
                else value
                for name, value in own.items()
            }
    optimiser.load_state_dict(state)


def own_part(tensor: Any) -> torch.Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(part: torch.Tensor, like: Any) -> torch.Tensor:
    """The other way, on the CPU: the whole tensor of which `part` is this process's share, divided as `like` is."""
    if not hasattr(like, "to_local"):
        return part.detach().cpu()
    from torch.distributed.tensor import DTensor

    made = DTensor.from_local(
        part.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return made.full_tensor().cpu()


def _full(value: Any) -> Any:
    return value.full_tensor().cpu() if hasattr(value, "full_tensor") else value


def divided(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """A whole tensor divided as a parameter is; as it is where that is not."""
    if not hasattr(parameter, "to_local"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )
