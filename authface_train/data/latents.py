"""VAE latents of the training crops, computed once and kept in the workspace's cache.

Stored are the mean and the standard deviation of the VAE's posterior for each crop and for its
mirror image, so that training samples a new latent in every epoch without the VAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.cache import Cache, CachedSequence, ProgressFunction, Record, fill_cache
from authface_train.data.crops import load_crop
from authface_train.models.digest import model_digest
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class Latents(CachedSequence[torch.Tensor]):
    """The posterior of each face of a training view.

    An item is (2, 2, channels, height, width) float32: axis 0 is the crop and its mirror image,
    axis 1 mean and standard deviation.
    """

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        """The posterior of the face in row `index`."""
        return self.cache[self.keys[index]]["latents"]


def latents_cache(workspace: Workspace, vae: AutoencoderKL, size_px: int) -> Cache:
    """The cache of latents for a VAE and a crop size, keyed by `crop_sha256`.

    Args:
        workspace: The workspace.
        vae: The VAE; its weights and configuration decide the folder.
        size_px: Side of the crops.
    """
    return Cache(workspace, f"cache/latents/{fingerprint(vae=model_digest(vae), size_px=size_px)}")


def cached_latents(
    workspace: Workspace,
    vae: AutoencoderKL,
    view: pd.DataFrame,
    size_px: int,
    accelerator: Accelerator,
    report: ProgressFunction,
) -> Latents:
    """The latents of a view's crops; missing ones are computed in fp32.

    A crop is encoded together with its mirror image and nothing else, so that its latents do not
    depend on other crops.

    Args:
        workspace: The workspace.
        vae: The VAE. It is moved to the accelerator's device.
        view: Training view.
        size_px: Side of the crops.
        accelerator: The run's accelerator.
        report: Is called with the number of latents done and to do.

    Returns:
        One item per row of the view.

    Raises:
        UserError: If the VAE returns NaN or infinity.
    """
    cache = latents_cache(workspace, vae, size_px)
    paths = dict(zip(view["crop_sha256"], view["crop_path"], strict=True))

    def compute(keys: list[str]) -> Iterator[Record]:
        device_vae = vae.to(accelerator.device, torch.float32).eval()
        for key in keys:
            yield {"latents": encode_crop(device_vae, load_crop(workspace, paths[key], size_px))}

    keys = view["crop_sha256"].tolist()
    fill_cache(cache, keys, compute, accelerator, report)
    return Latents(cache, keys)


@torch.no_grad()
def encode_crop(vae: AutoencoderKL, crop: np.ndarray) -> torch.Tensor:
    """Encode a crop and its mirror image.

    Args:
        vae: The VAE, in fp32.
        crop: (height, width, 3) uint8.

    Returns:
        (2, 2, channels, h, w) float32 on the CPU, see `Latents`; not scaled by `scaling_factor`.

    Raises:
        UserError: If the VAE returns NaN or infinity.
    """
    image = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 127.5 - 1
    posterior = vae.encode(torch.stack([image, image.flip(-1)]).to(vae.device)).latent_dist
    latents = torch.stack([posterior.mean, posterior.std], dim=1).cpu()
    if not torch.isfinite(latents).all():
        raise UserError(
            "the VAE returns NaN or infinity; its weights are broken, use another --base"
        )
    return latents


def sample_latent(
    posterior: torch.Tensor, flip: bool, generator: torch.Generator, scaling_factor: float
) -> torch.Tensor:
    """Sample a scaled latent: scaling_factor * (mean + std * noise).

    Args:
        posterior: (2, 2, channels, height, width), see `Latents`.
        flip: Whether to use the mirrored crop.
        generator: Source of the noise.
        scaling_factor: `vae.config.scaling_factor`, 0.13025 for SDXL.

    Returns:
        (channels, height, width) float32.
    """
    mean, std = posterior[int(flip)]
    return scaling_factor * (mean + std * torch.randn(mean.shape, generator=generator))
