"""FFHQ alignment: an oriented square (quad) around a face, resampled to a crop of fixed size.

The quad follows Karras et al. 2019, "A Style-Based Generator Architecture for Generative
Adversarial Networks". The crop is resampled in one affine step after a matching low-pass filter.
Where the quad extends beyond the photograph, the photograph is padded by blurred reflection.

Corners and landmarks are in pixel-centre coordinates: the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from authface_data.images.jpeg_region import PhotoRegion, largest_shrink

SUPERSAMPLE = 2
"""Samples per pixel of the crop and direction of a quad that is not clearly larger than the crop.
The published recipe takes four. With two, crops agree with it as well (benchmarks/align.py: 51 dB
PSNR) in half the time."""

FILTER_MARGIN = 1.15
"""A quad at least this many times as large as the crop is filtered and sampled once.

A reduced decode must leave at least this many pixels per pixel of the crop.
"""

TAPS_PER_PX = 64
MIN_BLUR_SIGMA_PX = 4.0
"""Smallest sigma, in reduced pixels, of a blur that is computed on a reduced picture."""
MEDIAN_SIDE_PX = 400
"""Shorter side of the reduced picture whose median colour is that of the padding."""
"""Resolution at which the low-pass kernel is computed."""

HEAD_CENTRE = (0.5, 0.48)
"""(x, y) of the middle of face and hair in a crop, as shares of its side."""
HEAD_RADII = (0.29, 0.42)
"""Half width and half height of face and hair."""
HEAD_CORNERS = 64
"""Corners of the polygon that stands for the ellipse."""

Polygon = list[tuple[float, ...]]
"""Corners (x, y), in order."""


@dataclass(frozen=True)
class Quad:
    """An oriented square in a photograph.

    Attributes:
        corners_px: (4, 2) pixel centres of the north-west, south-west, south-east and north-east
            corners.
        size_px: Length of a side.
    """

    corners_px: np.ndarray
    size_px: float


@dataclass(frozen=True)
class Crop:
    """An aligned crop.

    Attributes:
        pixels: (size_px, size_px, 3) uint8 sRGB.
        pad_fraction: Share of the quad's area outside the photograph, 0 to 1.
        upscaled: Whether the quad is smaller than the crop.
    """

    pixels: np.ndarray
    pad_fraction: float
    upscaled: bool


class RegionSource(Protocol):
    """A picture of which regions can be read: a `Photo`, or an array in memory."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the whole picture."""
        ...

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> PhotoRegion:
        """Return a part of the picture.

        Args:
            box_px: Pixel edges (left, top, right, bottom) within the picture.
            shrink: Requested reduction: 1, 2, 4 or 8. The region says which one was applied.
        """
        ...


class ArraySource:
    """A decoded picture as a `RegionSource`.

    Args:
        picture: (height, width, 3) uint8 sRGB.
    """

    def __init__(self, picture: np.ndarray) -> None:
        self._picture = picture

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        return self._picture.shape[1], self._picture.shape[0]

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> PhotoRegion:
        """Return the part within a box at full scale; `shrink` is ignored."""
        left, top, right, bottom = box_px
        return PhotoRegion(self._picture[top:bottom, left:right], (left, top), 1)


def ffhq_quad(
    left_eye: np.ndarray, right_eye: np.ndarray, mouth_left: np.ndarray, mouth_right: np.ndarray
) -> Quad:
    """Compute the quad of FFHQ from four points of a face.

    Args:
        left_eye: (2,) centre of the left eye in pixels. Left and right are as seen in the image.
        right_eye: (2,) centre of the right eye.
        mouth_left: (2,) left corner of the mouth.
        mouth_right: (2,) right corner of the mouth.

    Returns:
        The quad, in the pixels of the points.
    """
    eyes = (left_eye + right_eye) / 2
    mouth = (mouth_left + mouth_right) / 2
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = mouth - eyes

    # Half of the horizontal side: the average of the eye line and the normal of the eye-mouth line.
    x = np.array([eye_to_eye[0] + eye_to_mouth[1], eye_to_eye[1] - eye_to_mouth[0]])
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.array([-x[1], x[0]])

    centre = eyes + eye_to_mouth * 0.1
    corners_px = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return Quad(corners_px, float(np.hypot(*x) * 2))


