"""Kinds of files of a hostile corpus that attack: code, bombs and metadata.

The files are small in bytes even where their pictures are large.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Literal

from hostile_kinds import FORMATS, SUFFIXES, Content, Materials, kind, save
from PIL import Image, ImageCms, PngImagePlugin

BOMB_SIDE_PX = 22_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"


# Formats that run code or are not supported


@kind("refused", weight=5)
def postscript(materials: Materials, rng: random.Random) -> Content:
    """PostScript that writes a marker file or never ends, under the name of a picture."""
    marker = str(materials.marker).encode()
    program = rng.choice(
        (
            b"(" + marker + b") (w) file dup (PostScript ran) writestring closefile",
            b"(%pipe%touch " + marker + b") (r) file closefile",
            b"{ } loop",
            b"(" + marker + b") deletefile",
        )
    )
    head = rng.choice((b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%!PS\n", b"%!PS-Adobe-2.0\r\n"))
    text = head + b"%%BoundingBox: 0 0 96 64\n%%EndComments\n" + program + b"\nshowpage\n%%EOF\n"
    if rng.random() < 0.3:  # with the binary header of DOS
        text = struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(text), 0, 0, 0, 0, 0xFFFF) + text
    return Content(text, rng.choice((".jpg", ".jpeg", ".png", ".tif", ".webp", ".gif", ".bmp")))


@kind("refused", weight=4)
def unsupported_format(materials: Materials, rng: random.Random) -> Content:
    picture = rng.choice(materials.portraits).resize((128, 128))
    format_name = rng.choice(
        ("EPS", "ICNS", "ICO", "PCX", "PPM", "TGA", "SGI", "DDS", "IM", "QOI", "JPEG2000",
         "MSP", "XBM", "SPIDER", "BLP", "PSD", "FITS", "FLI", "WMF")
    )  # fmt: skip
    match format_name:
        case "PSD":
            data = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 64, 64, 8, 3) + bytes(14 + 64 * 64 * 3)
        case "FITS":
            cards = ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 64", "NAXIS2  = 64")
            header = "".join(card.ljust(80) for card in (*cards, "END"))
            data = header.ljust(2880).encode() + rng.randbytes(64 * 64)
        case "FLI":
            data = struct.pack("<IHHHHHHI", 2000, 0xAF11, 5, 64, 64, 8, 3, 70) + bytes(1900)
        case "WMF":
            data = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhHIH", 0, 0, 64, 64, 72, 0, 0)
            data += b"\x01\0\t\0\0\x03" + bytes(200)
        case "MSP" | "XBM":
            data = save(picture.convert("1"), format_name)
        case "SPIDER" | "BLP":
            mode = "F" if format_name == "SPIDER" else "P"
            data = save(picture.convert(mode), format_name)
        case _:
            data = save(picture, format_name)
    return Content(data, rng.choice((".jpg", ".png", ".jpeg", ".tif")))


@kind("skipped", weight=3)
def file_of_other_program(materials: Materials, rng: random.Random) -> Content:
    """RAW photographs, films, documents and settings, which are counted by suffix."""
    suffix = rng.choice(
        (".cr2", ".nef", ".arw", ".dng", ".mp4", ".mov", ".txt", ".pdf", ".xmp", ".zip", ".eps")
    )
    start = b"II*\0" if suffix in (".cr2", ".nef", ".arw", ".dng") else b""
    return Content(start + rng.randbytes(200), suffix)


# Decompression bombs


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@cache
def zlib_zeros(num_bytes: int) -> bytes:
    """A zlib stream of zeros, made from one compressed block that is repeated."""
    block_bytes = 1 << 20
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(block_bytes)) + compressor.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(num_bytes % block_bytes)) + rest.flush()
    checksum = struct.pack(">HH", num_bytes % 65521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + block * (num_bytes // block_bytes) + end + checksum


def zero_png(width: int, height: int, bits: int, colour_type: int, data_bytes: int) -> bytes:
    """A PNG of zeros whose header may promise more than its data."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib_zeros(data_bytes)))
    return PNG_SIGNATURE + b"".join(chunks) + png_chunk(b"IEND", b"")


