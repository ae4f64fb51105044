"""Measures the trainers and the restorer with SDXL's networks on one GPU, in under 12 minutes.

    python benchmarks/card.py                        all stages, at most 710 s
    python benchmarks/card.py --only stage1 --only latents
    python benchmarks/card.py --tiny                 the same code on tiny models, also on a CPU

The weights are random; those of the last stage take 10 GB of the temporary folder (TMPDIR), best in
memory. Each stage is a process with a time limit. What has ended is printed as Markdown, and written
as JSON with `--json FILE`. The variants of a stage alternate (A B A B), because the clock of a card
drifts; the best round of each variant counts.

`diffusers` is the step of train_text_to_image_sdxl.py and train_controlnet_sdxl.py, written after
them: float32 weights under autocast, gradient checkpointing, AdamW, in Stage II a VAE in each step.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import training_bench as bench  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL,
    DDPMScheduler,
    UNet2DConditionModel,
)

from authface_train.data.crops import cache_crops  # noqa: E402
from authface_train.data.degradation import REFERENCE_PX  # noqa: E402
from authface_train.data.prompts import time_ids  # noqa: E402
from authface_train.data.sample_keys import step_keys  # noqa: E402
from authface_train.memory.dry_run import DummyCache  # noqa: E402
from authface_train.memory.estimator import MemoryEstimator  # noqa: E402
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass  # noqa: E402
from authface_train.models.sdxl import DiffusionCore, hint_channels, random_sdxl  # noqa: E402
from authface_train.models.sdxl_config import (  # noqa: E402
    SDXL_CONFIGURATION,
    TINY_CONFIGURATION,
    Configuration,
    arguments,
)
from authface_train.presets import load_preset  # noqa: E402
from authface_train.settings import PriorSettings, RestorerSettings  # noqa: E402
from authface_train.stages.prior import PriorTrainer  # noqa: E402
from authface_train.stages.restorer import RestorerTrainer, make_controlnet  # noqa: E402
from authface_train.training.loop import accumulation_steps, to_device  # noqa: E402
from authface_train.training.processes import make_accelerator  # noqa: E402
from authface_train.training.sample_loader import sample_loader  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations per second, by a part of the GPU's name."""
LIMITS_S = {
    "stage1": 220,
    "stage2": 180,
    "data": 80,
    "latents": 50,
    "samples": 80,
    "restore": 100,
}
"""Time limits of the stages, 710 s in all."""
ONCE = ("authface, compiled",)
"""Variants that are measured once, because compiling takes long."""
NUM_ROUNDS = 2
WARM_UP_STEPS = 1
TIMED_STEPS = 2
NUM_FACES = 32
TINY_SETTINGS: dict[str, object] = {
    "resolution_px": bench.SIZE_PX,
    "mixed_precision": "no",  # many CPUs emulate bf16
}
CROP_PX = 1024

Row = dict[str, Any]
"""A row of a stage's table: column to value."""
Step = Callable[[], object]


def device() -> torch.device:
    """The GPU, or the CPU without one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configuration(tiny: bool) -> Configuration:
    """Configurations of the networks, by name."""
    return TINY_CONFIGURATION if tiny else SDXL_CONFIGURATION


def make_core(tiny: bool) -> DiffusionCore:
    """A random U-Net on the device, where weights are drawn quickly."""
    networks = configuration(tiny)
    torch.manual_seed(0)
    with device():
        unet = UNet2DConditionModel(**arguments(networks, "unet"))
    scheduler = DDPMScheduler(**arguments(networks, "scheduler"))
    return DiffusionCore(unet, scheduler, bench.SCALING_FACTOR, bench.CELL_PX)


def free_memory() -> None:
    """Free the memory of models that are out of use."""
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()
    bench.free_gpu_memory()


# FLOPs


def step_flops(tiny: bool, size_px: int, *, with_controlnet: bool) -> int:
    """Operations of forward and backward pass of one sample, without recomputation.

    Args:
        tiny: Whether to use the tiny model.
        size_px: Side of the picture.
        with_controlnet: Whether a ControlNet is trained on the frozen U-Net (Stage II).
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments(configuration(tiny), "unet"))
        inputs = unet_inputs(unet, 1, size_px)
        extra: dict[str, Any] = {}
        if with_controlnet:
            unet.requires_grad_(False)
            controlnet = _meta_controlnet(unet)
    with FlopCounterMode(display=False) as counter:
        if with_controlnet:
            picture = torch.empty(1, 3, size_px, size_px, device="meta")
            down, mid = controlnet(**inputs, controlnet_cond=picture, return_dict=False)
            extra = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": mid,
            }
        unet(**inputs, **extra).sample.sum().backward()
    return counter.get_total_flops()


