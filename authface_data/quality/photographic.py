"""Photograph or not: stylised pictures, renders, prints, scans, drawn boxes and screenshots.

Five signs are measured at face scale. The score is the lowest of their scores.

- Flatness. Filters, cel shading and renders leave flat areas between sharp edges, also in eyes and
  hair, where every photograph has texture. With the texture T, the luma between Gaussians of sigma
  0.7 and 1.4 px as absolute values, f is the sum of ln(10th / 95th percentile) in boxes around the
  eyes and ln(50th / 95th percentile) in the middle of the crop, without blown-out pixels. A
  logistic function, 0.5 at -6.8.
- Halftone and stripes. The dots of a print and the stripes of a scan are peaks in the spectrum of
  the middle of the face: frequencies of 0.08 to 0.45 cycles per pixel with more than ten times the
  median amplitude of their ring. With the share p of the power in the peaks, the score is
  exp(-p / 0.02). Photographs have less than 0.001.
- Lines. The crop is rotated upright, as the photograph was. A line is up to 5 px wide, darker or
  lighter than both sides, constant along its course, and horizontal or vertical. The border of an
  area of one colour, to within 3 levels, counts as well, as screenshots have them. With the longest horizontal
  and the longest vertical line, in pixels, the shorter one is used: a box has both, a pole or the
  edge of a scan has one. A logistic function, 0.5 at 180 px.
- Patches. Brushes and painting filters leave strokes or patches of even paint on the skin. With the
  percentiles of T on the skin, the patchiness is ln(95th / 50th) + ln(90th / 10th) / 2. A logistic
  function, 0.5 at 3.6.
- Colours. The skin of a painting may have several colours. With the ranges of a* and b* on the
  skin, from the 10th to the 90th percentile, the range is the root of the sum of their squares. A
  logistic function, 0.5 at 55 units of CIE Lab.

Some photographs have the last two signs, make-up and light of two colours among them. Their scores
are mapped to 0.5 to 1: these faces come first in the review, but no gate at 0.5 drops them.

It does not know what a painting is: pictures with brush strokes, pencil or canvas everywhere pass,
as do good renders with textured skin. Text alone passes too.

Fails on: strongly defocused faces and pure profiles before a smooth wall (count as flat), the
blocks of small enlarged JPEGs and strong motion blur (count as dots), and window bars, tiles or
frames around the face (count as lines).
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale, sigmoid
from authface_data.quality.skin import MIN_SKIN_PX, has_skin_colour, skin_region

VERSION = "2"
USES_QUAD = True

TEXTURE_SIGMAS_PX = (0.7, 1.4)
EYE_ROWS = slice(215, 275)
EYE_COLUMNS = (slice(150, 235), slice(277, 362))
MIDDLE = (slice(100, 480), slice(60, 452))
OFFSET = 0.03
"""Added to the textures, in luma levels, so that rounding does not decide."""
BLOWN_LUMA = 250
"""White walls and blown-out skin from this luma on are flat in photographs too."""
MIN_TEXTURE_PX = 1000
"""With fewer other pixels, the flatness is not measured."""
FLATNESS_MIDPOINT = -6.8
FLATNESS_WIDTH = 0.15

PATCH_MIDPOINT = 3.6
PATCH_WIDTH = 0.12
COLOUR_STEP = 4
"""Colours are measured on means of this many pixels in both directions."""
COLOUR_MIDPOINT = 55.0
COLOUR_WIDTH = 4.0

FACE = (slice(160, 416), slice(128, 384))
DOT_FREQUENCIES = (0.08, 0.45)
"""In cycles per pixel."""
MIN_PEAK = 10.0
"""Smallest amplitude of a peak, relative to the median of the frequencies around."""
PEAK_POWER_SCALE = 0.02
"""Share of the power at which the score is 1/e."""

MAX_LINE_WIDTH_PX = 5
MIN_LINE_CONTRAST = 24
MAX_CHANGE = 20
"""Largest change of a line along 12 px, in levels of any channel."""
CHANGE_PX = 12
MAX_GAP_PX = 8
MIN_AREA_SHARE = 0.05
"""Smallest area of one colour whose border counts."""
AREA_TOLERANCE = 3
"""Largest difference from the colour of such an area, in levels; compression changes it a little."""
EDGE_PX = 16
"""Border of the crop in which lines are not searched."""
LINE_MIDPOINT_PX = 180.0
LINE_WIDTH_PX = 12.0


def score(crop: np.ndarray, quad_px: np.ndarray | None = None) -> float:
    """Measure whether a crop is a photograph.

    Args:
        crop: (size, size, 3) uint8 sRGB.
        quad_px: (4, 2) corners of the crop's quad in the photograph, see `Quad.corners_px`. None if
            the crop is upright.

    Returns:
        0 (painting, render, print or screenshot) to 1 (photograph).
    """
    pixels = resize_to_face_scale(crop)
    luma_plane = luma(pixels)
    texture = _texture(luma_plane)
    flatness = _flatness(luma_plane, texture)
    flatness_score = sigmoid(flatness, FLATNESS_MIDPOINT, FLATNESS_WIDTH)
    dots_score = float(np.exp(-_peak_power(luma_plane[FACE]) / PEAK_POWER_SCALE))
    length_px = _longest_lines(_rotate_upright(pixels, quad_px))
    lines_score = sigmoid(-length_px, -LINE_MIDPOINT_PX, LINE_WIDTH_PX)
    is_skin = skin_region() & has_skin_colour(pixels)
    patches_score = sigmoid(-_patchiness(texture, is_skin), -PATCH_MIDPOINT, PATCH_WIDTH)
    colours_score = sigmoid(-_colour_range(pixels), -COLOUR_MIDPOINT, COLOUR_WIDTH)
    doubt = (1 + min(patches_score, colours_score)) / 2
    return min(flatness_score, dots_score, lines_score, doubt)


def _texture(luma_plane: np.ndarray) -> np.ndarray:
    """The luma between Gaussians of the two sigmas, as absolute values."""
    import cv2

    fine, coarse = (cv2.GaussianBlur(luma_plane, (0, 0), sigma) for sigma in TEXTURE_SIGMAS_PX)
    return np.abs(fine - coarse)


def _patchiness(texture: np.ndarray, is_skin: np.ndarray) -> float:
    """Compare the strongest and the weakest texture of the skin with its median."""
    if is_skin.sum() < MIN_SKIN_PX:
        is_skin = skin_region()
    p10, p50, p90, p95 = np.percentile(texture[is_skin], (10, 50, 90, 95)) + OFFSET
    return float(np.log(p95 / p50) + np.log(p90 / p10) / 2)


def _colour_range(pixels: np.ndarray) -> float:
    """The range of the colours of the skin, in units of CIE Lab."""
    import cv2

    side = FACE_SCALE_PX // COLOUR_STEP
    reduced = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(reduced.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    colours = lab[..., 1:][skin_region()[::COLOUR_STEP, ::COLOUR_STEP]]
    return float(np.hypot(*np.ptp(np.percentile(colours, (10, 90), axis=0), axis=0)))


def _flatness(luma_plane: np.ndarray, texture: np.ndarray) -> float:
    """Compare the calm parts of eyes and crop with their edges."""
    is_blown = luma_plane >= BLOWN_LUMA
    eyes = [(EYE_ROWS, columns) for columns in EYE_COLUMNS]
    eye_texture = np.concatenate([texture[box][~is_blown[box]] for box in eyes])
    # Every second pixel of both directions is enough for a percentile.
    middle_texture = texture[MIDDLE][::2, ::2][~is_blown[MIDDLE][::2, ::2]]
    if min(len(eye_texture), len(middle_texture)) < MIN_TEXTURE_PX:
        return 0.0
    eye_calm, eye_edges = np.percentile(eye_texture, (10, 95)) + OFFSET
    calm, edges = np.percentile(middle_texture, (50, 95)) + OFFSET
    return float(np.log(eye_calm / eye_edges) + np.log(calm / edges))


def _peak_power(plane: np.ndarray) -> float:
    """Return the share of the power that lies in single frequencies."""
    from scipy import fft

    size = len(plane)
    window = np.outer(np.hanning(size), np.hanning(size)).astype(np.float32)
    amplitude = np.abs(fft.rfft2((plane - plane.mean()) * window))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    is_measured = (frequency > DOT_FREQUENCIES[0]) & (frequency < DOT_FREQUENCIES[1])
    amplitude = amplitude[is_measured]
    rings = np.rint(frequency[is_measured] * size / 2).astype(int)

    order = np.argsort(rings, kind="stable")
    starts = np.flatnonzero(np.diff(rings[order], prepend=-1))
    medians = np.zeros(rings.max() + 1)
    for members in np.split(order, starts[1:]):
        medians[rings[members[0]]] = np.median(amplitude[members])
    power = amplitude**2
    is_peak = amplitude > MIN_PEAK * (medians[rings] + 1e-3)
    return float(power[is_peak].sum() / max(power.sum(), 1e-6))


def _rotate_upright(pixels: np.ndarray, quad_px: np.ndarray | None) -> np.ndarray:
    """Rotate a crop about its centre so that the photograph's axes are upright."""
    import cv2

    if quad_px is None:
        return pixels
    across = quad_px[3] - quad_px[0]
    angle_deg = float(np.degrees(np.arctan2(across[1], across[0])))
    centre = ((FACE_SCALE_PX - 1) / 2, (FACE_SCALE_PX - 1) / 2)
    rotation = cv2.getRotationMatrix2D(centre, -angle_deg, 1)
    size = (FACE_SCALE_PX, FACE_SCALE_PX)
    return cv2.warpAffine(pixels, rotation, size, borderMode=cv2.BORDER_REFLECT)


