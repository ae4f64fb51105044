"""The training samples of both stages: the tensors that belong to a sample's key.

Data workers receive a pickled copy of a dataset. It holds no model and no open file, and nothing
here imports diffusers, so that a worker starts quickly whatever the start method is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from torch.utils.data import Dataset

from authface_train.data.latents import sample_latent
from authface_train.data.pairs import DegradedPairs, to_planes
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import SampleKey, torch_generator
from authface_train.settings import PriorSettings

if TYPE_CHECKING:
    from authface_train.models.sdxl import DiffusionCore

Sample = dict[str, torch.Tensor]
"""Tensors by name: of one sample, or of a batch with a leading batch dimension."""


class NoiseSampler:
    """Draws latent, noise, timestep and mirroring of a training sample from its key and the seed.

    Args:
        seed: Seed of the run.
        view: The training faces, one row each, with a column `face_id`.
        latents: For each row (2 flips, mean and std, channels, height, width) float32: the VAE's
            posterior of the crop and of its mirror image.
        core: The number of timesteps of its scheduler and its scaling factor are used.
    """

    def __init__(
        self,
        seed: int,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        core: DiffusionCore,
    ) -> None:
        self.seed = seed
        self.latents = latents
        self.face_ids: list[str] = view["face_id"].tolist()
        self.scaling_factor = core.scaling_factor
        self.num_timesteps: int = core.scheduler.config.num_train_timesteps

    def sample(self, key: SampleKey) -> tuple[Sample, bool]:
        """Draw one sample.

        Args:
            key: Face and epoch; the same key always gives the same sample.

        Returns:
            `latent` and `noise`, (channels, height, width) float32, and `timesteps`, () int64; and
            whether the crop is mirrored.
        """
        generator = torch_generator(self.seed, key.epoch, self.face_ids[key.index], "noise")
        flip = bool(torch.rand((), generator=generator) < 0.5)
        latent = sample_latent(self.latents[key.index], flip, generator, self.scaling_factor)
        noise = torch.randn(latent.shape, generator=generator)
        timestep = torch.randint(self.num_timesteps, (), generator=generator)
        return {"latent": latent, "noise": noise, "timesteps": timestep}, flip


class PriorDataset(Dataset[Sample]):
    """Samples of Stage I: latent, noise, timestep and the embedding of the caption.

    Args:
        settings: The run's settings.
        noise_sampler: Draws latent, noise and timestep.
        prompts: `settings.orders` embeddings per face, face by face, one per order of its tags.
        null_prompt: Embedding of the empty prompt, which replaces dropped captions.
    """

    def __init__(
        self,
        settings: PriorSettings,
        noise_sampler: NoiseSampler,
        prompts: Sequence[Embedding],
        null_prompt: Embedding,
    ) -> None:
        self.settings = settings
        self.noise_sampler = noise_sampler
        self.prompts = prompts
        self.null_prompt = null_prompt

    def __getitem__(self, key: SampleKey) -> Sample:
        """`latent`, `noise`, `timesteps`, and `embeds` and `pooled` as in `Embedding`."""
        sample, _ = self.noise_sampler.sample(key)
        face_id = self.noise_sampler.face_ids[key.index]
        generator = torch_generator(self.settings.seed, key.epoch, face_id, "prior")
        if self.settings.offset_noise:
            noise = sample["noise"]
            offset = torch.randn(len(noise), 1, 1, generator=generator)
            sample["noise"] = noise + self.settings.offset_noise * offset

        orders = self.settings.orders
        prompt = self.prompts[key.index * orders + key.epoch % orders]
        dropout = self.settings.caption_dropout
        if dropout and float(torch.rand((), generator=generator)) < dropout:
            prompt = self.null_prompt
        return {**sample, "embeds": prompt.embeds, "pooled": prompt.pooled}


class RestorerDataset(Dataset[Sample]):
    """Samples of Stage II: latent, noise, timestep, degraded crop and facial regions.

    Args:
        noise_sampler: Draws latent, noise, timestep and mirroring.
        pairs: Degrades the crops.
        degrade_on: `gpu` leaves the degradation to the trainer: instead of `degraded`, samples have
            `crop`, (3, side, side) uint8 at `REFERENCE_PX`, and `key`, (2,) int64.
    """

    def __init__(
        self,
        noise_sampler: NoiseSampler,
        pairs: DegradedPairs,
        degrade_on: Literal["cpu", "gpu"] = "cpu",
    ) -> None:
        self.noise_sampler = noise_sampler
        self.pairs = pairs
        self.degrade_on = degrade_on

    def __getitem__(self, key: SampleKey) -> Sample:
        """`latent`, `noise`, `timesteps`, and the fields of `DegradedPair`."""
        sample, flip = self.noise_sampler.sample(key)
        if self.degrade_on == "gpu":
            boxes_px, visible = self.pairs.regions(key, flip)
            return {
                **sample,
                "crop": to_planes(self.pairs.reference_crop(key, flip)),
                "key": torch.tensor([key.epoch, key.index]),
                "boxes_px": boxes_px,
                "visible": visible,
            }
        pair = self.pairs.make_pair(key, flip)
        return {
            **sample,
            "degraded": pair.degraded,
            "boxes_px": pair.boxes_px,
            "visible": pair.visible,
        }


class RegressionDataset(Dataset[Sample]):
    """Samples of the regression baseline: the degraded and the clean face.

    Args:
        noise_sampler: Decides which samples are mirrored.
        pairs: Degrades the crops.
    """

    def __init__(self, noise_sampler: NoiseSampler, pairs: DegradedPairs) -> None:
        self.noise_sampler = noise_sampler
        self.pairs = pairs

    def __getitem__(self, key: SampleKey) -> Sample:
        """`degraded` and `clean`, each (3, size, size) float32 in [0, 1]."""
        _, flip = self.noise_sampler.sample(key)
        clean = torch.from_numpy(self.pairs.clean_crop(key, flip).copy()).permute(2, 0, 1)
        return {
            "degraded": self.pairs.make_pair(key, flip).degraded,
            "clean": clean.float() / 255,
        }
