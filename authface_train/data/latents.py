"""Latents of the crops, computed once: posterior mean and standard deviation of both flips, kept in the workspace's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.cache import Cache, CachedSequence, ProgressFunction, Record, fill
from authface_train.data.crops import load_crop
from authface_train.models.digest import model_digest
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace


class Latents(CachedSequence):
    """(2 flips, mean and std, channels, h, w) float32 of each row of a view; index 1 of flips is mirrored."""

    def __getitem__(self, index: Any) -> Any:
        return self.cache[self.keys[index]]["latents"]


def latents_cache(workspace: Workspace, vae: Any, size_px: int) -> Cache:
    """Keyed by crop_sha256, in a folder of the VAE's weights and the size."""
    return Cache(workspace, f"cache/latents/{fingerprint(vae=model_digest(vae), size_px=size_px)}")


def cached_latents(
    workspace: Workspace,
    vae: Any,
    view: pd.DataFrame,
    size_px: int,
    accelerator: Accelerator,
    report: ProgressFunction,
) -> Latents:
    """The latents of a view's crops; those that are not there yet are made, in fp32.

    A crop is encoded with its mirror image and nothing else, so that what it becomes depends on it alone. Raises UserError
    for a VAE that gives NaN or infinity.
    """
    cache = latents_cache(workspace, vae, size_px)
    paths = dict(zip(view["crop_sha256"], view["crop_path"], strict=True))

    def make(keys: list[str]) -> Iterator[Record]:
        on_device = vae.to(accelerator.device, torch.float32).eval()
        for key in keys:
            yield {"latents": encode(on_device, load_crop(workspace, paths[key], size_px))}

    fill(cache, view["crop_sha256"].tolist(), make, accelerator, report)
    return Latents(cache, view["crop_sha256"].tolist())


@torch.no_grad()
def encode(vae: Any, crop: np.ndarray) -> torch.Tensor:
    """(2 flips, mean and std, channels, h, w) of one crop (H, W, 3) uint8."""
    picture = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 127.5 - 1
    posterior = vae.encode(torch.stack([picture, picture.flip(-1)]).to(vae.device)).latent_dist
    made = torch.stack([posterior.mean, posterior.std], dim=1).cpu()
    if not torch.isfinite(made).all():
        raise UserError(
            "the VAE gives NaN or infinity: its weights are broken; name another --base"
        )
    return made


def sample_latent(
    cached: torch.Tensor, flip: bool, generator: torch.Generator, scaling_factor: float
) -> torch.Tensor:
    """scale * (mean + std * noise), (channels, h, w), of one face's (2, 2, channels, h, w)."""
    mean, std = cached[int(flip)]
    return scaling_factor * (mean + std * torch.randn(mean.shape, generator=generator))
