"""Blur and downscaling in one pass, computing only the blurred pixels that the small picture uses.

A 41 x 41 kernel is approximated by a short sum of products of a column and a row: its singular
values fall quickly. Each direction is then one banded matrix that blurs and interpolates at once.
Kernels with many terms and large results are cheaper with Fourier transforms of the whole picture.
The result is within 60 dB of a full blur followed by a resize (tests/authface_train/data) and takes
a fraction of the time (benchmarks/degrade.py).

torch multiplies the matrices because data loaders limit it to one thread per worker; the threads of
NumPy's BLAS in several workers would compete for the cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

KERNEL_SIZE = 41
RADIUS = KERNEL_SIZE // 2
MIN_SINGULAR_VALUE = 3e-4
"""Products below this fraction of the largest singular value are left out."""
MAX_TAIL = 2e-5
"""Rows and columns at the edge of a kernel are left out up to this part of its sum."""
MAX_INTERMEDIATE = 600_000
"""If both directions have more results per channel, a Fourier transform of the whole picture is
faster."""
MIN_COLUMN_OUTPUTS = 16
MIN_ROW_OUTPUTS = 32
"""Narrower bands have fewer zeros but are multiplied less efficiently."""


@dataclass(frozen=True)
class _Band:
    """A block of rows of the matrix that blurs and interpolates along one direction."""

    start: int
    """First output."""
    end: int
    """Output after the last one."""
    first_input: int
    """First padded input."""
    end_input: int
    """Padded input after the last one."""
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
        image: (height, width, 3) uint8 or float32. Its edges are mirrored for the filter.
        kernel: (41, 41) float32, symmetric about its centre.
        width: Width of the result.
        height: Height of the result.

    Returns:
        (height, width, 3) float32, in the range of the picture.
    """
    import cv2

    y_radius = _radius(kernel.sum(axis=1))
    x_radius = _radius(kernel.sum(axis=0))
    kernel = kernel[
        RADIUS - y_radius : RADIUS + y_radius + 1, RADIUS - x_radius : RADIUS + x_radius + 1
    ]
    column_filters, row_filters = _separate(kernel)
    padded = cv2.copyMakeBorder(
        image, y_radius, y_radius, x_radius, x_radius, cv2.BORDER_REFLECT_101
    )
    planes = [torch.from_numpy(plane).float() for plane in cv2.split(padded)]
    if len(column_filters) * height * (padded.shape[1] + width) > MAX_INTERMEDIATE:
        blurred = _convolve(planes, kernel)
        return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))
    resized = _multiply(planes, column_filters, row_filters, width, height)
    return np.asarray(cv2.merge(list(resized.numpy())))


def _multiply(
    planes: list[torch.Tensor],
    column_filters: np.ndarray,
    row_filters: np.ndarray,
    width: int,
    height: int,
) -> torch.Tensor:
    """Blur and resize with matrices.

    Args:
        planes: 3 padded channels, float32.
        column_filters: (terms, taps) float32.
        row_filters: (terms, taps) float32.
        width: Width of the result.
        height: Height of the result.

    Returns:
        (3, height, width) float32.
    """
    terms, num_column_taps = column_filters.shape
    padded_height, padded_width = planes[0].shape
    old_height = padded_height - num_column_taps + 1
    old_width = padded_width - row_filters.shape[1] + 1

    columns_done = torch.empty(3, height, terms, padded_width)
    for band in _make_bands(column_filters, old_height, height, MIN_COLUMN_OUTPUTS):
        weights = band.weights.transpose(0, 1).flatten(0, 1)
        for plane, done in zip(planes, columns_done, strict=True):
            # (outputs * terms, inputs) @ (inputs, padded width)
            outputs = done[band.start : band.end].flatten(0, 1)
            torch.mm(weights, plane[band.first_input : band.end_input], out=outputs)

    resized = torch.zeros(3 * height, width)
    rows = columns_done.flatten(0, 1)
    for band in _make_bands(row_filters, old_width, width, MIN_ROW_OUTPUTS):
        outputs = resized[:, band.start : band.end]
        for term in range(terms):
            # (3 * height, inputs) @ (inputs, outputs)
            inputs = rows[:, term, band.first_input : band.end_input]
            torch.addmm(outputs, inputs, band.weights[term].T, out=outputs)
    return resized.view(3, height, width)


