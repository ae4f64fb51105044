"""Colour of the crop.

Black and white where the 95th percentile of CIELAB's chroma is below 4, a colour photograph above 10. Warm where the mean of b*
is above 15.5, cool below -4. Vivid and muted by Hasler and Süsstrunk 2003: M = hypot(std(rg), std(yb)) + .3 hypot(mean(rg),
mean(yb)) with rg = R - G, yb = (R + G)/2 - B, above 62 and below 30.

A toned black-and-white picture counts as colour; the colour of large things in the picture counts as much as that of the light.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below, with_doubt

GREY, COLOURED, CHROMA_WIDTH = 4.0, 10.0, 1.5
WARM, COOL, WARMTH_WIDTH = 15.5, -4.0, 1.2
VIVID, MUTED, VIVID_WIDTH = 62.0, 30.0, 3.0


def measure(face: FaceCrop) -> list[Measurement]:
    import cv2

    lab = cv2.cvtColor(face.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 95))
    coloured = above("colour", "colour photograph", chroma, COLOURED, CHROMA_WIDTH)
    warmth = float(lab[..., 2].mean())
    red, green, blue = np.moveaxis(face.pixels.astype(np.float32), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    vivid = float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    tinted = [
        above("colour", "warm colours", warmth, WARM, WARMTH_WIDTH),
        below("colour", "cool colours", warmth, COOL, WARMTH_WIDTH),
        above("colour", "vivid colours", vivid, VIVID, VIVID_WIDTH),
        below("colour", "muted colours", vivid, MUTED, VIVID_WIDTH),
    ]
    return [
        below("colour", "black and white", chroma, GREY, CHROMA_WIDTH),
        coloured,
        *(with_doubt(fact, coloured.confidence) for fact in tinted),
    ]
