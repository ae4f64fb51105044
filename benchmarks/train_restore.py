"""Speed of the Stage II trainer beside the bare step and diffusers' train_controlnet_sdxl.py.

    python benchmarks/train_restore.py    overhead, share of the facial loss and images/s on this
                                          machine's CPU

benchmarks/card.py measures it with SDXL's networks on a GPU.

The overhead is what the loop adds: its period from one step to the next, compared with the step in
it (forward, backward, optimizers). That covers waiting for the worker that degrades faces, logging
and progress. The period is also compared with two bare steps: on samples that the worker of a plain
DataLoader prepares, and on one fixed batch. On a CPU, worker and step share the memory bandwidth,
which slows the step down in either loop.

The comparison with the script follows its description and does not run it: for every step a pair of
pictures is read from the disk, resized and converted to tensors, and the VAE encodes the batch;
prompts are encoded once. The script has no facial loss, so it is compared with `facial.weight=off`.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import training_bench as bench  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import DDPMScheduler  # noqa: E402
from PIL import Image  # noqa: E402

from authface_train.data.crops import cache_crops  # noqa: E402
from authface_train.data.degradation import REFERENCE_PX  # noqa: E402
from authface_train.data.latents import cached_latents  # noqa: E402
from authface_train.data.prompts import cached_prompts, time_ids  # noqa: E402
from authface_train.data.sample_keys import SampleKey  # noqa: E402
from authface_train.data.samples import Sample  # noqa: E402
from authface_train.models.sdxl import detach_core  # noqa: E402
from authface_train.presets import load_preset  # noqa: E402
from authface_train.settings import RestorerSettings  # noqa: E402
from authface_train.stages.restorer import RestorerTrainer, make_controlnet  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

NUM_ROUNDS = 6
CROP_PX = 512
DATASET_LENGTH = 10**6
"""Length of the datasets of plain loaders, more than any run reads."""
FACIAL_LOSS_FROM_START = {
    "facial.start_step": 0,
    "facial.discriminator_only_steps": 0,
    "facial.ramp_steps": 0,
}


def restorer_settings(preset: str, overrides: Mapping[str, object]) -> RestorerSettings:
    """Load the Stage II settings of a preset, with the facial loss from the first step.

    Args:
        preset: Name of the preset.
        overrides: Settings over those of the preset.
    """
    settings = load_preset("restorer", preset, {**FACIAL_LOSS_FROM_START, **overrides})
    assert isinstance(settings, RestorerSettings)
    return settings


# What is timed


def cached_trainer(
    workspace: Workspace, view: pd.DataFrame, facial_weight: str, accelerator: Accelerator
) -> RestorerTrainer:
    """Fill the workspace's caches and build the trainer of the CPU model.

    Args:
        workspace: Holds the crops and the caches.
        view: The training faces.
        facial_weight: The setting `facial.weight`.
        accelerator: Knows the device.
    """
    overrides = {**bench.ROUND_SETTINGS, "workers": 1, "facial.weight": facial_weight}
    settings = restorer_settings("tiny", overrides)
    pipeline = bench.build_pipeline(bench.CPU_UNET)
    cache_crops(workspace, view, REFERENCE_PX, accelerator, lambda *_: None)
    latents = cached_latents(
        workspace, pipeline.vae, view, bench.SIZE_PX, accelerator, lambda *_: None
    )
    null_prompt = cached_prompts(workspace, pipeline, [""], accelerator, lambda *_: None)[0]
    core = detach_core(pipeline)
    controlnet = make_controlnet(core.unet, 0, core.vae_scale_factor)
    trainer = RestorerTrainer(
        settings=settings,
        core=core,
        controlnet=controlnet,
        workspace=workspace,
        view=view,
        latents=latents,
        null_prompt=null_prompt,
        accelerator=accelerator,
    )
    return trainer


def fixed_batch_step(trainer: RestorerTrainer) -> Callable[[], None]:
    """The trainer's step on one fixed batch."""
    keys = [SampleKey(0, index) for index in range(bench.BATCH)]
    batch = bench.make_batch(trainer, bench.BATCH, trainer.accelerator.device)
    return lambda: run_step(trainer, keys, batch)