@kind("refused", weight=0.4)
def png_bomb(materials: Materials, rng: random.Random) -> Content:
    """22,000 x 22,000 px RGBA in 2 MB."""
    side = BOMB_SIDE_PX + rng.randrange(100)
    return Content(zero_png(side, side, 8, 6, (1 + 4 * side) * side), ".png")


@kind("refused", weight=3)
def giant_header(materials: Materials, rng: random.Random) -> Content:
    """A header of gigantic width and height, with little data behind it."""
    format_name = rng.choice(FORMATS)
    suffix = SUFFIXES[format_name][0]
    data = bytearray(rng.choice(materials.small_files[format_name]))
    match format_name:
        case "PNG":
            side = rng.choice((65_535, 1_000_000, 2**31 - 1))
            bits, colour_type = rng.choice(((8, 2), (16, 6), (8, 6)))
            return Content(zero_png(side, side, bits, colour_type, 100_000), suffix)
        case "JPEG" | "MPO":
            start = data.index(b"\xff\xc0") + 5
            data[start : start + 4] = struct.pack(">HH", 65_500, 65_500)
        case "GIF":
            data[6:10] = struct.pack("<HH", 65_535, 65_535)
        case "BMP":
            data[18:26] = struct.pack("<ii", 60_000, 60_000)
        case "TIFF":
            data = bytearray(giant_tiff(rng.choice((40_000, 100_000, 2**31 - 1))))
        case "WEBP":
            canvas = (16_383).to_bytes(3, "little")
            body = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas + canvas + data[12:]
            data = bytearray(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
        case _:  # HEIC and AVIF: every property of a size
            position = data.find(b"ispe")
            while position >= 0:
                data[position + 8 : position + 16] = struct.pack(">II", 60_000, 60_000)
                position = data.find(b"ispe", position + 1)
    return Content(bytes(data), suffix)


def tiff_file(entries: Iterable[tuple[int, int, int, int]], next_directory: int = 0) -> bytes:
    """A TIFF of one directory; an entry is (tag, type, count, value or offset)."""
    packed = [struct.pack("<HHII", *entry) for entry in sorted(entries)]
    directory = struct.pack("<H", len(packed)) + b"".join(packed)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", next_directory)


def giant_tiff(side_px: int) -> bytes:
    """A deflated RGB TIFF of one strip whose data is shorter than its size promises."""
    strip = zlib_zeros(3 << 20)
    entries = [
        (256, 4, 1, side_px), (257, 4, 1, side_px), (258, 3, 1, 8), (259, 3, 1, 8),
        (262, 3, 1, 2), (273, 4, 1, 4096), (277, 3, 1, 3), (278, 4, 1, side_px),
        (279, 4, 1, len(strip)),
    ]  # fmt: skip
    return tiff_file(entries).ljust(4096, b"\0") + strip


@kind("any", weight=0.3)
def large_photograph(materials: Materials, rng: random.Random) -> Content:
    """A JPEG of 45 or 64 megapixels in less than 1 MB."""
    size = rng.choice(((8192, 5464), (9248, 6936)))
    return Content(save(rng.choice(materials.portraits).resize(size), "JPEG", quality=5), ".jpg")


@kind("refused", weight=0.1)
def jpeg_of_many_scans(materials: Materials, rng: random.Random) -> Content:
    """A progressive JPEG whose last scan is repeated 60,000 times."""
    data = save(Image.new("L", (4000, 4000), 99), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return Content(data[:-2] + last_scan * (60_000 + rng.randrange(100)) + data[-2:], ".jpg")


# Metadata


def jpeg_segments(data: bytes, segments: Iterable[tuple[int, bytes]]) -> bytes:
    """Insert segments, as (marker, body), after the start of a JPEG."""
    inserted = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
        for marker, body in segments
    )
    return JPEG_START + inserted + data[2:]


def png_with(data: bytes, chunks: bytes) -> bytes:
    """Insert chunks after the header of a PNG."""
    position = len(PNG_SIGNATURE) + 25
    return data[:position] + chunks + data[position:]


def picture_with_xmp(materials: Materials, rng: random.Random, xmp: bytes) -> Content:
    """A picture of a random format with an XMP packet of any length."""
    format_name = rng.choice(("PNG", "WEBP", "TIFF", "JPEG"))
    data = rng.choice(materials.small_files[format_name])
    if format_name == "PNG":
        body = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        return Content(png_with(data, png_chunk(b"iTXt", body)), ".png")
    if format_name == "JPEG":
        name = b"http://ns.adobe.com/xap/1.0/\0"
        parts = [xmp[start : start + 60_000] for start in range(0, len(xmp), 60_000)]
        return Content(jpeg_segments(data, [(0xE1, name + part) for part in parts]), ".jpg")
    picture = rng.choice(materials.portraits).resize((120, 120))
    if format_name == "WEBP":
        return Content(save(picture, "WEBP", xmp=xmp), ".webp")
    return Content(save(picture, "TIFF", tiffinfo={700: xmp}), ".tif")


@kind("any", weight=1.5)
def long_xmp(materials: Materials, rng: random.Random) -> Content:
    """400 kB of text, spaces, quotes or brackets in an XMP packet."""
    filler = rng.choice((b"x", b" ", b"<", b'"', b"a:GPSx=", b"<exif:GPSLatitude ", b"</", b"\n"))
    middle = (filler * 400_000)[:400_000]
    xmp = b"<x:xmpmeta><rdf:RDF>" + middle + b"</rdf:RDF></x:xmpmeta>"
    return picture_with_xmp(materials, rng, xmp)


@kind("any", weight=1.5)
def unclosed_gps_elements(materials: Materials, rng: random.Random) -> Content:
    """60,000 opening tags of a place that are never closed."""
    tag = rng.choice((b"<exif:GPSLatitude>", b"<photoshop:City>", b'<a exif:GPSLatitude="'))
    return picture_with_xmp(materials, rng, b"<x:xmpmeta><rdf:RDF>" + tag * 60_000 + b"</rdf:RDF>")


@kind("any", weight=1.5)
def many_exif_headers(materials: Materials, rng: random.Random) -> Content:
    """A JPEG with 40,000 headers of EXIF data that all name the same directory of places."""
    header = rng.choice((b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0II*\0"))
    block = header * (60_000 // len(header))
    num_blocks = 40_000 * len(header) // len(block) + 1
    return Content(jpeg_segments(materials.small_jpeg(rng), [(0xE1, block)] * num_blocks), ".jpg")


@kind("any", weight=1)
def many_text_chunks(materials: Materials, rng: random.Random) -> Content:
    """A PNG with thousands of text chunks, plain or compressed."""
    if rng.random() < 0.5:
        chunk = png_chunk(b"tEXt", b"Comment\0" + b"x" * 20)
    else:
        chunk = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2000))
    return Content(png_with(materials.small_files["PNG"][0], chunk * 8000), ".png")


@kind("any", weight=0.7)
def compressed_metadata_bomb(materials: Materials, rng: random.Random) -> Content:
    """A PNG whose text or colour profile is 500 MB of zeros when decompressed."""
    name = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
    middle = b"\1\0\0\0" if name == b"iTXt" else b"\0"
    body = b"XML:com.adobe.xmp\0" + middle + zlib_zeros(500_000_000 + rng.randrange(9) * 1000)
    return Content(png_with(materials.small_files["PNG"][1], png_chunk(name, body)), ".png")


@kind("any", weight=2)
def looping_directories(materials: Materials, rng: random.Random) -> Content:
    """EXIF or TIFF directories that point to themselves, to each other or beyond the file."""
    target = rng.choice((0, 4, 8, 10, 26, 2**31, 2**32 - 1))
    entries = [(0x8769, 4, 1, rng.choice((8, target))), (0x8825, 4, 1, rng.choice((8, target)))]
    entries.append((0x014A, 4, rng.choice((1, 60_000)), 8))  # sub-directories
    entries.append((0x010F, 2, rng.choice((30, 2**31)), target))  # the maker's name
    exif = tiff_file(entries, next_directory=rng.choice((8, target)))
    if rng.random() < 0.5:
        return Content(
            jpeg_segments(materials.small_jpeg(rng), [(0xE1, b"Exif\0\0" + exif)]), ".jpg"
        )
    picture = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0),
        (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64),
    ]  # fmt: skip
    data = tiff_file([*entries, *picture], next_directory=8)
    return Content(data.ljust(300, b"\x40"), ".tif")


