"""The plain baseline: a U-Net of the restorer's size that goes from the degraded face to the clean one in one step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey
from authface_train.settings import RestorerSettings
from authface_train.stages.prior import trained_part
from authface_train.training.loop import TIMESTEP_BINS, Losses, Sample
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.noise import NoiseSampler
from authface_train.training.sharding import clip_gradients
from manifests.workspace import Workspace


class RegressionTrainer:
    """parts: the U-Net, on pixels side by side (3 cell² channels). The same faces, mirrorings and degradations as a restorer's
    of the same settings; squared error on pixels."""

    def __init__(
        self,
        settings: RestorerSettings,
        unet: Any,
        cell_px: int,
        workspace: Workspace,
        view: pd.DataFrame,
        draws: NoiseSampler,
        null_prompt: Embedding,
        accelerator: Accelerator,
    ):
        self.settings, self.cell_px, self.draws, self.accelerator = (
            settings,
            cell_px,
            draws,
            accelerator,
        )
        self.faces, self.null_prompt = len(view), null_prompt
        self.pairs = DegradedPairs(
            workspace, view, settings.resolution_px, settings.degradation, settings.seed
        )
        self.parts = {
            "unet": trained_part(unet.train().requires_grad_(True), settings, accelerator)
        }

    def sample(self, draw: SampleKey) -> Sample:
        _, flip = self.draws.draw(draw)
        clean = torch.from_numpy(self.pairs.clean(draw, flip).copy()).permute(2, 0, 1).float() / 255
        return {"degraded": self.pairs.pair(draw, flip).degraded, "clean": clean}

    def step(self, step: int, draws: list[SampleKey], micros: Iterator[Sample]) -> Losses:
        part, share = self.parts["unet"], self.settings.batch // self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        for batch in micros:
            made = restored(part.module, batch["degraded"], self.cell_px, self.null_prompt)
            loss = F.mse_loss(made, batch["clean"]) * len(made) / share
            self.accelerator.backward(loss)
            total += loss.detach()
        norm = clip_gradients(self.accelerator, part.module, self.settings.clip_norm)
        part.optimiser.step()
        part.optimiser.zero_grad(set_to_none=True)
        if part.ema is not None:
            part.ema.update()
        return Losses(
            {"loss": total, "gradient_norm": norm},
            torch.zeros(2, TIMESTEP_BINS, device=total.device),
        )

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        return None


def restored(
    unet: Any, degraded: torch.Tensor, cell_px: int, null_prompt: Embedding
) -> torch.Tensor:
    """(b, 3, h, w) in about [0, 1] of degraded ones: themselves, and what the U-Net adds."""
    count = len(degraded)
    added = {
        "text_embeds": null_prompt.pooled[None].expand(count, -1),
        "time_ids": torch.tensor(time_ids(degraded.shape[-1])).expand(count, -1),
    }
    cells = F.pixel_unshuffle(2 * degraded - 1, cell_px)
    still = torch.zeros(count, dtype=torch.long)
    change = unet(
        cells, still, null_prompt.embeds[None].expand(count, -1, -1), added_cond_kwargs=added
    ).sample
    return degraded + F.pixel_shuffle(change, cell_px)


@torch.no_grad()
def restore(
    unet: Any, pictures: list[np.ndarray], cell_px: int, null_prompt: Embedding
) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8, a few at a time."""
    made = []
    for picture in pictures:
        degraded = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        pixels = restored(unet, degraded, cell_px, null_prompt)[0].clamp(0, 1)
        made.append((pixels * 255).round().byte().permute(1, 2, 0).numpy())
    return made
