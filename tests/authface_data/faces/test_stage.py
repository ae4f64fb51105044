"""The faces stage on a real photograph: sizes and formats of crops, and landmarks that lie in them where they should."""

import io

import numpy as np
import pytest
from PIL import Image

from authface_data.engine.stage import Item
from authface_data.faces.stage import FacesStage
from authface_data.images.open import Photo


def crop_of(path, size, crop_format="png"):
    stage = FacesStage("retinaface-mobile", "dlib", size, 0.7, 1920, None, crop_format)
    stage.setup("cpu")
    written = {}
    (result,) = stage.process([Item("fs_p", {}, Photo(path.read_bytes))], written.__setitem__)
    (row,) = result.rows
    return row, written[row["crop_path"]]


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_a_crop_of_every_size_with_its_landmarks(photos, weights, size):
    """The landmarks and boxes scale with the crop; the pupils lie within their boxes, at FFHQ's places."""
    row, data = crop_of(photos["obama.jpg"], size)
    assert Image.open(io.BytesIO(data)).size == (size, size)
    assert row["crop_size_px"] == size
    points = np.array(row["landmarks_crop_px"]) / size
    assert np.abs(points[36:42].mean(0) - [0.38, 0.48]).max() < 0.04
    assert np.abs(points[42:48].mean(0) - [0.62, 0.48]).max() < 0.04
    x0, y0, x1, y1 = np.array(row["left_eye_box_crop_px"]) / size
    assert x0 < points[36:42].mean(0)[0] < x1
    assert y0 < points[36:42].mean(0)[1] < y1
    assert row["upscaled"] == (row["qsize_px"] < size)


@pytest.mark.slow
def test_webp_holds_the_same_pixels(photos, weights):
    row, png = crop_of(photos["obama.jpg"], 512)
    other, webp = crop_of(photos["obama.jpg"], 512, "webp")
    assert (row["crop_path"][-4:], other["crop_path"][-5:]) == (".png", ".webp")
    with Image.open(io.BytesIO(webp)) as opened:
        assert opened.format == "WEBP"
        assert not opened.info.get("exif")
        assert np.array_equal(
            np.asarray(opened.convert("RGB")), np.asarray(Image.open(io.BytesIO(png)))
        )
