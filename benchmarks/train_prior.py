"""Speed of the Stage I trainer beside the bare step and diffusers' train_text_to_image_sdxl.py.

    python benchmarks/train_prior.py    overhead and images/s on this machine's CPU

benchmarks/card.py measures it with SDXL's networks on a GPU.

The overhead is what the loop adds: loading cached data, random numbers, logging, losses by
timestep, communication. It is the period from one step to the next, compared with forward,
backward, clipping and optimizer step on one fixed batch.

The comparison with the script follows its description and does not run it: latents and prompts are
encoded once through `datasets`, which stores them as lists; each latent is one sample of the
posterior; the collate function makes tensors of the lists; noise comes from the global generator.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import training_bench as bench  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import DDPMScheduler  # noqa: E402
from PIL import Image  # noqa: E402

from authface_train.data.latents import cached_latents  # noqa: E402
from authface_train.data.prompts import cached_prompts, time_ids  # noqa: E402
from authface_train.data.samples import Sample  # noqa: E402
from authface_train.models.sdxl import detach_core  # noqa: E402
from authface_train.presets import load_preset  # noqa: E402
from authface_train.settings import PriorSettings  # noqa: E402
from authface_train.stages.prior import PriorTrainer, make_trainable, prior_losses  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

NUM_ROUNDS = 9
NO_PICTURES = {"audit": False, "draw.every": 0}
CAPTIONS = [f"person {number}, black hair, soft light" for number in range(bench.NUM_FACES)]


def prior_settings(preset: str, overrides: Mapping[str, object]) -> PriorSettings:
    """Load the Stage I settings of a preset, without previews and audit.

    Args:
        preset: Name of the preset.
        overrides: Settings over those of the preset.
    """
    settings = load_preset("prior", preset, {**NO_PICTURES, **overrides})
    assert isinstance(settings, PriorSettings)
    return settings


# What is timed


def cached_trainer(
    workspace: Workspace, view: pd.DataFrame, settings: PriorSettings, accelerator: Accelerator
) -> PriorTrainer:
    """Fill the workspace's caches and build the trainer.

    Args:
        workspace: Holds the crops and the caches.
        view: The training faces.
        settings: Settings of the run.
        accelerator: Knows the device.
    """
    pipeline = bench.build_pipeline(bench.CPU_UNET)
    latents = cached_latents(
        workspace, pipeline.vae, view, bench.SIZE_PX, accelerator, lambda *_: None
    )
    prompts = cached_prompts(workspace, pipeline, [*CAPTIONS, ""], accelerator, lambda *_: None)
    core = detach_core(pipeline)
    null_prompt = prompts[bench.NUM_FACES]
    return PriorTrainer(
        settings=settings,
        core=core,
        view=view,
        latents=latents,
        prompts=prompts,
        null_prompt=null_prompt,
        accelerator=accelerator,
    )


def bare_step(
    settings: PriorSettings,
    unet_config: Mapping[str, object],
    batch: Sample,
    accelerator: Accelerator,
) -> Callable[[], None]:
    """Forward, backward, clipping and optimizer step on one fixed batch.

    Args:
        settings: Settings of the run.
        unet_config: Configuration of the U-Net, see `build_pipeline`.
        batch: The batch, on the device.
        accelerator: Knows the device and the precision.
    """
    core = bench.build_core(unet_config)
    unet = make_trainable(core.unet, settings).to(accelerator.device)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    scheduler = DDPMScheduler.from_config(core.scheduler.config)
    size_conditioning = torch.tensor(time_ids(settings.resolution_px), device=accelerator.device)

    def step() -> None:
        with accelerator.autocast():
            loss = prior_losses(unet, batch, size_conditioning, scheduler).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def diffusers_step(
    workspace: Workspace, settings: PriorSettings, accelerator: Accelerator
) -> Callable[[], None]:
    """The step of diffusers' SDXL script; latents and prompts are encoded before it is returned.

    Args:
        workspace: Holds the crops.
        settings: Settings of the run.
        accelerator: Knows the device.
    """
    import datasets

    datasets.disable_progress_bars()
    pipeline = bench.build_pipeline(bench.CPU_UNET)
    crops = [str(workspace.local_path(f"faces/{number}.png")) for number in range(bench.NUM_FACES)]

    @torch.no_grad()
    def encode_prompts(rows: dict[str, list[str]]) -> dict[str, np.ndarray]:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            rows["text"],
            device=torch.device("cpu"),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return {"prompt_embeds": embeds.numpy(), "pooled_prompt_embeds": pooled.numpy()}

    @torch.no_grad()
    def encode_images(rows: dict[str, list[str]]) -> dict[str, np.ndarray]:
        pixels = np.stack([np.asarray(Image.open(file)) for file in rows["file"]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipeline.vae.encode(images).latent_dist.sample()
        return {"model_input": (latents * pipeline.vae.config.scaling_factor).numpy()}

    table = datasets.Dataset.from_dict({"file": crops, "text": CAPTIONS})
    table = table.map(encode_prompts, batched=True, batch_size=16)
    table = table.map(encode_images, batched=True, batch_size=16)

    def collate(rows: list[dict[str, list[float]]]) -> Sample:
        names = ("model_input", "prompt_embeds", "pooled_prompt_embeds")
        return {name: torch.stack([torch.tensor(row[name]) for row in rows]) for name in names}

    loader = torch.utils.data.DataLoader(
        table, shuffle=True, collate_fn=collate, batch_size=settings.micro_batch
    )
    unet = make_trainable(pipeline.unet, settings)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    size_conditioning = torch.tensor([time_ids(bench.SIZE_PX)])

    def endless_batches() -> Iterator[Sample]:
        while True:
            yield from loader

    batches = endless_batches()

    def step() -> None:
        batch = next(batches)
        latents = batch["model_input"]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (len(latents),))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        conditions = {
            "text_embeds": batch["pooled_prompt_embeds"],
            "time_ids": torch.cat([size_conditioning] * len(latents)),
        }
        prediction = unet(
            noisy, timesteps, batch["prompt_embeds"], added_cond_kwargs=conditions
        ).sample
        loss = F.mse_loss(prediction.float(), noise.float(), reduction="mean")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()

    return step


def compare_on_cpu() -> None:
    """Print the overhead over the bare step, and images/s compared with diffusers' script."""
    settings = prior_settings("tiny", bench.ROUND_SETTINGS)
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        workspace = Workspace.create(root / "ws", preset_text("embedded"))
        view = bench.make_crops(workspace, bench.SIZE_PX)

        started_s = time.perf_counter()
        trainer = cached_trainer(workspace, view, settings, accelerator)
        caches_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        script_step = diffusers_step(workspace, settings, accelerator)
        script_encoding_s = time.perf_counter() - started_s

        batch = bench.make_batch(trainer, bench.BATCH, accelerator.device)
        variants: dict[str, bench.Variant] = {
            "bare": bench.step_variant(bare_step(settings, bench.CPU_UNET, batch, accelerator)),
            "loop": bench.LoopVariant(
                trainer, settings=settings, stage="prior", root=root, accelerator=accelerator
            ),
            "script": bench.step_variant(script_step),
        }
        for warm_up in variants.values():
            warm_up()
        durations_s = bench.time_variants(variants, NUM_ROUNDS)

    bench.print_variants(durations_s)
    pairs = zip(durations_s["loop"], durations_s["bare"], strict=True)
    added_s = statistics.median(loop_s - bare_s for loop_s, bare_s in pairs)
    overhead = bench.median_ratio(durations_s, "loop", "bare") - 1
    print(f"overhead over the bare step: {overhead:.1%}, {1000 * added_s:.1f} ms a step")
    speedup = bench.median_ratio(durations_s, "script", "loop")
    print(f"images/s compared with the script's procedure: {speedup:.3f} times")
    print(
        f"before the first step: {caches_s:.2f} s, cached for later runs, for both mirror images; "
        f"{script_encoding_s:.2f} s for the script"
    )


if __name__ == "__main__":
    compare_on_cpu()