def photo_to_crop(points_px: np.ndarray, quad: Quad, size_px: int) -> np.ndarray:
    """Map points of the photograph to points of the crop.

    Args:
        points_px: (n, 2) pixel centres in the photograph.
        quad: The quad of the crop.
        size_px: Side of the crop.

    Returns:
        (n, 2) pixel centres in the crop.
    """
    north_west, south_west, _, north_east = quad.corners_px
    axes = np.stack([north_east - north_west, south_west - north_west], axis=1)
    return np.linalg.solve(axes, (points_px - north_west).T).T * size_px - 0.5


def decode_shrink(quad: Quad, size_px: int) -> int:
    """Choose the reduction for decoding a JPEG that still leaves enough pixels for the crop.

    Args:
        quad: The quad of the crop, in the photograph.
        size_px: Side of the crop.

    Returns:
        The shrink factor: 1, 2, 4 or 8.
    """
    return largest_shrink(quad.size_px / (FILTER_MARGIN * size_px))


def align(picture: np.ndarray, quad: Quad, size_px: int) -> Crop:
    """Cut a quad out of a decoded picture and resample it.

    Args:
        picture: (height, width, 3) uint8 sRGB.
        quad: The quad, in pixels of the picture.
        size_px: Side of the crop.

    Returns:
        The crop.
    """
    return align_photo(ArraySource(picture), quad, size_px)


def align_photo(photo: RegionSource, quad: Quad, size_px: int) -> Crop:
    """Cut a quad out of a photograph and resample it, decoding only the part that is needed.

    The published recipe samples the quad bilinearly at four times the size and reduces that by
    Lanczos. Here two times suffice, and a quad clearly larger than the crop is instead low-pass
    filtered with the kernel that these two steps amount to, and sampled once. The results agree to
    40 dB PSNR or better (benchmarks/align.py).

    Args:
        photo: The photograph.
        quad: The quad, in pixels of the photograph. It may extend beyond the photograph.
        size_px: Side of the crop.

    Returns:
        The crop.
    """
    width, height = photo.size_px
    box_px = _box_around_quad(quad, width, height)
    region = photo.region(box_px, decode_shrink(quad, size_px))

    corners_px = region.from_photo(quad.corners_px)
    quad_size_px = quad.size_px / region.shrink
    pixels, corners_px = _pad_by_reflection(region.pixels, corners_px, quad_size_px)

    if quad_size_px >= FILTER_MARGIN * size_px:
        sampled = _sample_filtered(pixels, corners_px, size_px, region.shrink)
    else:
        sampled = _sample_supersampled(pixels, corners_px, size_px)
    return Crop(
        pixels=sampled,
        pad_fraction=_pad_fraction(quad, width, height),
        upscaled=quad.size_px < size_px,
    )


def _sample_filtered(
    pixels: np.ndarray, corners_px: np.ndarray, size_px: int, shrink: int
) -> np.ndarray:
    """Low-pass filter the picture and sample the quad once, bicubically."""
    import cv2

    side_px = float(np.hypot(*(corners_px[3] - corners_px[0])))
    kernel = lowpass_kernel(side_px / size_px, shrink)
    filtered = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return _warp(filtered, corners_px, size_px, cv2.INTER_CUBIC)


def _sample_supersampled(pixels: np.ndarray, corners_px: np.ndarray, size_px: int) -> np.ndarray:
    """Sample the quad bilinearly at a multiple of the size and reduce it by Lanczos."""
    import cv2
    from PIL import Image

    supersampled = _warp(pixels, corners_px, size_px * SUPERSAMPLE, cv2.INTER_LINEAR)
    image = Image.fromarray(supersampled)
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.LANCZOS))