def loaded_batch_step(trainer: RestorerTrainer) -> Callable[[], None]:
    """The trainer's step on batches that the worker of a plain DataLoader prepares."""
    keys = [SampleKey(0, index) for index in range(bench.BATCH)]

    class Samples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return DATASET_LENGTH

        def __getitem__(self, number: int) -> Sample:
            return trainer.dataset[SampleKey(number // bench.NUM_FACES, number % bench.NUM_FACES)]

    loader = iter(torch.utils.data.DataLoader(Samples(), batch_size=bench.BATCH, num_workers=1))
    return lambda: run_step(trainer, keys, next(loader))


def run_step(trainer: RestorerTrainer, keys: list[SampleKey], batch: Sample) -> None:
    """One step of a trainer on one micro-batch.

    Args:
        trainer: The trainer.
        keys: Keys of the samples.
        batch: The samples.
    """
    trainer.step(1, keys, iter([batch]))


def diffusers_step(workspace: Workspace, view: pd.DataFrame) -> Callable[[], None]:
    """The step of diffusers' ControlNet script for SDXL.

    Args:
        workspace: Holds the crops.
        view: The training faces.
    """
    pipeline = bench.build_pipeline(bench.CPU_UNET)
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            "", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    unet = pipeline.unet.requires_grad_(False)
    vae = pipeline.vae.requires_grad_(False)
    controlnet = make_controlnet(unet, 0, bench.CELL_PX).train()
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=1e-4, fused=True)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    files = [workspace.local_path(path) for path in view["crop_path"]]
    prompts = embeds.expand(bench.BATCH, -1, -1)
    conditions = {
        "text_embeds": pooled.expand(bench.BATCH, -1),
        "time_ids": torch.tensor([time_ids(bench.SIZE_PX)]).expand(bench.BATCH, -1),
    }

    def read_image(file: Path) -> torch.Tensor:
        """(3, SIZE_PX, SIZE_PX) in [0, 1]."""
        with Image.open(file) as image:
            small = image.convert("RGB").resize(
                (bench.SIZE_PX, bench.SIZE_PX), Image.Resampling.BILINEAR
            )
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255

    class ImagePairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return DATASET_LENGTH

        def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            file = files[number % len(files)]
            return 2 * read_image(file) - 1, read_image(file)

    loader = iter(torch.utils.data.DataLoader(ImagePairs(), batch_size=bench.BATCH, num_workers=1))

    def step() -> None:
        clean, hint = next(loader)
        with torch.no_grad():
            latents = vae.encode(clean).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (bench.BATCH,))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        down_residuals, mid_residual = controlnet(
            noisy, timesteps, prompts, hint, added_cond_kwargs=conditions, return_dict=False
        )
        prediction = unet(
            noisy,
            timesteps,
            prompts,
            added_cond_kwargs=conditions,
            down_block_additional_residuals=down_residuals,
            mid_block_additional_residual=mid_residual,
        ).sample
        F.mse_loss(prediction, noise).backward()
        torch.nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare_on_cpu() -> None:
    """Print the overhead of the loop, the share of the facial loss, and diffusers' images/s."""
    accelerator = Accelerator(cpu=True)
    # One core is left to the worker. OpenCV's limit must be set before workers are forked.
    torch.set_num_threads(max((os.cpu_count() or 2) - 1, 1))
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        workspace = Workspace.create(root / "ws", preset_text("embedded"))
        view = bench.make_crops(workspace, CROP_PX)
        facial = cached_trainer(workspace, view, "time-aware", accelerator)
        plain = cached_trainer(workspace, view, "off", accelerator)
        loops = {
            "loop": bench.LoopVariant(
                facial,
                settings=facial.settings,
                stage="restorer",
                root=root,
                accelerator=accelerator,
            ),
            "loop, no facial loss": bench.LoopVariant(
                plain, settings=plain.settings, stage="restorer", root=root, accelerator=accelerator
            ),
        }
        variants: dict[str, bench.Variant] = {
            "bare, fixed batch": bench.step_variant(fixed_batch_step(facial)),
            "bare": bench.step_variant(loaded_batch_step(facial)),
            "bare, no facial loss": bench.step_variant(loaded_batch_step(plain)),
            "script": bench.step_variant(diffusers_step(workspace, view)),
            **loops,
        }
        for warm_up in variants.values():
            warm_up()
        for loop_variant in loops.values():
            loop_variant.overheads.clear()
        durations_s = bench.time_variants(variants, NUM_ROUNDS)

    bench.print_variants(durations_s)
    for name, loop_variant in loops.items():
        print(
            f"overhead over the step in the {name}: {statistics.median(loop_variant.overheads):.1%}"
        )
    over_bare = bench.median_ratio(durations_s, "loop", "bare") - 1
    over_fixed = bench.median_ratio(durations_s, "loop", "bare, fixed batch") - 1
    facial_share = 1 - bench.median_ratio(durations_s, "bare, no facial loss", "bare")
    speedup = bench.median_ratio(durations_s, "script", "loop, no facial loss")
    print(f"overhead over the bare step: {over_bare:.1%}")
    print(f"overhead over the bare step on a fixed batch: {over_fixed:.1%}")
    print(f"share of the facial loss in the step: {facial_share:.1%}")
    print(f"images/s compared with the script's procedure, no facial loss: {speedup:.3f} times")


if __name__ == "__main__":
    compare_on_cpu()
