"""What the Stage II trainer costs over the bare step, and beside the semantics of diffusers' train_controlnet_sdxl.py.

    python benchmarks/train_restore.py          on this machine's CPU: overhead, the facial loss's share, images/s side by side
    python benchmarks/train_restore.py --gpu    the true SDXL U-Net and ControlNet with random weights at 512 px: images/s, peak
                                                memory, the facial loss's share of a step, whether the loader keeps up
    python benchmarks/train_restore.py --gpu --tiny    the same code on a tiny model, without a card, to see that it runs

The overhead is that of the loop: its period from one step to the next over the step within it (forward, backward, optimisers),
so waiting for the worker that makes the degraded faces, logging, progress. Beside it stands its period over that of a bare step
on samples that a plain DataLoader's worker makes, and over one on a batch that is there: on a CPU the worker and the step
share memory's bandwidth, and the step pays for that in either loop. Rounds of all kinds take turns.

That script's semantics, from its description: pairs of pictures on disk, decoded, scaled to the resolution and turned to
tensors for every step, the VAE encoding each step's batch, prompts encoded once; no facial loss, so that it stands beside ours
with `facial.weight=off`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import DDPMScheduler  # noqa: E402
from PIL import Image  # noqa: E402
from train_prior import SDXL, WIDER, pipeline_of, timed  # noqa: E402

from authface_train.data.latents import cached_latents  # noqa: E402
from authface_train.data.prompts import Embedding, cached_prompts  # noqa: E402
from authface_train.data.sample_keys import SampleKey  # noqa: E402
from authface_train.memory.dry_run import DummyCache  # noqa: E402
from authface_train.models.sdxl import DiffusionCore, detach_core, tiny_sdxl  # noqa: E402
from authface_train.presets import load_preset  # noqa: E402
from authface_train.runs.run_folder import RunFolder  # noqa: E402
from authface_train.stages.restorer import RestorerTrainer, make_controlnet, stacked  # noqa: E402
from authface_train.training import loop  # noqa: E402
from authface_train.training.loop import Losses, Sample  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

FACES, ROUNDS, STEPS, BATCH, SIZE_PX = 32, 6, 12, 6, 128
ON = ["facial.start_step=0", "facial.discriminator_only_steps=0", "facial.ramp_steps=0"]


def make_crops(workspace: Workspace, size_px: int) -> pd.DataFrame:
    """Soft colours in the place of crops, about as dear to degrade as photographs, with boxes for eyes and mouth."""
    rng = np.random.default_rng(0)
    boxes = {
        "left_eye": (0.30, 0.42, 0.42, 0.54),
        "right_eye": (0.58, 0.42, 0.70, 0.54),
        "mouth": (0.36, 0.66, 0.64, 0.82),
    }
    rows = []
    for number in range(FACES):
        path = workspace.local(f"faces/{number}.png")
        path.parent.mkdir(exist_ok=True)
        soft = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
        soft.resize((size_px, size_px), Image.Resampling.BICUBIC).save(path)
        regions = {
            f"{name}_box_crop_px": [edge * size_px for edge in box] for name, box in boxes.items()
        }
        seen = {f"{name}_visible": True for name in boxes}
        rows.append(
            {"face_id": f"face-{number}", "crop_path": f"faces/{number}.png", "crop_sha256": f"{number:064d}",
             "crop_size_px": size_px, **regions, **seen}
        )  # fmt: skip
    return pd.DataFrame(rows)


def make_trainer(
    workspace: Workspace, view: pd.DataFrame, accelerator: Accelerator, *changes: str
) -> RestorerTrainer:
    settings = load_preset(
        "restorer", "tiny",
        [f"steps={STEPS}", f"batch={BATCH}", f"micro_batch={BATCH}", "checkpoint_every=1000", "workers=1",
         f"resolution_px={SIZE_PX}", *ON, *changes],
    )  # fmt: skip
    pipeline = pipeline_of(WIDER)
    latents = cached_latents(workspace, pipeline.vae, view, SIZE_PX, accelerator, lambda *_: None)
    null = cached_prompts(workspace, pipeline, [""], accelerator, lambda *_: None)[0]
    core = detach_core(pipeline)
    return RestorerTrainer(
        settings,
        core,
        make_controlnet(core.unet, 0, core.vae_scale_factor),
        workspace,
        view,
        latents,
        null,
        accelerator,
    )


class Looped:
    """Rounds of the loop, each giving its periods in seconds. added: what the loop adds to each step, as a share of it."""

    def __init__(self, trainer: RestorerTrainer, root: Path, accelerator: Accelerator):
        self.trainer, self.root, self.accelerator = trainer, root, accelerator
        self.added: list[float] = []
        self._times: list[tuple[float, float]] = []
        self._numbers = itertools.count()
        step = trainer.step

        def timed_step(number: int, draws: list[SampleKey], micros: Iterator[Sample]) -> Losses:
            began = time.perf_counter()
            batch = next(micros)  # waiting for the loader is the loop's
            given = time.perf_counter()
            losses = step(number, draws, iter([batch]))
            self._times.append((began, time.perf_counter() - given))
            return losses

        trainer.step = timed_step  # type: ignore[method-assign]
        for face in range(FACES):  # decoded once: workers are forked with that
            trainer.sample(SampleKey(0, face))

    def __call__(self) -> list[float]:
        self._times.clear()
        folder = self.root / f"run-{id(self)}-{next(self._numbers)}"
        folder.mkdir()
        loop.train(
            self.trainer, self.trainer.settings, RunFolder(folder, "restorer"), self.accelerator
        )
        pairs = list(itertools.pairwise(self._times[3:]))
        periods = [after[0] - before[0] for before, after in pairs]
        self.added += [
            period / before[1] - 1 for period, (before, _) in zip(periods, pairs, strict=True)
        ]
        return periods


def bare(trainer: RestorerTrainer, fed: bool) -> Callable[[], list[float]]:
    """The step alone: forward, backward, clipping, optimisers, facial loss where it is on. fed: on samples that a worker makes
    meanwhile, else on a batch that is there."""
    draws = [SampleKey(0, face) for face in range(BATCH)]
    batch = stacked([trainer.sample(draw) for draw in draws])

    class Samples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, number: int) -> Sample:
            return trainer.sample(SampleKey(number // FACES, number % FACES))

    loader = (
        iter(torch.utils.data.DataLoader(Samples(), batch_size=BATCH, num_workers=1))
        if fed
        else itertools.repeat(batch)
    )

    def rounds() -> list[float]:
        periods = []
        for number in range(STEPS):
            began = time.perf_counter()
            trainer.step(number + 1, draws, iter([next(loader)]))
            periods.append(time.perf_counter() - began)
        return periods[3:-1]  # the first batches were made while others had their round

    return rounds


def script(workspace: Workspace, view: pd.DataFrame) -> Callable[[], list[float]]:
    """The semantics of diffusers' ControlNet script for SDXL."""
    pipeline = pipeline_of(WIDER)
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            "", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    unet, vae = pipeline.unet.requires_grad_(False), pipeline.vae.requires_grad_(False)
    controlnet = make_controlnet(unet, 0, 8).train()
    optimiser = torch.optim.AdamW(controlnet.parameters(), lr=1e-4, fused=True)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    files = [workspace.local(path) for path in view["crop_path"]]
    ids = torch.tensor([[float(SIZE_PX)] * 2 + [0.0, 0.0] + [float(SIZE_PX)] * 2])

    def tensor(file: Path) -> torch.Tensor:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255

    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            file = files[number % len(files)]
            return 2 * tensor(file) - 1, tensor(file)

    loader = iter(torch.utils.data.DataLoader(Pairs(), batch_size=BATCH, num_workers=1))

    def rounds() -> list[float]:
        periods = []
        for _ in range(STEPS):
            began = time.perf_counter()
            clean, hint = next(loader)
            with torch.no_grad():
                latents = vae.encode(clean).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            t_step = torch.randint(1000, (BATCH,))
            noisy = scheduler.add_noise(latents, noise, t_step)
            words = embeds.expand(BATCH, -1, -1)
            added = {"text_embeds": pooled.expand(BATCH, -1), "time_ids": ids.expand(BATCH, -1)}
            down, middle = controlnet(
                noisy, t_step, words, hint, added_cond_kwargs=added, return_dict=False
            )
            made = unet(
                noisy, t_step, words, added_cond_kwargs=added,
                down_block_additional_residuals=down, mid_block_additional_residual=middle,
            ).sample  # fmt: skip
            F.mse_loss(made, noise).backward()
            torch.nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            periods.append(time.perf_counter() - began)
        return periods[3:-1]

    return rounds


