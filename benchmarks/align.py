"""Alignment of one face of a 45-megapixel JPEG, against FFHQ's published recipe: how much faster, and how alike.

    python benchmarks/align.py [--size 1024] [--repeat 5]

The photograph is one of the demo's (`authface demo --fetch`), enlarged to 5,464 x 8,192 px with a camera's grain. Both ways
begin with the file's bytes and end with the crop's pixels; both run in this process, its memory kept as a worker keeps it.
"""

from __future__ import annotations

import argparse
import io
import os
import time

import cv2
import numpy as np
from ffhq_recipe import psnr, recipe
from PIL import Image

from authface_data.engine.worker import keep_memory
from authface_data.faces.align import Quad, align_photo
from authface_data.images.open import Photo
from authface_data.weights import cache_dir

WIDTH, HEIGHT, GRAIN = 5464, 8192, 4.0
FACE = (0.5, 0.4)  # where the face is, in parts of the photograph
ROLL = 0.1  # radians
QUADS_PX = (1200, 2400, 3600)


def big_jpeg() -> bytes:
    """Obama's portrait, its head in the middle, at 45 megapixels."""
    with Image.open(cache_dir() / "photos" / "us-government-likely" / "obama3.jpg") as opened:
        part = opened.convert("RGB").crop((247, 0, 1247, 1500))
    pixels = np.asarray(part.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, GRAIN, (HEIGHT, WIDTH)).astype(np.float32)
    pixels += cv2.GaussianBlur(grain, (0, 0), 0.7)[..., None]
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def quad_of(side_px: float) -> Quad:
    half = side_px / 2
    turn = np.array([[np.cos(ROLL), -np.sin(ROLL)], [np.sin(ROLL), np.cos(ROLL)]])
    corners = np.array([[-half, -half], [-half, half], [half, half], [half, -half]]) @ turn.T
    return Quad(corners + np.array(FACE) * (WIDTH, HEIGHT), side_px)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    keep_memory()
    data = big_jpeg()
    print(
        f"{WIDTH} x {HEIGHT} px, {len(data) / 1e6:.1f} MB, crops of {options.size}, {os.cpu_count()} cores"
    )
    for side in QUADS_PX:
        quad, ours, theirs = quad_of(side), [], []
        for _ in range(options.repeat):
            started = time.perf_counter()
            reference = recipe(Image.open(io.BytesIO(data)), quad.corners_px, options.size)
            theirs.append(time.perf_counter() - started)
            started = time.perf_counter()
            crop = align_photo(Photo(lambda: data), quad, options.size)
            ours.append(time.perf_counter() - started)
        alike = psnr(crop.pixels, reference)
        fast, slow = np.median(ours), np.median(theirs)
        print(
            f"quad {side} px: recipe {slow:.3f} s, authface {fast:.3f} s, {slow / fast:.1f} times faster, {alike:.1f} dB"
        )


if __name__ == "__main__":
    main()
