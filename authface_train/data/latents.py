"""Latents of the crops, computed once: posterior mean and standard deviation of both flips, kept in the workspace's cache."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from authface_train.data.crops import load_crop
from manifests.fingerprint import fingerprint
from manifests.workspace import Workspace

Report = Callable[[int, int], None]


def model_digest(model: torch.nn.Module) -> str:
    """16 hex digits over a model's configuration and weights: what a cache made by it is keyed by."""
    import hashlib

    config = dict(getattr(model, "config", {}))  # its private keys say where it was loaded from, not what it is
    digest = hashlib.sha256(str(sorted(item for item in config.items() if not item[0].startswith("_"))).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def cached_latents(
    workspace: Workspace, vae: Any, view: pd.DataFrame, size_px: int, device: torch.device, report: Report
) -> torch.Tensor:
    """(faces, 2 flips, mean and std, channels, h, w) float32, in the order of the view; index 1 of flips is mirrored.

    Kept per crop under `cache/latents/<VAE and size>/<crop sha256>.npy`. A VAE that gives NaN is a RuntimeError.
    """
    vae = vae.to(device, torch.float32).eval()
    folder = f"cache/latents/{fingerprint(vae=model_digest(vae), size_px=size_px)}"
    there = set(workspace.list(folder))
    latents = []
    for number, (path, sha256) in enumerate(zip(view["crop_path"], view["crop_sha256"], strict=True)):
        name = f"{sha256}.npy"
        if name in there:
            latents.append(torch.from_numpy(np.load(io.BytesIO(workspace.read_bytes(f"{folder}/{name}")))))
        else:
            made = _encode(vae, load_crop(workspace, path, size_px), device)
            out = io.BytesIO()
            np.save(out, made.numpy())
            workspace.write_bytes(f"{folder}/{name}", out.getvalue())
            latents.append(made)
        report(number + 1, len(view))
    return torch.stack(latents)


def _encode(vae: Any, crop: np.ndarray, device: torch.device) -> torch.Tensor:
    """(2 flips, mean and std, channels, h, w) of one crop (H, W, 3) uint8."""
    picture = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 127.5 - 1
    posterior = vae.encode(torch.stack([picture, picture.flip(-1)]).to(device)).latent_dist
    made = torch.stack([posterior.mean, posterior.std], dim=1).cpu()
    if not torch.isfinite(made).all():
        raise RuntimeError("the VAE gave NaN or infinity: its weights do not stand this precision")
    return made


def sample_latent(cached: torch.Tensor, flip: bool, generator: torch.Generator, scaling_factor: float) -> torch.Tensor:
    """scale * (mean + std * noise), (channels, h, w), of one face's (2, 2, channels, h, w)."""
    mean, std = cached[int(flip)]
    return scaling_factor * (mean + std * torch.randn(mean.shape, generator=generator))
