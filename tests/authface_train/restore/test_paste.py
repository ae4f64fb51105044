"""Pasting a restored face: geometry, soft edges, and untouched surroundings."""

import numpy as np
import pytest
from PIL import Image

from authface_data.faces.align import Quad, align
from authface_train.restore.paste import EDGE_FRACTION, paste_face, soft_mask

# North-west corner and south-west corner. The last square lies partly outside the photograph.
QUADS = {
    "upright": ((300, 200), (300, 456)),
    "rotated": ((420, 180), (330, 520)),
    "partly outside": ((-90, 300), (-150, 520)),
}


def make_quad(name):
    north_west, south_west = (np.array(corner, float) for corner in QUADS[name])
    down = south_west - north_west
    across = np.array([down[1], -down[0]])
    corners = np.stack([north_west, south_west, south_west + across, north_west + across])
    return Quad(corners, float(np.hypot(*down)))


@pytest.fixture(scope="module")
def photo(photos):
    with Image.open(photos["obama2.jpg"]) as image:
        return np.asarray(image.convert("RGB").resize((626, 1200)))


@pytest.mark.parametrize("name", QUADS)
def test_unchanged_crop_is_pasted_where_it_was_cut_out(photo, name):
    """Only the loss of resampling remains; a shift by one pixel gives a much larger error."""
    quad = make_quad(name)
    crop = align(photo, quad, 512).pixels
    pasted, _ = paste_face(photo, quad, crop)
    error = np.square(pasted.astype(float) - photo).mean()
    shifted_quad = Quad(quad.corners_px + 1.0, quad.size_px)
    shifted, _ = paste_face(photo, shifted_quad, crop)
    assert 10 * np.log10(255**2 / error) > 40
    assert np.square(shifted.astype(float) - photo).mean() > 4 * error


@pytest.mark.parametrize("name", QUADS)
def test_pixels_outside_mask_are_unchanged(photo, name):
    quad = make_quad(name)
    red = np.full((512, 512, 3), (255, 0, 0), np.uint8)
    pasted, (left, top, right, bottom) = paste_face(photo, quad, red)
    changed = (pasted != photo).any(axis=2)
    assert changed.any()
    rows, columns = np.nonzero(changed)
    assert left <= columns.min() <= columns.max() < right
    assert top <= rows.min() <= rows.max() < bottom

    # In coordinates of the quad, 0 to 1 on both axes, nothing changes in the margin of the mask.
    north_west, south_west, _, north_east = quad.corners_px
    axes = np.stack([north_east - north_west, south_west - north_west], axis=1)
    inside = np.linalg.solve(axes, np.stack([columns, rows]) - north_west[:, None])
    pixel = 1.5 / quad.size_px
    assert (inside > EDGE_FRACTION - pixel).all()
    assert (inside < 1 - EDGE_FRACTION + pixel).all()

    centre = quad.corners_px.mean(axis=0).round().astype(int)
    if (centre > 0).all():
        assert tuple(pasted[centre[1], centre[0]]) == (255, 0, 0)


def test_brighter_face_has_no_visible_seam(photo):
    """A face that is 40 levels brighter fades in with steps of at most 4 levels per pixel."""
    flat = np.full_like(photo, 100)
    brighter = np.full((512, 512, 3), 140, np.uint8)
    pasted, _ = paste_face(flat, make_quad("rotated"), brighter)
    values = pasted[..., 0].astype(int)
    assert values.max() == 140
    assert max(np.abs(np.diff(values, axis=axis)).max() for axis in (0, 1)) <= 4


def test_soft_mask_is_symmetric_and_zero_at_edges():
    mask = soft_mask(100)
    assert mask.shape == (100, 100)
    assert mask[0].max() == mask[:, -1].max() == 0
    assert mask[50, 50] == 1
    assert np.array_equal(mask, mask.T)
    assert np.array_equal(mask, mask[::-1])


def test_face_outside_photograph_is_an_error(photo):
    outside = Quad(make_quad("upright").corners_px + 5000, 256.0)
    with pytest.raises(ValueError, match="outside the photograph"):
        paste_face(photo, outside, np.zeros((8, 8, 3), np.uint8))
