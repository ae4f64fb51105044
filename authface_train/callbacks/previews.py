"""Pictures that Stage I draws of fixed prompts from fixed noise, so that its progress can be looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from PIL import Image, ImageDraw, ImageFont

from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import torch_generator
from authface_train.runs.checkpoint import TrainableModel
from authface_train.settings import PriorSettings
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.sharding import reshard

LABEL_PX, CELL_PX = 18, 256


@dataclass(frozen=True)
class PreviewBatch:
    """latents: (prompts x seeds, channels, h, w), times the scaling factor; pictures: as many (H, W, 3) uint8."""

    latents: torch.Tensor
    pictures: list[np.ndarray]


class PreviewSampler:
    """Draws every prompt from every seed with the weights as they are, or with their average where one is kept.

    latent_shape: (channels, h, w). load_vae: gives the VAE, which is only there while pictures are made. All processes draw,
    since the model may be divided among them; the main one has pictures.
    """

    def __init__(
        self,
        settings: PriorSettings,
        part: TrainableModel,
        scheduler: Any,
        prompts: Sequence[tuple[str, Embedding]],
        null_prompt: Embedding,
        latent_shape: tuple[int, ...],
        load_vae: Callable[[], Any],
        accelerator: Accelerator,
        folder: Path,
    ):
        self.settings, self.part, self.scheduler, self.prompts = settings, part, scheduler, prompts
        self.null_prompt, self.latent_shape, self.load_vae = null_prompt, latent_shape, load_vae
        self.accelerator, self.folder = accelerator, folder
        self._last: tuple[int, PreviewBatch] | None = None

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        """A grid where it is time for one and none is there."""
        every = self.settings.draw.every
        path = self.folder / f"step-{step:08d}.png"
        if (
            not every
            or (step % every and step != self.settings.steps)
            or broadcast_decision(path.exists())
        ):
            return
        drawn = self.draw(step)
        if watch is not None:
            picture = label_grid(drawn.pictures, [words for words, _ in self.prompts])
            self.folder.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            watch.picture("drawn", step, picture)

    def draw(self, step: int) -> PreviewBatch:
        """What the model draws after `step` steps; asked twice it is drawn once."""
        if self._last is None or self._last[0] != step:
            latents = self._latents()
            pictures = (
                decode(self.load_vae(), latents, self.accelerator.device)
                if self.accelerator.is_main_process
                else []
            )
            self._last = step, PreviewBatch(latents, pictures)
        return self._last[1]

    @torch.no_grad()
    def _latents(self) -> torch.Tensor:
        from diffusers import StableDiffusionXLPipeline

        unet = self.accelerator.unwrap_model(self.part.module)
        unet.eval()
        pipeline: Any = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=type(self.scheduler).from_config(self.scheduler.config),
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        size, own, device = self.settings.resolution_px, self.settings.draw, self.accelerator.device
        null = Embedding(*(one[None].to(device) for one in self.null_prompt))
        height, width = time_ids(size)[:2]
        made = []
        with (
            self.part.ema.in_place() if self.part.ema else contextlib.nullcontext(),
            self.accelerator.autocast(),
        ):
            for _, prompt in self.prompts:
                for seed in own.seeds:
                    shape = (1, *self.latent_shape)
                    made.append(
                        pipeline(
                            prompt_embeds=prompt.embeds[None].to(device),
                            pooled_prompt_embeds=prompt.pooled[None].to(device),
                            negative_prompt_embeds=null.embeds,
                            negative_pooled_prompt_embeds=null.pooled,
                            height=size,
                            width=size,
                            original_size=(int(height), int(width)),
                            target_size=(int(height), int(width)),
                            num_inference_steps=own.steps,
                            guidance_scale=own.guidance,
                            latents=torch.randn(
                                shape, generator=torch_generator(seed, 0, "", "draw")
                            ).to(device),
                            output_type="latent",
                        ).images.float()
                    )
        unet.train()
        reshard(unet)
        return torch.cat(made).cpu()


def broadcast_decision(answer: bool) -> bool:
    """The main process's answer, for all: they see other disks, and must not part company."""
    answers = [answer]
    broadcast_object_list(answers)
    return answers[0]


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor, device: torch.device) -> list[np.ndarray]:
    """(H, W, 3) uint8 of each latent, times the scaling factor, in fp32."""
    vae = vae.to(device, torch.float32).eval()
    pictures = []
    for latent in latents:
        decoded = vae.decode(latent[None].to(device) / vae.config.scaling_factor).sample[0]
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
        pictures.append(pixels.permute(1, 2, 0).cpu().numpy())
    return pictures


def label_grid(
    pictures: Sequence[np.ndarray], labels: Sequence[str], cell_px: int = CELL_PX
) -> Image.Image:
    """A row per label, each with its share of the pictures, in order."""
    columns = len(pictures) // len(labels)
    sheet = Image.new("RGB", (columns * cell_px, len(labels) * (cell_px + LABEL_PX)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        cell = Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
        sheet.paste(cell, (column * cell_px, row * (cell_px + LABEL_PX) + LABEL_PX))
    for row, label in enumerate(labels):
        pen.text((3, row * (cell_px + LABEL_PX) + 2), label, fill="black", font=font)
    return sheet