@kind("any", weight=2)
def odd_exif(materials: Materials, rng: random.Random) -> Content:
    """EXIF with escape codes, wrong types, impossible numbers and orientations."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice((0, 9, 65_535, 6))
    exif[0x010F] = rng.choice(("\x1b]0;title\x07\x1b[31mred", "a\0b", "é" * 5000, "\u202egpj"))
    exif[0x0110] = "model\n\r\t\x08\x08"
    details = exif.get_ifd(0x8769)
    details[0x829A] = rng.choice((float("nan"), float("inf"), 0.0, -1.0))
    details[0x9003] = rng.choice(("0000:00:00 00:00:00", "9999:99:99 99:99:99", "\x1b[2J"))
    details[0x8827] = rng.choice((0, 65_535))
    gps = exif.get_ifd(0x8825)
    gps[2] = (51.0, 30.0, rng.choice((0.0, 1e9)))
    gps[1] = "N"
    return Content(save(materials.scene(rng), "JPEG", exif=exif), ".jpg")


def colour_profile(space: Literal["sRGB", "LAB"]) -> bytes:
    """An ICC profile without the time of its creation."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes())
    profile[24:36] = bytes(12)
    return bytes(profile)


@kind("any", weight=2)
def odd_colour_profile(materials: Materials, rng: random.Random) -> Content:
    srgb, lab = colour_profile("sRGB"), colour_profile("LAB")
    damaged = bytearray(srgb)
    for _ in range(20):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    profile = rng.choice(
        (b"x", rng.randbytes(500), lab, bytes(damaged), srgb[:200], srgb + bytes(1_000_000))
    )
    format_name = rng.choice(("JPEG", "PNG", "WEBP", "TIFF"))
    mode = rng.choice(("RGB", "L")) if format_name in ("JPEG", "PNG") else "RGB"
    picture = materials.scene(rng).resize((220, 160)).convert(mode)
    return Content(save(picture, format_name, icc_profile=profile), SUFFIXES[format_name][0])


