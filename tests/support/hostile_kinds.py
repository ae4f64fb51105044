"""Kinds of files of a hostile corpus: ordinary photographs and damaged ones.

Each kind is a function that makes the content of one file; hostile_attacks.py has further kinds.

A kind is built from real photographs of faces where that matters, and small in bytes even where its
picture is large. The same seed gives the same bytes with the same version of Pillow.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageEnhance

Expected = Literal["row", "refused", "any", "skipped"]
"""What must become of a file: a row, a dropped or failed verdict, either, or a count by suffix."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF")
"""The supported formats by Pillow's names."""
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".JPG", ".jpe", ".jfif"),
    "MPO": (".jpg",),
    "PNG": (".png", ".PNG"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
PHOTO_PX = 640
"""Longer side of the ordinary photographs."""
SMALL_PX = 240
"""Longer side of the pictures that are damaged or odd."""


class Content(NamedTuple):
    """The content of a file and the suffix of its name."""

    data: bytes
    suffix: str


class Materials:
    """What the kinds are made of.

    Args:
        photographs: Paths of photographs of faces.
        marker: A path that PostScript files try to write.
    """

    def __init__(self, photographs: Sequence[Path], marker: Path) -> None:
        self.photographs = sorted(photographs)
        self.marker = marker

    @cached_property
    def portraits(self) -> list[Image.Image]:
        """The photographs as RGB pictures of at most `PHOTO_PX`."""
        portraits = []
        for path in self.photographs:
            with Image.open(path) as opened:
                portrait = opened.convert("RGB")
            portrait.thumbnail((PHOTO_PX, PHOTO_PX), Image.Resampling.LANCZOS)
            portraits.append(portrait)
        return portraits

    @cached_property
    def small_files(self) -> dict[str, list[bytes]]:
        """Pillow's name of a format -> small pictures in that format; the first shows a face."""
        rng = random.Random(0)
        pictures = [self.portraits[0].copy(), *(self.scene(rng) for _ in range(3))]
        for picture in pictures:
            picture.thumbnail((SMALL_PX, SMALL_PX), Image.Resampling.LANCZOS)
        return {name: [save(picture, name) for picture in pictures] for name in FORMATS}

    def small_jpeg(self, rng: random.Random) -> bytes:
        """A small JPEG."""
        return rng.choice(self.small_files["JPEG"])

    def photograph(self, rng: random.Random) -> Image.Image:
        """A photograph that no other call returns: rotated, brighter or darker, perhaps mirrored.

        Half of them are cut, so that the faces are larger or outside.
        """
        portrait = rng.choice(self.portraits)
        if rng.random() < 0.5:
            portrait = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        portrait = portrait.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
        if rng.random() < 0.5:
            left, top = (rng.uniform(0, 0.2) * side for side in portrait.size)
            width, height = (rng.uniform(0.6, 0.8) * side for side in portrait.size)
            portrait = portrait.crop((int(left), int(top), int(left + width), int(top + height)))
        return ImageEnhance.Brightness(portrait).enhance(rng.uniform(0.8, 1.2))

    def scene(self, rng: random.Random) -> Image.Image:
        """A corner of a photograph, mostly without a face, which is processed faster."""
        portrait = rng.choice(self.portraits)
        side = round(0.3 * min(portrait.size))
        left = rng.choice((0, portrait.width - side))
        rotated = portrait.rotate(rng.uniform(-4, 4), Image.Resampling.BICUBIC)
        corner = rotated.crop((left, 0, left + side, side))
        return corner.resize((SMALL_PX, round(SMALL_PX * rng.uniform(0.5, 1))))


Maker = Callable[[Materials, random.Random], Content]


@dataclass(frozen=True)
class Kind:
    """A kind of hostile file.

    Attributes:
        name: Its name, part of the names of its files.
        make: Makes a file.
        expected: What must become of its files.
        weight: Its share of the corpus, relative to the other kinds.
    """

    name: str
    make: Maker
    expected: Expected
    weight: float


KINDS: dict[str, Kind] = {}


def kind(expected: Expected, weight: float = 1.0) -> Callable[[Maker], Maker]:
    """Register a function as the kind of its name."""

    def register(make: Maker) -> Maker:
        name = make.__name__.replace("_", "-")
        KINDS[name] = Kind(name, make, expected, weight)
        return make

    return register


def save(image: Image.Image, format_name: str, **options: object) -> bytes:
    """The picture as a file of a format."""
    if format_name == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    if format_name == "MPO":
        options = {"save_all": True, "append_images": [image], **options}
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


# Ordinary photographs, so that the whole chain of commands has something to do


@kind("row", weight=10)
def photograph(materials: Materials, rng: random.Random) -> Content:
    quality = rng.randrange(60, 96)
    return Content(save(materials.photograph(rng), "JPEG", quality=quality), ".jpg")


@kind("row", weight=5)
def photograph_of_format(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    picture = materials.photograph(rng)
    picture.thumbnail((480, 480))
    return Content(save(picture, format_name), rng.choice(SUFFIXES[format_name]))


@kind("row", weight=2)
def photograph_rotated_by_exif(materials: Materials, rng: random.Random) -> Content:
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(1, 9)
    return Content(save(materials.photograph(rng), "JPEG", exif=exif), ".jpg")


@kind("row", weight=2)
def drawn_picture(materials: Materials, rng: random.Random) -> Content:
    width, height = rng.randrange(1, 300), rng.randrange(1, 300)
    if rng.random() < 0.5:
        picture = Image.new("RGB", (width, height), tuple(rng.randbytes(3)))
    else:
        picture = Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))
    return Content(save(picture, "PNG"), ".png")


