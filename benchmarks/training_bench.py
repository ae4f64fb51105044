"""What the benchmarks of both trainers share: random models and faces, and timed rounds of steps.

A variant is something that can be timed in rounds of NUM_STEPS steps: the bare training step, the
training loop, a script of diffusers. Rounds of all variants alternate, so that a slow moment of the
machine affects all of them.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import Sample
from authface_train.models.sdxl import DiffusionCore, tiny_sdxl
from authface_train.runs.training_run import TrainingRun
from authface_train.settings import TrainSettings
from authface_train.training import loop
from authface_train.training.loop import StepLosses, Trainer, stack_samples, to_device
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

NUM_FACES = 32
NUM_STEPS = 12
"""Steps of a round."""
SKIPPED_STEPS = 3
"""Steps at the start of a round that do not count: their batches may have been loaded before."""
BATCH = 6
SIZE_PX = 128
CELL_PX = 8
SCALING_FACTOR = 0.13025
"""`vae.config.scaling_factor` of SDXL."""
GB = 1e9

ROUND_SETTINGS: dict[str, object] = {
    "steps": NUM_STEPS,
    "batch": BATCH,
    "micro_batch": BATCH,
    "checkpoint_every": 1000,
    "resolution_px": SIZE_PX,
}
"""Settings of a round of the loop on a CPU."""
CPU_UNET: dict[str, object] = {
    "block_out_channels": (64, 128),
    "attention_head_dim": (4, 8),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 1280 + 6 * 8,
}
"""A small U-Net with prompt embeddings of SDXL's size; its step takes 200 to 400 ms on a CPU."""
REGION_BOXES = {
    "left_eye": (0.30, 0.42, 0.42, 0.54),
    "right_eye": (0.58, 0.42, 0.70, 0.54),
    "mouth": (0.36, 0.66, 0.64, 0.82),
}
"""Edges (x0, y0, x1, y1) of the facial regions, relative to the crop's side."""

Variant = Callable[[], list[float]]
"""Runs one round and returns the durations of its steps in seconds."""


# Models and inputs


def build_pipeline(unet_config: Mapping[str, object]) -> StableDiffusionXLPipeline:
    """Build the tiny SDXL with another random U-Net.

    Args:
        unet_config: Changes to the tiny U-Net's configuration. For prompt embeddings of SDXL's
            width, 2048, the text encoders are replaced by two of two layers with that output.
    """
    pipeline = tiny_sdxl(0)
    torch.manual_seed(0)
    if unet_config.get("cross_attention_dim") == 2048:
        pipeline.text_encoder = CLIPTextModel(_text_config(768))
        pipeline.text_encoder_2 = CLIPTextModelWithProjection(_text_config(1280))
    tiny_config = {
        name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")
    }
    pipeline.unet = UNet2DConditionModel(**{**tiny_config, **unet_config})
    return pipeline


def _text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=8,
        num_hidden_layers=2,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
    )


def build_core(unet_config: Mapping[str, object]) -> DiffusionCore:
    """Build a random U-Net with SDXL's scheduler; the arguments are those of `build_pipeline`."""
    pipeline = build_pipeline(unet_config)
    return DiffusionCore(pipeline.unet, pipeline.scheduler, SCALING_FACTOR, CELL_PX)


def random_latents(unet: UNet2DConditionModel, size_px: int) -> torch.Tensor:
    """Random values in the shape of a face's cached latents.

    Args:
        unet: The U-Net that the latents are for.
        size_px: Side of the crop.

    Returns:
        (2, 2, channels, height, width) float32, see `authface_train.data.latents.Latents`.
    """
    side = size_px // CELL_PX
    return torch.randn(2, 2, unet.config.in_channels, side, side)


def random_prompt(unet: UNet2DConditionModel) -> Embedding:
    """Random values in the shape of a prompt's embedding."""
    config = unet.config
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return Embedding(torch.randn(77, config.cross_attention_dim), torch.randn(pooled_width))


def face_ids(count: int) -> pd.DataFrame:
    """Rows of a training view with nothing but ids, for a trainer that needs no crops."""
    return pd.DataFrame({"face_id": [str(number) for number in range(count)]})


def make_batch(trainer: Trainer, count: int, device: torch.device) -> Sample:
    """Stack samples of a trainer into one batch.

    Args:
        trainer: The trainer.
        count: Number of samples; faces repeat if there are fewer.
        device: Device of the batch.
    """
    samples = [trainer.dataset[SampleKey(0, index % trainer.num_faces)] for index in range(count)]
    return to_device(stack_samples(samples), device)


def make_crops(workspace: Workspace, size_px: int) -> pd.DataFrame:
    """Save NUM_FACES pictures of soft colours, which take as long to degrade as photographs.

    Args:
        workspace: Where to save them.
        size_px: Side of the pictures.

    Returns:
        Rows of a training view with boxes of eyes and mouth.
    """
    rng = np.random.default_rng(0)
    regions: dict[str, object] = {}
    for name, box in REGION_BOXES.items():
        regions[f"{name}_box_crop_px"] = [edge * size_px for edge in box]
        regions[f"{name}_visible"] = True

    rows = []
    for number in range(NUM_FACES):
        crop_path = f"faces/{number}.png"
        path = workspace.local_path(crop_path)
        path.parent.mkdir(exist_ok=True)
        colours = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
        colours.resize((size_px, size_px), Image.Resampling.BICUBIC).save(path)
        rows.append(
            {
                "face_id": f"face-{number}",
                "crop_path": crop_path,
                "crop_sha256": f"{number:064d}",
                "crop_size_px": size_px,
                **regions,
            }
        )
    return pd.DataFrame(rows)


