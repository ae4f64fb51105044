"""The latent facial feature loss on eyes and mouth (AuthFace, Eq. 4), computed in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.facial_loss.regions import LEFT_EYE, MOUTH, RIGHT_EYE, Patches, cut_patches
from authface_train.facial_loss.weight import weight_table
from authface_train.settings import FacialSettings, Reduction

STYLE_LAYER_WEIGHTS = (0.5, 1.0)
"""Weights of the discriminator's two feature maps in the style term, as in GFPGAN."""


def predict_clean_latents(
    noisy: torch.Tensor, noise_prediction: torch.Tensor, abar: torch.Tensor
) -> torch.Tensor:
    """Predict the clean latents from a noise prediction (AuthFace, Eq. 2).

    z0 = (z_t - sqrt(1 - abar_t) eps) / sqrt(abar_t). The paper prints the product of the betas for
    1 - abar_t, where abar_t is the product of the alphas.

    Args:
        noisy: (batch, channels, height, width) noisy latents z_t.
        noise_prediction: The predicted noise, in the same shape.
        abar: (batch,) `alphas_cumprod` at each sample's timestep.

    Returns:
        (batch, channels, height, width) float32.
    """
    abar = abar.float().view(-1, 1, 1, 1)
    return (noisy.float() - torch.sqrt(1 - abar) * noise_prediction.float()) / torch.sqrt(abar)


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """Gram matrices F F^T / (channels * height * width).

    Args:
        features: (n, channels, height, width).

    Returns:
        (n, channels, channels).
    """
    count, channels, height, width = features.shape
    flat = features.reshape(count, channels, height * width)
    return flat @ flat.transpose(1, 2) / (channels * height * width)


@dataclass(frozen=True)
class RegionPair:
    """Patches of one kind of region in the predicted and in the true latents."""

    name: str
    """Name of the region, "eyes" or "mouth"."""
    fake: torch.Tensor
    """(n, channels, cells, cells) patches of the predicted latents."""
    real: torch.Tensor
    """(n, channels, cells, cells) patches of the true latents."""
    weight: torch.Tensor
    """(n,) time-aware weight of the sample that each patch comes from."""
    timesteps: torch.Tensor
    """(n,) int64 timestep of that sample."""


@dataclass(frozen=True)
class VisibleCounts:
    """Number of visible patches in the global batch.

    Losses are divided by it, so that they do not depend on how the batch is divided into processes
    and micro-batches.
    """

    regions: dict[str, int]
    """Number of patches by region name."""

    def divisor(self, region: str, reduction: Reduction) -> int:
        """What the sum over the patches of a region is divided by, at least 1.

        Args:
            region: Name of the region.
            reduction: With "region-sum", the patches of this region; with "patch-mean", those of
                all regions.
        """
        patches = self.regions[region] if reduction == "region-sum" else sum(self.regions.values())
        return max(patches, 1)


class FacialTerms(NamedTuple):
    """The terms of the facial loss before lambda_d and lambda_s are applied, as scalars."""

    adversarial: torch.Tensor
    """The adversarial term of all regions."""
    style: torch.Tensor
    """The Gram matrix term of all regions."""
    adversarial_by_region: dict[str, torch.Tensor]
    """The adversarial term of each region, detached."""