def _meta_controlnet(unet: UNet2DConditionModel) -> torch.nn.Module:
    from diffusers import ControlNetModel

    return ControlNetModel.from_unet(
        unet,
        conditioning_embedding_out_channels=hint_channels(bench.CELL_PX),
        load_weights_from_unet=False,
    )


def unet_inputs(unet: UNet2DConditionModel, count: int, size_px: int) -> dict[str, Any]:
    """Random arguments of a U-Net on torch's default device."""
    side = size_px // bench.CELL_PX
    config = unet.config
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "sample": torch.randn(count, config.in_channels, side, side),
        "timestep": torch.zeros(count, dtype=torch.long),
        "encoder_hidden_states": torch.randn(count, 77, config.cross_attention_dim),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(count, pooled_width),
            "time_ids": torch.tensor([time_ids(size_px)]).expand(count, -1),
        },
    }


# Steps of AuthFace


def prior_trainer(tiny: bool, overrides: Mapping[str, object]) -> PriorTrainer:
    """The trainer of Stage I on random latents and prompts."""
    size = TINY_SETTINGS if tiny else {}
    settings = load_preset("prior", "1x80gb", {"audit": False, **size, **overrides})
    assert isinstance(settings, PriorSettings)
    core = make_core(tiny)
    prompt = bench.random_prompt(core.unet)
    return PriorTrainer(
        settings=settings,
        core=core,
        view=bench.face_ids(NUM_FACES),
        latents=DummyCache(bench.random_latents(core.unet, settings.resolution_px), NUM_FACES),
        prompts=DummyCache(prompt, NUM_FACES),
        null_prompt=prompt,
        accelerator=make_accelerator(settings),
    )


def restorer_trainer(
    tiny: bool, overrides: Mapping[str, object], workspace: Workspace, view: pd.DataFrame
) -> RestorerTrainer:
    """The trainer of Stage II on random latents, with real degradations of cached crops."""
    size = TINY_SETTINGS if tiny else {}
    from_start = {
        "facial.start_step": 0,
        "facial.discriminator_only_steps": 0,
        "facial.ramp_steps": 0,
    }
    settings = load_preset("restorer", "1x80gb", {**from_start, **size, **overrides})
    assert isinstance(settings, RestorerSettings)
    core = make_core(tiny)
    with device():
        controlnet = make_controlnet(core.unet, 0, bench.CELL_PX)
    return RestorerTrainer(
        settings=settings,
        core=core,
        controlnet=controlnet,
        workspace=workspace,
        view=view,
        latents=DummyCache(bench.random_latents(core.unet, settings.resolution_px), len(view)),
        null_prompt=bench.random_prompt(core.unet),
        accelerator=make_accelerator(settings),
    )


def time_trainer(trainer: PriorTrainer | RestorerTrainer) -> float:
    """Seconds of a step on one prepared micro-batch, the shortest of `TIMED_STEPS`."""
    settings = trainer.settings
    accumulation = accumulation_steps(settings, 1)
    assert settings.micro_batch is not None
    batch = bench.make_batch(trainer, settings.micro_batch, trainer.accelerator.device)
    keys = step_keys(settings.seed, 0, settings.batch, trainer.num_faces)
    return best_step_s(lambda: trainer.step(0, keys, iter([batch] * accumulation)))


