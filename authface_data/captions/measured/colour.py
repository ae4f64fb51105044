"""Colour tags of the crop.

- Black and white: the 95th percentile of the CIELAB chroma is below 4.
- Colour photograph: that percentile is above 10, and the colour does not follow from the brightness
  alone: for each pixel, the distance of (a*, b*) from the mean of all pixels of about the same
  brightness. Its 90th percentile is above 3.5. In a toned monochrome print, such as a sepia one, it
  is about 1.5. Only a colour photograph can have the other tags.
- Warm or cool: the mean of b* is above 16 or below -4. Warm colours also need a mean above 12
  outside the face.
- Vivid or muted: the colourfulness of Hasler and Süsstrunk (2003), "Measuring colourfulness in
  natural images", is above 70 or below 28.5. With rg = R - G and yb = (R + G) / 2 - B it is
  hypot(std(rg), std(yb)) + 0.3 hypot(mean(rg), mean(yb)).

Large coloured objects influence warmth as much as coloured light does.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement, face_oval

MAX_GREY_CHROMA = 4.0
MIN_COLOUR_CHROMA = 10.0
CHROMA_WIDTH = 1.5
MIN_HUE_SPREAD = 3.5
HUE_SPREAD_WIDTH = 0.4
HUE_SPREAD_SIGMA_PX = 2.0
LIGHTNESS_STEP = 4
"""Pixels are compared with others of the same lightness, in steps of L*."""

MIN_WARM_B = 16.0
MIN_WARM_SURROUNDINGS_B = 12.0
MAX_COOL_B = -4.0
WARMTH_WIDTH = 1.2
MIN_VIVID = 70.0
MAX_MUTED = 28.5
VIVID_WIDTH = 3.0


def measure_colour(face: FaceCrop) -> list[Measurement]:
    """Measure chroma, warmth and colourfulness."""
    lab = _to_lab(face.pixels)
    chroma = float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 95))
    grey = Measurement.below(
        "colour", "black and white", chroma, bound=MAX_GREY_CHROMA, width=CHROMA_WIDTH
    )
    coloured = Measurement.above(
        "colour", "colour photograph", chroma, bound=MIN_COLOUR_CHROMA, width=CHROMA_WIDTH
    )
    several_hues = Measurement.above(
        "colour",
        "colour photograph",
        hue_spread(face.pixels),
        bound=MIN_HUE_SPREAD,
        width=HUE_SPREAD_WIDTH,
    )
    coloured = coloured.capped(several_hues.confidence)
    tints = [*_measure_warmth(lab[..., 2]), *_measure_colourfulness(face.pixels)]
    return [grey, coloured, *(tint.capped(coloured.confidence) for tint in tints)]


def _measure_warmth(b: np.ndarray) -> list[Measurement]:
    warmth = float(b.mean())
    warm = Measurement.above("colour", "warm colours", warmth, bound=MIN_WARM_B, width=WARMTH_WIDTH)
    warm_surroundings = Measurement.above(
        "colour",
        "warm colours",
        float(b[~face_oval()].mean()),
        bound=MIN_WARM_SURROUNDINGS_B,
        width=WARMTH_WIDTH,
    )
    return [
        warm.capped(warm_surroundings.confidence),
        Measurement.below("colour", "cool colours", warmth, bound=MAX_COOL_B, width=WARMTH_WIDTH),
    ]


def _measure_colourfulness(pixels: np.ndarray) -> list[Measurement]:
    value = _colourfulness(pixels)
    return [
        Measurement.above("colour", "vivid colours", value, bound=MIN_VIVID, width=VIVID_WIDTH),
        Measurement.below("colour", "muted colours", value, bound=MAX_MUTED, width=VIVID_WIDTH),
    ]


def _to_lab(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 sRGB pixels to float32 CIELAB."""
    import cv2

    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def hue_spread(pixels: np.ndarray) -> float:
    """Measure how much the colour of pixels of the same brightness differs.

    Args:
        pixels: (height, width, 3) uint8 sRGB.

    Returns:
        The 90th percentile of the distance of (a*, b*) from the mean of the pixels of about the
        same lightness.
    """
    import cv2

    blurred = cv2.GaussianBlur(pixels, (0, 0), HUE_SPREAD_SIGMA_PX)
    lab = _to_lab(blurred[::4, ::4]).reshape(-1, 3)
    step = (lab[:, 0] / LIGHTNESS_STEP).astype(int)
    count = np.maximum(np.bincount(step), 1)
    squared = np.zeros(len(lab))
    for channel in (1, 2):
        mean = np.bincount(step, lab[:, channel]) / count
        squared += (lab[:, channel] - mean[step]) ** 2
    return float(np.sqrt(np.percentile(squared, 90)))


def _colourfulness(pixels: np.ndarray) -> float:
    """Colourfulness of (height, width, 3) uint8 pixels after Hasler and Süsstrunk."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
