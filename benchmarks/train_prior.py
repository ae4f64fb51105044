"""What the Stage I trainer costs over the bare step, and beside the semantics of diffusers' train_text_to_image_sdxl.py.

    python benchmarks/train_prior.py            on this machine's CPU: overhead, and images/s side by side
    python benchmarks/train_prior.py --gpu      the true SDXL U-Net with random weights at 1024 px: images/s, peak memory and
                                                model FLOPs utilisation of each preset that fits, against the bare step
    python benchmarks/train_prior.py --gpu --tiny   the same code on a tiny model, without a card, to see that it runs

The overhead is that of the loop: data from the caches, draws, logging, losses by band, exchange between processes; its period
from one step to the next against forward, backward, clipping and optimiser on a batch that is there. Rounds of both take
turns. That script's semantics, from its description: latents and prompts encoded once through `datasets` and kept there as
lists, one sample of each latent, tensors made of lists in the collate function, noise from the global generator.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import DDPMScheduler, UNet2DConditionModel  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

from authface_train.data.latents import cached_latents  # noqa: E402
from authface_train.data.prompts import cached_prompts  # noqa: E402
from authface_train.memory.dry_run import DummyCache  # noqa: E402
from authface_train.memory.estimator import MemoryEstimator, capacity  # noqa: E402
from authface_train.memory.fake_tensor_pass import PriorPass  # noqa: E402
from authface_train.models.sdxl import DiffusionCore, detach_core, tiny_sdxl  # noqa: E402
from authface_train.presets import card_of, load_preset, names  # noqa: E402
from authface_train.runs.run_folder import RunFolder  # noqa: E402
from authface_train.stages.prior import PriorTrainer, make_trainable, noise_losses  # noqa: E402
from authface_train.training import loop  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

FACES, ROUNDS, STEPS, BATCH, SIZE_PX = 32, 9, 12, 6, 128
# A step of 200 to 400 ms, its prompts of SDXL's own size: 77 x 2048 and 1280.
WIDER = {
    "block_out_channels": (64, 128), "attention_head_dim": (4, 8), "layers_per_block": 2, "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 1280 + 6 * 8,
}  # fmt: skip

SDXL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10), "addition_time_embed_dim": 256, "norm_num_groups": 32,
    "projection_class_embeddings_input_dim": 2816, "cross_attention_dim": 2048,
}  # fmt: skip


def pipeline_of(config: dict[str, Any]) -> Any:
    """The tiny SDXL with another U-Net, and text encoders of two layers that give it what it takes."""
    pipeline = tiny_sdxl(0)
    torch.manual_seed(0)
    if config.get("cross_attention_dim") == 2048:
        one, two = (
            {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 8, "num_hidden_layers": 2,
             "projection_dim": width, "bos_token_id": 49406, "eos_token_id": 49407}
            for width in (768, 1280)
        )  # fmt: skip
        pipeline.text_encoder = CLIPTextModel(CLIPTextConfig(**one))
        pipeline.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**two))
    own = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    pipeline.unet = UNet2DConditionModel(**{**own, **config})
    return pipeline


def make_crops(workspace: Workspace) -> pd.DataFrame:
    """Pictures of noise in the place of crops: what they show does not matter here."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(FACES):
        path = workspace.local(f"faces/{number}.png")
        Image.fromarray(rng.integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8)).save(path)
        rows.append(
            {
                "face_id": f"face-{number}",
                "crop_path": f"faces/{number}.png",
                "crop_sha256": f"{number:064d}",
            }
        )
    return pd.DataFrame(rows)


def ours(
    root: Path, settings: Any, accelerator: Accelerator
) -> tuple[Callable[[], list[float]], float]:
    """Rounds of the loop, each giving its periods in seconds; and how long the caches took."""
    workspace = Workspace.create(root / "ws", preset_text("embedded"))
    view = make_crops(workspace)
    pipeline = pipeline_of(WIDER)
    began = time.perf_counter()
    latents = cached_latents(workspace, pipeline.vae, view, SIZE_PX, accelerator, lambda *_: None)
    captions = [f"person {number}, black hair, soft light" for number in range(FACES)]
    prompts = cached_prompts(workspace, pipeline, [*captions, ""], accelerator, lambda *_: None)
    cached = time.perf_counter() - began
    trainer = PriorTrainer(
        settings, detach_core(pipeline), view, latents, prompts, prompts[FACES], accelerator
    )
    step, starts = trainer.step, []

    def timed(*given: Any) -> Any:
        starts.append(time.perf_counter())
        return step(*given)

    trainer.step = timed  # type: ignore[method-assign]
    number = iter(range(10**6))

    def rounds() -> list[float]:
        starts.clear()
        folder = root / f"run-{next(number)}"
        folder.mkdir()
        loop.train(trainer, settings, RunFolder(folder, "prior"), accelerator)
        return [after - before for before, after in itertools.pairwise(starts[1:])]

    return rounds, cached