@kind("row", weight=3)
def picture_with_other_suffix(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    other = rng.choice([name for name in FORMATS if name != format_name])
    data = save(materials.scene(rng).resize((200, 160)), format_name)
    return Content(data, rng.choice(SUFFIXES[other]))


@kind("row", weight=2)
def picture_of_other_mode(materials: Materials, rng: random.Random) -> Content:
    """TIFF and PNG with one bit, a palette, alpha, CMYK, Lab or 16 bits."""
    picture = materials.scene(rng).resize((200, 150))
    mode = rng.choice(("1", "L", "LA", "P", "RGBA", "CMYK", "LAB", "YCbCr", "I;16"))
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        rgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, rgb, lab, outputMode="LAB")
        del converted.info["icc_profile"]  # it has the time of its creation
        return Content(save(converted, "TIFF"), ".tif")
    if mode == "I;16":
        values = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        return Content(save(Image.fromarray(values), rng.choice(("TIFF", "PNG"))), ".tif")
    return Content(save(picture.convert(mode), "TIFF"), ".tif")


@kind("any", weight=1)
def picture_of_32_bits(materials: Materials, rng: random.Random) -> Content:
    picture = materials.scene(rng).resize((200, 150)).convert(rng.choice(("I", "F")))
    return Content(save(picture, "TIFF"), ".tif")


@kind("row", weight=2)
def compressed_tiff(materials: Materials, rng: random.Random) -> Content:
    compression = rng.choice(("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"))
    picture = materials.scene(rng).resize((200, 150))
    return Content(save(picture, "TIFF", compression=compression), ".tiff")


@kind("row", weight=1)
def many_frames(materials: Materials, rng: random.Random) -> Content:
    """GIF, WebP or APNG with a thousand frames, or a TIFF with a hundred pages."""
    format_name = rng.choice(("GIF", "WEBP", "PNG", "TIFF"))
    num_frames = 100 if format_name == "TIFF" else 1000
    frames = [
        Image.new("RGB", (12, 8), (index % 256, index // 4, 90)) for index in range(num_frames)
    ]
    data = save(frames[0], format_name, save_all=True, append_images=frames[1:])
    return Content(data, SUFFIXES[format_name][0])


@kind("row", weight=1.5)
def one_line_jpeg(materials: Materials, rng: random.Random) -> Content:
    size = rng.choice(((65500, 1), (65500, 2), (65000, 3), (1, 65500), (2, 65500), (1, 1), (2, 3)))
    return Content(save(Image.new("RGB", size, tuple(rng.randbytes(3))), "JPEG"), ".jpg")


# Damaged files


@kind("any", weight=14)
def truncated(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = rng.choice(materials.small_files[format_name])
    length = rng.choice((rng.randrange(1, 64), rng.randrange(1, len(data)), len(data) - 1))
    return Content(data[: min(length, len(data) - 1)], SUFFIXES[format_name][0])


@kind("any", weight=14)
def flipped_bits(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = bytearray(rng.choice(materials.small_files[format_name]))
    for _ in range(rng.choice((1, 3, 30, 300))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return Content(bytes(data), SUFFIXES[format_name][0])


@kind("any", weight=8)
def damaged_header(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = bytearray(rng.choice(materials.small_files[format_name]))
    for _ in range(rng.randrange(1, 8)):
        data[rng.randrange(8, 256)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return Content(bytes(data), SUFFIXES[format_name][0])


@kind("any", weight=3)
def repeated_part(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = rng.choice(materials.small_files[format_name])
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    return Content(data[:end] + data[start:], SUFFIXES[format_name][0])


@kind("any", weight=2)
def picture_followed_by_other_data(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = rng.choice(materials.small_files[format_name])
    extra = rng.choice((rng.randbytes(20_000), b"PK\x03\x04" + rng.randbytes(999), data))
    return Content(data + extra, SUFFIXES[format_name][0])


@kind("refused", weight=3)
def no_picture(materials: Materials, rng: random.Random) -> Content:
    data = rng.choice(
        (
            b"",
            b"\0" * rng.randrange(1, 5000),
            rng.randbytes(rng.randrange(1, 5000)),
            b"<html><body>404 Not Found</body></html>",
            b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj <<>> endobj",
            b"PK\x03\x04" + rng.randbytes(300),
            b"\0\0\0\x20ftypisom" + rng.randbytes(300),
            b"\x1a\x45\xdf\xa3" + rng.randbytes(300),
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        )
    )
    return Content(data, rng.choice((".jpg", ".png", ".webp", ".tif", ".heic", ".avif", ".gif")))


@kind("refused", weight=2)
def only_a_header(materials: Materials, rng: random.Random) -> Content:
    format_name = rng.choice(FORMATS)
    data = rng.choice(materials.small_files[format_name])
    return Content(data[: rng.randrange(2, 16)], SUFFIXES[format_name][0])
