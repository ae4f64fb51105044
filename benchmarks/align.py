"""Speed and accuracy of aligning a face of a 45-megapixel JPEG, against FFHQ's published recipe.

    python benchmarks/align.py [--size 1024] [--repeat 5]

The photograph is one of the demo's (`authface demo --fetch`), enlarged to 5,464 x 8,192 px with
camera grain. Both methods start from the content of the file and end with the pixels of the crop.
Both run in this process, with the memory settings of a worker.
"""

from __future__ import annotations

import argparse
import io
import os
import time

import cv2
import numpy as np
from ffhq_recipe import align_by_recipe, psnr
from PIL import Image

from authface_data.engine.worker import keep_freed_memory
from authface_data.faces.align import Quad, align_photo
from authface_data.images.encode import encode_image
from authface_data.images.open import Photo
from authface_data.weights import cache_dir

WIDTH = 5464
HEIGHT = 8192
GRAIN = 4.0
"""Standard deviation of the grain, in levels, before it is blurred."""
FACE_CENTRE = (0.5, 0.4)
"""Centre of the face, as shares of the photograph's width and height."""
ROLL_RAD = 0.1
QUAD_SIZES_PX = (800, 1200, 2400, 3600)


def make_large_jpeg() -> bytes:
    """Enlarge the head of a portrait to 45 megapixels and return it as a JPEG file."""
    with Image.open(cache_dir() / "photos" / "us-government-likely" / "obama3.jpg") as opened:
        head = opened.convert("RGB").crop((247, 0, 1247, 1500))
    enlarged = head.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(enlarged).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, GRAIN, (HEIGHT, WIDTH)).astype(np.float32)
    pixels += cv2.GaussianBlur(grain, (0, 0), 0.7)[..., None]
    return encode_image(np.clip(pixels, 0, 255).astype(np.uint8), "JPEG", 92)


def make_quad(side_px: float) -> Quad:
    """Return a quad of the given side around the face of the enlarged photograph."""
    half = side_px / 2
    rotation = np.array(
        [[np.cos(ROLL_RAD), -np.sin(ROLL_RAD)], [np.sin(ROLL_RAD), np.cos(ROLL_RAD)]]
    )
    upright = np.array([[-half, -half], [-half, half], [half, half], [half, -half]])
    corners = upright @ rotation.T
    return Quad(corners + np.array(FACE_CENTRE) * (WIDTH, HEIGHT), side_px)


def main() -> None:
    """Time both methods for quads of several sizes and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    data = make_large_jpeg()
    print(
        f"{WIDTH} x {HEIGHT} px, {len(data) / 1e6:.1f} MB, crops of {options.size} px, "
        f"{os.cpu_count()} cores"
    )

    for side_px in QUAD_SIZES_PX:
        quad = make_quad(side_px)
        recipe_seconds = []
        authface_seconds = []
        for _ in range(options.repeat):
            started = time.perf_counter()
            image = Image.open(io.BytesIO(data))
            reference = align_by_recipe(image, quad.corners_px, options.size)
            recipe_seconds.append(time.perf_counter() - started)

            started = time.perf_counter()
            crop = align_photo(Photo(lambda: data), quad, options.size)
            authface_seconds.append(time.perf_counter() - started)

        recipe_s = np.median(recipe_seconds)
        authface_s = np.median(authface_seconds)
        print(
            f"quad {side_px} px: recipe {recipe_s:.3f} s, authface {authface_s:.3f} s, "
            f"{recipe_s / authface_s:.1f} times as fast, "
            f"PSNR {psnr(crop.pixels, reference):.1f} dB"
        )


if __name__ == "__main__":
    main()
