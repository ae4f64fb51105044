"""The faces stage on a real photograph: sizes and formats of crops, and landmarks in the crop."""

import io

import numpy as np
import pytest
from PIL import Image

from authface_data.engine.stage import Item
from authface_data.faces.stage import FacesStage
from authface_data.images.open import Photo


def make_crop(path, size, crop_format="png"):
    """Run the stage on a photograph of one face; return the row and the content of the crop."""
    stage = FacesStage(
        detector="retinaface-mobile",
        landmarks="dlib",
        size_px=size,
        min_detector_score=0.7,
        detect_long_side_px=1920,
        weights_dir=None,
        crop_format=crop_format,
    )
    stage.setup("cpu")
    written = {}
    (result,) = stage.process([Item("fs_p", {}, Photo(path.read_bytes))], written.__setitem__)
    (row,) = result.rows
    return row, written[row["crop_path"]]


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_landmarks_and_boxes_scale_with_the_crop(photos, weights, size):
    """The eyes are at FFHQ's places in a crop of any size, and lie within their boxes."""
    row, data = make_crop(photos["obama.jpg"], size)
    assert Image.open(io.BytesIO(data)).size == (size, size)
    assert row["crop_size_px"] == size

    landmarks = np.array(row["landmarks_crop_px"]) / size
    left_eye = landmarks[36:42].mean(0)
    right_eye = landmarks[42:48].mean(0)
    assert np.abs(left_eye - [0.38, 0.48]).max() < 0.04
    assert np.abs(right_eye - [0.62, 0.48]).max() < 0.04

    x0, y0, x1, y1 = np.array(row["left_eye_box_crop_px"]) / size
    assert x0 < left_eye[0] < x1
    assert y0 < left_eye[1] < y1
    assert row["upscaled"] == (row["qsize_px"] < size)


@pytest.mark.slow
def test_webp_crop_has_the_same_pixels_as_png(photos, weights):
    png_row, png = make_crop(photos["obama.jpg"], 512)
    webp_row, webp = make_crop(photos["obama.jpg"], 512, "webp")
    assert (png_row["crop_path"][-4:], webp_row["crop_path"][-5:]) == (".png", ".webp")
    with Image.open(io.BytesIO(webp)) as image:
        assert image.format == "WEBP"
        assert not image.info.get("exif")
        png_pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert np.array_equal(np.asarray(image.convert("RGB")), png_pixels)
