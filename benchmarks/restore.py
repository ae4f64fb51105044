"""What `authface restore` takes beside a plain call of diffusers' pipeline on the same model, each for one face at a time.

    python benchmarks/restore.py                       seconds a face and ratios, in one run
    python benchmarks/restore.py --pictures docs       restore.jpg and evaluate.jpg of the docs, by the commands

The model is the tiny one at 128 px, untrained. Rounds of all kinds take turns. The pictures are of NASA's portrait of Eileen
Collins, which is in the public domain; in evaluate.jpg a bilateral filter stands in the place of a restorer.
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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tiny_restorer  # noqa: E402
import torch  # noqa: E402
from browser import browser  # noqa: E402
from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline  # noqa: E402
from PIL import Image  # noqa: E402

from authface_data.weights import cache_dir  # noqa: E402
from authface_train.restore.pipeline import Restorer  # noqa: E402
from authface_train.restore.sampling import Sampling  # noqa: E402

SIZE_PX, FACES, STEPS, ROUNDS, BATCH = 128, 8, 20, 5, 8


def compare(folder: Path) -> None:
    model = tiny_restorer.save(folder / "model", SIZE_PX)
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8) for _ in range(FACES)]
    plain = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    plain.scheduler = DDPMScheduler.from_config(
        plain.scheduler.config, clip_sample=False, thresholding=False
    )
    plain.set_progress_bar_config(disable=True)
    restorer = Restorer(str(model), Sampling(steps=STEPS))
    plain.to(restorer.device, restorer.pipeline.unet.dtype)
    plain.vae.to(torch.float32)

    def plainly() -> None:
        for face in faces:
            generator = torch.Generator().manual_seed(123)
            plain(
                prompt="",
                image=Image.fromarray(face),
                num_inference_steps=STEPS,
                guidance_scale=1.0,
                generator=generator,
            )

    def ours(batch: int) -> None:
        for at in range(0, FACES, batch):
            restorer.restore(faces[at : at + batch])

    ways: dict[str, Callable[[], None]] = {
        "plain pipeline, one by one": plainly,
        "authface restore, one by one": lambda: ours(1),
        f"authface restore, batches of {BATCH}": lambda: ours(BATCH),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            spent[name].append((time.perf_counter() - began) / FACES)
    medians = {name: statistics.median(of[1:]) for name, of in spent.items()}  # the first warms up
    first = next(iter(medians.values()))
    print(
        f"{STEPS} steps at {SIZE_PX} px, {FACES} faces, median of {ROUNDS} rounds, {platform.machine()}, {os.cpu_count()} cores"
    )
    for name, seconds in medians.items():
        print(
            f"{name:36} {1000 * seconds:8.0f} ms a face  {first / seconds:.2f} times the plain pipeline's speed"
        )


def authface(*words: object) -> None:
    subprocess.run(
        [sys.executable, "-P", "-m", "cli", *map(str, words)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def pictures(folder: Path, docs: Path) -> None:
    portrait = cache_dir() / "photos" / "public-domain" / "astronaut-nasa.png"
    model = tiny_restorer.save(folder / "model", 512)
    given = folder / "portrait.png"
    shutil.copy(portrait, given)
    words = ("--faces", "all", "--steps", 4, "--colour-fix", "wavelet", "--start", "degraded")
    authface("restore", "--model", model, "--input", given, "--output", folder / "out", *words)
    both = [
        np.asarray(Image.open(path).convert("RGB")) for path in (given, folder / "out/portrait.png")
    ]
    Image.fromarray(np.concatenate(both, axis=1)).save(docs / "restore.jpg", quality=88)

    clean, filtered = folder / "clean", folder / "filtered"
    clean.mkdir()
    filtered.mkdir()
    face = (
        Image.fromarray(both[0])
        .crop((128, 0, 328, 200))
        .resize((512, 512), Image.Resampling.LANCZOS)
    )
    for number in range(6):
        face.rotate(5 * number - 12, Image.Resampling.BICUBIC).save(
            clean / f"portrait-{number}.png"
        )
    authface("degrade", "--input", clean, "--output", folder / "lq", "--preset", "gfpgan")
    for path in sorted((folder / "lq").glob("*.png")):
        cv2.imwrite(str(filtered / path.name), cv2.bilateralFilter(cv2.imread(str(path)), 9, 30, 5))
    authface(
        "evaluate", "--restored", f"bilateral filter={filtered}", "--degraded", folder / "lq", "--reference", clean,
        "--draws", folder / "lq/draws.parquet", "--metrics", "psnr,ssim,niqe,identity,landmarks", "--output", folder / "page",
    )  # fmt: skip
    with browser(folder) as chromium:
        chromium.open(folder / "page/report.html")
        chromium.screenshot(folder / "page.png")
    with Image.open(folder / "page.png") as shot:
        shot.convert("RGB").save(docs / "evaluate.jpg", quality=85)
    print(f"made {docs / 'restore.jpg'} and {docs / 'evaluate.jpg'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        if given.pictures:
            pictures(Path(temp), given.pictures)
        else:
            compare(Path(temp))


if __name__ == "__main__":
    main()
