"""Metadata that survive when a picture file is written again: credits, XMP, colour space.

The blocks of PNG and JPEG files are copied as they are, also those that Pillow does not understand.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffTags

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_END = len(PNG_SIGNATURE) + 25
"""End of the signature and of the header chunk, which has 13 bytes of data."""
PNG_COLOUR_CHUNKS = (b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI")
"""Chunks that describe the colours of the pixels and do not depend on how they are stored."""
PNG_SAFE_TO_COPY = 0x20
"""Bit of the last letter of a chunk's type: the chunk stays valid if the pixels change (PNG
specification, 5.4)."""

MAX_SEGMENT_BYTES = 65_533
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_MARKERS = {"COM": b"\xff\xfe"} | {
    f"APP{number}": bytes([0xFF, 0xE0 + number]) for number in range(16)
}
JPEG_LAYOUT_SEGMENTS = ("APP0", "APP14")
"""Segments that describe how the pixels are stored (JFIF, Adobe); they are written anew."""

XMP_TAG = 700
EXIF_DIRECTORIES = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
"""Tags of the main directory that point to further ones."""
PNG_XMP_KEY = "XML:com.adobe.xmp"

TIFF_LAYOUT_TAGS = {
    254,  # NewSubfileType
    255,  # SubfileType
    256,  # ImageWidth
    257,  # ImageLength
    258,  # BitsPerSample
    259,  # Compression
    262,  # PhotometricInterpretation
    266,  # FillOrder
    273,  # StripOffsets
    277,  # SamplesPerPixel
    278,  # RowsPerStrip
    279,  # StripByteCounts
    284,  # PlanarConfiguration
    317,  # Predictor
    320,  # ColorMap
    322,  # TileWidth
    323,  # TileLength
    324,  # TileOffsets
    325,  # TileByteCounts
    338,  # ExtraSamples
    339,  # SampleFormat
    34675,  # ICC profile
}
"""TIFF tags that describe how pixels are stored; they are written anew."""


def copy_png_chunks(original: bytes, encoded: bytes) -> bytes:
    """Copy the metadata of a PNG file into another one.

    Args:
        original: The file with the metadata: texts, XMP, EXIF, resolution, colour space.
        encoded: A PNG file without metadata.

    Returns:
        `encoded` with the chunks inserted after its header.
    """
    copied = b"".join(
        chunk
        for kind, chunk in _png_chunks(original)
        if kind in PNG_COLOUR_CHUNKS or (kind[3] & PNG_SAFE_TO_COPY and kind[0] & PNG_SAFE_TO_COPY)
    )
    return encoded[:PNG_HEADER_END] + copied + encoded[PNG_HEADER_END:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole content of each chunk, up to the end or to a damaged chunk."""
    start = len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 12 + length
        if end > len(data):
            return
        yield data[start + 4 : start + 8], data[start:end]
        start = end


def jpeg_segments(image: JpegImagePlugin.JpegImageFile) -> bytes:
    """The metadata segments of a JPEG file: EXIF, XMP, IPTC, colour profile, comments.

    Args:
        image: The opened file.

    Returns:
        The segments with their markers, without the index of further pictures (MPO).
    """
    segments = []
    for name, content in image.applist:
        is_index = name == "APP2" and content.startswith(b"MPF\0")
        if name in JPEG_MARKERS and name not in JPEG_LAYOUT_SEGMENTS and not is_index:
            length = (len(content) + 2).to_bytes(2, "big")
            segments.append(JPEG_MARKERS[name] + length + content)
    return b"".join(segments)


def portable_exif(image: Image.Image) -> Image.Exif:
    """The EXIF tags of a picture in a form that Pillow writes without a loss.

    Pillow writes other letters than those of ASCII as question marks, unless they are bytes.

    Args:
        image: The opened picture. Its tags are changed in place.

    Returns:
        Its tags, without those that describe how the pixels of a TIFF are stored.
    """
    exif = image.getexif()
    for tag in TIFF_LAYOUT_TAGS & set(exif):
        del exif[tag]
    _encode_texts(exif)
    for tag in EXIF_DIRECTORIES & set(exif):
        _encode_texts(exif.get_ifd(tag))
    return exif


def _encode_texts(tags: MutableMapping[int, Any]) -> None:
    """Replace texts that are not ASCII by the bytes that Pillow read them from, in place."""
    for tag, value in list(tags.items()):
        if isinstance(value, str) and not value.isascii():
            tags[tag] = value.encode("latin-1", "replace")


def fits_compressed_tiff(exif: Image.Exif) -> bool:
    """Whether libtiff, which Pillow compresses with, can write these tags.

    It cannot write further directories, nor texts that are not ASCII.
    """
    return not EXIF_DIRECTORIES & set(exif) and not any(
        isinstance(value, bytes) and TiffTags.lookup(tag).type == TiffTags.ASCII
        for tag, value in exif.items()
    )


def converted_metadata(image: Image.Image, image_format: str) -> dict[str, Any]:
    """Options of `Image.save` that keep EXIF and XMP in another format, for upright pixels.

    A block that does not fit into the format is left out.

    Args:
        image: The opened picture.
        image_format: Pillow's name of the new format: JPEG, PNG, TIFF or WEBP.
    """
    exif = portable_exif(image)
    xmp = image.info.get("xmp")
    exif.pop(XMP_TAG, None)
    exif.pop(ExifTags.Base.Orientation, None)
    options: dict[str, Any] = {}
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if xmp and image_format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt(PNG_XMP_KEY, xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp and image_format == "TIFF":
        exif[XMP_TAG] = xmp
    elif xmp and (image_format != "JPEG" or len(xmp) + len(XMP_HEADER) <= MAX_SEGMENT_BYTES):
        options["xmp"] = xmp
    if len(exif) and image_format == "TIFF":
        options["exif"] = exif
    elif len(exif):
        block = exif.tobytes()
        if image_format != "JPEG" or len(block) <= MAX_SEGMENT_BYTES:
            options["exif"] = block
    return options