class FacialLoss(nn.Module):
    """The facial loss with its two discriminators, for eyes and for mouths.

    Args:
        settings: Settings of the loss.
        channels: Channels of the latents.
        vae_scale_factor: Side of a latent cell, in pixels.
        alphas_cumprod: (num_timesteps,) of the noise schedule.
    """

    weights: torch.Tensor
    abar: torch.Tensor

    def __init__(
        self,
        settings: FacialSettings,
        channels: int,
        vae_scale_factor: int,
        alphas_cumprod: torch.Tensor,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.vae_scale_factor = vae_scale_factor
        self.eyes, self.mouth = (
            PatchDiscriminator(
                channels, settings.discriminator_width, settings.timestep_conditioning
            )
            for _ in range(2)
        )
        table = weight_table(settings.weight, settings.m, settings.s, alphas_cumprod)
        self.register_buffer("weights", table, persistent=False)
        self.register_buffer("abar", alphas_cumprod.float().clone(), persistent=False)

    def cut_pairs(
        self,
        noisy: torch.Tensor,
        noise_prediction: torch.Tensor,
        *,
        clean: torch.Tensor,
        timesteps: torch.Tensor,
        boxes_px: torch.Tensor,
        visible: torch.Tensor,
    ) -> list[RegionPair]:
        """Cut eyes and mouths out of the predicted and the true latents.

        Args:
            noisy: (batch, channels, height, width) noisy latents.
            noise_prediction: The predicted noise, in the same shape.
            clean: The true latents, in the same shape.
            timesteps: (batch,) int64.
            boxes_px: (batch, 3, 4) box edges in pixels, on the CPU.
            visible: (batch, 3) bool on the CPU; invisible regions give no patch.

        Returns:
            The pair of the eyes and the pair of the mouths.
        """
        predicted = predict_clean_latents(noisy, noise_prediction, self.abar[timesteps])
        weights = self.weights[timesteps]
        fake_patches = self._cut(predicted, boxes_px, visible)
        real_patches = self._cut(clean.float(), boxes_px, visible)
        return [
            RegionPair(
                name,
                fake.latents,
                real.latents,
                weights[fake.sample_index],
                timesteps[fake.sample_index],
            )
            for name, fake, real in zip(("eyes", "mouth"), fake_patches, real_patches, strict=True)
        ]

    def count_visible(self, visible: torch.Tensor) -> VisibleCounts:
        """Count the visible patches of a batch, visible: (batch, 3) bool on the CPU."""
        eyes = visible[:, [LEFT_EYE, RIGHT_EYE]]
        return VisibleCounts({"eyes": int(eyes.sum()), "mouth": int(visible[:, MOUTH].sum())})

    def unweighted_terms(self, pairs: Sequence[RegionPair], visible: VisibleCounts) -> FacialTerms:
        """The adversarial and the style term (Eq. 4 with lambda_d = lambda_s = 1).

        Each term is the sum over regions of the mean, over the region's visible patches, of the
        time-aware weight times the patch's term (see `FacialSettings.reduction`). The
        discriminators are frozen: gradients reach the fake patches only. Without visible patches
        the terms are 0.

        Args:
            pairs: The patches of a micro-batch.
            visible: Counts of the global batch.
        """
        adversarial = style = pairs[0].fake.sum() * 0
        by_region: dict[str, torch.Tensor] = {}
        for pair in pairs:
            # The product with 0 keeps the term in the graph even without patches.
            region_adversarial = pair.fake.sum() * 0
            divisor = visible.divisor(pair.name, self.settings.reduction)
            if len(pair.fake):
                discriminator = self._discriminator_of(pair.name)
                discriminator.requires_grad_(False)
                logits, fake_features = discriminator(pair.fake, pair.timesteps)
                with torch.no_grad():
                    _, real_features = discriminator(pair.real, pair.timesteps)
                discriminator.requires_grad_(True)

                weighted = pair.weight * self._adversarial(logits)
                region_adversarial = region_adversarial + weighted.sum() / divisor
                for layer_weight, fake, real in zip(
                    STYLE_LAYER_WEIGHTS, fake_features, real_features, strict=True
                ):
                    distance = (gram_matrix(fake) - gram_matrix(real)).abs().mean((1, 2))
                    style = style + (pair.weight * layer_weight * distance).sum() / divisor
            adversarial = adversarial + region_adversarial
            by_region[pair.name] = region_adversarial.detach()
        return FacialTerms(adversarial, style, by_region)

    def generator_loss(
        self, pairs: Sequence[RegionPair], visible: VisibleCounts
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of the ControlNet (Eq. 4): lambda_d * adversarial + lambda_s * style.

        Args:
            pairs: The patches of a micro-batch.
            visible: Counts of the global batch.

        Returns:
            The loss, and its terms as detached metrics.
        """
        terms = self.unweighted_terms(pairs, visible)
        loss = self.settings.lambda_d * terms.adversarial + self.settings.lambda_s * terms.style
        metrics = {"adversarial": terms.adversarial.detach(), "style": terms.style.detach()}
        for region, value in terms.adversarial_by_region.items():
            metrics[f"adversarial_{region}"] = value
        return loss, metrics

    def discriminator_loss(
        self, pairs: Sequence[RegionPair], visible: VisibleCounts
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of the discriminators: weighted binary cross-entropy of real and fake patches.

        It has the same time-aware weight as the generator's loss: predictions from noisy timesteps
        are blurred, and a discriminator that learns from them has an easy task.

        Args:
            pairs: The patches of a micro-batch; no gradient reaches them.
            visible: Counts of the global batch.

        Returns:
            The loss, and for each region its loss and the fraction of patches that are classified
            correctly, as detached metrics.
        """
        loss = torch.zeros((), device=self.abar.device)
        metrics: dict[str, torch.Tensor] = {}
        for pair in pairs:
            metrics[f"discriminator_{pair.name}"] = loss.clone()
            metrics[f"accuracy_{pair.name}"] = loss.clone()

        for pair in pairs:
            if not len(pair.fake):
                continue
            discriminator = self._discriminator_of(pair.name)
            fake_logits, _ = discriminator(pair.fake.detach(), pair.timesteps)
            real_logits, _ = discriminator(pair.real.detach(), pair.timesteps)
            cross_entropy = F.softplus(fake_logits) + F.softplus(-real_logits)
            divisor = visible.divisor(pair.name, self.settings.reduction)
            region_loss = (pair.weight * cross_entropy).sum() / divisor
            loss = loss + region_loss

            num_correct = (fake_logits.detach() < 0).sum() + (real_logits.detach() > 0).sum()
            metrics[f"discriminator_{pair.name}"] = region_loss.detach()
            metrics[f"accuracy_{pair.name}"] = num_correct / (2 * visible.regions[pair.name])
        return loss, metrics

    def r1_penalty(self, pairs: Sequence[RegionPair], visible: VisibleCounts) -> torch.Tensor:
        """The R1 gradient penalty on real patches (Mescheder et al. 2018).

        gamma / 2 * |d logits / d patch|^2, reduced over patches as the loss is, and multiplied by
        `r1_every`, since it is applied only once per `r1_every` steps.

        Args:
            pairs: The patches of a micro-batch.
            visible: Counts of the global batch.

        Returns:
            The penalty, a scalar.
        """
        penalty = torch.zeros((), device=self.abar.device)
        for pair in pairs:
            if not len(pair.real):
                continue
            real = pair.real.detach().requires_grad_(True)
            logits, _ = self._discriminator_of(pair.name)(real, pair.timesteps)
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            divisor = visible.divisor(pair.name, self.settings.reduction)
            penalty = penalty + gradient.square().sum() / divisor
        return self.settings.r1_gamma / 2 * self.settings.r1_every * penalty

    def ramp_weight(self, step: int) -> float:
        """Factor of the facial loss of the ControlNet at a step.

        It is 0 while only the discriminators are trained and then rises linearly to 1.
        """
        ramp_start = self.settings.start_step + self.settings.discriminator_only_steps
        if step < ramp_start:
            return 0.0
        return min((step - ramp_start + 1) / (self.settings.ramp_steps + 1), 1.0)

    def _cut(
        self, latents: torch.Tensor, boxes_px: torch.Tensor, visible: torch.Tensor
    ) -> tuple[Patches, Patches]:
        return cut_patches(
            latents,
            boxes_px,
            visible,
            eye_cells=self.settings.eye_cells,
            mouth_cells=self.settings.mouth_cells,
            vae_scale_factor=self.vae_scale_factor,
        )

    def _discriminator_of(self, region: str) -> PatchDiscriminator:
        return self.eyes if region == "eyes" else self.mouth

    def _adversarial(self, logits: torch.Tensor) -> torch.Tensor:
        """Adversarial term per patch: -log D, or log(1 - D) as the paper prints it."""
        if self.settings.adversarial == "non-saturating":
            return F.softplus(-logits)
        return -F.softplus(logits)