def _warp(
    pixels: np.ndarray, corners_px: np.ndarray, size_px: int, interpolation: int
) -> np.ndarray:
    """Sample the quad on a grid of `size_px` x `size_px` pixels, without a filter."""
    import cv2

    north_west, south_west, _, north_east = corners_px
    across = (north_east - north_west) / size_px
    down = (south_west - north_west) / size_px
    # The centre of output pixel (u, v) is (u + 0.5, v + 0.5) steps into the quad.
    matrix = np.column_stack([across, down, north_west + 0.5 * (across + down)])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, matrix, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def lowpass_kernel(ratio: float, shrink: int = 1) -> np.ndarray:
    """Compute the low-pass filter that the published recipe amounts to.

    It is a Lanczos-3 kernel at the scale of the crop, convolved with the triangle of bilinear
    sampling, whose half width is one pixel of the photograph.

    Args:
        ratio: Pixels of the region per pixel of the crop, at least 1.
        shrink: Photograph pixels per pixel of the region.

    Returns:
        (2n + 1,) float32 taps that sum to 1.
    """
    reach_px = int(np.ceil(3 * ratio)) + 1
    x = np.arange(-reach_px * TAPS_PER_PX, reach_px * TAPS_PER_PX + 1) / TAPS_PER_PX
    lanczos = np.where(np.abs(x) < 3 * ratio, np.sinc(x / ratio) * np.sinc(x / ratio / 3), 0)
    triangle_x = np.arange(-TAPS_PER_PX, TAPS_PER_PX + 1) / TAPS_PER_PX
    triangle = np.clip(1 - np.abs(triangle_x) * shrink, 0, None)
    taps = np.convolve(lanczos, triangle, "same")[::TAPS_PER_PX]
    return (taps / taps.sum()).astype(np.float32)


def _border_px(quad_size_px: float) -> int:
    """Width of the border that the published recipe keeps around the quad."""
    return max(int(np.rint(quad_size_px * 0.1)), 3)


