"""Forward and backward passes of both stages on fake tensors, for the memory estimate.

The models are built from their configuration on the meta device, then given fake weights of the
right dtype and device inside torch's FakeTensorMode. No memory is allocated and no weight is read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypedDict

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from authface_train.data.prompts import time_ids
from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.memory.estimator import (
    BFLOAT16_BYTES,
    FLOAT32_BYTES,
    LiveBytes,
    PassConfig,
    count_parameters,
)
from authface_train.models.sdxl import hint_channels
from authface_train.settings import PriorSettings, RestorerSettings, TrainSettings
from authface_train.stages.prior import make_trainable
from authface_train.training.master_weights import FROZEN_DTYPES

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

ADAM_BYTES = 16.0
"""Bytes of a parameter that Adam trains in float32: the weight, its gradient and two moments."""
NUM_TOKENS = 77
"""Length of SDXL's prompt embeddings."""
NUM_TIME_IDS = 6
"""Numbers of SDXL's size conditioning, see `time_ids`."""


def pooled_width(unet_config: Mapping[str, int]) -> int:
    """Width of the pooled prompt embeddings that a U-Net expects, 1280 for SDXL.

    Args:
        unet_config: Configuration of the U-Net.
    """
    time_embedding_width = NUM_TIME_IDS * unet_config["addition_time_embed_dim"]
    return unet_config["projection_class_embeddings_input_dim"] - time_embedding_width


class AddedConditions(TypedDict):
    """SDXL's additional conditioning: pooled prompt embeddings and size conditioning."""

    text_embeds: torch.Tensor
    time_ids: torch.Tensor


class UNetInputs(TypedDict):
    """Arguments of the U-Net's forward pass, by their names in diffusers."""

    sample: torch.Tensor
    timestep: torch.Tensor
    encoder_hidden_states: torch.Tensor
    added_cond_kwargs: AddedConditions


class _UNetPass:
    """Base class of both stages' passes: builds the U-Net without weights, and its inputs.

    Args:
        unet: U-Net of the base, of which only class and configuration are used.
        vae_scale_factor: Pixels per latent cell.

    Attributes:
        models: See `FakeTensorPass`.
    """

    def __init__(self, unet: UNet2DConditionModel, vae_scale_factor: int) -> None:
        self.unet_class = type(unet)
        self.unet_config = dict(unet.config)
        self.vae_scale_factor = vae_scale_factor
        values = {name: value for name, value in unet.config.items() if not name.startswith("_")}
        self.models = json.dumps(
            [type(self).__name__, self.unet_class.__name__, values, vae_scale_factor]
        )

    def _make_unet(self) -> UNet2DConditionModel:
        """The U-Net on the meta device."""
        with torch.device("meta"):
            return self.unet_class.from_config(self.unet_config)

    def _make_inputs(self, config: PassConfig, dtype: torch.dtype) -> UNetInputs:
        """Inputs of a micro-batch; fake tensors inside FakeTensorMode."""
        batch = config.micro_batch
        side = config.settings.resolution_px // self.vae_scale_factor
        channels = self.unet_config["in_channels"]
        embedding_width = self.unet_config["cross_attention_dim"]
        size_conditioning = time_ids(config.settings.resolution_px)
        with config.device:
            return {
                "sample": torch.randn(batch, channels, side, side, dtype=dtype),
                "timestep": torch.zeros(batch, dtype=torch.long),
                "encoder_hidden_states": torch.randn(
                    batch, NUM_TOKENS, embedding_width, dtype=dtype
                ),
                "added_cond_kwargs": {
                    "text_embeds": torch.randn(batch, pooled_width(self.unet_config)),
                    "time_ids": torch.tensor(size_conditioning).expand(batch, -1),
                },
            }


class PriorPass(_UNetPass):
    """Stage I: the U-Net, or LoRA layers in it, is trained.

    Args:
        unet: U-Net of the base, of which only class and configuration are used.
        settings: Settings of the run.
        vae_scale_factor: Pixels per latent cell.

    Attributes:
        num_trainable: Number of trained parameters.
        frozen_bytes: Memory in bytes of the frozen weights under LoRA layers; 0 without LoRA.
    """

    def __init__(
        self, unet: UNet2DConditionModel, settings: PriorSettings, vae_scale_factor: int
    ) -> None:
        super().__init__(unet, vae_scale_factor)
        self.num_trainable = count_parameters(unet)
        self.frozen_bytes = 0.0
        if settings.lora_rank:
            in_bfloat16 = settings.mixed_precision == "bf16"
            weight_bytes = BFLOAT16_BYTES if in_bfloat16 else FLOAT32_BYTES
            self.frozen_bytes = weight_bytes * self.num_trainable
            self.num_trainable = _count_trainable(self._make_trained_unet(settings))

    def run(self, config: PassConfig, counter: LiveBytes) -> None:
        """Run the forward and backward pass of a micro-batch; see `FakeTensorPass.run`."""
        assert isinstance(config.settings, PriorSettings)
        unet = self._make_trained_unet(config.settings)
        with FakeTensorMode():
            _add_weights(unet, config, config.weight_dtype)
            counter.exclude(unet)
            inputs = self._make_inputs(config, config.weight_dtype)
            _run_forward_backward(lambda: unet(**inputs).sample, config, counter)

    def _make_trained_unet(self, settings: PriorSettings) -> UNet2DConditionModel:
        # Compiled code cannot run on fake tensors.
        settings = settings.model_copy(update={"compile": False})
        return make_trainable(self._make_unet(), settings)


