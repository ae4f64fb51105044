"""Upscaled sources: high frequencies that the crop has room for and does not hold.

On the crop's own pixels, in its middle 60 %, windowed: the power spectrum P of the brightness. The upper octave (.25 to .5
cycles per pixel), as a geometric mean so that gaps count, over the power at .03 to .09, which enlarging leaves alone; rounding
to 8 bit gives both a floor. r is the decimal logarithm of that. score is .5 at r = -4.8, and goes to 0 below it and 1 above.

Fails on: noise, grain or sharpening added after enlarging (counts as detail). Blur and heavy smoothing look alike to it.
Enlarged by less than twice, a source is not told from a soft photograph; `upscaled` and `qsize_px` tell how far the crop itself
was enlarged.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import rising
from authface_data.quality.luma import luma

VERSION = "1"
MARGIN, ROUNDING, MIDDLE, WIDTH = 0.2, 1 / 12, -4.8, 0.12


def score(crop: np.ndarray) -> float:
    """0 (enlarged four times) to 1 (detail to the last pixel), of (H, H, 3) uint8."""
    margin = int(len(crop) * MARGIN)
    brightness = luma(crop)[margin:-margin, margin:-margin]
    window = np.outer(np.hanning(len(brightness)), np.hanning(len(brightness)))
    power = np.abs(np.fft.fft2((brightness - brightness.mean()) * window)) ** 2 / (window**2).sum()
    axis = np.fft.fftfreq(len(brightness))
    frequency = np.hypot(axis[:, None], axis[None])
    low = power[(frequency > 0.03) & (frequency < 0.09)].mean()
    high = np.exp(np.log(power[(frequency > 0.25) & (frequency < 0.5)] + 0.1 * ROUNDING).mean())
    return rising(float(np.log10(high / (low + ROUNDING))), MIDDLE, WIDTH)