def time_loaded_trainer(trainer: RestorerTrainer, num_steps: int) -> float:
    """Mean seconds of a step of one micro-batch, with the samples of the data workers.

    Args:
        trainer: The trainer.
        num_steps: Number of steps, several times as many as the workers prepare ahead.
    """
    settings = trainer.settings
    accelerator = trainer.accelerator
    with sample_loader(trainer.dataset, trainer.num_faces, settings, 0, accelerator) as loader:
        started_s = 0.0
        num_warm_up = num_steps // 4
        for number in range(num_warm_up + num_steps):
            if number == num_warm_up:
                bench.time_steps(lambda: None, 1)  # waits for the GPU
                started_s = time.perf_counter()
            keys = step_keys(settings.seed, number, settings.batch, trainer.num_faces)
            trainer.step(number, keys, iter([to_device(next(loader), accelerator.device)]))
        bench.time_steps(lambda: None, 1)
        return (time.perf_counter() - started_s) / num_steps


def best_step_s(step: Step) -> float:
    """Seconds of the fastest of `TIMED_STEPS` steps after `WARM_UP_STEPS`."""
    return min(bench.time_steps(step, WARM_UP_STEPS + TIMED_STEPS)[WARM_UP_STEPS:])


# Steps of diffusers' scripts


def script_accelerator(tiny: bool) -> Accelerator:
    """The accelerator of a script with `--mixed_precision bf16`; a tiny model computes in fp32."""
    precision = "no" if tiny else "bf16"
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def diffusers_prior_step(tiny: bool, batch: int, micro_batch: int, size_px: int) -> Step:
    """The step of train_text_to_image_sdxl.py."""
    accelerator = script_accelerator(tiny)
    core = make_core(tiny)
    unet = core.unet.train()
    unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    with device():
        inputs = unet_inputs(core.unet, micro_batch, size_px)
    latents = inputs.pop("sample")
    del inputs["timestep"]
    scheduler = core.scheduler
    accumulation = batch // micro_batch

    def step() -> None:
        for _ in range(accumulation):
            noise = torch.randn_like(latents)
            timesteps = torch.randint(1000, (micro_batch,), device=latents.device)
            noisy = scheduler.add_noise(latents, noise, timesteps)
            prediction = unet(noisy, timesteps, **inputs).sample
            loss = F.mse_loss(prediction.float(), noise.float()) / accumulation
            accelerator.backward(loss)
        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()

    return step


def diffusers_restorer_step(tiny: bool, batch: int, micro_batch: int, size_px: int) -> Step:
    """The step of train_controlnet_sdxl.py."""
    accelerator = script_accelerator(tiny)
    core = make_core(tiny)
    with device():
        controlnet = make_controlnet(core.unet, 0, bench.CELL_PX).train()
        vae = AutoencoderKL(**arguments(configuration(tiny), "vae")).requires_grad_(False)
        inputs = unet_inputs(core.unet, micro_batch, size_px)
        pictures = torch.rand(micro_batch, 3, size_px, size_px)
    frozen_dtype = torch.float32 if tiny else torch.bfloat16
    unet = core.unet.requires_grad_(False)
    torch.nn.Module.to(unet, frozen_dtype)
    vae.to(frozen_dtype)
    unet.enable_gradient_checkpointing()
    controlnet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=1e-5)
    controlnet, optimizer = accelerator.prepare(controlnet, optimizer)
    del inputs["sample"], inputs["timestep"]
    accumulation = batch // micro_batch

    def step() -> None:
        for _ in range(accumulation):
            with torch.no_grad():
                latents = vae.encode(2 * pictures.to(frozen_dtype) - 1).latent_dist.sample()
                latents = latents * bench.SCALING_FACTOR
            noise = torch.randn_like(latents)
            timesteps = torch.randint(1000, (micro_batch,), device=latents.device)
            noisy = core.scheduler.add_noise(latents.float(), noise.float(), timesteps)
            noisy = noisy.to(frozen_dtype)
            with accelerator.autocast():
                down, mid = controlnet(
                    noisy, timesteps, **inputs, controlnet_cond=pictures, return_dict=False
                )
                prediction = unet(
                    noisy,
                    timesteps,
                    **inputs,
                    down_block_additional_residuals=[value.to(frozen_dtype) for value in down],
                    mid_block_additional_residual=mid.to(frozen_dtype),
                ).sample
            accelerator.backward(F.mse_loss(prediction.float(), noise.float()) / accumulation)
        accelerator.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