def _longest_lines(pixels: np.ndarray) -> float:
    """Return the shorter one of the longest horizontal and the longest vertical line, in pixels."""
    channels = [np.ascontiguousarray(pixels[..., channel]) for channel in range(3)]
    area = _single_colour_area(pixels)
    vertical = _longest_vertical_line(channels, area)
    transposed = [np.ascontiguousarray(channel.T) for channel in channels]
    horizontal = _longest_vertical_line(transposed, np.ascontiguousarray(area.T))
    return float(min(vertical, horizontal))


def _single_colour_area(pixels: np.ndarray) -> np.ndarray:
    """Mark the area of the most frequent colour, if it is large."""
    import cv2

    red, green, blue = np.moveaxis(pixels[::4, ::4].astype(np.int32), -1, 0)
    codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    code = int(codes[counts.argmax()])
    colour = np.array((code >> 16, code >> 8 & 255, code & 255))
    low, high = (
        np.clip(colour + step, 0, 255).tolist() for step in (-AREA_TOLERANCE, AREA_TOLERANCE)
    )
    area = cv2.inRange(pixels, tuple(low), tuple(high))
    area = cv2.morphologyEx(area, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return area if (area > 0).mean() >= MIN_AREA_SHARE else np.zeros_like(area)


def _longest_vertical_line(channels: list[np.ndarray], area: np.ndarray) -> int:
    """Return the length of the longest vertical line or border of an area, in pixels."""
    import cv2

    is_line = cv2.morphologyEx(area, cv2.MORPH_GRADIENT, np.ones((1, 3), np.uint8))
    reach = MAX_LINE_WIDTH_PX + 1
    largest_change = np.zeros_like(is_line[CHANGE_PX:])
    contrast = np.zeros_like(is_line)
    for channel in channels:
        left, middle, right = (
            channel[:, : -2 * reach],
            channel[:, reach:-reach],
            channel[:, 2 * reach :],
        )
        lighter = cv2.min(cv2.subtract(middle, left), cv2.subtract(middle, right))
        darker = cv2.min(cv2.subtract(left, middle), cv2.subtract(right, middle))
        inner = contrast[:, reach:-reach]
        inner[:] = cv2.max(inner, cv2.max(lighter, darker))
        change = cv2.absdiff(channel[CHANGE_PX:], channel[:-CHANGE_PX])
        cv2.max(largest_change, change, dst=largest_change)
    is_constant = cv2.inRange(largest_change, 0, MAX_CHANGE)
    has_contrast = cv2.inRange(contrast[:-CHANGE_PX], MIN_LINE_CONTRAST, 255)
    is_line[:-CHANGE_PX] |= is_constant & has_contrast

    # A line may be off by one pixel, because the rotation samples between pixels.
    is_line = cv2.dilate(is_line, np.ones((1, 3), np.uint8))
    is_line = cv2.morphologyEx(is_line, cv2.MORPH_CLOSE, np.ones((MAX_GAP_PX + 1, 1), np.uint8))
    return _longest_run(is_line[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX] > 0)


def _longest_run(is_marked: np.ndarray) -> int:
    """The largest number of marked pixels below each other, of a (height, width) bool array."""
    rows = np.arange(1, len(is_marked) + 1, dtype=np.int16)[:, None]
    last_unmarked = np.maximum.accumulate(np.where(is_marked, np.int16(0), rows), axis=0)
    return int((rows - last_unmarked).max())
