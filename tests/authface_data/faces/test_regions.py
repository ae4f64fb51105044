"""Boxes of the eyes and the mouth."""

import numpy as np

from authface_data.faces.regions import region_boxes, square_box


def landmarks68_of_aligned_face(size=512.0) -> np.ndarray:
    """Return (68, 2) landmarks with eyes and mouth at FFHQ's places and the rest in the middle."""
    points = np.full((68, 2), size / 2)
    eye_outline = np.array([[-20, 0], [-8, -8], [8, -8], [20, 0], [8, 8], [-8, 8]])
    for start, centre in ((36, (0.37, 0.47)), (42, (0.63, 0.47))):
        points[start : start + 6] = np.array(centre) * size + eye_outline
    mouth_outline = np.stack([np.linspace(-50, 50, 20), np.tile([-10, 10], 10)], 1)
    points[48:68] = np.array((0.5, 0.75)) * size + mouth_outline
    return points


def test_square_box_has_pixel_edges_around_pixel_centres():
    box = square_box(np.array([[10.0, 10.0], [50.0, 20.0]]), 512, 1.4)
    assert np.allclose(box, [30.5 - 28, 15.5 - 28, 30.5 + 28, 15.5 + 28])
    tiny = square_box(np.array([[10.0, 10.0], [12.0, 10.0]]), 512, 1.0)
    assert np.allclose(tiny[2:] - tiny[:2], 32)


def test_mirrored_landmarks_give_mirrored_boxes():
    landmarks = landmarks68_of_aligned_face()
    swapped_eyes = [*range(36), *range(42, 48), *range(36, 42), *range(48, 68)]
    mirrored_landmarks = (landmarks * [-1, 1] + [511, 0])[swapped_eyes]

    boxes = region_boxes(landmarks, 512)
    mirrored_boxes = region_boxes(mirrored_landmarks, 512)

    for name, counterpart in (
        ("left_eye", "right_eye"),
        ("right_eye", "left_eye"),
        ("mouth", "mouth"),
    ):
        x0, y0, x1, y1 = boxes[name]
        assert np.allclose(mirrored_boxes[counterpart], [512 - x1, y0, 512 - x0, y1])


def test_five_landmarks_give_boxes():
    landmarks5 = np.array([(190, 240), (322, 240), (256, 310), (200, 380), (312, 380)], float)
    boxes = region_boxes(landmarks5, 512)
    x0, y0, x1, y1 = boxes["left_eye"]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (190.5, 240.5)
    assert all((box[2:] - box[:2] > 0).all() for box in boxes.values())
