"""Photographs that lie on their side or upside down without saying so in EXIF."""

import io

import numpy as np
import pytest
from PIL import Image
from public_faces import faces_stage

from authface_data.engine.stage import Dropped, Item, Rows
from authface_data.faces.turned import detect_faces_upright, quarter_turns, turn_points
from authface_data.images.open import Photo


@pytest.fixture(scope="module")
def stages(weights):
    """A faces stage that is set up, by landmark backend."""
    return {landmarks: faces_stage(landmarks) for landmarks in ("dlib", "mediapipe")}


def largest_face(stage, picture):
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(data, "PNG")
    crops = {}
    photo = Photo(data.getvalue)
    (result,) = stage.process([Item("fs_1", {}, photo)], crops.__setitem__)
    assert isinstance(result, Rows), result
    row = max(result.rows, key=lambda row: row["qsize_px"])
    with Image.open(io.BytesIO(crops[row["crop_path"]])) as crop:
        return row, np.asarray(crop).astype(float)


def test_points_turn_with_the_picture():
    picture = np.zeros((5, 8))
    picture[1, 6] = 1
    for turns in range(4):
        ((x, y),) = turn_points(np.array([[6.0, 1.0]]), (8, 5), turns)
        assert np.rot90(picture, turns)[int(y), int(x)] == 1


def test_quarter_turns_make_a_face_upright():
    upright = np.array([(0, 0), (10, 0), (5, 5), (1, 10), (9, 10)], float)
    for turns in range(4):
        # A picture turned by `turns` must be turned by the rest of a full turn.
        assert quarter_turns(turn_points(upright, (11, 11), turns)) == (4 - turns) % 4


@pytest.mark.slow
@pytest.mark.parametrize("landmarks", ["dlib", "mediapipe"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photograph_gives_the_crop_of_the_upright_one(stages, photos, landmarks, turns):
    with Image.open(photos["obama2.jpg"]) as image:
        picture = np.asarray(image.convert("RGB"))
    row, crop = largest_face(stages[landmarks], picture)
    turned_row, turned_crop = largest_face(stages[landmarks], np.rot90(picture, turns))

    assert turned_row["qsize_px"] == pytest.approx(row["qsize_px"], rel=0.05)
    assert np.abs(turned_crop - crop).mean() < 12
    roll_deg = (row["roll_deg"] - 90 * turns + 180) % 360 - 180
    assert (turned_row["roll_deg"] - roll_deg + 180) % 360 - 180 == pytest.approx(0, abs=6)
    assert turned_row["yaw_deg"] == pytest.approx(row["yaw_deg"], abs=8)
    assert turned_row["left_eye_visible"]
    assert turned_row["mouth_visible"]
    x0, y0, x1, y1 = turned_row["box_px"]
    height, width = np.rot90(picture, turns).shape[:2]
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


@pytest.mark.parametrize(("turns", "searches"), [(0, 1), (1, 2)])
def test_only_turned_photographs_are_searched_again(stages, photos, turns, searches):
    """Upright photographs cost nothing more."""
    with Image.open(photos["obama2.jpg"]) as image:
        picture = np.rot90(np.asarray(image.convert("RGB")), turns)
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(data, "PNG")
    calls = []

    def detect(pictures):
        calls.append(pictures)
        return stages["dlib"].model.predict(pictures)

    (faces,) = detect_faces_upright(detect, [Photo(data.getvalue)], 1280)
    assert faces
    assert len(calls) == searches


def test_picture_without_a_face_is_dropped(stages):
    stripes = np.tile(np.arange(256, dtype=np.uint8), (200, 1))
    data = io.BytesIO()
    Image.fromarray(np.stack([stripes] * 3, -1)).save(data, "PNG")
    (result,) = stages["dlib"].process([Item("fs_1", {}, Photo(data.getvalue))], lambda *_: None)
    assert isinstance(result, Dropped)