# Stages


def alternate(
    variants: Mapping[str, Callable[[], float]], describe: Callable[[str, float], Row]
) -> Iterator[list[Row]]:
    """Time variants in turns; each builds its model, and frees it afterwards.

    Args:
        variants: Functions that return the seconds of a step, by name. Those of `ONCE` run in the
            last round only.
        describe: Makes the row of a variant from its name and its best seconds.

    Yields:
        The rows so far, after each measurement: one for each variant.
    """
    best: dict[str, float] = {}
    peaks_gb: dict[str, float] = {}
    failures: dict[str, str] = {}
    for round_number in range(NUM_ROUNDS):
        for name, measure in variants.items():
            if name in failures or (name in ONCE and round_number < NUM_ROUNDS - 1):
                continue
            free_memory()
            try:
                step_s = measure()
            except Exception as error:
                # Compilers and libraries fail in many ways; the other variants are still measured.
                failures[name] = type(error).__name__
                print(f"{name}: {error}", file=sys.stderr, flush=True)
            else:
                best[name] = min(step_s, best.get(name, step_s))
                peaks_gb[name] = bench.peak_gpu_gb()
                print(f"{name}: {step_s:.3f} s", file=sys.stderr, flush=True)
            yield [
                *({**describe(name, best[name]), "peak GB": peaks_gb[name]} for name in best),
                *({"variant": name, "images/s": failures[name]} for name in failures),
            ]