def bare(
    settings: Any, accelerator: Accelerator, config: dict[str, Any]
) -> Callable[[], list[float]]:
    """Forward, backward, clipping and optimiser, on tensors that are there."""
    pipeline = pipeline_of(config)
    unet = make_trainable(pipeline.unet, settings).to(accelerator.device)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    batch = noise_batch(settings, unet, 8, accelerator.device)
    ids = torch.tensor(
        [float(settings.resolution_px)] * 2 + [0.0, 0.0] + [float(settings.resolution_px)] * 2
    )

    class Draws:
        pass

    draws = Draws()
    draws.scheduler = scheduler  # type: ignore[attr-defined]

    def rounds() -> list[float]:
        periods = []
        for _ in range(STEPS):
            began = time.perf_counter()
            with accelerator.autocast():
                loss = noise_losses(draws, unet, batch, ids).mean()  # type: ignore[arg-type]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            periods.append(time.perf_counter() - began)
        return periods[1:-1]

    return rounds


def noise_batch(
    settings: Any, unet: Any, vae_scale_factor: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """A micro-batch in the shapes of a model."""
    count, cells = settings.micro_batch, settings.resolution_px // vae_scale_factor
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    with device:
        return {
            "latent": torch.randn(count, config.in_channels, cells, cells),
            "noise": torch.randn(count, config.in_channels, cells, cells),
            "t_step": torch.randint(1000, (count,)),
            "embeds": torch.randn(count, 77, config.cross_attention_dim),
            "pooled": torch.randn(count, pooled),
        }


def script(
    root: Path, settings: Any, accelerator: Accelerator
) -> tuple[Callable[[], list[float]], float]:
    """The semantics of diffusers' SDXL script: everything encoded once, kept in a `datasets` table as lists."""
    import datasets

    datasets.disable_progress_bars()
    pipeline = pipeline_of(WIDER)
    workspace = Workspace(root / "ws")
    table = datasets.Dataset.from_dict(
        {"file": [str(workspace.local(f"faces/{number}.png")) for number in range(FACES)],
         "text": [f"person {number}, black hair, soft light" for number in range(FACES)]}
    )  # fmt: skip
    began = time.perf_counter()

    def prompts(rows: dict[str, list[str]]) -> dict[str, Any]:
        with torch.no_grad():
            embeds, _, pooled, _ = pipeline.encode_prompt(
                rows["text"],
                device=torch.device("cpu"),
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return {"prompt_embeds": embeds.numpy(), "pooled_prompt_embeds": pooled.numpy()}

    def latents(rows: dict[str, list[str]]) -> dict[str, Any]:
        pictures = np.stack([np.asarray(Image.open(file)) for file in rows["file"]])
        with torch.no_grad():
            scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
            made = (
                pipeline.vae.encode(scaled).latent_dist.sample()
                * pipeline.vae.config.scaling_factor
            )
        return {"model_input": made.numpy()}

    table = table.map(prompts, batched=True, batch_size=16).map(
        latents, batched=True, batch_size=16
    )
    encoded = time.perf_counter() - began

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([torch.tensor(row[name]) for row in rows])
                for name in ("model_input", "prompt_embeds", "pooled_prompt_embeds")}  # fmt: skip

    loader = torch.utils.data.DataLoader(
        table, shuffle=True, collate_fn=collate, batch_size=settings.micro_batch
    )
    unet = make_trainable(pipeline.unet, settings)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    unet, optimiser, loader = accelerator.prepare(unet, optimiser, loader)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    ids = torch.tensor([float(SIZE_PX)] * 2 + [0.0, 0.0] + [float(SIZE_PX)] * 2)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from loader

    def rounds() -> list[float]:
        periods, source = [], batches()
        for _ in range(STEPS):
            began = time.perf_counter()
            batch = next(source)
            clean = batch["model_input"]
            noise = torch.randn_like(clean)
            t_step = torch.randint(1000, (len(clean),))
            noisy = scheduler.add_noise(clean, noise, t_step)
            added = {
                "text_embeds": batch["pooled_prompt_embeds"],
                "time_ids": torch.cat([ids[None]] * len(clean)),
            }
            prediction = unet(noisy, t_step, batch["prompt_embeds"], added_cond_kwargs=added).sample
            loss = F.mse_loss(prediction.float(), noise.float(), reduction="mean")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            loss.detach().item()
            periods.append(time.perf_counter() - began)
        return periods[1:-1]

    return rounds, encoded


def on_cpu() -> None:
    settings = load_preset(
        "prior", "tiny",
        [f"steps={STEPS}", f"batch={BATCH}", f"micro_batch={BATCH}", "checkpoint_every=1000", "audit=false", "draw.every=0",
         f"resolution_px={SIZE_PX}"],
    )  # fmt: skip
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        our_rounds, cached = ours(root, settings, accelerator)
        script_rounds, encoded = script(root, settings, accelerator)
        kinds = {
            "bare": bare(settings, accelerator, WIDER),
            "ours": our_rounds,
            "script": script_rounds,
        }
        for rounds in kinds.values():
            rounds()  # warm
        took: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, rounds in kinds.items():
                took[name].append(statistics.median(rounds()))
    milliseconds = {name: 1000 * statistics.median(each) for name, each in took.items()}
    ratios = [ours_ / bare_ for ours_, bare_ in zip(took["ours"], took["bare"], strict=True)]
    beside = [script_ / ours_ for script_, ours_ in zip(took["script"], took["ours"], strict=True)]
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"\n{machine}; medians of {ROUNDS} rounds of {STEPS} steps")
    for name, value in milliseconds.items():
        print(f"{name:>7}: {value:7.1f} ms a step, {1000 * BATCH / value:6.2f} images/s")
    over = statistics.median(ratios) - 1
    extra = statistics.median(
        1000 * (ours_ - bare_) for ours_, bare_ in zip(took["ours"], took["bare"], strict=True)
    )
    print(
        f"overhead over the bare step: {100 * over:.1f} %, {extra:.1f} ms a step (medians of the rounds' own)"
    )
    print(f"images/s over the script's semantics: {statistics.median(beside):.3f} times")
    print(
        f"before the first step: {cached:.2f} s for both flips, in caches that stay; {encoded:.2f} s for the script"
    )


