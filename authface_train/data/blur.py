"""Blur and shrink in one: only what the smaller picture is made of is ever blurred.

A kernel is a short sum of products of a column and a row (its singular values fall fast), so that each direction is a banded
matrix that blurs and interpolates at once. Much the same as the whole blur followed by the resize, for a fraction of the work.
"""

from __future__ import annotations

import numpy as np
import torch

KERNEL = 41
REACH = KERNEL // 2
DROPPED = 3e-4  # products below this share of the largest are left out
NEARLY_WHOLE = 1.0  # from this share of the side on, everything is blurred after all


def gaussian_kernel(sigmas_px: tuple[float, float], turn_rad: float) -> np.ndarray:
    """(41, 41) Gaussian that sums to 1, its axes turned."""
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    spin = np.array([[cos, -sin], [sin, cos]])
    inverse = np.linalg.inv(spin @ np.diag(np.square(sigmas_px)) @ spin.T)
    ys, xs = np.mgrid[:KERNEL, :KERNEL] - REACH
    kernel = np.exp(
        -0.5 * (inverse[0, 0] * xs * xs + 2 * inverse[0, 1] * xs * ys + inverse[1, 1] * ys * ys)
    )
    return (kernel / kernel.sum()).astype(np.float32)


def blur_and_resize(image: np.ndarray, kernel: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32 of (H, W, 3) float32: filtered with the kernel, edges mirrored, then resized bilinearly."""
    import cv2

    if height > NEARLY_WHOLE * image.shape[0] or width > NEARLY_WHOLE * image.shape[1]:
        blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))
    left, values, right = np.linalg.svd(kernel)
    count = int((values > DROPPED * values[0]).sum())
    columns, rows = (left[:, :count] * values[:count]).T, right[:count]
    padded = cv2.copyMakeBorder(image, REACH, REACH, REACH, REACH, cv2.BORDER_REFLECT_101)
    # Multiplied by torch, whose threads a data loader's workers limit to one: many would only wait for each other here.
    planes = torch.from_numpy(padded).permute(2, 0, 1).contiguous()
    tall = torch.empty(3, count, height, planes.shape[2])
    for at, end, first, matrix in _bands(columns, image.shape[0], height):
        # (count * rows, span) @ (3, span, W)
        done = torch.matmul(matrix.flatten(0, 1), planes[:, first : first + matrix.shape[2]])
        tall[:, :, at:end] = done.view(3, count, end - at, -1)
    made = torch.empty(3, height, width)
    for at, end, first, matrix in _bands(rows, image.shape[1], width):
        # (3, count, height, span) @ (count, span, columns)
        made[..., at:end] = torch.matmul(
            tall[..., first : first + matrix.shape[2]], matrix.transpose(1, 2)
        ).sum(dim=1)
    return made.permute(1, 2, 0).contiguous().numpy()


def _bands(taps: np.ndarray, before: int, after: int) -> list[tuple[int, int, int, torch.Tensor]]:
    """For each band of the `after` outputs: from, to, first padded input, and (count, outputs, inputs) float32 weights.

    taps: (count, 41), along one direction. An output interpolates between two neighbours of the `before` blurred inputs.
    """
    place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.minimum(np.floor(place).astype(int), before - 2)
    share = (place - low)[None, :, None]
    both = np.zeros((len(taps), after, KERNEL + 1))
    both[..., :-1] = (1 - share) * taps[:, None]
    both[..., 1:] += share * taps[:, None]
    size = max(8, round(KERNEL * after / before))
    bands = []
    for at in range(0, after, size):
        end = min(at + size, after)
        matrix = np.zeros((len(taps), end - at, low[end - 1] - low[at] + KERNEL + 1), np.float32)
        inputs = (low[at:end] - low[at])[:, None] + np.arange(KERNEL + 1)
        matrix[:, np.arange(end - at)[:, None], inputs] = both[:, at:end]
        bands.append((at, end, int(low[at]), torch.from_numpy(matrix)))
    return bands
