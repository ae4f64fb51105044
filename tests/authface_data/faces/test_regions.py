"""Eye and mouth boxes."""

import numpy as np

from authface_data.faces.regions import regions, square_box


def face68(size=512.0) -> np.ndarray:
    """68 points with the eyes and the mouth where FFHQ's alignment puts them; the rest in the middle."""
    points = np.full((68, 2), size / 2)
    for start, centre in ((36, (0.37, 0.47)), (42, (0.63, 0.47))):
        points[start : start + 6] = np.array(centre) * size + np.array(
            [[-20, 0], [-8, -8], [8, -8], [20, 0], [8, 8], [-8, 8]]
        )
    points[48:68] = np.array((0.5, 0.75)) * size + np.stack(
        [np.linspace(-50, 50, 20), np.tile([-10, 10], 10)], 1
    )
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
    straight, turned = regions(points, 512), regions(mirrored, 512)
    for name, other in (("left_eye", "right_eye"), ("right_eye", "left_eye"), ("mouth", "mouth")):
        x0, y0, x1, y1 = straight[name]
        assert np.allclose(turned[other], [512 - x1, y0, 512 - x0, y1])


def test_five_points_make_boxes_too():
    five = np.array([(190, 240), (322, 240), (256, 310), (200, 380), (312, 380)], float)
    made = regions(five, 512)
    x0, y0, x1, y1 = made["left_eye"]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (190.5, 240.5)
    assert all((box[2:] - box[:2] > 0).all() for box in made.values())