def add_estimates(
    rows: list[Row], overrides_of: Mapping[str, dict[str, object]], stage: str, tiny: bool
) -> Iterator[list[Row]]:
    """Add the memory that a dry run estimates to the rows of variants with settings.

    Yields:
        The rows, after each estimate.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments(configuration(tiny), "unet"))
    for row in rows:
        overrides = overrides_of.get(row["variant"])
        if overrides is None or row["variant"] in ONCE:
            continue
        size = TINY_SETTINGS if tiny else {}
        settings = load_preset(stage, "1x80gb", {**size, **overrides})
        if isinstance(settings, PriorSettings):
            fake_pass: PriorPass | RestorerPass = PriorPass(unet, settings, bench.CELL_PX)
        else:
            fake_pass = RestorerPass(unet, settings, bench.CELL_PX)
        assert settings.micro_batch is not None
        estimator = MemoryEstimator(fake_pass, device())
        estimate = estimator.estimate(settings, settings.micro_batch, 1)
        row["estimated GB"] = estimate.total / bench.GB
        yield rows


def peak_share(flops: float, seconds: float) -> Row:
    """Columns of the speed in operations per second."""
    name = bench.device_name(device())
    peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
    return {
        "TFLOP/s": flops / seconds / 1e12,
        "share of peak": None if peak is None else flops / seconds / peak,
    }


def measure_trainer(
    stage: str,
    tiny: bool,
    *,
    size_px: int,
    overrides_of: dict[str, dict[str, object]],
    measure: Callable[[Mapping[str, object]], float],
    script_step: Callable[[bool, int, int, int], Step],
) -> Iterator[list[Row]]:
    """Time a trainer in several variants, and the step of diffusers' script.

    Args:
        stage: "prior" or "restorer".
        tiny: Whether to use the tiny model.
        size_px: Side of the training crops.
        overrides_of: Settings by variant.
        measure: Times a step with settings.
        script_step: Builds the script's step.

    Yields:
        The rows so far.
    """
    micro_batch = 2 if tiny else 16
    batch = 3 * micro_batch
    sizes: dict[str, object] = {"batch": batch, "micro_batch": micro_batch}
    overrides_of = {name: {**sizes, **values} for name, values in overrides_of.items()}
    if tiny:
        del overrides_of["authface, compiled"]  # a CPU would need a C++ compiler
    flops = batch * step_flops(tiny, size_px, with_controlnet=stage == "restorer")

    def describe(name: str, step_s: float) -> Row:
        return {"variant": name, "images/s": batch / step_s, **peak_share(flops, step_s)}

    variants: dict[str, Callable[[], float]] = {
        "diffusers": lambda: best_step_s(script_step(tiny, batch, micro_batch, size_px))
    }
    for name, overrides in overrides_of.items():
        variants[name] = partial(measure, overrides)
    rows: list[Row] = []
    for rows in alternate(variants, describe):
        yield rows
    free_memory()
    yield from add_estimates(rows, overrides_of, stage, tiny)


def measure_stage1(tiny: bool) -> Iterator[list[Row]]:
    """Stage I at 1024 px."""
    return measure_trainer(
        "prior",
        tiny,
        size_px=bench.SIZE_PX if tiny else 1024,
        overrides_of={
            "authface": {},
            "authface, no checkpointing": {
                "gradient_checkpointing": False,
                "micro_batch": 1 if tiny else 4,
            },
            "authface, compiled": {"compile": True},
        },
        measure=lambda overrides: time_trainer(prior_trainer(tiny, overrides)),
        script_step=diffusers_prior_step,
    )


def measure_stage2(tiny: bool) -> Iterator[list[Row]]:
    """Stage II at 512 px."""
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.create(Path(temporary) / "ws", preset_text("embedded"))
        view = bench.make_crops(workspace, CROP_PX)
        cache_crops(workspace, view, REFERENCE_PX, Accelerator(cpu=True), lambda *_: None)
        yield from measure_trainer(
            "restorer",
            tiny,
            size_px=bench.SIZE_PX if tiny else 512,
            overrides_of={
                "authface": {},
                "authface, no facial loss": {"facial.weight": "off"},
                "authface, no checkpointing": {"gradient_checkpointing": False},
                "authface, compiled": {"compile": True},
            },
            measure=lambda overrides: time_trainer(
                restorer_trainer(tiny, overrides, workspace, view)
            ),
            script_step=diffusers_restorer_step,
        )


def measure_data(tiny: bool) -> Iterator[list[Row]]:
    """Stage II with workers that degrade faces, and with degradation on the card."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.create(Path(temporary) / "ws", preset_text("embedded"))
        view = bench.make_crops(workspace, CROP_PX)
        cache_crops(workspace, view, REFERENCE_PX, Accelerator(cpu=True), lambda *_: None)
        micro_batch = 2 if tiny else 16
        sizes = {"batch": micro_batch, "micro_batch": micro_batch}
        for where in ("cpu", "gpu"):
            free_memory()
            trainer = restorer_trainer(tiny, {**sizes, "degrade_on": where}, workspace, view)
            without_s = time_trainer(trainer)
            with_s = time_loaded_trainer(trainer, num_steps=4 if tiny else 64)
            rows.append(
                {
                    "degrade_on": where,
                    "images/s on one batch": micro_batch / without_s,
                    "images/s with data": micro_batch / with_s,
                }
            )
            del trainer
            yield rows


def measure_latents(tiny: bool) -> Iterator[list[Row]]:
    """Faces per second that the VAE encodes, with their mirror images."""
    rows: list[Row] = []
    for size_px in (bench.SIZE_PX,) if tiny else (512, 1024):
        rows.append(encode_faces(tiny, size_px))
        yield rows


def encode_faces(tiny: bool, size_px: int) -> Row:
    """Time the VAE at one size."""
    from authface_train.data.latents import encode_in_batches

    free_memory()
    with device():
        vae = AutoencoderKL(**arguments(configuration(tiny), "vae")).eval()
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (size_px, size_px, 3), np.uint8) for _ in range(8)]

    def encode(count: int) -> float:
        started_s = time.perf_counter()
        repeated = (crops[index % len(crops)] for index in range(count))
        num_done = sum(1 for _ in encode_in_batches(vae, repeated, size_px, device()))
        return num_done / (time.perf_counter() - started_s)

    count = 8 if tiny else 128
    encode(count // 4)
    speed = encode(count)
    return {
        "size px": size_px,
        "faces/s": speed,
        "minutes for 70,000 faces": 70_000 / speed / 60,
        "peak GB": bench.peak_gpu_gb(),
    }


def measure_samples(tiny: bool) -> Iterator[list[Row]]:
    """Samples per second and core, by the other benchmark."""
    seconds = "1" if tiny else "3"
    command = [sys.executable, str(ROOT / "benchmarks" / "samples.py"), "--seconds", seconds]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=LIMITS_S["samples"] - 5
    ).stdout
    rows: list[Row] = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| Stage"):
            rows.append({"samples": cells[0], "samples/s a core": float(cells[1])})
        elif "degrades" in line:
            rows.append({"samples": line})
    yield rows