# Timing


def time_steps(step: Callable[[], object], count: int) -> list[float]:
    """Durations of calls in seconds; work on a GPU is waited for.

    Args:
        step: What is timed.
        count: Number of calls.
    """
    durations_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        durations_s.append(time.perf_counter() - started_s)
    return durations_s


def step_variant(step: Callable[[], object]) -> Variant:
    """A variant that calls a step NUM_STEPS times."""
    return lambda: time_steps(step, NUM_STEPS)[SKIPPED_STEPS:-1]


def time_variants(variants: Mapping[str, Variant], num_rounds: int) -> dict[str, list[float]]:
    """Time rounds of all variants in turn.

    Args:
        variants: The variants by name, each run once before.
        num_rounds: Number of rounds.

    Returns:
        By name the median duration of a step in each round, in seconds.
    """
    durations_s: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(num_rounds):
        for name, run_round in variants.items():
            durations_s[name].append(statistics.median(run_round()))
    return durations_s


def median_ratio(durations_s: Mapping[str, list[float]], name: str, other_name: str) -> float:
    """Median over the rounds of one variant's duration relative to that of another.

    Args:
        durations_s: Durations by variant, see `time_variants`.
        name: The variant.
        other_name: The variant it is compared with.
    """
    pairs = zip(durations_s[name], durations_s[other_name], strict=True)
    return statistics.median(duration / other for duration, other in pairs)


@dataclass(frozen=True)
class StepTime:
    """Times of one step of the loop.

    Attributes:
        started_s: When the loop started the step, on the clock of `time.perf_counter`.
        duration_s: Duration of the trainer's step, without the time spent waiting for its batch.
    """

    started_s: float
    duration_s: float


class TimedTrainer:
    """Wraps a trainer and records the times of its steps.

    Args:
        trainer: The trainer.

    Attributes:
        models: The trainer's models.
        dataset: The trainer's samples.
        num_faces: The trainer's number of faces.
        step_times: Times of the steps so far.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.models = trainer.models
        self.dataset = trainer.dataset
        self.num_faces = trainer.num_faces
        self.step_times: list[StepTime] = []

    def step(self, step: int, keys: list[SampleKey], micro_batches: Iterator[Sample]) -> StepLosses:
        """One step of the trainer."""
        started_s = time.perf_counter()
        # Waiting for the loader is a cost of the loop.
        batches = list(micro_batches)
        received_s = time.perf_counter()
        losses = self.trainer.step(step, keys, iter(batches))
        self.step_times.append(StepTime(started_s, time.perf_counter() - received_s))
        return losses


class LoopVariant:
    """Rounds of the training loop, each in a new run folder.

    Args:
        trainer: The trainer.
        settings: Settings of the runs.
        stage: "prior" or "restorer".
        root: Parent of the run folders.
        accelerator: Knows the device.

    Attributes:
        overheads: Time that the loop has added to each step, relative to the step.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        settings: TrainSettings,
        stage: str,
        root: Path,
        accelerator: Accelerator,
    ) -> None:
        self.trainer = TimedTrainer(trainer)
        self.settings = settings
        self.stage = stage
        self.root = root
        self.accelerator = accelerator
        self.overheads: list[float] = []

    def __call__(self) -> list[float]:
        """Run a round and return the periods from one step to the next, in seconds."""
        self.trainer.step_times.clear()
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.root))
        run = TrainingRun(folder, self.stage)
        loop.train(self.trainer, [], settings=self.settings, run=run, accelerator=self.accelerator)

        periods_s = []
        for current, following in itertools.pairwise(self.trainer.step_times[SKIPPED_STEPS:]):
            period_s = following.started_s - current.started_s
            periods_s.append(period_s)
            self.overheads.append(period_s / current.duration_s - 1)
        return periods_s


# Devices and output


def choose_device(tiny: bool) -> torch.device:
    """The GPU. Without one, the CPU for the tiny model; for SDXL the program ends."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if not tiny:
        sys.exit("no CUDA GPU found; --tiny runs the same code on a tiny model")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Name of the GPU, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def free_gpu_memory() -> None:
    """Return cached memory of the GPU and restart the measurement of its peak."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_gb() -> float:
    """Peak of the GPU memory in GB since `free_gpu_memory`; NaN on a CPU."""
    if not torch.cuda.is_available():
        return float("nan")
    return torch.cuda.max_memory_allocated() / GB


def print_variants(durations_s: Mapping[str, list[float]]) -> None:
    """Print the machine, and for each variant the duration of a step and images/s."""
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    num_rounds = len(next(iter(durations_s.values())))
    print(f"\n{machine}; medians of {num_rounds} rounds of {NUM_STEPS} steps")
    width = max(map(len, durations_s))
    for name, rounds_s in durations_s.items():
        step_s = statistics.median(rounds_s)
        print(f"{name:>{width}}: {1000 * step_s:7.1f} ms a step, {BATCH / step_s:6.2f} images/s")
