"""Detail: whether the crop has the high frequencies that its size allows, or was enlarged.

It uses the original pixels of the crop: the power spectrum of the middle 60 % of the luma, under a
Hann window. The power in the upper octave (0.25 to 0.5 cycles per pixel) is averaged geometrically,
so that empty frequencies count. It is divided by the mean power at 0.03 to 0.09 cycles per pixel,
which enlarging preserves. The rounding noise of 8 bits is added to the lower power, and a tenth of
it to the upper, as a floor. The score is a logistic function of the ratio's decimal logarithm r,
0.5 at r = -4.8.

Fails on: noise, grain or sharpening added after enlarging (counts as detail). Blur and heavy
smoothing look like enlarging. A source enlarged by less than a factor of 2 looks like a soft
photograph; the columns `upscaled` and `qsize_px` show how much alignment has enlarged the crop.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import sigmoid

VERSION = "1"
MARGIN_SHARE = 0.2
"""Share of the crop's side that is left out at each edge."""
ROUNDING_VARIANCE = 1 / 12
"""Variance of the error of rounding to whole levels."""
MIDPOINT = -4.8
WIDTH = 0.12


def score(crop: np.ndarray) -> float:
    """Measure detail.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (enlarged four times) to 1 (detail down to the last pixel).
    """
    margin = int(len(crop) * MARGIN_SHARE)
    luma_plane = luma(crop)[margin:-margin, margin:-margin]
    size = len(luma_plane)
    window = np.outer(np.hanning(size), np.hanning(size))
    spectrum = np.fft.fft2((luma_plane - luma_plane.mean()) * window)
    power = np.abs(spectrum) ** 2 / (window**2).sum()

    axis = np.fft.fftfreq(size)
    frequency = np.hypot(axis[:, None], axis[None])
    low = power[(frequency > 0.03) & (frequency < 0.09)].mean()
    upper_octave = power[(frequency > 0.25) & (frequency < 0.5)]
    high = np.exp(np.log(upper_octave + 0.1 * ROUNDING_VARIANCE).mean())
    ratio = float(np.log10(high / (low + ROUNDING_VARIANCE)))
    return sigmoid(ratio, MIDPOINT, WIDTH)