def measure_restore(tiny: bool) -> Iterator[list[Row]]:
    """Seconds per face of the restorer; the paper's Table 6 has 5.25 s on an L40S."""
    from authface_train.restore.pipeline import Restorer
    from authface_train.restore.sampling import Sampling

    size_px = bench.SIZE_PX if tiny else 512
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        save_restorer(model, tiny, size_px)
        faces = [np.zeros((size_px, size_px, 3), np.uint8)] * 8
        rows: list[Row] = []
        for steps, batch in ((20, 1), (20, 8), (50, 1), (50, 8)):
            restorer = Restorer(str(model), Sampling(steps=2 if tiny else steps))
            restorer.restore(faces[:1])
            started_s = time.perf_counter()
            restorer.restore(faces[:batch])
            seconds = (time.perf_counter() - started_s) / batch
            rows.append({"steps": steps, "batch": batch, "seconds a face": seconds})
            del restorer
            free_memory()
            yield rows


def save_restorer(folder: Path, tiny: bool, size_px: int) -> None:
    """Save a random restorer in half precision."""
    from diffusers import StableDiffusionXLControlNetPipeline

    torch.set_default_dtype(torch.float16)
    try:
        with device():
            pipeline = random_sdxl(configuration(tiny), seed=0)
            controlnet = make_controlnet(pipeline.unet, 0, bench.CELL_PX)
        StableDiffusionXLControlNetPipeline(
            **pipeline.components, controlnet=controlnet, add_watermarker=False
        ).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    notes = {"resolution_px": size_px, "time_ids": time_ids(size_px), "untrained": True}
    (folder / "authface.json").write_text(json.dumps(notes))


STAGES: dict[str, Callable[[bool], Iterator[list[Row]]]] = {
    "stage1": measure_stage1,
    "stage2": measure_stage2,
    "data": measure_data,
    "latents": measure_latents,
    "samples": measure_samples,
    "restore": measure_restore,
}


# Output


def print_table(name: str, rows: list[Row], problem: str) -> None:
    """Print the rows of a stage as Markdown, and why it ended early."""
    print(f"\n### {name}\n")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if rows:
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [format_value(row.get(column)) for column in columns]
        print(f"| {' | '.join(cells)} |")
    if problem:
        print(f"\nThe stage {problem}.")
    sys.stdout.flush()


def format_value(value: object) -> str:
    """Format a cell with three significant digits; None and NaN give an empty cell."""
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else str(value)


def run_stage(name: str, tiny: bool) -> tuple[list[Row], str]:
    """Run a stage in a separate process.

    Args:
        name: Name of the stage.
        tiny: Whether to use the tiny models.

    Returns:
        The rows that it has measured, and why it ended early, if it did.
    """
    command = [sys.executable, __file__, "--stage", name, *(["--tiny"] if tiny else [])]
    problem = ""
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command, stdout=output, timeout=LIMITS_S[name], check=False
            ).returncode
            problem = f"ended with exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            problem = f"stopped after {LIMITS_S[name]} s"
        output.seek(0)
        lines = [line for line in output if line.startswith("[") and line.endswith("]\n")]
    return (json.loads(lines[-1]) if lines else []), problem


def main() -> None:
    """Run the stages and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=STAGES, default=[])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    bench.choose_device(options.tiny)
    if options.stage:
        for rows in STAGES[options.stage](options.tiny):
            print(json.dumps(rows), flush=True)
        return

    machine = f"{bench.device_name(device())}, torch {torch.__version__}"
    print(f"{machine}, Python {platform.python_version()}", flush=True)
    results: dict[str, Any] = {"machine": machine}
    for name in options.only or STAGES:
        rows, problem = run_stage(name, options.tiny)
        results[name] = {"rows": rows, "problem": problem}
        print_table(name, rows, problem)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
