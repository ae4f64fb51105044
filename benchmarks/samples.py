"""Measures how many training samples one core prepares, and how many cores a card needs.

    python benchmarks/samples.py [--rate 12 50] [--seconds 10]        takes about a minute

The samples have the sizes of SDXL: Stage I at 1024 px, Stage II at 512 px from crops of 1024 px,
with the cached crops and without, and degraded by the card. They are collated to micro-batches as a
data worker does, on one thread. `--rate` is the images/s of a card.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path[:0] = [str(Path(__file__).parents[1])]

import cv2  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import training_bench as bench  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from torch.utils.data import Dataset, default_collate  # noqa: E402

from authface_train.data.cache import Cache  # noqa: E402
from authface_train.data.crops import cache_crops  # noqa: E402
from authface_train.data.degradation import REFERENCE_PX  # noqa: E402
from authface_train.data.latents import Latents  # noqa: E402
from authface_train.data.pairs import DegradedPairs  # noqa: E402
from authface_train.data.prompts import Embedding, Prompts  # noqa: E402
from authface_train.data.sample_keys import SampleKey  # noqa: E402
from authface_train.data.samples import (  # noqa: E402
    NoiseSampler,
    PriorDataset,
    RestorerDataset,
    Sample,
)
from authface_train.presets import load_preset  # noqa: E402
from authface_train.settings import PriorSettings  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

CROP_PX = 1024
PRIOR_PX = 1024
RESTORER_PX = 512
LATENT_CELL_PX = 8
MICRO_BATCH = 16


def noise_sampler(workspace: Workspace, view: pd.DataFrame, size_px: int) -> NoiseSampler:
    """A sampler of random latents of SDXL's shape, cached in the workspace.

    Args:
        workspace: Where the latents are cached.
        view: The training faces.
        size_px: Side of the crops.
    """
    side = size_px // LATENT_CELL_PX
    keys = view["crop_sha256"].tolist()
    cache = Cache(workspace, f"cache/latents/{size_px}")
    cache.write({key: {"latents": torch.randn(2, 2, 4, side, side)} for key in keys})
    scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
    core = SimpleNamespace(scaling_factor=bench.SCALING_FACTOR, scheduler=scheduler)
    return NoiseSampler(0, view, Latents(cache, keys), core)  # type: ignore[arg-type]


def prior_samples(workspace: Workspace, view: pd.DataFrame) -> PriorDataset:
    """The samples of Stage I, with random latents and prompts in the workspace's caches."""
    settings = load_preset("prior", "paper", {})
    assert isinstance(settings, PriorSettings)
    keys = [str(number) for number in range(len(view) * settings.orders)]
    prompts = Cache(workspace, "cache/prompts/random")
    prompts.write(
        {key: {"embeds": torch.randn(77, 2048), "pooled": torch.randn(1280)} for key in keys}
    )
    null_prompt = Embedding(torch.zeros(77, 2048), torch.zeros(1280))
    sampler = noise_sampler(workspace, view, PRIOR_PX)
    return PriorDataset(settings, sampler, Prompts(prompts, keys), null_prompt)


def samples_per_second(dataset: Dataset[Sample], num_faces: int, duration_s: float) -> float:
    """Prepare micro-batches for a while.

    Args:
        dataset: The samples.
        num_faces: Number of faces of the dataset.
        duration_s: How long, in seconds of CPU time.

    Returns:
        Samples per second of CPU time, which other programs on the machine affect little.
    """
    number = 0
    started = time.process_time()
    while time.process_time() - started < duration_s:
        keys = [
            SampleKey(*divmod(position, num_faces))
            for position in range(number, number + MICRO_BATCH)
        ]
        default_collate([dataset[key] for key in keys])
        number += MICRO_BATCH
    return number / (time.process_time() - started)


def degraded_per_second(dataset: RestorerDataset) -> float:
    """Crops that a GPU degrades per second, in micro-batches."""
    keys = [SampleKey(0, index) for index in range(MICRO_BATCH)]
    batch = default_collate([dataset[key] for key in keys])
    crops = batch["crop"].cuda()
    seconds = bench.time_steps(lambda: dataset.pairs.degrade_on_device(crops, batch["key"]), 8)
    return MICRO_BATCH / min(seconds)


def main() -> None:
    """Print a table with one row per kind of sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, nargs="+", default=[12.0, 50.0])
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.create(Path(temporary) / "ws", preset_text("embedded"))
        view = bench.make_crops(workspace, CROP_PX)
        sampler = noise_sampler(workspace, view, RESTORER_PX)

        def restorer_samples() -> RestorerDataset:
            pairs = DegradedPairs(workspace, view, RESTORER_PX, "gfpgan", 0)
            return RestorerDataset(sampler, pairs)

        datasets: dict[str, Dataset[Sample]] = {
            "Stage I, 1024 px": prior_samples(workspace, view),
            "Stage II, 512 px, crops decoded": restorer_samples(),
        }
        cache_crops(workspace, view, REFERENCE_PX, Accelerator(cpu=True), lambda *_: None)
        datasets["Stage II, 512 px"] = restorer_samples()
        on_gpu = RestorerDataset(sampler, restorer_samples().pairs, degrade_on="gpu")
        datasets["Stage II, 512 px, degrade_on=gpu"] = on_gpu

        processor = platform.processor() or platform.machine()
        print(f"{processor}, one core, OpenCV {cv2.__version__}, torch {torch.__version__}")
        cores_header = " | ".join(f"cores for {rate:g} images/s" for rate in arguments.rate)
        print(f"| samples | samples/s a core | {cores_header} |")
        print("|---|---|" + "---|" * len(arguments.rate))
        for name, dataset in datasets.items():
            speed = samples_per_second(dataset, len(view), arguments.seconds)
            cores = " | ".join(str(math.ceil(rate / speed)) for rate in arguments.rate)
            print(f"| {name} | {speed:.0f} | {cores} |", flush=True)
        if torch.cuda.is_available():
            speed = degraded_per_second(on_gpu)
            print(f"{torch.cuda.get_device_name()} degrades {speed:.0f} crops/s")


if __name__ == "__main__":
    main()