def _box_around_quad(quad: Quad, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) of the quad and its border within the photo."""
    border_px = _border_px(quad.size_px)
    low = np.floor(quad.corners_px.min(0)).astype(int) - border_px
    high = np.ceil(quad.corners_px.max(0)).astype(int) + border_px
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), width), min(int(high[1]), height)
    return left, top, right, bottom


def _pad_by_reflection(
    pixels: np.ndarray, corners_px: np.ndarray, quad_size_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pad a region so that it covers the quad.

    The padding is a reflection of the region. The further outwards, the more it is blurred and
    faded to the median colour.

    Args:
        pixels: (height, width, 3) uint8 region.
        corners_px: (4, 2) corners of the quad in the region.
        quad_size_px: Side of the quad in pixels of the region.

    Returns:
        The part of the padded region around the quad, uint8, and the corners of the quad in it.
    """
    height, width = pixels.shape[:2]
    border_px = _border_px(quad_size_px)
    low = np.floor(corners_px.min(0)).astype(int)
    high = np.ceil(corners_px.max(0)).astype(int)
    pads = np.array([-low[0], -low[1], high[0] - width, high[1] - height]) + border_px
    pads = np.maximum(pads, 0)
    if pads.max() <= border_px - 4:
        return pixels, corners_px

    pads = np.maximum(pads, int(np.rint(quad_size_px * 0.3)))
    left, top, right, bottom = (int(pad) for pad in pads)
    rows = np.pad(np.arange(height), (top, bottom), "reflect")
    columns = np.pad(np.arange(width), (left, right), "reflect")

    # 1 at the edges of the padded picture, 0 at the edges of the region, negative inside it. The
    # mask of a pixel is the larger of those of its column and of its row.
    x = np.arange(len(columns), dtype=np.float32)
    y = np.arange(len(rows), dtype=np.float32)
    column_mask = 1 - np.minimum(x / left, x[::-1] / right)
    row_mask = 1 - np.minimum(y / top, y[::-1] / bottom)

    def blurred(y: slice, x: slice) -> tuple[np.ndarray, np.ndarray]:
        """A part of the padded picture, blurred outwards, float32, and its mask."""
        image = pixels[rows[y][:, None], columns[x]].astype(np.float32)
        mask = np.maximum(row_mask[y][:, None], column_mask[x])[..., None]
        blur = _blur(image, quad_size_px * 0.02 / (x.step or 1))
        return image + (blur - image) * np.clip(mask * 3 + 1, 0, 1), mask

    step = max(1, min(len(rows), len(columns)) // MEDIAN_SIDE_PX)
    sample, _ = blurred(slice(None, None, step), slice(None, None, step))
    median = np.median(sample, axis=(0, 1))

    # Only the box around the quad is needed of the padded picture.
    corners_px = corners_px + np.array([left, top])
    first_x, first_y = np.maximum(np.floor(corners_px.min(0)).astype(int) - border_px, 0)
    last_x, last_y = np.ceil(corners_px.max(0)).astype(int) + border_px
    image, mask = blurred(slice(first_y, last_y), slice(first_x, last_x))
    image += (median - image) * np.clip(mask, 0, 1)
    padded = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return padded, corners_px - np.array([first_x, first_y])


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur a float32 picture by a Gaussian; a wide one is computed on a reduced picture."""
    import cv2

    factor = max(1, int(sigma_px / MIN_BLUR_SIGMA_PX))
    height, width = image.shape[:2]
    reduced_px = (-(-width // factor), -(-height // factor))
    reduced = cv2.resize(image, reduced_px, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(reduced, (0, 0), sigma_px / factor)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)


def _pad_fraction(quad: Quad, width: int, height: int) -> float:
    """Compute the share of the quad outside the photograph."""
    return _share_outside(quad.corners_px + 0.5, width, height)


def head_pad_fraction(quad: Quad, width: int, height: int) -> float:
    """Compute the share of face and hair outside the photograph, which padding invents.

    Face and hair are taken as an ellipse in the crop (`HEAD_CENTRE`, `HEAD_RADII`).

    Args:
        quad: The quad of the crop, in the photograph.
        width: Width of the photograph in pixels.
        height: Its height.

    Returns:
        0 (all of it lies in the photograph) to 1.
    """
    angles = np.linspace(0, 2 * np.pi, HEAD_CORNERS, endpoint=False)
    x = HEAD_CENTRE[0] + HEAD_RADII[0] * np.cos(angles)
    y = HEAD_CENTRE[1] + HEAD_RADII[1] * np.sin(angles)
    north_west, south_west, _, north_east = quad.corners_px + 0.5
    across = x[:, None] * (north_east - north_west)
    down = y[:, None] * (south_west - north_west)
    return _share_outside(north_west + across + down, width, height)


def _share_outside(corners: np.ndarray, width: int, height: int) -> float:
    """Compute the share of a convex polygon outside the photograph, exactly, by clipping it.

    Args:
        corners: (n, 2) corners in order, in pixel edges of the photograph.
        width: Width of the photograph.
        height: Its height.
    """
    whole: Polygon = [tuple(corner) for corner in corners]
    polygon = _clip_polygon(whole, axis=0, limit=0.0, keep_below=False)
    polygon = _clip_polygon(polygon, axis=0, limit=float(width), keep_below=True)
    polygon = _clip_polygon(polygon, axis=1, limit=0.0, keep_below=False)
    polygon = _clip_polygon(polygon, axis=1, limit=float(height), keep_below=True)
    return round(max(0.0, 1.0 - _area(polygon) / _area(whole)), 9)


def _area(polygon: Polygon) -> float:
    """Compute the area of a polygon (shoelace formula)."""
    xs = np.array([point[0] for point in polygon])
    ys = np.array([point[1] for point in polygon])
    return abs(float(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1))) / 2


def _clip_polygon(polygon: Polygon, *, axis: int, limit: float, keep_below: bool) -> Polygon:
    """Clip a convex polygon at an axis-parallel line (Sutherland and Hodgman)."""

    def is_inside(point: tuple[float, ...]) -> bool:
        return (point[axis] <= limit) == keep_below or point[axis] == limit

    clipped: Polygon = []
    for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if is_inside(start):
            clipped.append(start)
        if is_inside(start) != is_inside(end):
            t = (limit - start[axis]) / (end[axis] - start[axis])
            crossing = tuple(a + t * (b - a) for a, b in zip(start, end, strict=True))
            clipped.append(crossing)
    return clipped
