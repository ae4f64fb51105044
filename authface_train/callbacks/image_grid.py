"""Images that callbacks save: conversion of tensors, and grids with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

CELL_PX = 256
"""Side of an image in a grid."""
LABEL_PX = 18
"""Height of the label above each row."""


def to_image(pixels: torch.Tensor) -> np.ndarray:
    """Convert a tensor to an 8-bit image.

    Args:
        pixels: (3, height, width) float32 in [0, 1] on the CPU.

    Returns:
        (height, width, 3) uint8.
    """
    return np.rint(pixels.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def label_grid(
    images: Sequence[np.ndarray], labels: Sequence[str], cell_px: int = CELL_PX
) -> Image.Image:
    """Arrange images in rows with a label above each row.

    Args:
        images: Images (H, W, 3) uint8, row by row; every row has the same number of images.
        labels: One label per row.
        cell_px: Side to which the images are scaled.

    Returns:
        An RGB image, (columns * cell_px) wide and rows * (cell_px + LABEL_PX) high.
    """
    columns = len(images) // len(labels)
    row_px = cell_px + LABEL_PX
    grid = Image.new("RGB", (columns * cell_px, len(labels) * row_px), "white")

    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        cell = Image.fromarray(image).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
        grid.paste(cell, (column * cell_px, row * row_px + LABEL_PX))

    canvas = ImageDraw.Draw(grid)
    font = ImageFont.load_default(12)
    for row, label in enumerate(labels):
        canvas.text((3, row * row_px + 2), label, fill="black", font=font)
    return grid
