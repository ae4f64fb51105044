"""Blur and downscaling in one pass, computing only the blurred pixels that the small picture uses.

A 41 x 41 kernel is approximated by a short sum of products of a column and a row: its singular
values fall quickly. Each direction is then one banded matrix that blurs and interpolates at once.
The result is within 60 dB of a full blur followed by a resize (tests/authface_train/data) and takes
a fraction of the time (benchmarks/degrade.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

KERNEL_SIZE = 41
RADIUS = KERNEL_SIZE // 2
MIN_SINGULAR_VALUE = 3e-4
"""Products below this fraction of the largest singular value are left out."""
MAX_SCALE = 1.0
"""At a larger scale most pixels are used, so the whole picture is blurred."""


@dataclass(frozen=True)
class _Band:
    """A block of rows of the matrix that blurs and interpolates along one direction."""

    start: int
    """First output."""
    end: int
    """Output after the last one."""
    first_input: int
    """First padded input."""
    weights: torch.Tensor
    """(terms, end - start, inputs) float32."""


def gaussian_kernel(sigmas_px: tuple[float, float], turn_rad: float) -> np.ndarray:
    """Build a rotated anisotropic Gaussian kernel.

    Args:
        sigmas_px: Standard deviations along both axes, in pixels.
        turn_rad: Rotation of the axes, in radians.

    Returns:
        (41, 41) float32 with the sum 1.
    """
    cos = np.cos(turn_rad)
    sin = np.sin(turn_rad)
    rotation = np.array([[cos, -sin], [sin, cos]])
    inverse = np.linalg.inv(rotation @ np.diag(np.square(sigmas_px)) @ rotation.T)
    ys, xs = np.mgrid[:KERNEL_SIZE, :KERNEL_SIZE] - RADIUS
    kernel = np.exp(
        -0.5 * (inverse[0, 0] * xs * xs + 2 * inverse[0, 1] * xs * ys + inverse[1, 1] * ys * ys)
    )
    return (kernel / kernel.sum()).astype(np.float32)


def blur_and_resize(image: np.ndarray, kernel: np.ndarray, width: int, height: int) -> np.ndarray:
    """Filter a picture with a kernel and resize it bilinearly.

    Args:
        image: (height, width, 3) float32. Its edges are mirrored for the filter.
        kernel: (41, 41) float32.
        width: Width of the result.
        height: Height of the result.

    Returns:
        (height, width, 3) float32.
    """
    import cv2

    old_height, old_width = image.shape[:2]
    if height > MAX_SCALE * old_height or width > MAX_SCALE * old_width:
        blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))

    left, singular_values, right = np.linalg.svd(kernel)
    terms = int((singular_values > MIN_SINGULAR_VALUE * singular_values[0]).sum())
    column_filters = (left[:, :terms] * singular_values[:terms]).T
    row_filters = right[:terms]

    padded = cv2.copyMakeBorder(image, RADIUS, RADIUS, RADIUS, RADIUS, cv2.BORDER_REFLECT_101)
    # torch multiplies here because data loaders limit it to one thread per worker; the threads of
    # NumPy's BLAS in several workers would compete for the cores.
    planes = torch.from_numpy(padded).permute(2, 0, 1).contiguous()
    columns_done = torch.empty(3, terms, height, planes.shape[2])
    for band in _make_bands(column_filters, old_height, height):
        num_inputs = band.weights.shape[2]
        inputs = planes[:, band.first_input : band.first_input + num_inputs]
        # (terms * outputs, inputs) @ (3, inputs, padded width)
        outputs = torch.matmul(band.weights.flatten(0, 1), inputs)
        columns_done[:, :, band.start : band.end] = outputs.view(
            3, terms, band.end - band.start, -1
        )

    resized = torch.empty(3, height, width)
    for band in _make_bands(row_filters, old_width, width):
        num_inputs = band.weights.shape[2]
        inputs = columns_done[..., band.first_input : band.first_input + num_inputs]
        # (3, terms, height, inputs) @ (terms, inputs, outputs)
        outputs = torch.matmul(inputs, band.weights.transpose(1, 2))
        resized[..., band.start : band.end] = outputs.sum(dim=1)
    return resized.permute(1, 2, 0).contiguous().numpy()


def _make_bands(filters: np.ndarray, old_size: int, new_size: int) -> list[_Band]:
    """Divide the matrix of one direction into bands, so that few of its zeros are multiplied.

    Args:
        filters: (terms, 41) filters along the direction.
        old_size: Size of the picture along the direction, before padding.
        new_size: Size of the result. Each output interpolates between two blurred inputs.
    """
    position = np.clip((np.arange(new_size) + 0.5) * old_size / new_size - 0.5, 0, old_size - 1)
    lower = np.minimum(np.floor(position).astype(int), old_size - 2)
    fraction = (position - lower)[None, :, None]
    taps = np.zeros((len(filters), new_size, KERNEL_SIZE + 1))
    taps[..., :-1] = (1 - fraction) * filters[:, None]
    taps[..., 1:] += fraction * filters[:, None]

    band_size = max(8, round(KERNEL_SIZE * new_size / old_size))
    bands = []
    for start in range(0, new_size, band_size):
        end = min(start + band_size, new_size)
        num_outputs = end - start
        num_inputs = lower[end - 1] - lower[start] + KERNEL_SIZE + 1
        weights = np.zeros((len(filters), num_outputs, num_inputs), np.float32)
        rows = np.arange(num_outputs)[:, None]
        columns = (lower[start:end] - lower[start])[:, None] + np.arange(KERNEL_SIZE + 1)
        weights[:, rows, columns] = taps[:, start:end]
        bands.append(_Band(start, end, int(lower[start]), torch.from_numpy(weights)))
    return bands
