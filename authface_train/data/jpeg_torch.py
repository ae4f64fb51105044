"""JPEG compression as tensor operations, without the entropy coding, which loses nothing.

The steps and their rounding are those of libjpeg-turbo with its default options, which OpenCV uses:
chroma subsampling 4:2:0, the tables of the standard's annex K scaled by the quality, and
interpolated ("fancy") chroma. Only the factors of the cosine transforms are more exact here than
its fixed-point numbers, which changes single grey levels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

BLOCK = 8
MCU = 2 * BLOCK
"""Side of the area that one block of subsampled chroma covers."""

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)


def compress_jpeg(levels: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode a picture as JPEG and decode it again.

    Args:
        levels: (3, height, width) RGB in grey levels, 0 to 255; it is clipped and rounded.
        quality: JPEG quality, 1 to 100.

    Returns:
        (3, height, width) float32, whole numbers from 0 to 255.
    """
    height, width = levels.shape[1:]
    red, green, blue = levels.double().clamp(0, 255).round()
    luma = _round(0.299 * red + 0.587 * green + 0.114 * blue)
    chroma_blue = _round(-0.168735892 * red - 0.331264108 * green + 0.5 * blue + 128)
    chroma_red = _round(0.5 * red - 0.418687589 * green - 0.081312411 * blue + 128)

    padding = (0, -width % MCU, 0, -height % MCU)
    planes = torch.stack([luma, chroma_blue, chroma_red])
    planes = F.pad(planes[None], padding, mode="replicate")[0]
    luma = _quantise(planes[:1], _scaled_table(LUMA_TABLE, quality, levels.device))
    chroma = _quantise(_halve(planes[1:]), _scaled_table(CHROMA_TABLE, quality, levels.device))

    luma = luma[0, :height, :width]
    chroma = _double(chroma[:, : -(-height // 2), : -(-width // 2)])
    chroma_blue, chroma_red = chroma[:, :height, :width] - 128
    decoded = torch.stack(
        [
            luma + _round(1.402 * chroma_red),
            luma + _round(-0.344136286 * chroma_blue - 0.714136286 * chroma_red),
            luma + _round(1.772 * chroma_blue),
        ]
    )
    return decoded.clamp(0, 255).float()


def _round(values: torch.Tensor) -> torch.Tensor:
    """Round to whole numbers, halves up."""
    return torch.floor(values + 0.5)


def _halve(planes: torch.Tensor) -> torch.Tensor:
    """Average 2 x 2 pixels; halves are rounded down and up in turns, from column to column."""
    sums = F.avg_pool2d(planes, 2) * 4
    bias = 1 + torch.arange(sums.shape[-1], device=planes.device) % 2
    return torch.floor((sums + bias) / 4)


def _double(planes: torch.Tensor) -> torch.Tensor:
    """Enlarge chroma to twice its size: weights 3/4 for the nearer pixel and 1/4 for the other."""
    padded = F.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]
    centre = 3 * padded[:, 1:-1]
    rows = torch.stack([centre + padded[:, :-2], centre + padded[:, 2:]], dim=2).flatten(1, 2)
    inner = 3 * rows[..., 1:-1]
    left = torch.floor((inner + rows[..., :-2] + 8) / 16)
    right = torch.floor((inner + rows[..., 2:] + 7) / 16)
    return torch.stack([left, right], dim=-1).flatten(-2)


def _quantise(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Round the cosine coefficients of 8 x 8 blocks to multiples of a table.

    Args:
        planes: (planes, height, width) float64, multiples of 8 pixels.
        table: (8, 8) float64.

    Returns:
        The planes after quantisation, whole numbers from 0 to 255.
    """
    transform = math.sqrt(BLOCK) * _cosines(planes.device)
    blocks = planes.unflatten(-1, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3) - 128
    # Between rows and columns libjpeg rounds to quarters; coefficients are rounded to eighths.
    quarters = _round(4 * (blocks @ transform.T))
    eighths = _round(transform @ quarters / 4)
    divisors = 8 * table
    rounded = torch.sign(eighths) * torch.floor((eighths.abs() + divisors / 2) / divisors)
    quarters = _round(4 * (transform.T @ (rounded * table)))
    blocks = _round(quarters @ transform / (4 * 8))
    planes = blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return (planes + 128).clamp(0, 255)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> torch.Tensor:
    """The orthonormal cosine transform of 8 values, (8, 8) float64."""
    frequencies = torch.arange(BLOCK, dtype=torch.float64)[:, None]
    positions = torch.arange(BLOCK, dtype=torch.float64)
    cosines = torch.cos((2 * positions + 1) * frequencies * math.pi / (2 * BLOCK)) / 2
    cosines[0] /= math.sqrt(2)
    return cosines.to(device)


@lru_cache(maxsize=512)
def _scaled_table(
    table: tuple[tuple[int, ...], ...], quality: int, device: torch.device
) -> torch.Tensor:
    """A table of the standard for a quality, as libjpeg scales it, (8, 8) float64."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(table) * percent + 50) // 100
    return scaled.clamp(1, 255).double().to(device)
