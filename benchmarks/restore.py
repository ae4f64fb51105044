"""Times `authface restore` against a plain call of diffusers' pipeline on the same model.

    python benchmarks/restore.py                  time per face of each variant, in one run
    python benchmarks/restore.py --pictures docs  restore.jpg and evaluate.jpg of the docs

The model is the tiny one at 128 px, untrained. The variants alternate in each round. The pictures
show NASA's portrait of Eileen Collins, which is in the public domain; in evaluate.jpg a bilateral
filter replaces the restorer.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tiny_restorer  # noqa: E402
import torch  # noqa: E402
from browser import open_browser  # noqa: E402
from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline  # noqa: E402
from PIL import Image  # noqa: E402

from authface_data.weights import cache_dir  # noqa: E402
from authface_train.restore.pipeline import Restorer  # noqa: E402
from authface_train.restore.sampling import Sampling  # noqa: E402

SIZE_PX = 128
FACES = 8
STEPS = 20
ROUNDS = 5
BATCH = 8
PORTRAIT_BOX_PX = (128, 0, 328, 200)


def compare_speed(folder: Path) -> None:
    """Print the time per face of the plain pipeline and of the restorer.

    Args:
        folder: Folder for the model.
    """
    model = tiny_restorer.save_tiny_restorer(folder / "model", SIZE_PX)
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8) for _ in range(FACES)]
    restorer = Restorer(str(model), Sampling(steps=STEPS))
    pipeline = load_plain_pipeline(model, restorer)

    def run_plain_pipeline() -> None:
        for face in faces:
            pipeline(
                prompt="",
                image=Image.fromarray(face),
                num_inference_steps=STEPS,
                guidance_scale=1.0,
                generator=torch.Generator().manual_seed(123),
            )

    def run_restorer(batch: int) -> None:
        for first in range(0, FACES, batch):
            restorer.restore(faces[first : first + batch])

    medians = time_variants(
        {
            "plain pipeline, one by one": run_plain_pipeline,
            "authface restore, one by one": lambda: run_restorer(1),
            f"authface restore, batches of {BATCH}": lambda: run_restorer(BATCH),
        }
    )
    plain_seconds = next(iter(medians.values()))
    print(
        f"{STEPS} steps at {SIZE_PX} px, {FACES} faces, median of {ROUNDS} rounds, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )
    for name, seconds in medians.items():
        print(
            f"{name:36} {1000 * seconds:8.0f} ms per face  "
            f"{plain_seconds / seconds:.2f} times as fast as the plain pipeline"
        )


def load_plain_pipeline(model: Path, restorer: Restorer) -> StableDiffusionXLControlNetPipeline:
    """Load diffusers' pipeline with the scheduler, device and data types of the restorer.

    Args:
        model: Folder of the model.
        restorer: The restorer to compare with.
    """
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    pipeline.scheduler = DDPMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, thresholding=False
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(restorer.device, restorer.pipeline.unet.dtype)
    pipeline.vae.to(torch.float32)
    return pipeline


def time_variants(variants: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds per face of each variant; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / FACES)
    return {name: statistics.median(rounds[1:]) for name, rounds in seconds.items()}


def authface(*arguments: object) -> None:
    """Run an authface command."""
    subprocess.run(
        [sys.executable, "-P", "-m", "cli", *map(str, arguments)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def draw_restored_portrait(folder: Path, docs: Path) -> Image.Image:
    """Write restore.jpg, the portrait before and after restoration.

    Args:
        folder: Folder for intermediate files.
        docs: Folder for the picture.

    Returns:
        The portrait.
    """
    model = tiny_restorer.save_tiny_restorer(folder / "model", 512)
    original, restored = folder / "portrait.png", folder / "out/portrait.png"
    shutil.copy(cache_dir() / "photos" / "public-domain" / "astronaut-nasa.png", original)
    options = ("--faces", "all", "--steps", 4, "--colour-fix", "wavelet", "--start", "degraded")
    inputs = ("--model", model, "--input", original, "--output", restored.parent)
    authface("restore", *inputs, *options)
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (original, restored))
    side_by_side = np.concatenate([before, after], axis=1)
    Image.fromarray(side_by_side).save(docs / "restore.jpg", quality=88)
    return Image.fromarray(before)


def draw_evaluation_page(portrait: Image.Image, folder: Path, docs: Path) -> None:
    """Write evaluate.jpg, a screenshot of the page of an evaluation.

    Args:
        portrait: The portrait, whose face is rotated and degraded six times.
        folder: Folder for intermediate files.
        docs: Folder for the picture.
    """
    clean, degraded, filtered = folder / "clean", folder / "lq", folder / "filtered"
    clean.mkdir()
    filtered.mkdir()
    face = portrait.crop(PORTRAIT_BOX_PX).resize((512, 512), Image.Resampling.LANCZOS)
    for number in range(6):
        rotated = face.rotate(5 * number - 12, Image.Resampling.BICUBIC)
        rotated.save(clean / f"portrait-{number}.png")
    authface("degrade", "--input", clean, "--output", degraded, "--preset", "gfpgan")
    for path in sorted(degraded.glob("*.png")):
        picture = cv2.bilateralFilter(cv2.imread(str(path)), 9, 30, 5)
        cv2.imwrite(str(filtered / path.name), picture)
    authface(
        "evaluate",
        "--restored",
        f"bilateral filter={filtered}",
        "--degraded",
        degraded,
        "--reference",
        clean,
        "--draws",
        degraded / "draws.parquet",
        "--metrics",
        "psnr,ssim,niqe,identity,landmarks",
        "--output",
        folder / "page",
    )
    screenshot = folder / "page.png"
    with open_browser(folder) as chromium:
        chromium.open(folder / "page/report.html")
        chromium.screenshot(screenshot)
    with Image.open(screenshot) as image:
        image.convert("RGB").save(docs / "evaluate.jpg", quality=85)


def main() -> None:
    """Run the benchmark, or make the pictures of the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="Make the pictures instead.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.pictures:
            portrait = draw_restored_portrait(Path(temporary), arguments.pictures)
            draw_evaluation_page(portrait, Path(temporary), arguments.pictures)
            print(f"Wrote restore.jpg and evaluate.jpg to {arguments.pictures}")
        else:
            compare_speed(Path(temporary))


if __name__ == "__main__":
    main()
