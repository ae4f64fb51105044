"""Alignment the way FFHQ was made: an oriented square from eyes and mouth, cut out and resampled to a fixed size.

The quad follows Karras et al. 2019 (A Style-Based Generator Architecture); the picture is resampled in one affine
step after a matching low-pass filter, and padded by blurred reflection where the quad leaves the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from authface_data.images.jpeg_region import Piece, shrink_for

SUPERSAMPLE = 4
ROOM = 1.15  # a quad so much larger than the crop has pixels to spare for a filter, and for a reduced decode


@dataclass(frozen=True)
class Quad:
    """corners_px: (4, 2) NW, SW, SE, NE in pixel-centre coordinates; size_px: its side."""

    corners_px: np.ndarray
    size_px: float


@dataclass(frozen=True)
class Crop:
    """pixels: (size, size, 3) uint8 sRGB; pad_fraction: 0..1 of the quad's area that lies off the photograph."""

    pixels: np.ndarray
    pad_fraction: float
    upscaled: bool


class Source(Protocol):
    """What a quad can be cut out of: a `Photo`, or pixels that are there already."""

    @property
    def size_px(self) -> tuple[int, int]: ...

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> Piece: ...


class Whole:
    """Pixels (H, W, 3) uint8 as a source."""

    def __init__(self, picture: np.ndarray):
        self._picture = picture

    @property
    def size_px(self) -> tuple[int, int]:
        return self._picture.shape[1], self._picture.shape[0]

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> Piece:
        left, top, right, bottom = box_px
        return Piece(self._picture[top:bottom, left:right], (left, top), 1)


def ffhq_quad(
    left_eye: np.ndarray, right_eye: np.ndarray, mouth_left: np.ndarray, mouth_right: np.ndarray
) -> Quad:
    """FFHQ's oriented square from eye centres and mouth corners, each (2,) in pixels (left as seen in the image)."""
    eye, mouth = (left_eye + right_eye) / 2, (mouth_left + mouth_right) / 2
    eye_to_eye, eye_to_mouth = right_eye - left_eye, mouth - eye
    x = np.array([eye_to_eye[0] + eye_to_mouth[1], eye_to_eye[1] - eye_to_mouth[0]])
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.array([-x[1], x[0]])
    centre = eye + eye_to_mouth * 0.1
    return Quad(
        np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y]),
        float(np.hypot(*x) * 2),
    )


def to_crop(points_px: np.ndarray, quad: Quad, size_px: int) -> np.ndarray:
    """Photo points (n, 2) as points of the crop, both pixel centres."""
    north_west, south_west, _, north_east = quad.corners_px
    axes = np.stack([north_east - north_west, south_west - north_west], axis=1)
    return np.linalg.solve(axes, (points_px - north_west).T).T * size_px - 0.5


def shrink_of(quad: Quad, size_px: int) -> int:
    """The reduction (1, 2, 4, 8) at which a JPEG still has what a crop of size_px needs of it."""
    return shrink_for(quad.size_px / (ROOM * size_px))


def align(picture: np.ndarray, quad: Quad, size_px: int) -> Crop:
    """Cut the quad out of a picture (H, W, 3) uint8 and resample it to size_px."""
    return align_photo(Whole(picture), quad, size_px)


def align_photo(photo: Source, quad: Quad, size_px: int) -> Crop:
    """Cut the quad out of a photograph and resample it to size_px, decoding no more of it than that takes.

    The picture is that of the published recipe, which samples the quad bilinearly at four times the size and brings that
    down by Lanczos, to 40 dB and more (benchmarks/align.py). A quad larger than the crop is low-pass filtered by what those two
    steps amount to, and sampled once; one that is not takes the recipe's own way. Padding as there.
    """
    width, height = photo.size_px
    left, top, right, bottom = _surroundings(quad.corners_px, quad.size_px, width, height)
    piece = photo.region((left, top, right, bottom), shrink_of(quad, size_px))
    corners, qsize = piece.from_photo(quad.corners_px), quad.size_px / piece.shrink
    pixels, corners = _padded(piece.pixels, corners, qsize)
    sample = _filtered if qsize >= ROOM * size_px else _supersampled
    return Crop(
        sample(pixels, corners, size_px, piece.shrink),
        _pad_fraction(quad, width, height),
        quad.size_px < size_px,
    )


def _filtered(pixels: np.ndarray, corners: np.ndarray, size_px: int, shrink: int) -> np.ndarray:
    """The quad in one bicubic step, after the low-pass filter of the recipe."""
    import cv2

    taps = low_pass(float(np.hypot(*(corners[3] - corners[0]))) / size_px, shrink)
    return _warped(
        cv2.sepFilter2D(pixels, -1, taps, taps, borderType=cv2.BORDER_REPLICATE),
        corners,
        size_px,
        cv2.INTER_CUBIC,
    )


