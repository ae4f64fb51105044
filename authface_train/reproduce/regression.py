"""The regression baseline: a U-Net of the restorer's size that predicts the clean face directly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import Dataset

from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import NoiseSampler, RegressionDataset, Sample
from authface_train.settings import RestorerSettings
from authface_train.training.loop import TIMESTEP_BINS, StepLosses
from authface_train.training.trainable_model import TrainableModel, prepare_for_training
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class RegressionTrainer:
    """Trains a U-Net with the mean squared error of pixels.

    It sees the same faces, mirror images and degradations as a restorer with the same settings.

    Args:
        settings: Settings of a restorer.
        unet: A U-Net on pixel-unshuffled images, with 3 * cell_px**2 channels in and out.
        cell_px: Side of a cell of the pixel-unshuffle.
        workspace: Holds the crops.
        view: The training faces, one row each.
        noise_sampler: Decides which samples are mirrored.
        null_prompt: Embedding of the empty prompt, which the U-Net needs as an input.
        accelerator: Knows the device and the processes.

    Attributes:
        models: The trained models by name, here `unet`.
        dataset: The training samples.
        num_faces: Number of training faces.
    """

    def __init__(
        self,
        *,
        settings: RestorerSettings,
        unet: UNet2DConditionModel,
        cell_px: int,
        workspace: Workspace,
        view: pd.DataFrame,
        noise_sampler: NoiseSampler,
        null_prompt: Embedding,
        accelerator: Accelerator,
    ) -> None:
        self.settings = settings
        self.cell_px = cell_px
        self.null_prompt = null_prompt
        self.accelerator = accelerator
        self.num_faces = len(view)
        pairs = DegradedPairs(
            workspace, view, settings.resolution_px, settings.degradation, settings.seed
        )
        self.noise_sampler = noise_sampler
        self.pairs = pairs
        self.dataset: Dataset[Sample] = RegressionDataset(noise_sampler, pairs)
        trainable = unet.train().requires_grad_(True)
        self.models: dict[str, TrainableModel] = {
            "unet": prepare_for_training(trainable, settings, accelerator)
        }

    def step(self, step: int, keys: list[SampleKey], micro_batches: Iterator[Sample]) -> StepLosses:
        """Train on one global batch."""
        model = self.models["unet"]
        share = self.settings.batch // self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        for batch in micro_batches:
            prediction = predict_clean(
                model.module, batch["degraded"], self.cell_px, self.null_prompt
            )
            loss = F.mse_loss(prediction, batch["clean"]) * len(prediction) / share
            self.accelerator.backward(loss)
            total += loss.detach()

        norm = model.update(self.accelerator, self.settings)
        assert norm is not None
        no_timesteps = torch.zeros(2, TIMESTEP_BINS, device=total.device)
        return StepLosses({"loss": total, "gradient_norm": norm}, no_timesteps)


def predict_clean(
    unet: torch.nn.Module, degraded: torch.Tensor, cell_px: int, null_prompt: Embedding
) -> torch.Tensor:
    """Add the U-Net's correction to degraded faces.

    Args:
        unet: The regression U-Net.
        degraded: (batch, 3, size, size) in [0, 1].
        cell_px: Side of a cell of the pixel-unshuffle.
        null_prompt: Embedding of the empty prompt.

    Returns:
        (batch, 3, size, size), approximately in [0, 1].
    """
    count = len(degraded)
    conditions = {
        "text_embeds": null_prompt.pooled[None].expand(count, -1),
        "time_ids": torch.tensor(time_ids(degraded.shape[-1])).expand(count, -1),
    }
    cells = F.pixel_unshuffle(2 * degraded - 1, cell_px)
    timesteps = torch.zeros(count, dtype=torch.long)
    embeds = null_prompt.embeds[None].expand(count, -1, -1)
    correction = unet(cells, timesteps, embeds, added_cond_kwargs=conditions).sample
    return degraded + F.pixel_shuffle(correction, cell_px)


@torch.no_grad()
def restore_images(
    unet: torch.nn.Module, images: list[np.ndarray], cell_px: int, null_prompt: Embedding
) -> list[np.ndarray]:
    """Restore images with the regression U-Net, one at a time.

    Args:
        unet: The regression U-Net.
        images: Degraded faces, (size, size, 3) uint8 each.
        cell_px: Side of a cell of the pixel-unshuffle.
        null_prompt: Embedding of the empty prompt.

    Returns:
        Restored faces, (size, size, 3) uint8 each.
    """
    restored = []
    for image in images:
        degraded = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        pixels = predict_clean(unet, degraded, cell_px, null_prompt)[0].clamp(0, 1)
        restored.append((pixels * 255).round().byte().permute(1, 2, 0).numpy())
    return restored
