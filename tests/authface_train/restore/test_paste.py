"""A restored face back in its photograph: geometry, seams, and what is left alone."""

import numpy as np
import pytest
from PIL import Image

from authface_data.faces.align import Quad, align
from authface_train.restore.paste import EDGE, paste, soft_mask

# An upright square and two turned ones, of which the last hangs off the photograph.
QUADS = {
    "upright": ((300, 200), (300, 456), 256.0),
    "turned": ((420, 180), (330, 520), 351.7),
    "off": ((-90, 300), (-150, 520), 228.0),
}


def quad_of(name):
    north_west, south_west = (np.array(corner, float) for corner in QUADS[name][:2])
    down = south_west - north_west
    across = np.array([down[1], -down[0]])
    corners = np.stack([north_west, south_west, south_west + across, north_west + across])
    return Quad(corners, float(np.hypot(*down)))


@pytest.fixture(scope="module")
def photo(photos):
    with Image.open(photos["obama2.jpg"]) as image:
        return np.asarray(image.convert("RGB").resize((626, 1200)))


@pytest.mark.parametrize("name", QUADS)
def test_a_face_goes_back_where_it_came_from(photo, name):
    """Cut out and pasted unchanged, the photograph is as it was, to what resampling loses; a shift of a pixel would show."""
    quad = quad_of(name)
    pasted, _ = paste(photo, quad, align(photo, quad, 512).pixels)
    error = np.square(pasted.astype(float) - photo).mean()
    moved = Quad(quad.corners_px + 1.0, quad.size_px)
    shifted, _ = paste(photo, moved, align(photo, quad, 512).pixels)
    assert 10 * np.log10(255**2 / error) > 40
    assert np.square(shifted.astype(float) - photo).mean() > 4 * error


@pytest.mark.parametrize("name", QUADS)
def test_what_lies_outside_is_the_photographs_own_to_the_bit(photo, name):
    quad = quad_of(name)
    red = np.full((512, 512, 3), (255, 0, 0), np.uint8)
    pasted, (left, top, right, bottom) = paste(photo, quad, red)
    changed = (pasted != photo).any(axis=2)
    assert changed.any()
    rows, columns = np.nonzero(changed)
    assert left <= columns.min() <= columns.max() < right
    assert top <= rows.min() <= rows.max() < bottom
    # In the quad's own coordinates, 0 to 1 either way: nothing changes outside, nor in the margin that the mask leaves.
    axes = np.stack(
        [quad.corners_px[3] - quad.corners_px[0], quad.corners_px[1] - quad.corners_px[0]], axis=1
    )
    inside = np.linalg.solve(axes, (np.stack([columns, rows]) - quad.corners_px[0][:, None]))
    pixel = 1.5 / quad.size_px
    assert (inside > EDGE - pixel).all()
    assert (inside < 1 - EDGE + pixel).all()
    middle = quad.corners_px.mean(axis=0).round().astype(int)
    if (middle > 0).all():
        assert tuple(pasted[middle[1], middle[0]]) == (255, 0, 0)


def test_there_are_no_seams(photo):
    """A face that is 40 levels brighter comes in little by little: nowhere is a step of more than 4 between neighbours."""
    flat = np.full_like(photo, 100)
    pasted, _ = paste(flat, quad_of("turned"), np.full((512, 512, 3), 140, np.uint8))
    values = pasted[..., 0].astype(int)
    assert values.max() == 140
    assert max(np.abs(np.diff(values, axis=axis)).max() for axis in (0, 1)) <= 4


def test_the_mask():
    mask = soft_mask(100)
    assert mask.shape == (100, 100)
    assert mask[0].max() == mask[:, -1].max() == 0
    assert mask[50, 50] == 1
    assert np.array_equal(mask, mask.T)
    assert np.array_equal(mask, mask[::-1])


def test_a_face_off_the_photograph_is_an_error(photo):
    gone = Quad(quad_of("upright").corners_px + 5000, 256.0)
    with pytest.raises(ValueError, match="off the photograph"):
        paste(photo, gone, np.zeros((8, 8, 3), np.uint8))