def _supersampled(pixels: np.ndarray, corners: np.ndarray, size_px: int, shrink: int) -> np.ndarray:
    """The quad sampled bilinearly at four times the size, and brought down by Lanczos."""
    import cv2
    from PIL import Image

    sampled = Image.fromarray(_warped(pixels, corners, size_px * SUPERSAMPLE, cv2.INTER_LINEAR))
    return np.asarray(sampled.resize((size_px, size_px), Image.Resampling.LANCZOS))


def _warped(pixels: np.ndarray, corners: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    import cv2

    north_west, south_west, _, north_east = corners
    across, down = (north_east - north_west) / size, (south_west - north_west) / size
    # Output pixel (u, v) has its centre at (u + .5, v + .5) of the quad.
    matrix = np.column_stack([across, down, north_west + 0.5 * (across + down)])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def low_pass(ratio: float, shrink: int = 1) -> np.ndarray:
    """(2n + 1,) float32 taps: what the recipe does to a picture of `ratio` >= 1 pixels per pixel of the crop.

    Lanczos with three lobes at the crop's scale, convolved with the tent of bilinear sampling, which is as wide as a pixel of
    the photograph: 1/shrink of one here.
    """
    reach, per_px = int(np.ceil(3 * ratio)) + 1, 64
    x = np.arange(-reach * per_px, reach * per_px + 1) / per_px
    lanczos = np.where(np.abs(x) < 3 * ratio, np.sinc(x / ratio) * np.sinc(x / ratio / 3), 0)
    tent = np.clip(1 - np.abs(np.arange(-per_px, per_px + 1) / per_px) * shrink, 0, None)
    taps = np.convolve(lanczos, tent, "same")[::per_px]
    return (taps / taps.sum()).astype(np.float32)


def _border(qsize: float) -> int:
    return max(int(np.rint(qsize * 0.1)), 3)


def _surroundings(
    corners: np.ndarray, qsize: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """left, top, right, bottom of what the quad and its border need of the photograph."""
    border = _border(qsize)
    low, high = (
        np.floor(corners.min(0)).astype(int) - border,
        np.ceil(corners.max(0)).astype(int) + border,
    )
    return (
        max(int(low[0]), 0),
        max(int(low[1]), 0),
        min(int(high[0]), width),
        min(int(high[1]), height),
    )


def _padded(piece: np.ndarray, corners: np.ndarray, qsize: float) -> tuple[np.ndarray, np.ndarray]:
    """Reflect what is missing around the quad, blurred more the further out, and fading to the median colour."""
    import cv2

    height, width = piece.shape[:2]
    border = _border(qsize)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    pads = np.array([-low[0], -low[1], high[0] - width, high[1] - height]) + border
    pads = np.maximum(pads, 0)
    if pads.max() <= border - 4:
        return piece, corners
    left, top, right, bottom = (int(pad) for pad in np.maximum(pads, int(np.rint(qsize * 0.3))))
    image = np.pad(piece.astype(np.float32), ((top, bottom), (left, right), (0, 0)), "reflect")
    rows, columns = np.mgrid[0.0 : image.shape[0], 0.0 : image.shape[1]].astype(np.float32)
    mask = np.maximum(
        1 - np.minimum(columns / left, (image.shape[1] - 1 - columns) / right),
        1 - np.minimum(rows / top, (image.shape[0] - 1 - rows) / bottom),
    )[..., None]
    blurred = cv2.GaussianBlur(image, (0, 0), qsize * 0.02)
    image += (blurred - image) * np.clip(mask * 3 + 1, 0, 1)
    image += (np.median(image, axis=(0, 1)) - image) * np.clip(mask, 0, 1)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), corners + np.array([left, top])


def _pad_fraction(quad: Quad, width: int, height: int) -> float:
    """The share of the quad that lies off the photograph: exact, by clipping the quad to the photograph's edges."""
    polygon = [tuple(corner) for corner in quad.corners_px + 0.5]
    for axis, limit, keep_below in (
        (0, 0.0, False),
        (0, float(width), True),
        (1, 0.0, False),
        (1, float(height), True),
    ):
        polygon = _clip(polygon, axis, limit, keep_below)
    xs, ys = np.array([p[0] for p in polygon]), np.array([p[1] for p in polygon])
    inside = abs(float(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1))) / 2 if polygon else 0.0
    return round(max(0.0, 1.0 - inside / quad.size_px**2), 9)


def _clip(polygon: list[tuple], axis: int, limit: float, keep_below: bool) -> list[tuple]:
    """Sutherland and Hodgman: a convex polygon cut by one axis-parallel line."""
    result = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        inside_a, inside_b = ((p[axis] <= limit) == keep_below or p[axis] == limit for p in (a, b))
        if inside_a:
            result.append(a)
        if inside_a != inside_b:
            t = (limit - a[axis]) / (b[axis] - a[axis])
            result.append(tuple(pa + t * (pb - pa) for pa, pb in zip(a, b, strict=True)))
    return result
