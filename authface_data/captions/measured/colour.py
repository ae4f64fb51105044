"""Colour tags of the crop.

- Black and white: the 95th percentile of the CIELAB chroma is below 4. Above 10 the crop is a
  colour photograph, and only then can it have the other tags.
- Warm or cool: the mean of b* is above 15.5 or below -4.
- Vivid or muted: the colourfulness of Hasler and Süsstrunk (2003), "Measuring colourfulness in
  natural images", is above 62 or below 30. With rg = R - G and yb = (R + G) / 2 - B it is
  hypot(std(rg), std(yb)) + 0.3 hypot(mean(rg), mean(yb)).

A toned black-and-white picture counts as colour. Large coloured objects influence warmth as much as
coloured light does.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement

MAX_GREY_CHROMA = 4.0
MIN_COLOUR_CHROMA = 10.0
CHROMA_WIDTH = 1.5
MIN_WARM_B = 15.5
MAX_COOL_B = -4.0
WARMTH_WIDTH = 1.2
MIN_VIVID = 62.0
MAX_MUTED = 30.0
VIVID_WIDTH = 3.0


def measure_colour(face: FaceCrop) -> list[Measurement]:
    """Measure chroma, warmth and colourfulness."""
    import cv2

    lab = cv2.cvtColor(face.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 95))
    warmth = float(lab[..., 2].mean())
    colourfulness = _colourfulness(face.pixels)

    grey = Measurement.below(
        "colour", "black and white", chroma, bound=MAX_GREY_CHROMA, width=CHROMA_WIDTH
    )
    coloured = Measurement.above(
        "colour", "colour photograph", chroma, bound=MIN_COLOUR_CHROMA, width=CHROMA_WIDTH
    )
    tints = [
        Measurement.above("colour", "warm colours", warmth, bound=MIN_WARM_B, width=WARMTH_WIDTH),
        Measurement.below("colour", "cool colours", warmth, bound=MAX_COOL_B, width=WARMTH_WIDTH),
        Measurement.above(
            "colour", "vivid colours", colourfulness, bound=MIN_VIVID, width=VIVID_WIDTH
        ),
        Measurement.below(
            "colour", "muted colours", colourfulness, bound=MAX_MUTED, width=VIVID_WIDTH
        ),
    ]
    return [grey, coloured, *(tint.capped(coloured.confidence) for tint in tints)]


def _colourfulness(pixels: np.ndarray) -> float:
    """Colourfulness of (height, width, 3) uint8 pixels after Hasler and Süsstrunk."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