def _convolve(planes: list[torch.Tensor], kernel: np.ndarray) -> np.ndarray:
    """Blur padded channels with a centrally symmetric kernel by Fourier transforms.

    Returns:
        (height, width, 3) float32, without the padding.
    """
    import cv2
    from scipy.fft import next_fast_len

    padded_height, padded_width = planes[0].shape
    # What the transform wraps around stays within the part that is cut off.
    size = (next_fast_len(padded_height, real=True), next_fast_len(padded_width, real=True))
    spectrum = torch.fft.rfft2(torch.from_numpy(kernel.copy()), s=size)
    blurred = []
    for plane in planes:
        result = torch.fft.irfft2(torch.fft.rfft2(plane, s=size).mul_(spectrum), s=size)
        valid = result[kernel.shape[0] - 1 : padded_height, kernel.shape[1] - 1 : padded_width]
        blurred.append(valid.contiguous().numpy())
    return np.asarray(cv2.merge(blurred))


def _radius(profile: np.ndarray) -> int:
    """Radius of the part of a symmetric filter that holds all of its sum but `MAX_TAIL`."""
    tails = np.cumsum(profile[:RADIUS])
    return RADIUS - int(np.searchsorted(tails, MAX_TAIL * profile.sum() / 2, side="right"))


def _separate(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Approximate a kernel by a sum of products of a column and a row.

    Args:
        kernel: (height, width) float32.

    Returns:
        (terms, height) and (terms, width) float32.
    """
    left, singular_values, right = np.linalg.svd(kernel, full_matrices=False)
    terms = int((singular_values > MIN_SINGULAR_VALUE * singular_values[0]).sum())
    return (left[:, :terms] * singular_values[:terms]).T, right[:terms]


def _make_bands(filters: np.ndarray, old_size: int, new_size: int, min_outputs: int) -> list[_Band]:
    """Divide the matrix of one direction into bands, so that few of its zeros are multiplied.

    Args:
        filters: (terms, taps) filters along the direction.
        old_size: Size of the picture along the direction, before padding by half of the taps.
        new_size: Size of the result. Each output interpolates between two blurred inputs.
        min_outputs: Smallest number of outputs of a band.
    """
    terms, num_taps = filters.shape
    position = np.clip((np.arange(new_size) + 0.5) * old_size / new_size - 0.5, 0, old_size - 1)
    lower = np.minimum(position.astype(int), old_size - 2)
    fraction = (position - lower).astype(np.float32)[:, None]
    taps = np.zeros((terms, new_size, num_taps + 1), np.float32)
    taps[..., :-1] = (1 - fraction) * filters[:, None]
    taps[..., 1:] += fraction * filters[:, None]

    # About half of the products are with zeros if a band advances by the length of the filters.
    band_size = max(round(num_taps * new_size / old_size), min_outputs)
    starts = np.arange(0, new_size, band_size)
    ends = np.minimum(starts + band_size, new_size)
    num_inputs = int((lower[ends - 1] - lower[starts]).max()) + num_taps + 1
    padded_size = old_size + num_taps - 1
    first_inputs = np.minimum(lower[starts], padded_size - num_inputs)

    offsets = lower - np.repeat(first_inputs, ends - starts)
    weights = np.zeros((terms, new_size, num_inputs), np.float32)
    columns = offsets[:, None] + np.arange(num_taps + 1)
    weights[:, np.arange(new_size)[:, None], columns] = taps
    return [
        _Band(start, end, first, first + num_inputs, torch.from_numpy(weights[:, start:end]))
        for start, end, first in zip(
            starts.tolist(), ends.tolist(), first_inputs.tolist(), strict=True
        )
    ]
