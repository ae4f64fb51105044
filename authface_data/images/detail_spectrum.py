"""How much detail a photograph holds, to order the copies of one picture by quality.

The values of one photograph mean little, because they depend on what it shows. They are compared
between copies of one picture, see authface_data/copies.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 8
"""The photograph is divided into GRID x GRID cells. Copies of any size have the same cells."""
NUM_CELLS = 4
"""Number of cells that are measured, the ones with the strongest structure."""
CELL_PX = 16
"""Side of a cell of the reduced photograph, in which the structure is measured."""
BLOCK_PX = 8
"""Side of a block of the discrete cosine transform of JPEG."""
NUM_BANDS = 32
"""Number of frequency bands, eight per octave, from a sixteenth of the Nyquist frequency up."""
BAND_EDGES = np.geomspace(1 / 16, 1, NUM_BANDS + 1)
"""Edges of the bands, in shares of the Nyquist frequency."""
MIN_CYCLES = 1.5
"""Frequencies nearer to an axis, in cycles per cell, are left out: edges of JPEG blocks."""
MIN_COEFFICIENT = 1.5
"""Smallest coefficient of the cosine transform, in levels, that counts as stored detail. Rounding
to whole levels leaves smaller ones of coefficients that a JPEG encoder has set to zero."""


@dataclass(frozen=True)
class Detail:
    """The detail of a photograph.

    Attributes:
        spectrum: Root mean square in levels of the luma in each of `NUM_BANDS` frequency bands.
            Resizing moves it along the frequencies and weakens the highest ones that remain.
        coefficient_share: Share of the coefficients of the cosine transform of 8 x 8 blocks that
            are not zero, 0 to 1. JPEG compression lowers it.
    """

    spectrum: list[float]
    coefficient_share: float


def measure_detail(pixels: np.ndarray) -> Detail | None:
    """Measure the detail of a photograph.

    Args:
        pixels: (height, width, 3) uint8 sRGB, upright.

    Returns:
        The detail, or None for a photograph of fewer than 128 pixels on a side.
    """
    import cv2

    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = luma.shape
    # Blocks of whole cells coincide with the blocks of a JPEG.
    cell_height = height // GRID // BLOCK_PX * BLOCK_PX
    cell_width = width // GRID // BLOCK_PX * BLOCK_PX
    if min(cell_height, cell_width) < 2 * BLOCK_PX:
        return None

    powers = np.zeros(NUM_BANDS)
    shares = []
    for row, column in _structured_cells(luma):
        top = row * height // GRID // BLOCK_PX * BLOCK_PX
        left = column * width // GRID // BLOCK_PX * BLOCK_PX
        cell = luma[top : top + cell_height, left : left + cell_width].astype(np.float32)
        powers += _band_powers(cell, MIN_CYCLES * GRID / max(height, width))
        shares.append(_coefficient_share(cell))
    spectrum = np.sqrt(powers / NUM_CELLS)
    return Detail([round(float(level), 4) for level in spectrum], float(np.mean(shares)))


def _structured_cells(luma: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the cells with the strongest structure of about a 128th of the picture."""
    import cv2

    side = GRID * CELL_PX
    reduced = cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    structure = np.abs(cv2.Laplacian(reduced, cv2.CV_32F))
    of_cell = structure.reshape(GRID, CELL_PX, GRID, CELL_PX).mean((1, 3))
    strongest = np.argsort(-of_cell, axis=None, kind="stable")[:NUM_CELLS]
    return [divmod(int(cell), GRID) for cell in strongest]


def _band_powers(cell: np.ndarray, min_axis_frequency: float) -> np.ndarray:
    """Power of a cell in each frequency band.

    Args:
        cell: (height, width) float32, even sides.
        min_axis_frequency: Frequencies nearer to an axis are left out, in cycles per pixel.

    Returns:
        (NUM_BANDS,) float64: mean squares in squared levels.
    """
    from scipy import fft

    height, width = cell.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    window = (window / np.sqrt((window**2).mean())).astype(np.float32)
    spectrum = fft.rfft2((cell - cell.mean()) * window)
    power = (spectrum.real**2 + spectrum.imag**2) / cell.size**2
    power[:, 1:-1] *= 2  # the half that rfft2 leaves out

    y = np.abs(fft.fftfreq(height)).astype(np.float32)[:, None]
    x = fft.rfftfreq(width).astype(np.float32)[None]
    bands = np.digitize(2 * np.maximum(x, y), BAND_EDGES, right=True) - 1
    counts = (bands >= 0) & (np.minimum(x, y) >= min_axis_frequency)
    return np.bincount(bands[counts], power[counts], NUM_BANDS)[:NUM_BANDS]


def _coefficient_share(cell: np.ndarray) -> float:
    """Share of the coefficients of the blocks' cosine transforms that are not zero."""
    from scipy import fft

    transform = fft.dct(np.eye(BLOCK_PX, dtype=np.float32), axis=0, norm="ortho")
    along_rows = cell.reshape(-1, BLOCK_PX) @ transform.T
    rows = along_rows.reshape(-1, BLOCK_PX, cell.shape[1])
    coefficients = transform @ rows
    return float((np.abs(coefficients) > MIN_COEFFICIENT).mean())