@kind("any", weight=1)
def odd_png_chunks(materials: Materials, rng: random.Random) -> Content:
    """A PNG with chunks of wrong length, checksum, order or content."""
    data = materials.small_files["PNG"][rng.randrange(4)]
    chunk = rng.choice(
        (
            png_chunk(b"gAMA", struct.pack(">I", 0)),
            png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            png_chunk(b"PLTE", rng.randbytes(7)),
            png_chunk(b"tRNS", rng.randbytes(3)),
            png_chunk(b"eXIf", rng.randbytes(40)),
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            png_chunk(b"tEXt", b"\x1b[31mred\0\x1b]0;title\x07"),
            struct.pack(">I", 2**31 - 1) + b"tEXt" + b"x" * 100,
            png_chunk(b"tEXt", b"Comment\0text")[:-1] + b"\0",
        )
    )
    return Content(png_with(data, chunk), ".png")


@kind("any", weight=1)
def noisy_library(materials: Materials, rng: random.Random) -> Content:
    """Pictures that Pillow or its libraries warn about while they decode."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", json.dumps({"a": "\x1b[5m"}))
    picture = rng.choice(materials.portraits).resize((90, 90))
    if rng.random() < 0.5:
        palette = picture.convert("P")
        return Content(save(palette, "PNG", transparency=rng.randbytes(200), pnginfo=info), ".png")
    entries = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64),
        (305, 2, 400, 2**20), (0xC4A5, 13, 77, 999), (0xFDE8, 99, 1, 1),
    ]  # fmt: skip
    return Content(tiff_file(entries).ljust(264, b"\x60"), ".tif")
