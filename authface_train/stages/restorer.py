"""Stage II: the restorer. A ControlNet on the frozen prior, null prompt, degraded faces in, noise and facial loss out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import ControlNetModel

from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey
from authface_train.facial_loss.loss import FacialLoss, RegionPair, Visible
from authface_train.models.sdxl import DiffusionCore, hint_channels
from authface_train.runs.checkpoint import TrainableModel
from authface_train.settings import RestorerSettings
from authface_train.stages.prior import trained_part
from authface_train.training.loop import TIMESTEP_BINS, Losses, Sample
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.noise import NoiseSampler, accumulate_by_timestep, min_snr_weight
from authface_train.training.sharding import clip_gradients, no_sync
from manifests.workspace import Workspace


def make_controlnet(unet: Any, seed: int, vae_scale_factor: int) -> Any:
    """A ControlNet from the U-Net's encoder; its hint network is new, its zero convolutions make its first output 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=hint_channels(vae_scale_factor)
        )


class RestorerTrainer:
    """parts: the ControlNet; and the facial loss's two discriminators, unless its weight is off."""

    def __init__(
        self,
        settings: RestorerSettings,
        core: DiffusionCore,
        controlnet: Any,
        workspace: Workspace,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        null_prompt: Embedding,
        accelerator: Accelerator,
    ):
        self.settings, self.accelerator = settings, accelerator
        self.draws = NoiseSampler(settings, view, latents, core)
        self.faces = len(view)
        self.pairs = DegradedPairs(
            workspace, view, settings.resolution_px, settings.degradation, settings.seed
        )
        self.null_prompt = null_prompt
        self.time_ids = torch.tensor(time_ids(settings.resolution_px))
        # Frozen, but not under no_grad: its decoder carries the gradients. Autocast would take its weights in bf16 anyway.
        low = torch.bfloat16 if settings.mixed_precision == "bf16" else torch.float32
        self.unet = core.unet.eval().requires_grad_(False).to(accelerator.device, low)
        controlnet.train().requires_grad_(True)
        if settings.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            controlnet.enable_gradient_checkpointing()
        self.onlookers: list[Any] = []
        self.parts = {"controlnet": trained_part(controlnet, settings, accelerator)}
        self.facial: FacialLoss | None = None
        if settings.facial.weight != "off":
            self._add_discriminators(latents[0].shape[-1])

    def _add_discriminators(self, latent_cells: int) -> None:
        own, facial = self.settings, self.settings.facial
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(own.seed + 1)
            loss = FacialLoss(
                facial,
                channels=self.unet.config.in_channels,
                vae_scale_factor=own.resolution_px // latent_cells,
                alphas_cumprod=self.draws.scheduler.alphas_cumprod,
            )
        self.facial = loss.to(self.accelerator.device)
        optimiser = torch.optim.Adam(
            loss.parameters(),
            lr=facial.discriminator_learning_rate,
            betas=facial.discriminator_betas,
        )
        self.parts["discriminators"] = TrainableModel(loss, self.accelerator.prepare(optimiser))

    def sample(self, draw: SampleKey) -> Sample:
        sample, flip = self.draws.draw(draw)
        pair = self.pairs.pair(draw, flip)
        return {
            **sample,
            "degraded": pair.degraded,
            "boxes_px": pair.boxes_px,
            "visible": pair.visible,
        }

    def step(self, step: int, draws: list[SampleKey], micros: Iterator[Sample]) -> Losses:
        part = self.parts["controlnet"]
        controlnet = part.module
        world = self.accelerator.num_processes
        share = self.settings.batch // world
        # Every process knows the whole global batch, so the mean over visible patches needs no exchange.
        visible = (
            None
            if self.facial is None
            else self.facial.count(self.pairs.visible[[draw.index for draw in draws]])
        )
        begun = self.facial is not None and step >= self.settings.facial.start_step
        ramp = self.facial.ramp(step) if self.facial is not None and begun else 0.0
        zero = torch.zeros((), device=self.accelerator.device)
        losses = {"loss": zero.clone(), "noise_loss": zero.clone()}
        bands = torch.zeros(2, TIMESTEP_BINS, device=zero.device)
        kept: list[list[RegionPair]] = []
        seen = 0
        for batch in micros:
            seen += len(batch["latent"])
            with no_sync(self.accelerator, controlnet, seen == share):
                noisy, prediction = self.predict(controlnet, batch)
                noise_losses = F.mse_loss(
                    prediction.float(), batch["noise"].float(), reduction="none"
                ).mean((1, 2, 3))
                noise_losses = noise_losses * min_snr_weight(
                    self.draws.scheduler, batch["t_step"], self.settings.min_snr_gamma
                )
                loss = noise = noise_losses.sum() / share
                if self.facial is not None and visible is not None and begun:
                    pairs = self.facial.pairs(
                        noisy,
                        prediction,
                        batch["latent"],
                        batch["t_step"],
                        batch["boxes_px"],
                        batch["visible"],
                    )
                    if ramp > 0:
                        facial, parts = self.facial.generator(pairs, visible)
                        loss = loss + ramp * world * facial
                        _add(losses, {"facial_loss": facial.detach(), **parts}, world)
                    kept.append(
                        [
                            RegionPair(p.name, p.fake.detach(), p.real.detach(), p.weight)
                            for p in pairs
                        ]
                    )
                self.accelerator.backward(loss)
            accumulate_by_timestep(bands, noise_losses, batch["t_step"])
            losses["noise_loss"] += noise.detach()
            losses["loss"] += loss.detach()
        losses["gradient_norm"] = clip_gradients(
            self.accelerator, controlnet, self.settings.clip_norm
        )
        part.optimiser.step()
        part.optimiser.zero_grad(set_to_none=True)
        if part.ema is not None:
            part.ema.update()
        if visible is not None and begun:
            self._discriminator_step(step, kept, visible, losses)
        return Losses(losses, bands)

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        for onlooker in self.onlookers:
            onlooker.look(step, watch)

    def discriminators_alone(self, step: int, batch: Sample) -> None:
        """A step of the discriminators on what is predicted of a batch; nothing else changes."""
        assert self.facial is not None
        with torch.no_grad():
            noisy, prediction = self.predict(self.parts["controlnet"].module, batch)
        pairs = self.facial.pairs(
            noisy, prediction, batch["latent"], batch["t_step"], batch["boxes_px"], batch["visible"]
        )
        self._discriminator_step(step, [pairs], self.facial.count(batch["visible"]), {})

    def predict(
        self, controlnet: torch.nn.Module, batch: Sample
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z_t and the prior's noise prediction under the ControlNet's guidance, (b, channels, h, w) each."""
        noisy = self.draws.scheduler.add_noise(batch["latent"], batch["noise"], batch["t_step"])
        device, count = noisy.device, len(noisy)
        embeds = self.null_prompt.embeds[None].to(device).expand(count, -1, -1)
        added = {
            "text_embeds": self.null_prompt.pooled[None].to(device).expand(count, -1),
            "time_ids": self.time_ids.to(device).expand(count, -1),
        }
        with self.accelerator.autocast():
            down, middle = controlnet(
                noisy,
                batch["t_step"],
                encoder_hidden_states=embeds,
                controlnet_cond=batch["degraded"],
                added_cond_kwargs=added,
                return_dict=False,
            )
            prediction = self.unet(
                noisy,
                batch["t_step"],
                encoder_hidden_states=embeds,
                added_cond_kwargs=added,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        return noisy, prediction

    def _discriminator_step(
        self,
        step: int,
        kept: list[list[RegionPair]],
        visible: Visible,
        losses: dict[str, torch.Tensor],
    ) -> None:
        """One step of both discriminators on the fakes of all micro-batches, detached: the ControlNet is not touched."""
        assert self.facial is not None
        part = self.parts["discriminators"]
        world = self.accelerator.num_processes
        for pairs in kept:
            loss, parts = self.facial.discriminator(pairs, visible)
            if self.settings.facial.r1_gamma and step % self.settings.facial.r1_every == 0:
                loss = loss + self.facial.r1(pairs, visible)
            if loss.requires_grad:
                self.accelerator.backward(world * loss)
            _add(losses, parts, world)
        for parameter in self.facial.parameters():
            if parameter.grad is None:  # no visible patch here; the other processes may have some
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")  # type: ignore[assignment]
        part.optimiser.step()
        part.optimiser.zero_grad(set_to_none=True)


def _add(losses: dict[str, torch.Tensor], parts: dict[str, torch.Tensor], world: int) -> None:
    """Sum the parts of a micro-batch, times the processes that the loop will average over."""
    for name, value in parts.items():
        losses[name] = losses.get(name, torch.zeros_like(value)) + world * value


def stacked(samples: list[Sample]) -> Sample:
    """A batch of samples."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
