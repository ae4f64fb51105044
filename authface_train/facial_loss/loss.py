"""L_facial (paper Eq. 4 and 5): realism and style of eyes and mouth of the predicted clean latents, in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.facial_loss.regions import Patches, cut
from authface_train.facial_loss.weight import weight_table
from authface_train.settings import FacialSettings

STYLE_LAYERS = (0.5, 1.0)


def predicted_latents(
    noisy: torch.Tensor, noise_prediction: torch.Tensor, abar: torch.Tensor
) -> torch.Tensor:
    """z0_pred = (z_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), fp32 (paper Eq. 2, which prints prod beta for 1 - prod alpha).

    noisy, noise_prediction: (b, c, h, w); abar: (b,).
    """
    abar = abar.float().view(-1, 1, 1, 1)
    return (noisy.float() - torch.sqrt(1 - abar) * noise_prediction.float()) / torch.sqrt(abar)


def gram(features: torch.Tensor) -> torch.Tensor:
    """F F^T / (c h w), (n, c, c), of (n, c, h, w)."""
    count, channels, height, width = features.shape
    flat = features.reshape(count, channels, height * width)
    return flat @ flat.transpose(1, 2) / (channels * height * width)


@dataclass(frozen=True)
class RegionPair:
    """Patches of one kind of region, predicted and true, and the weight w(t) of each patch's sample, (n,)."""

    name: str
    fake: torch.Tensor
    real: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class Visible:
    """How many patches of each region the whole global batch has, so that losses are means however it is divided."""

    regions: dict[str, int]

    @property
    def total(self) -> int:
        """At least 1, to be divided by."""
        return max(sum(self.regions.values()), 1)


class FacialLoss(nn.Module):
    """The two discriminators and what is computed with them."""

    weights: torch.Tensor
    abar: torch.Tensor

    def __init__(
        self,
        settings: FacialSettings,
        channels: int,
        vae_scale_factor: int,
        alphas_cumprod: torch.Tensor,
    ):
        super().__init__()
        self.settings, self.vae_scale_factor = settings, vae_scale_factor
        self.eyes = PatchDiscriminator(channels, settings.discriminator_width)
        self.mouth = PatchDiscriminator(channels, settings.discriminator_width)
        table = weight_table(settings.weight, settings.m, settings.s, alphas_cumprod)
        self.register_buffer("weights", table, persistent=False)
        self.register_buffer("abar", alphas_cumprod.float().clone(), persistent=False)

    def pairs(
        self,
        noisy: torch.Tensor,
        noise_prediction: torch.Tensor,
        clean: torch.Tensor,
        t_step: torch.Tensor,
        boxes_px: torch.Tensor,
        visible: torch.Tensor,
    ) -> list[RegionPair]:
        """Eyes and mouths under the boxes of the predicted latents and of the true ones; invisible regions are not there."""
        fake = predicted_latents(noisy, noise_prediction, self.abar[t_step])
        cells = (self.settings.eye_cells, self.settings.mouth_cells)
        weight = self.weights[t_step]
        cut_fake = cut(fake, boxes_px, visible, cells, self.vae_scale_factor)
        cut_real = cut(clean.float(), boxes_px, visible, cells, self.vae_scale_factor)

        def pair(name: str, made: Patches, true: Patches) -> RegionPair:
            return RegionPair(name, made.pixels, true.pixels, weight[made.sample])

        return [pair("eyes", cut_fake[0], cut_real[0]), pair("mouth", cut_fake[1], cut_real[1])]

    def _judge(self, name: str) -> PatchDiscriminator:
        return self.eyes if name == "eyes" else self.mouth

    def count(self, visible: torch.Tensor) -> Visible:
        """Of (n, 3) bool."""
        return Visible({"eyes": int(visible[:, :2].sum()), "mouth": int(visible[:, 2].sum())})

    def terms(
        self,
        pairs: list[RegionPair],
        visible: Visible,
        parts: dict[str, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The adversarial and the style term: sums over patches of w(t) times each, over all visible ones.

        The discriminators are frozen here: gradients go to the fakes alone. No visible patch gives 0. parts: takes up the
        adversarial term of each region, detached.
        """
        adversarial = style = pairs[0].fake.sum() * 0
        for pair in pairs:
            own = pair.fake.sum() * 0
            if len(pair.fake):
                judge = self._judge(pair.name)
                judge.requires_grad_(False)
                logits, features = judge(pair.fake)
                with torch.no_grad():
                    _, true_features = judge(pair.real)
                judge.requires_grad_(True)
                own = own + (pair.weight * self._adversarial(logits)).sum()
                for share, made, true in zip(STYLE_LAYERS, features, true_features, strict=True):
                    distance = (gram(made) - gram(true)).abs().mean((1, 2))
                    style = style + (pair.weight * share * distance).sum()
            adversarial = adversarial + own
            if parts is not None:
                parts[f"adversarial_{pair.name}"] = own.detach() / visible.total
        return adversarial / visible.total, style / visible.total

    def generator(
        self, pairs: list[RegionPair], visible: Visible
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """lambda_d adversarial + lambda_s style, and its parts."""
        parts: dict[str, torch.Tensor] = {}
        adversarial, style = self.terms(pairs, visible, parts)
        loss = self.settings.lambda_d * adversarial + self.settings.lambda_s * style
        return loss, {"adversarial": adversarial.detach(), "style": style.detach(), **parts}

    def _adversarial(self, logits: torch.Tensor) -> torch.Tensor:
        """Per patch: -log D, or what the paper prints, log(1 - D)."""
        return (
            F.softplus(-logits)
            if self.settings.adversarial == "non-saturating"
            else -F.softplus(logits)
        )

    def discriminator(
        self, pairs: list[RegionPair], visible: Visible
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """w(t) times binary cross-entropy of true against predicted patches, fakes detached; and of each region its loss and
        the share of patches that are told rightly."""
        loss = torch.zeros((), device=self.abar.device)
        parts = {
            f"{kind}_{pair.name}": loss.clone()
            for pair in pairs
            for kind in ("discriminator", "accuracy")
        }
        for pair in pairs:
            if not len(pair.fake):
                continue
            judge = self._judge(pair.name)
            fake, _ = judge(pair.fake.detach())
            real, _ = judge(pair.real.detach())
            region = (pair.weight * (F.softplus(fake) + F.softplus(-real))).sum() / visible.total
            loss = loss + region
            parts[f"discriminator_{pair.name}"] = region.detach()
            right = (fake.detach() < 0).sum() + (real.detach() > 0).sum()
            parts[f"accuracy_{pair.name}"] = right / (2 * visible.regions[pair.name])
        return loss, parts

    def r1(self, pairs: list[RegionPair], visible: Visible) -> torch.Tensor:
        """gamma / 2 times the squared gradient of the logits on true patches (Mescheder et al. 2018), for the steps between."""
        penalty = torch.zeros((), device=self.abar.device)
        for pair in pairs:
            if not len(pair.real):
                continue
            real = pair.real.detach().requires_grad_(True)
            logits, _ = self._judge(pair.name)(real)
            (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            penalty = penalty + slope.square().sum() / visible.total
        return self.settings.r1_gamma / 2 * self.settings.r1_every * penalty

    def ramp(self, step: int) -> float:
        """The share of the facial loss that reaches the ControlNet at a step: 0 during the discriminators' head start."""
        since = step - self.settings.start_step - self.settings.discriminator_only_steps
        if since < 0:
            return 0.0
        return min((since + 1) / (self.settings.ramp_steps + 1), 1.0)
