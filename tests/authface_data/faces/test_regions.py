"""Eye and mouth boxes, and whether they are visible."""

import numpy as np

from authface_data.faces.regions import regions, square_box


def face68(size=512.0) -> np.ndarray:
    """68 points with the eyes and the mouth where FFHQ's alignment puts them; the rest in the middle."""
    points = np.full((68, 2), size / 2)
    for start, centre in ((36, (0.37, 0.47)), (42, (0.63, 0.47))):
        points[start : start + 6] = np.array(centre) * size + np.array([[-20, 0], [-8, -8], [8, -8], [20, 0], [8, 8], [-8, 8]])
    points[48:68] = np.array((0.5, 0.75)) * size + np.stack([np.linspace(-50, 50, 20), np.tile([-10, 10], 10)], 1)
    return points


def test_boxes_are_edges_around_pixel_centres():
    box = square_box(np.array([[10.0, 10.0], [50.0, 20.0]]), 512, 1.4)
    assert np.allclose(box, [30.5 - 28, 15.5 - 28, 30.5 + 28, 15.5 + 28])
    tiny = square_box(np.array([[10.0, 10.0], [12.0, 10.0]]), 512, 1.0)
    assert np.allclose(tiny[2:] - tiny[:2], 32)


def test_a_mirrored_face_has_mirrored_boxes():
    points = face68()
    swap = [*range(36), *range(42, 48), *range(36, 42), *range(48, 68)]
    mirrored = (points * [-1, 1] + [511, 0])[swap]
    there = np.ones(68, bool)
    straight, turned = regions(points, 512, 0, there), regions(mirrored, 512, 0, there)
    for name, other in (("left_eye", "right_eye"), ("right_eye", "left_eye"), ("mouth", "mouth")):
        x0, y0, x1, y1 = straight[name].box_crop_px
        assert np.allclose(turned[other].box_crop_px, [512 - x1, y0, 512 - x0, y1])


def test_what_hides_a_region():
    points, there = face68(), np.ones(68, bool)
    assert all(region.visible for region in regions(points, 512, 0, there).values())
    turned = regions(points, 512, 60, there)
    assert [turned[name].visible for name in ("left_eye", "right_eye", "mouth")] == [True, False, True]
    off = there.copy()
    off[44] = False
    cut = regions(points, 512, 0, off)
    assert [cut[name].visible for name in ("left_eye", "right_eye", "mouth")] == [True, False, True]
    outside = regions(points + [250, 0], 512, 0, there)
    assert [outside[name].visible for name in ("left_eye", "right_eye", "mouth")] == [True, False, False]


def test_five_points_make_boxes_too():
    five = np.array([(190, 240), (322, 240), (256, 310), (200, 380), (312, 380)], float)
    made = regions(five, 512, 0, np.ones(5, bool))
    x0, y0, x1, y1 = made["left_eye"].box_crop_px
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (190.5, 240.5)
    assert all(region.visible for region in made.values())
