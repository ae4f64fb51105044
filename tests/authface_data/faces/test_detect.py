"""Small faces of very large photographs, and aligned crops, are recognised."""

import itertools
from functools import partial

import numpy as np
import pytest
from PIL import Image

from authface_data.faces.align import Quad, align_photo
from authface_data.faces.boxes import longer_side
from authface_data.faces.detect import TILE_PX, detect_faces, detect_from_size
from authface_data.faces.finder import FaceFinder, FoundFace, covers_picture
from authface_data.images.encode import encode_image
from authface_data.images.open import Photo

PORTRAITS = ("obama.jpg", "astronaut-nasa.png")
BACKGROUND = (90, 110, 120)


@pytest.fixture(scope="module")
def finder(weights):
    return FaceFinder("retinaface-mobile", None)


@pytest.fixture(scope="module")
def portraits(photos, finder):
    """Each portrait and the longer side of its face's box."""
    pictures = [Photo(photos[name].read_bytes) for name in PORTRAITS]
    return [(photo.pixels(), longer_side(finder.find(photo)[0].box_px)) for photo in pictures]


def place(portraits, size_px, centres_px, face_px):
    """Place the portraits by turns in a large photograph; their faces have a given size.

    Returns:
        The photograph, and the boxes of the placed portraits.
    """
    canvas = Image.new("RGB", size_px, BACKGROUND)
    boxes_px = []
    for (pixels, box_side_px), centre_px in zip(itertools.cycle(portraits), centres_px):
        scale = face_px / box_side_px
        portrait = Image.fromarray(pixels)
        small = portrait.resize((round(portrait.width * scale), round(portrait.height * scale)))
        left, top = centre_px[0] - small.width // 2, centre_px[1] - small.height // 2
        canvas.paste(small, (left, top))
        boxes_px.append((left, top, left + small.width, top + small.height))
    data = encode_image(canvas, "JPEG", 92)
    return Photo(lambda: data), boxes_px


def count_found(faces, boxes_px):
    """Number of boxes with exactly one face in them."""
    centres = [(face.box_px[:2] + face.box_px[2:]) / 2 for face in faces]
    return sum(
        sum(left < x < right and top < y < bottom for x, y in centres) == 1
        for left, top, right, bottom in boxes_px
    )


@pytest.mark.parametrize(
    ("size_px", "centres_px", "face_px"),
    [
        ((4000, 2400), [(300, 400), (1600, 960), (2500, 1500), (3800, 2200)], 48),
        ((350, 10000), [(150, 700), (180, 2960), (170, 6400), (150, 9700)], 80),
    ],
)
def test_small_faces_of_large_photographs_are_found_once(
    finder, portraits, size_px, centres_px, face_px
):
    photo, boxes_px = place(portraits, size_px, centres_px, face_px)
    detect = partial(finder.detector.detect, min_score=0.6)
    (whole,) = detect_faces(detect, [photo], TILE_PX)
    assert count_found(whole, boxes_px) == 0
    faces = finder.find(photo)
    assert count_found(faces, boxes_px) == len(faces) == 4
    assert not detect_from_size(finder.detector, photo, 2 * face_px, 0.6)


def test_faces_at_the_borders_of_tiles_are_found_once(finder, portraits):
    """The two tiles overlap from x = 1120 to x = 1280."""
    centres_px = [(1110, 100), (1135, 300), (1200, 500), (1265, 700), (1290, 900)]
    photo, boxes_px = place(portraits, (2400, 1000), centres_px, 26)
    faces = detect_from_size(finder.detector, photo, 20, 0.6)
    assert count_found(faces, boxes_px) == len(faces) == 5


def test_photograph_that_fits_a_tile_gives_the_faces_of_filter(finder, photos):
    photo = Photo(photos["obama.jpg"].read_bytes)
    detect = partial(finder.detector.detect, min_score=0.6)
    (expected,) = detect_faces(detect, [photo], TILE_PX)
    found = detect_from_size(finder.detector, photo, 24, 0.6)
    assert [face.box_px.tolist() for face in found] == [face.box_px.tolist() for face in expected]


def make_face(size_px=500.0, centre_px=(256, 256), rotation_deg=0.0):
    angle = np.radians(rotation_deg)
    x = np.array([np.cos(angle), np.sin(angle)]) * size_px / 2
    y = np.array([-x[1], x[0]])
    centre = np.array(centre_px) - 0.5
    corners_px = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return FoundFace(np.zeros(4), 1.0, Quad(corners_px, size_px))


def test_aligned_crop_is_recognised_within_tolerances():
    aligned = partial(covers_picture, side_px=512)
    assert aligned(make_face())
    for accepted in (
        {"size_px": 390},
        {"size_px": 680},
        {"centre_px": (310, 200)},
        {"rotation_deg": -14},
    ):
        assert aligned(make_face(**accepted)), accepted
    for refused in (
        {"size_px": 370},
        {"size_px": 700},
        {"centre_px": (256, 320)},
        {"rotation_deg": 16},
    ):
        assert not aligned(make_face(**refused)), refused


def test_crops_of_portraits_are_aligned_and_square_portraits_are_not(finder, photos):
    for name in PORTRAITS:
        photo = Photo(photos[name].read_bytes)
        (face, *_) = finder.find(photo)
        crop = align_photo(photo, face.quad, 256).pixels
        data = encode_image(Image.fromarray(crop), "JPEG", 30)
        (found,) = finder.find(Photo(lambda data=data: data))
        assert covers_picture(found, 256), name
    square = Photo(photos["astronaut-nasa.png"].read_bytes)
    assert square.size_px == (512, 512)
    assert not covers_picture(finder.find(square)[0], 512)