def on_gpu(tiny: bool) -> None:
    """Presets that fit: the trainer's step on a micro-batch of noise, the bare one beside it."""
    from torch.utils.flop_counter import FlopCounterMode

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not tiny:
        sys.exit("no CUDA card here: --tiny runs the same code on a tiny model")
    config: dict[str, Any] = {} if tiny else SDXL
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak_flops = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
    dense = next((value for card, value in peak_flops.items() if card in name), None)
    print(f"{name}; torch {torch.__version__}")
    print(
        "| preset | micro-batch | images/s | bare images/s | peak GB | said GB | MFU |\n|---|---|---|---|---|---|---|"
    )
    for preset in (
        "paper",
        *(name for name in names() if (card := card_of(name)) and card.count == 1),
    ):
        changes = ["audit=false", "draw.every=0", *(["resolution_px=128"] if tiny else [])]
        settings = load_preset("prior", preset, changes)
        accelerator = Accelerator(
            mixed_precision=settings.mixed_precision, cpu=device.type == "cpu"
        )
        unet = pipeline_of(config).unet
        budget = MemoryEstimator(PriorPass(unet, settings, 8), device)
        micro = min(4 if tiny else 96, budget.derive_micro_batch(settings, 1, capacity(device, 1)))
        settings = settings.model_copy(update={"micro_batch": micro, "batch": micro})
        said = budget.memory(settings, micro, 1).total
        core = DiffusionCore(unet, tiny_sdxl(0).scheduler, 0.13025, 8)
        batch = noise_batch(settings, unet, 8, device)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            one = {key: value[:1].cpu() for key, value in batch.items()}
            ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]])
            unet(
                one["latent"],
                one["t_step"],
                one["embeds"],
                added_cond_kwargs={"text_embeds": one["pooled"], "time_ids": ids},
            )
        per_image = 3 * flops.get_total_flops()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        view = pd.DataFrame({"face_id": [f"{number}" for number in range(micro)]})
        latents = DummyCache(torch.zeros(2, 2, *batch["latent"].shape[1:]), micro)
        trainer = PriorTrainer(
            settings, core, view, latents, DummyCache(None, micro), None, accelerator
        )  # type: ignore[arg-type]
        ours_ = timed(
            lambda trainer=trainer, batch=batch: trainer.step(0, [], iter([batch])), device
        )
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
        del trainer, core, unet
        if device.type == "cuda":
            torch.cuda.empty_cache()
        bare_ = (
            statistics.median(bare(settings, accelerator, config)())
            if settings.optimiser == "adamw"
            else float("nan")
        )
        used = f"{100 * per_image * micro / ours_ / dense:.0f} %" if dense else "-"
        print(
            f"| {preset} | {micro} | {micro / ours_:.2f} | {micro / bare_:.2f} | {peak:.1f} | {said / 1e9:.1f} | {used} |"
        )


def timed(step: Callable[[], Any], device: torch.device) -> float:
    """Seconds, the median of several after two to warm."""
    took = []
    for _ in range(8):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return statistics.median(took[2:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    on_gpu(given.tiny) if given.gpu else on_cpu()
