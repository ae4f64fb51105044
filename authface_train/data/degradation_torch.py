"""The degradations of `degradation.py` as tensor operations, for batches on a GPU.

A sample has the same parameters as on the CPU. Its noise is made on the device from the same seed,
so it has other values than the noise of the CPU. With equal noise the results are within 35 dB of
the CPU's, half of them within 42 dB (tests/authface_train/data): a rounded grey level that differs
by one may change a coefficient of the JPEG file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len

from authface_train.data.blur import KERNEL_SIZE, RADIUS
from authface_train.data.degradation import (
    BRIGHTNESS,
    CONTRAST,
    LUMA,
    SATURATION,
    DegradationParams,
)
from authface_train.data.jpeg_torch import compress_jpeg


@torch.no_grad()
def degrade_batch(
    images: torch.Tensor,
    params: Sequence[DegradationParams],
    size_px: int,
    noise: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Degrade a batch of square pictures. Nothing is copied from the device.

    Args:
        images: (batch, 3, side, side) uint8 RGB. Blur and noise are meant for `REFERENCE_PX`.
        params: The degradation of each picture.
        size_px: Side of the result, see `resize_degraded`.
        noise: Standard normal noise (3, low side, low side) of each picture instead of noise from
            its seed.

    Returns:
        (batch, 3, size_px, size_px) float32 RGB in [0, 1], on the device of the pictures.
    """
    side = images.shape[-1]
    blurred = _blur(images, params)
    degraded = []
    for index, sample in enumerate(params):
        low_side = max(int(side // sample.down), 1)
        (levels,) = _resize(blurred[index : index + 1], low_side)
        if noise is None:
            generator = torch.Generator(images.device).manual_seed(sample.noise_seed)
            sample_noise = torch.randn(levels.shape, generator=generator, device=images.device)
        else:
            sample_noise = noise[index]
        levels = compress_jpeg(levels + sample.noise * sample_noise, sample.jpeg)
        degraded.append(_change_colours(_resize(levels[None] / 255, side), sample))
    return _resize_result(torch.cat(degraded), size_px)


def _blur(images: torch.Tensor, params: Sequence[DegradationParams]) -> torch.Tensor:
    """Filter each picture with its Gaussian kernel, by Fourier transforms.

    Returns:
        (batch, 3, side, side) float32, in grey levels.
    """
    padded = F.pad(images.float(), (RADIUS,) * 4, mode="reflect")
    side = padded.shape[-1]
    fast_side = next_fast_len(side, real=True)
    spectrum = torch.fft.rfft2(padded, s=(fast_side, fast_side))
    spectrum *= torch.fft.rfft2(_kernels(params, images.device), s=(fast_side, fast_side))
    # What the transform wraps around is cut off.
    valid = slice(KERNEL_SIZE - 1, side)
    return torch.fft.irfft2(spectrum, s=(fast_side, fast_side))[..., valid, valid]


def _kernels(params: Sequence[DegradationParams], device: torch.device) -> torch.Tensor:
    """The kernels of `gaussian_kernel`, (batch, 1, 41, 41) float32."""
    precisions = []
    for sample in params:
        cos = math.cos(sample.turn_rad)
        sin = math.sin(sample.turn_rad)
        first, second = (1 / sigma**2 for sigma in sample.sigmas_px)
        precisions.append(
            (
                cos**2 * first + sin**2 * second,
                cos * sin * (first - second),
                sin**2 * first + cos**2 * second,
            )
        )
    host = torch.tensor(precisions, dtype=torch.float64)
    if device.type == "cuda":
        host = host.pin_memory()
    xx, xy, yy = host.to(device, non_blocking=True)[:, :, None, None].unbind(dim=1)
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=device)
    xs = offsets[None, :]
    ys = offsets[:, None]
    kernels = torch.exp(-0.5 * (xx * xs**2 + 2 * xy * xs * ys + yy * ys**2))
    return (kernels / kernels.sum(dim=(1, 2), keepdim=True)).float()[:, None]


def _change_colours(image: torch.Tensor, sample: DegradationParams) -> torch.Tensor:
    """Shift, grey, jitter and rounding of a picture (1, 3, side, side) in [0, 1]."""
    if sample.shift:
        channels = [image[:, [index]] + value for index, value in enumerate(sample.shift)]
        image = torch.cat(channels, dim=1).clamp(0, 1)
    if sample.grey:
        image = _grey(image).expand(-1, 3, -1, -1)
    if sample.jitter:
        image = _jitter_colours(image, sample.jitter, sample.jitter_order)
    image = image.clamp(0, 1)
    return (image * 255).round() / 255 if sample.rounded else image


def _grey(image: torch.Tensor) -> torch.Tensor:
    """(batch, 1, height, width)."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _jitter_colours(
    image: torch.Tensor, amounts: tuple[float, float, float, float], order: tuple[int, ...]
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue in `order`."""
    from torchvision.transforms.functional import adjust_hue

    brightness, contrast, saturation, hue = amounts
    for operation in order:
        if operation == BRIGHTNESS:
            image = image * brightness
        elif operation == CONTRAST:
            image = image * contrast + (1 - contrast) * _grey(image).mean()
        elif operation == SATURATION:
            image = image * saturation + (1 - saturation) * _grey(image)
        else:
            image = adjust_hue(image, hue)
        image = image.clamp(0, 1)
    return image


def _resize(images: torch.Tensor, side_px: int) -> torch.Tensor:
    """Interpolate pictures (batch, 3, side, side) bilinearly."""
    if images.shape[-1] == side_px:
        return images
    return F.interpolate(images, (side_px, side_px), mode="bilinear", align_corners=False)


def _resize_result(images: torch.Tensor, side_px: int) -> torch.Tensor:
    """Resize pictures like `resize_degraded`."""
    side = images.shape[-1]
    if side_px >= side:
        return _resize(images, side_px)
    if side % side_px == 0:
        return F.avg_pool2d(images, side // side_px)
    weights = _area_weights(side, side_px, images.device)
    return torch.einsum("oh,bchw,pw->bcop", weights, images, weights)


@lru_cache(maxsize=4)
def _area_weights(old_size: int, new_size: int, device: torch.device) -> torch.Tensor:
    """(new_size, old_size) float32: the share of each old pixel in the area of a new one."""
    scale = old_size / new_size
    edges = torch.arange(new_size, dtype=torch.float64)[:, None] * scale
    pixels = torch.arange(old_size, dtype=torch.float64)
    overlap = torch.minimum(edges + scale, pixels + 1) - torch.maximum(edges, pixels)
    return (overlap.clamp(min=0) / scale).float().to(device)
