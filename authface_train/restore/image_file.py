"""A photograph's file, and the same file again with some pixels changed: format, EXIF, colour profile and alpha stay.

The pixels are the file's own, in its own colours: nothing is converted but what is pasted into them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from authface_train.restore import jpeg_blocks

JPEGS = ("JPEG", "MPO")
# EXIF orientation -> the way upright, and of two of them the way back: the others undo themselves.
UPRIGHT = dict(
    zip(range(2, 9), (Image.Transpose(number) for number in (0, 3, 1, 5, 4, 6, 2)), strict=True)
)
BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
# Size, bits, compression, strips, tiles, predictor, colour map, sample format and colour profile.
TIFF_LAYOUT = {
    254,
    255,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
    34675,
}
KEPT_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd")


class ImageFile:
    """pixels: (H, W, 3) uint8, upright, in the file's own colours. Raises ValueError, in words, for a file that could not be
    written again as it is; and Pillow's own errors for one that cannot be decoded."""

    def __init__(self, path: Path):
        self.data = path.read_bytes()
        self.image: Any = Image.open(io.BytesIO(self.data))
        if self.image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1") or ";16" in str(
            self.image.tile
        ):
            deep = self.image.mode.startswith(("I", "F")) or ";16" in str(self.image.tile)
            what = "has 16 bits a channel" if deep else f"is {self.image.mode}"
            raise ValueError(
                f"{what}: save it as RGB of 8 bits first, for as it is it could not be written again"
            )
        if self.image.format in ("HEIF", "HEIC"):
            raise ValueError(
                "is HEIC: save it as JPEG or PNG first, for it could not be written again with the same pixels"
            )
        if getattr(self.image, "n_frames", 1) > 1 and self.image.format not in JPEGS:
            raise ValueError("has several frames: save the one to restore by itself")
        self.image.load()
        stored = self.image
        # Asked for after loading: Pillow turns a TIFF by itself, and then says that it is upright.
        self.turn = UPRIGHT.get(stored.getexif().get(ExifTags.Base.Orientation, 1))
        clear = "transparency" in stored.info or stored.mode in ("RGBA", "LA", "PA")
        self.alpha = np.asarray(stored.convert("RGBA"))[..., 3] if clear else None
        self.grey = stored.mode in ("L", "LA", "1")
        upright = (
            stored.convert("RGB").transpose(self.turn)
            if self.turn is not None
            else stored.convert("RGB")
        )
        self.pixels = np.asarray(upright)
        self.from_srgb = _into(stored.info.get("icc_profile"), "L" if self.grey else "RGB")

    def own_colours(self, srgb: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 of sRGB in the colours of the file: of its profile, or grey."""
        image: Any = Image.fromarray(srgb)
        if self.from_srgb is not None:
            image = ImageCms.applyTransform(image, self.from_srgb)
        return np.asarray((image.convert("L") if self.grey else image).convert("RGB"))

    def write(
        self, pixels: np.ndarray, touched_px: list[tuple[int, int, int, int]], path: Path
    ) -> None:
        """The file with other pixels, (H, W, 3) uint8 upright. touched_px: the boxes in which they may differ from its own.

        Pixels outside come out of the written file as they came out of the original, to the bit: a JPEG's blocks are copied.
        Where the size is another, all are new.
        """
        stored = Image.fromarray(pixels)
        if self.turn is not None:
            stored = stored.transpose(BACK.get(self.turn, self.turn))
        same_size = stored.size == self.image.size
        if self.grey:
            stored = stored.convert("L")
        if self.alpha is not None:
            alpha = Image.fromarray(self.alpha)
            stored.putalpha(
                alpha if same_size else alpha.resize(stored.size, Image.Resampling.LANCZOS)
            )
        buffer = io.BytesIO()
        stored.save(
            buffer, self.image.format if self.image.format != "MPO" else "JPEG", **self._options()
        )
        written = buffer.getvalue()
        if self.image.format in JPEGS and same_size:
            written = jpeg_blocks.keep(self.data, written, self._stored_boxes(touched_px))
        temp = path.with_name(f".{path.name}")
        temp.write_bytes(written)
        temp.replace(path)

    def _options(self) -> dict[str, Any]:
        image, info = self.image, self.image.info
        options: dict[str, Any] = {
            name: info[name] for name in ("icc_profile", "dpi") if info.get(name)
        }
        if len(image.getexif()):
            options["exif"] = (
                _described(image.getexif())
                if image.format == "TIFF"
                else info.get("exif", image.getexif())
            )
        if image.format in JPEGS:
            options |= {"qtables": image.quantization, "progressive": bool(info.get("progressive"))}
            if (sampling := JpegImagePlugin.get_sampling(image)) >= 0:
                options["subsampling"] = sampling
        elif image.format == "WEBP":
            options |= {
                "lossless": True,
                "exact": True,
            }  # a lossy one could not be written again with the same pixels
        elif image.format == "TIFF":
            kept = info.get("compression")
            options["compression"] = kept if kept in KEPT_COMPRESSIONS else "tiff_lzw"
        return options

    def _stored_boxes(
        self, boxes_px: list[tuple[int, int, int, int]]
    ) -> list[tuple[int, int, int, int]]:
        """Upright boxes as they lie in the file."""
        if self.turn is None:
            return boxes_px
        found = []
        for left, top, right, bottom in boxes_px:
            one = np.zeros(self.pixels.shape[:2], np.uint8)
            one[top:bottom, left:right] = 1
            box = Image.fromarray(one).transpose(BACK.get(self.turn, self.turn)).getbbox()
            if box is not None:
                found.append(box)
        return found


def _described(exif: Any) -> Any:
    """A TIFF's tags without those that say how its pixels are stored."""
    for tag in TIFF_LAYOUT & set(exif):
        del exif[tag]
    return exif


def _into(icc: bytes | None, mode: str) -> Any:
    """The transform from sRGB into an ICC profile of RGB or L; None where there is none, or none that can be painted in."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