def on_cpu() -> None:
    accelerator = Accelerator(cpu=True)
    torch.set_num_threads(max((os.cpu_count() or 2) - 1, 1))  # a core is the worker's
    cv2.setNumThreads(1)  # before workers are forked
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        workspace = Workspace.create(root / "ws", preset_text("embedded"))
        view = make_crops(workspace, 512)
        on, off = (
            make_trainer(workspace, view, accelerator),
            make_trainer(workspace, view, accelerator, "facial.weight=off"),
        )
        ours_on, ours_off = Looped(on, root, accelerator), Looped(off, root, accelerator)
        kinds: dict[str, Callable[[], list[float]]] = {
            "bare, a batch that is there": bare(on, fed=False), "bare": bare(on, fed=True), "ours": ours_on,
            "bare, no facial loss": bare(off, fed=True), "ours, no facial loss": ours_off, "script": script(workspace, view),
        }  # fmt: skip
        for rounds in kinds.values():  # once for nothing: memory, threads, decoded faces
            rounds()
        ours_on.added, ours_off.added = [], []
        took: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, rounds in kinds.items():
                took[name].append(statistics.median(rounds()))
    print(
        f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores; medians of {ROUNDS} rounds of {STEPS} steps"
    )
    for name, each in took.items():
        value = 1000 * statistics.median(each)
        print(f"{name:>27}: {value:7.1f} ms a step, {1000 * BATCH / value:6.2f} images/s")

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(took[one], took[other], strict=True))

    for name, looped in (("", ours_on), (", no facial loss", ours_off)):
        print(f"overhead over the step within{name}: {100 * statistics.median(looped.added):.1f} %")
    print(f"over the bare step: {100 * (ratio('ours', 'bare') - 1):.1f} %")
    print(
        f"over the bare step on a batch that is there: {100 * (ratio('ours', 'bare, a batch that is there') - 1):.1f} %"
    )
    print(
        f"the facial loss's share of the step: {100 * (1 - ratio('bare, no facial loss', 'bare')):.1f} %"
    )
    print(
        f"images/s over the script's semantics, no facial loss: {ratio('script', 'ours, no facial loss'):.3f} times"
    )


