"""Stage II, the restorer: a ControlNet on the frozen prior, trained on degraded faces.

The prior predicts the noise under the ControlNet's guidance with the empty prompt. The loss is the
noise loss plus the time-aware latent facial feature loss (AuthFace, Eq. 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import ControlNetModel

from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import NoiseSampler, RestorerDataset, Sample
from authface_train.facial_loss.loss import FacialLoss, RegionPair, VisibleCounts
from authface_train.models.sdxl import DiffusionCore, hint_channels
from authface_train.settings import RestorerSettings
from authface_train.training.compilation import compile_blocks
from authface_train.training.loop import TIMESTEP_BINS, StepLosses
from authface_train.training.master_weights import FROZEN_DTYPES
from authface_train.training.noise import (
    accumulate_by_timestep,
    noise_prediction_losses,
    training_scheduler,
)
from authface_train.training.trainable_model import TrainableModel, prepare_for_training
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def make_controlnet(
    unet: UNet2DConditionModel, seed: int, vae_scale_factor: int
) -> ControlNetModel:
    """Build a ControlNet from a U-Net's encoder.

    The hint network is initialised at random. The zero convolutions make all outputs zero until
    the first training step.

    Args:
        unet: The prior's U-Net, whose encoder weights are copied.
        seed: Seed of the hint network's weights.
        vae_scale_factor: Pixels per latent cell, 8 for SDXL.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=hint_channels(vae_scale_factor)
        )


