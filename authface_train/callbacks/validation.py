"""Stage II's eyes: fixed degraded faces restored along the way into a strip, with metrics."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.callbacks.previews import broadcast_decision, decode, label_grid
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import SampleKey, torch_generator
from authface_train.evaluation.metrics import ImageMetrics, with_weights
from authface_train.runs.checkpoint import TrainableModel
from authface_train.settings import RestorerSettings
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.sharding import reshard
from manifests.support.console import console


class Validation:
    """An onlooker of the restorer's trainer. pairs: of people who are held out, where anybody is. All processes restore, since
    the model may be divided among them; the main one has pictures. folder: for validation.csv and the strips."""

    def __init__(
        self,
        settings: RestorerSettings,
        part: TrainableModel,
        unet: Any,
        scheduler: Any,
        pairs: DegradedPairs,
        held_out: bool,
        null_prompt: Embedding,
        latent_shape: tuple[int, ...],
        load_vae: Callable[[], Any],
        accelerator: Accelerator,
        folder: Path,
    ):
        self.settings, self.part, self.unet, self.scheduler = settings, part, unet, scheduler
        self.pairs, self.held_out, self.null_prompt, self.latent_shape = (
            pairs,
            held_out,
            null_prompt,
            latent_shape,
        )
        self.load_vae, self.accelerator, self.folder = load_vae, accelerator, folder
        self.draws = [
            SampleKey(0, face) for face in range(min(settings.validation.faces, len(pairs.paths)))
        ]

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        every = self.settings.validation.every
        path = self.folder / f"step-{step:08d}.png"
        if (
            not every
            or (step % every and step != self.settings.steps)
            or broadcast_decision(path.exists())
        ):
            return
        latents = self._latents()
        if watch is None:
            return
        restored = decode(self.load_vae(), latents, self.accelerator.device)
        clean = [self.pairs.clean(draw, False) for draw in self.draws]
        values = self._scores(restored, clean)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log(step, values)
        degraded = [
            np.rint(self._degraded(draw).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            for draw in self.draws
        ]
        told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        who = (
            "held-out people" if self.held_out else "people of the training set: nobody is held out"
        )
        picture = label_grid(
            [*degraded, *restored, *clean],
            [f"degraded ({who})", f"restored at step {step}: {told}", "clean"],
        )
        picture.save(path)
        watch.picture("validation", step, picture)
        for name, value in values.items():
            watch.board.add_scalar(f"validation/{name}", value, step)
        console.print(f"[bold]validation, step {step}:[/] {told}")

    def _degraded(self, draw: SampleKey) -> torch.Tensor:
        return self.pairs.pair(draw, False).degraded

    @torch.no_grad()
    def _latents(self) -> torch.Tensor:
        """Restored, (faces, channels, h, w), times the scaling factor."""
        from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline

        controlnet = self.accelerator.unwrap_model(self.part.module)
        controlnet.eval()
        scheduler = DDPMScheduler.from_config(
            self.scheduler.config, clip_sample=False, thresholding=False
        )
        pipeline: Any = StableDiffusionXLControlNetPipeline(
            vae=None,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=self.unet,
            controlnet=controlnet,
            scheduler=scheduler,
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        device, size = self.accelerator.device, self.settings.resolution_px
        embeds = self.null_prompt.embeds[None].to(device), self.null_prompt.pooled[None].to(device)
        made = []
        with (
            self.part.ema.in_place() if self.part.ema else contextlib.nullcontext(),
            self.accelerator.autocast(),
        ):
            for draw in self.draws:
                generator = torch_generator(
                    self.settings.seed, 0, self.pairs.face_ids[draw.index], "validation"
                )
                made.append(
                    pipeline(
                        prompt_embeds=embeds[0],
                        pooled_prompt_embeds=embeds[1],
                        image=self._degraded(draw)[None].to(device),
                        height=size,
                        width=size,
                        original_size=(size, size),
                        target_size=(size, size),
                        num_inference_steps=self.settings.validation.steps,
                        guidance_scale=1.0,
                        latents=torch.randn((1, *self.latent_shape), generator=generator).to(
                            device
                        ),
                        generator=generator,
                        output_type="latent",
                    ).images.float()
                )
        controlnet.train()
        reshard(controlnet)
        return torch.cat(made).cpu()

    def _scores(self, restored: list[np.ndarray], clean: list[np.ndarray]) -> dict[str, float]:
        measures = ImageMetrics(["psnr", "ssim", *with_weights(["lpips", "musiq"])], None, "cpu")
        found = pd.DataFrame([measures.of(*pair) for pair in zip(restored, clean, strict=True)])
        return {str(name): float(value) for name, value in found.mean().items()}

    def _log(self, step: int, values: dict[str, float]) -> None:
        rows = [
            *(row for row in read(self.folder) if row["step"] < step),
            {"step": float(step), **values},
        ]
        temp = self.folder / ".validation.csv"
        with temp.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[-1]), restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        temp.replace(self.folder / "validation.csv")


def read(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's validations, by step; none where there are none."""
    path = folder / "validation.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