def on_gpu(tiny: bool) -> None:
    """The step on a batch of noise, the largest that fits, with and without facial loss; and what one worker delivers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not tiny:
        sys.exit("no CUDA card here: --tiny runs the same code on a tiny model")
    accelerator = Accelerator(mixed_precision="no" if tiny else "bf16", cpu=device.type == "cpu")
    preset, size = ("tiny", 128) if tiny else ("1x80gb", 512)
    with tempfile.TemporaryDirectory() as temp:
        workspace = Workspace.create(Path(temp) / "ws", preset_text("embedded"))
        view = make_crops(workspace, 512)
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(f"{name}; torch {torch.__version__}; {size} px")
        print(
            "| micro-batch | checkpointing | images/s | no facial loss | facial share | peak GB |\n|---|---|---|---|---|---|"
        )
        for micro, again in (
            ((4, False),) if tiny else ((4, False), (8, False), (16, True), (32, True))
        ):
            took, peak = {}, float("nan")
            for weight in ("time-aware", "off"):
                settings = load_preset(
                    "restorer", preset,
                    [f"batch={micro}", f"micro_batch={micro}", f"gradient_checkpointing={str(again).lower()}",
                     f"facial.weight={weight}", f"resolution_px={size}", *ON],
                )  # fmt: skip
                unet = pipeline_of({} if tiny else SDXL).unet
                core = DiffusionCore(unet, tiny_sdxl(0).scheduler, 0.13025, 8)
                config = unet.config
                pooled = (
                    config.projection_class_embeddings_input_dim
                    - 6 * config.addition_time_embed_dim
                )
                null = Embedding(torch.randn(77, config.cross_attention_dim), torch.randn(pooled))
                latents = DummyCache(
                    torch.randn(2, 2, config.in_channels, size // 8, size // 8), FACES
                )
                controlnet = make_controlnet(unet, 0, 8)
                trainer = RestorerTrainer(
                    settings, core, controlnet, workspace, view, latents, null, accelerator
                )
                draws = [SampleKey(0, face % FACES) for face in range(micro)]
                batch = {
                    key: value.to(device)
                    for key, value in stacked([trainer.sample(draw) for draw in draws]).items()
                }
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                try:
                    took[weight] = timed(partial(one_step, trainer, draws, batch), device)
                except torch.cuda.OutOfMemoryError:
                    break
                finally:
                    del trainer, controlnet, core, unet
                if device.type == "cuda" and weight == "time-aware":
                    peak = torch.cuda.max_memory_allocated() / 1e9
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            if len(took) == 2:
                with_, without = took["time-aware"], took["off"]
                share = f"{100 * (1 - without / with_):.1f} %"
                print(
                    f"| {micro} | {again} | {micro / with_:.2f} | {micro / without:.2f} | {share} | {peak:.1f} |"
                )
        torch.set_num_threads(1)
        trainer = make_trainer(workspace, view, Accelerator(cpu=True) if tiny else accelerator)
        began = time.perf_counter()
        for face in range(FACES):
            trainer.sample(SampleKey(1, face))
        print(
            f"one worker makes {FACES / (time.perf_counter() - began):.1f} samples/s of decoded crops"
        )


def one_step(
    trainer: RestorerTrainer, draws: list[SampleKey], batch: dict[str, torch.Tensor]
) -> None:
    trainer.step(1, draws, iter([batch]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    on_gpu(given.tiny) if given.gpu else on_cpu()
