"""Rehearsals for the budget: a stage's models, anew and without data, one micro-batch forward and backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from authface_train.data.prompts import time_ids
from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.models.sdxl import hint_channels
from authface_train.settings import PriorSettings, RestorerSettings, TrainSettings
from authface_train.stages.prior import make_trainable

ADAM_BYTES = 16.0  # of a parameter in fp32: itself, its gradient and two moments


class _OfUNet:
    """What both stages' rehearsals have: a U-Net's outline and its inputs."""

    def __init__(self, unet: Any, vae_scale_factor: int):
        self.kind, self.config, self.vae_scale_factor = (
            type(unet),
            dict(unet.config),
            vae_scale_factor,
        )

    def unet_outline(self) -> Any:
        with torch.device("meta"):
            return self.kind.from_config(self.config)

    def inputs(
        self, settings: TrainSettings, micro_batch: int, device: torch.device
    ) -> dict[str, Any]:
        """What a forward pass is given, under the U-Net's own names."""
        cells = settings.resolution_px // self.vae_scale_factor
        pooled = (
            self.config["projection_class_embeddings_input_dim"]
            - 6 * self.config["addition_time_embed_dim"]
        )
        with device:
            return {
                "sample": torch.randn(micro_batch, self.config["in_channels"], cells, cells),
                "timestep": torch.zeros(micro_batch, dtype=torch.long),
                "encoder_hidden_states": torch.randn(
                    micro_batch, 77, self.config["cross_attention_dim"]
                ),
                "added_cond_kwargs": {
                    "text_embeds": torch.randn(micro_batch, pooled),
                    "time_ids": torch.tensor(time_ids(settings.resolution_px)).expand(
                        micro_batch, -1
                    ),
                },
            }


class PriorPass(_OfUNet):
    """Stage I: the U-Net, or LoRA layers in it."""

    def __init__(self, unet: Any, settings: PriorSettings, vae_scale_factor: int):
        super().__init__(unet, vae_scale_factor)
        self.trained, frozen = _counts(self._outline(settings))
        self.frozen_bytes = 4.0 * frozen

    def _outline(self, settings: PriorSettings) -> Any:
        return make_trainable(
            self.unet_outline(),
            settings.model_copy(update={"optimiser": "adamw", "compile": False}),
        )

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
        outline = self._outline(settings)
        with FakeTensorMode():
            unet = _filled(outline, device, dtype, keep)
            given = self.inputs(settings, micro_batch, device)
            _rehearse(lambda: unet(**given).sample, given["sample"], settings, device, again, live)


class RestorerPass(_OfUNet):
    """Stage II: the ControlNet beside the frozen U-Net. Of the discriminators, which are small, what Adam keeps."""

    def __init__(self, unet: Any, settings: RestorerSettings, vae_scale_factor: int):
        super().__init__(unet, vae_scale_factor)
        self.trained, _ = _counts(self._outline(settings, self.unet_outline()))
        frozen, _ = _counts(self.unet_outline())
        self.frozen_bytes = (2.0 if settings.mixed_precision == "bf16" else 4.0) * frozen
        if settings.facial.weight != "off":
            judge = PatchDiscriminator(unet.config.in_channels, settings.facial.discriminator_width)
            self.frozen_bytes += (
                2 * ADAM_BYTES * sum(parameter.numel() for parameter in judge.parameters())
            )

    def _outline(self, settings: RestorerSettings, unet: Any) -> Any:
        from diffusers import ControlNetModel

        channels = hint_channels(self.vae_scale_factor)
        with torch.device("meta"):
            controlnet = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=False
            ).train()
        if settings.gradient_checkpointing:
            controlnet.enable_gradient_checkpointing()
            unet.enable_gradient_checkpointing()
        return controlnet

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
        low = torch.bfloat16 if settings.mixed_precision == "bf16" else torch.float32
        unet = self.unet_outline().requires_grad_(False)
        controlnet = self._outline(settings, unet)
        with FakeTensorMode():
            _filled(controlnet, device, dtype, keep)
            _filled(unet, device, low, keep)
            given = self.inputs(settings, micro_batch, device)
            with device:
                hint = torch.randn(micro_batch, 3, settings.resolution_px, settings.resolution_px)

            def forward() -> torch.Tensor:
                down, middle = controlnet(**given, controlnet_cond=hint, return_dict=False)
                residuals = {
                    "down_block_additional_residuals": down,
                    "mid_block_additional_residual": middle,
                }
                return unet(**given, **residuals).sample

            _rehearse(forward, given["sample"], settings, device, again, live)


def _counts(module: torch.nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in parameters) - trained


def _filled(outline: Any, device: torch.device, dtype: torch.dtype, keep: bool) -> Any:
    """A model of shapes alone with tensors in it; gradients go at once unless they are kept."""
    for module in outline.modules():
        for name, own in module.named_parameters(recurse=False):
            weights = torch.nn.Parameter(
                torch.empty(own.shape, dtype=dtype, device=device), requires_grad=own.requires_grad
            )
            setattr(module, name, weights)
            if own.requires_grad and not keep:
                weights.register_post_accumulate_grad_hook(_forget)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    return outline


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _rehearse(
    forward: Callable[[], torch.Tensor],
    target: torch.Tensor,
    settings: Any,
    device: torch.device,
    again: bool,
    live: Any,
) -> None:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    kind = kinds.get(settings.mixed_precision)
    with live:
        for _ in range(2 if again else 1):
            with torch.autocast(device.type, kind) if kind else contextlib.nullcontext():
                loss = (forward().float() - target).square().mean()
            loss.backward()
            del loss
