"""Which copy of a photograph is the best: real photographs against their copies."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from authface_data.copies import Copy, compare_copies, rank_copies
from authface_data.images.detail_spectrum import measure_detail
from authface_data.images.open import decode_image


def encode(image: Image.Image, file_format: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def resize(image: Image.Image, factor: float, method=Image.Resampling.LANCZOS) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), method)


def copy_of(data: bytes, **columns: object) -> Copy:
    """What `collect` stores about a file."""
    pixels = decode_image(data)
    detail = measure_detail(pixels)
    assert detail is not None
    measured = {
        "id": "fs_0",
        "passes": True,
        "face_px": None,
        "size_px": (pixels.shape[1], pixels.shape[0]),
        "num_bytes": len(data),
        "spectrum": np.array(detail.spectrum),
        "coefficient_share": detail.coefficient_share,
    }
    return Copy(**(measured | columns))


@pytest.fixture(scope="module")
def original() -> bytes:
    """The file of a photograph."""
    from skimage.data import astronaut

    return encode(Image.fromarray(astronaut()), "JPEG", quality=95)


COPIES = {
    "enlarged 1.25x": lambda image: encode(resize(image, 1.25), "PNG", compress_level=1),
    "enlarged 1.5x": lambda image: encode(resize(image, 1.5), "JPEG", quality=90),
    "enlarged 2x": lambda image: encode(
        resize(image, 2, Image.Resampling.BICUBIC), "JPEG", quality=95
    ),
    "reduced 0.5x": lambda image: encode(resize(image, 0.5), "JPEG", quality=95),
    "JPEG 70": lambda image: encode(image, "JPEG", quality=70),
    "JPEG 50": lambda image: encode(image, "JPEG", quality=50),
    "PNG": lambda image: encode(image, "PNG", compress_level=1),
}


@pytest.mark.parametrize("kind", COPIES)
def test_original_is_better_than_its_copy(original, photos, kind):
    for data in (original, photos["obama.jpg"].read_bytes()):
        whole, copy = copy_of(data), copy_of(COPIES[kind](Image.fromarray(decode_image(data))))
        assert compare_copies(whole, copy) == -1
        assert compare_copies(copy, whole) == 1


def test_compression_is_seen_in_a_lossless_copy(original):
    image = Image.fromarray(decode_image(original))
    strong = Image.open(io.BytesIO(encode(image, "JPEG", quality=60)))
    lossless = encode(strong.convert("RGB"), "PNG")
    assert len(lossless) > len(original)
    assert compare_copies(copy_of(original), copy_of(lossless)) == -1


def test_enlargement_does_not_win_because_it_passes(original):
    """The face of the enlargement passes a gate on the size, that of the original does not."""
    image = Image.fromarray(decode_image(original))
    enlarged = copy_of(encode(resize(image, 2), "JPEG", quality=95), face_px=400.0)
    source = copy_of(original, face_px=200.0, passes=False)
    assert compare_copies(source, enlarged) == -1
    reduced = copy_of(encode(resize(image, 0.5), "PNG"), face_px=100.0, passes=True)
    assert compare_copies(reduced, source) == -1


@pytest.mark.parametrize("kind", ["mirror image", "part"])
def test_copy_of_a_dropped_picture_does_not_win_because_it_passes(original, kind):
    """Measurements of copies differ a little, and the copy may lie on the other side of a gate."""
    image = Image.fromarray(decode_image(original))
    copied = ImageOps.mirror(image) if kind == "mirror image" else ImageOps.crop(image, 20)
    copy = copy_of(encode(copied, "JPEG", quality=85), face_px=203.0, photo_id="fs_b")
    source = copy_of(original, face_px=200.0, passes=False, photo_id="fs_a")
    assert compare_copies(source, copy) == -1
    assert compare_copies(copy, source) == 1
    # A face pasted twice into one photograph: the gate on its rank drops one of them.
    twin = copy_of(original, face_px=200.0, pad_fraction=0.1, photo_id="fs_a")
    assert compare_copies(replace(source, pad_fraction=0.0), twin) == 1
    # A part without the other people passes the gate on their number.
    whole = replace(source, pad_fraction=0.0, num_faces=3)
    assert compare_copies(whole, replace(copy, pad_fraction=0.0, num_faces=1)) == (
        1 if kind == "part" else -1
    )


def test_whole_photograph_is_better_than_a_part_of_it(original):
    image = Image.fromarray(decode_image(original))
    part = image.crop((0, 0, image.width * 9 // 10, image.height * 9 // 10))
    whole = copy_of(original, face_px=200.0)
    assert compare_copies(whole, copy_of(encode(part, "PNG"), face_px=202.0)) == -1


def test_older_rows_are_compared_by_size_bytes_and_date():
    """Rows of before the measurement of detail."""
    rows = {
        "reduced": ((500, 500), 900_000, None),
        "strong": ((1000, 1000), 300_000, None),
        "late": ((1000, 1000), 900_000, "2020-01-02T00:00:00"),
        "best": ((1000, 1000), 900_000, "2020-01-01T00:00:00"),
        "unknown": (None, None, None),
    }
    copies = [
        Copy(name, True, None, size_px, num_bytes, taken_at)
        for name, (size_px, num_bytes, taken_at) in rows.items()
    ]
    order = [copies[index].id for index in rank_copies(copies[:4], np.zeros(4))]
    assert order == ["best", "late", "strong", "reduced"]
    groups = rank_copies(copies, np.array([1, 0, 1, 0, 0]))
    assert [copies[index].id for index in groups][:1] == ["best"]
    assert compare_copies(copies[4], copies[0]) == 0


def test_small_pictures_have_no_detail():
    assert measure_detail(np.zeros((100, 2000, 3), np.uint8)) is None
    flat = measure_detail(np.zeros((128, 128, 3), np.uint8))
    assert flat is not None
    assert flat.spectrum == [0.0] * 32
    assert flat.coefficient_share == pytest.approx(0)