class RestorerPass(_UNetPass):
    """Stage II: a ControlNet is trained beside the frozen U-Net.

    Of the two discriminators, which are small, only the weights, gradients and moments are counted,
    not the activations.

    Args:
        unet: U-Net of the prior, of which only class and configuration are used.
        settings: Settings of the run.
        vae_scale_factor: Pixels per latent cell.

    Attributes:
        num_trainable: Number of parameters of the ControlNet.
        frozen_bytes: Memory in bytes of the U-Net, and of both discriminators with their gradients
            and optimizer.
    """

    def __init__(
        self, unet: UNet2DConditionModel, settings: RestorerSettings, vae_scale_factor: int
    ) -> None:
        super().__init__(unet, vae_scale_factor)
        controlnet = self._make_controlnet(settings, self._make_unet())
        self.num_trainable = count_parameters(controlnet)
        frozen_dtype = FROZEN_DTYPES[settings.mixed_precision]
        self.frozen_bytes = float(frozen_dtype.itemsize * count_parameters(unet))
        if settings.facial.weight != "off":
            discriminator = PatchDiscriminator(
                self.unet_config["in_channels"],
                settings.facial.discriminator_width,
                settings.facial.timestep_conditioning,
            )
            num_weights = count_parameters(discriminator)
            self.frozen_bytes += 2 * ADAM_BYTES * num_weights

    def run(self, config: PassConfig, counter: LiveBytes) -> None:
        """Run the forward and backward pass of a micro-batch; see `FakeTensorPass.run`."""
        settings = config.settings
        frozen_dtype = FROZEN_DTYPES[settings.mixed_precision]
        unet = self._make_unet().requires_grad_(False)
        controlnet = self._make_controlnet(settings, unet)
        with FakeTensorMode():
            _add_weights(controlnet, config, config.weight_dtype)
            _add_weights(unet, config, frozen_dtype)
            counter.exclude(controlnet)
            counter.exclude(unet)
            inputs = self._make_inputs(config, frozen_dtype)
            size_px = settings.resolution_px
            degraded = torch.randn(
                (config.micro_batch, 3, size_px, size_px), dtype=frozen_dtype, device=config.device
            )

            def forward() -> torch.Tensor:
                down_residuals, mid_residual = controlnet(
                    **inputs, controlnet_cond=degraded, return_dict=False
                )
                return unet(
                    **inputs,
                    down_block_additional_residuals=[
                        residual.to(frozen_dtype) for residual in down_residuals
                    ],
                    mid_block_additional_residual=mid_residual.to(frozen_dtype),
                ).sample

            _run_forward_backward(forward, config, counter)

    def _make_controlnet(
        self, settings: TrainSettings, unet: UNet2DConditionModel
    ) -> ControlNetModel:
        """A ControlNet of the U-Net on the meta device, with checkpointing set in both."""
        from diffusers import ControlNetModel

        with torch.device("meta"):
            controlnet = ControlNetModel.from_unet(
                unet,
                conditioning_embedding_out_channels=hint_channels(self.vae_scale_factor),
                load_weights_from_unet=False,
            ).train()
        if settings.gradient_checkpointing:
            controlnet.enable_gradient_checkpointing()
            unet.enable_gradient_checkpointing()
        return controlnet


def _count_trainable(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _add_weights(module: torch.nn.Module, config: PassConfig, dtype: torch.dtype) -> None:
    """Replace the meta tensors of a module by fake tensors on the device, in place."""
    for submodule in module.modules():
        for name, parameter in submodule.named_parameters(recurse=False):
            weight = torch.nn.Parameter(
                torch.empty(parameter.shape, dtype=dtype, device=config.device),
                requires_grad=parameter.requires_grad,
            )
            setattr(submodule, name, weight)
            if parameter.requires_grad and config.gradients != "kept":
                collect = _GradientCollector(config.gradients == "float32")
                weight.register_post_accumulate_grad_hook(collect)
        for name, buffer in submodule.named_buffers(recurse=False):
            empty = torch.empty(buffer.shape, dtype=buffer.dtype, device=config.device)
            setattr(submodule, name, empty)


class _GradientCollector:
    """Frees the gradient of a weight once it is computed, as `MasterWeights` and FSDP2 do.

    Args:
        keeps_sum: Whether the gradients are added up in float32.
    """

    def __init__(self, keeps_sum: bool) -> None:
        self.keeps_sum = keeps_sum
        self.total: torch.Tensor | None = None

    def __call__(self, weight: torch.Tensor) -> None:
        """Collect the gradient of the weight."""
        gradient = weight.grad
        assert gradient is not None
        total = gradient.float() if self.total is None else self.total.add_(gradient)
        if self.keeps_sum:
            self.total = total
        weight.grad = None


def _run_forward_backward(
    forward: Callable[[], torch.Tensor], config: PassConfig, counter: LiveBytes
) -> None:
    """Run forward and backward passes of one or two micro-batches in the counter's context."""
    is_float16 = config.settings.mixed_precision == "fp16"
    with counter:
        for _ in range(2 if config.accumulate else 1):
            autocast: AbstractContextManager[object] = contextlib.nullcontext()
            if is_float16:
                autocast = torch.autocast(config.device.type, torch.float16)
            with autocast:
                loss = forward().float().square().mean()
            loss.backward()
            del loss