class RestorerTrainer:
    """Trains the ControlNet and, unless `facial.weight` is off, the facial loss's discriminators.

    Args:
        settings: The run's settings.
        core: The prior without VAE and text encoders, whose results are cached.
        controlnet: A ControlNet of the prior, see `make_controlnet`.
        workspace: Holds the crops that are degraded.
        view: The training faces, one row each.
        latents: For each face the VAE's posterior, see `NoiseSampler`.
        null_prompt: Embedding of the empty prompt.
        accelerator: Knows the device and the processes.

    Attributes:
        null_prompt: The same on the device.
        models: The trained models by name: `controlnet`, and `discriminators` with a facial loss.
        dataset: The training samples.
        num_faces: Number of training faces.
        scheduler: The noise schedule.
        unet: The frozen prior.
        facial: The facial loss, or None.
    """

    def __init__(
        self,
        *,
        settings: RestorerSettings,
        core: DiffusionCore,
        controlnet: ControlNetModel,
        workspace: Workspace,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        null_prompt: Embedding,
        accelerator: Accelerator,
    ) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.null_prompt = Embedding(*(part.to(accelerator.device) for part in null_prompt))
        self.scheduler = training_scheduler(core)
        self.noise_sampler = NoiseSampler(settings.seed, view, latents, core)
        self.num_faces = len(view)
        self.pairs = DegradedPairs(
            workspace, view, settings.resolution_px, settings.degradation, settings.seed
        )
        self.dataset = RestorerDataset(self.noise_sampler, self.pairs, settings.degrade_on)
        self.time_ids = torch.tensor(time_ids(settings.resolution_px), device=accelerator.device)

        # The prior is frozen but not under no_grad: gradients pass through its decoder.
        dtype = FROZEN_DTYPES[settings.mixed_precision]
        self.unet = core.unet.eval().requires_grad_(False)
        torch.nn.Module.to(self.unet, accelerator.device, dtype)
        controlnet.train().requires_grad_(True)
        if settings.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            controlnet.enable_gradient_checkpointing()
        if settings.compile:
            compile_blocks(self.unet)
            compile_blocks(controlnet)

        self.models: dict[str, TrainableModel] = {
            "controlnet": prepare_for_training(controlnet, settings, accelerator)
        }
        self.facial: FacialLoss | None = None
        if settings.facial.weight != "off":
            latent_side = latents[0].shape[-1]
            self.facial = self._make_facial_loss(latent_side)
            self.models["discriminators"] = self._prepare_discriminators(self.facial)

    def _make_facial_loss(self, latent_side: int) -> FacialLoss:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + 1)
            loss = FacialLoss(
                self.settings.facial,
                channels=self.unet.config.in_channels,
                vae_scale_factor=self.settings.resolution_px // latent_side,
                alphas_cumprod=self.scheduler.alphas_cumprod,
            )
        return loss.to(self.accelerator.device)

    def _prepare_discriminators(self, loss: FacialLoss) -> TrainableModel:
        optimizer = torch.optim.Adam(
            loss.parameters(),
            lr=self.settings.facial.discriminator_learning_rate,
            betas=self.settings.facial.discriminator_betas,
        )
        return TrainableModel(loss, self.accelerator.prepare(optimizer))

    def step(self, step: int, keys: list[SampleKey], micro_batches: Iterator[Sample]) -> StepLosses:
        """Train the ControlNet, then the discriminators, on one global batch."""
        model = self.models["controlnet"]
        controlnet = model.module
        num_processes = self.accelerator.num_processes
        share = self.settings.batch // num_processes

        facial = self.facial if step >= self.settings.facial.start_step else None
        ramp = 0.0
        visible: VisibleCounts | None = None
        if facial is not None:
            ramp = facial.ramp_weight(step)
            # Every process knows the whole global batch, so the mean over its visible patches
            # needs no communication.
            visible = facial.count_visible(self.pairs.visible[[key.index for key in keys]])

        zero = torch.zeros((), device=self.accelerator.device)
        losses = {"loss": zero.clone(), "noise_loss": zero.clone()}
        by_timestep = torch.zeros(2, TIMESTEP_BINS, device=zero.device)
        discriminator_inputs: list[list[RegionPair]] = []
        num_seen = 0
        for batch in micro_batches:
            num_seen += len(batch["latent"])
            with model.micro_batch(self.accelerator, is_last=num_seen == share):
                noisy, prediction = self.predict(controlnet, batch)
                noise_losses = noise_prediction_losses(
                    prediction,
                    batch,
                    self.scheduler,
                    self.settings.min_snr_gamma,
                )
                noise_loss = noise_losses.sum() / share
                loss = noise_loss
                if facial is not None and visible is not None:
                    pairs = self.region_pairs(noisy, prediction, batch)
                    if ramp > 0:
                        facial_loss, terms = facial.generator_loss(pairs, visible)
                        loss = loss + ramp * num_processes * facial_loss
                        terms = {"facial_loss": facial_loss.detach(), **terms}
                        _accumulate(losses, terms, num_processes)
                    discriminator_inputs.append([_detach(pair) for pair in pairs])
                self.accelerator.backward(loss)
            accumulate_by_timestep(by_timestep, noise_losses, batch["timesteps"])
            losses["noise_loss"] += noise_loss.detach()
            losses["loss"] += loss.detach()

        norm = model.update(self.accelerator, self.settings)
        assert norm is not None
        losses["gradient_norm"] = norm
        if visible is not None:
            self._discriminator_step(step, discriminator_inputs, visible, losses)
        return StepLosses(losses, by_timestep)

    def train_discriminators(self, step: int, batch: Sample) -> None:
        """Train the discriminators alone on the predictions for a batch.

        Args:
            step: Number of the step; it decides whether the gradient penalty is due.
            batch: A batch of samples on the device.
        """
        assert self.facial is not None
        with torch.no_grad():
            noisy, prediction = self.predict(self.models["controlnet"].module, batch)
        pairs = self.region_pairs(noisy, prediction, batch)
        self._discriminator_step(step, [pairs], self.facial.count_visible(batch["visible"]), {})

    def predict(
        self, controlnet: torch.nn.Module, batch: Sample
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the noise under the ControlNet's guidance.

        Args:
            controlnet: The ControlNet.
            batch: `latent` and `noise`, (batch, channels, height, width); `timesteps`, (batch,);
                `degraded`, (batch, 3, H, W) in [0, 1], or what `RestorerDataset` has instead.

        Returns:
            The noisy latents z_t, float32, and the prediction, each (batch, channels, height,
            width).
        """
        if "degraded" in batch:
            degraded = batch["degraded"]
        else:
            degraded = self.pairs.degrade_on_device(batch["crop"], batch["key"])
        scheduler = self.scheduler
        noisy = scheduler.add_noise(batch["latent"], batch["noise"], batch["timesteps"])
        dtype = self.unet.dtype
        count = len(noisy)
        embeds = self.null_prompt.embeds[None].to(dtype).expand(count, -1, -1)
        conditions = {
            "text_embeds": self.null_prompt.pooled[None].expand(count, -1),
            "time_ids": self.time_ids.expand(count, -1),
        }
        with self.accelerator.autocast():
            down_residuals, mid_residual = controlnet(
                noisy.to(dtype),
                batch["timesteps"],
                encoder_hidden_states=embeds,
                controlnet_cond=degraded.to(dtype),
                added_cond_kwargs=conditions,
                return_dict=False,
            )
            prediction = self.unet(
                noisy.to(dtype),
                batch["timesteps"],
                encoder_hidden_states=embeds,
                added_cond_kwargs=conditions,
                down_block_additional_residuals=[residual.to(dtype) for residual in down_residuals],
                mid_block_additional_residual=mid_residual.to(dtype),
            ).sample
        return noisy, prediction

    def region_pairs(
        self, noisy: torch.Tensor, prediction: torch.Tensor, batch: Sample
    ) -> list[RegionPair]:
        """Cut the facial regions out of predicted and clean latents.

        Args:
            noisy: z_t, (batch, channels, height, width).
            prediction: The noise prediction, of the same shape.
            batch: The batch that was predicted.

        Returns:
            The pair of the eyes and the pair of the mouths.
        """
        assert self.facial is not None
        return self.facial.cut_pairs(
            noisy,
            prediction,
            clean=batch["latent"],
            timesteps=batch["timesteps"],
            boxes_px=batch["boxes_px"],
            visible=batch["visible"],
        )

    def _discriminator_step(
        self,
        step: int,
        micro_batch_pairs: list[list[RegionPair]],
        visible: VisibleCounts,
        losses: dict[str, torch.Tensor],
    ) -> None:
        """One optimizer step of the discriminators on detached pairs of all micro-batches.

        The discriminators' loss terms are added to `losses`.
        """
        assert self.facial is not None
        facial_settings = self.settings.facial
        model = self.models["discriminators"]
        num_processes = self.accelerator.num_processes
        with_penalty = facial_settings.r1_gamma and step % facial_settings.r1_every == 0
        for pairs in micro_batch_pairs:
            loss, terms = self.facial.discriminator_loss(pairs, visible)
            if with_penalty:
                loss = loss + self.facial.r1_penalty(pairs, visible)
            if loss.requires_grad:
                self.accelerator.backward(num_processes * loss)
            _accumulate(losses, terms, num_processes)

        for parameter in self.facial.parameters():
            if parameter.grad is None:
                # This process has no visible patch, but other processes may have some.
                parameter.grad = torch.zeros_like(parameter)
            mean = self.accelerator.reduce(parameter.grad, "mean")
            parameter.grad = mean  # type: ignore[assignment]
        model.optimizer.step()
        model.optimizer.zero_grad(set_to_none=True)


def _detach(pair: RegionPair) -> RegionPair:
    return dataclasses.replace(pair, fake=pair.fake.detach(), real=pair.real.detach())


def _accumulate(
    totals: dict[str, torch.Tensor], terms: Mapping[str, torch.Tensor], num_processes: int
) -> None:
    """Add a micro-batch's terms, multiplied by the number of processes, to the totals.

    The loop averages the totals over the processes.
    """
    for name, value in terms.items():
        totals[name] = totals.get(name, torch.zeros_like(value)) + num_processes * value
