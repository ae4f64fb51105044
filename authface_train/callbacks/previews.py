"""Preview images of Stage I, drawn during training from fixed prompts and fixed noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionXLPipeline

from authface_train.callbacks.image_grid import label_grid
from authface_train.callbacks.sampling import decode_latents, evaluation_mode, latent_pipeline
from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import torch_generator
from authface_train.settings import DrawSettings
from authface_train.training.sharding import broadcast_decision
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import step_name

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SchedulerMixin

    from authface_train.training.metrics_logger import MetricsLogger


@dataclass(frozen=True)
class PreviewBatch:
    """The previews of one step, prompt by prompt and seed by seed.

    Attributes:
        latents: (prompts * seeds, channels, height, width) float32 on the CPU, multiplied by the
            scaling factor of the VAE.
        images: As many images (H, W, 3) uint8; empty on processes other than the main one.
    """

    latents: torch.Tensor
    images: list[np.ndarray]


class PreviewSampler:
    """Draws previews every few steps and saves them as a grid, one row per prompt.

    Every prompt is drawn once per seed, with the EMA weights if an EMA is kept. All processes
    sample, because the model may be sharded over them; only the main process decodes the images.

    Args:
        model: The U-Net in training.
        scheduler: Scheduler of the base model; a fresh copy is used for sampling.
        prompts: Captions to draw, each with its embedding.
        null_prompt: Embedding of the empty prompt, for classifier-free guidance.
        latent_shape: (channels, height, width) of a latent.
        settings: Interval, seeds, denoising steps and guidance scale.
        resolution_px: Side of the images.
        last_step: Number of steps of the whole run; previews are also drawn at its end.
        load_vae: Loads the VAE. It is loaded for each decoding and freed again to save memory.
        accelerator: The run's accelerator.
        folder: Where the grids are saved, as `step-00001000.png`.
    """

    def __init__(
        self,
        *,
        model: TrainableModel,
        scheduler: SchedulerMixin,
        prompts: Sequence[tuple[str, Embedding]],
        null_prompt: Embedding,
        latent_shape: tuple[int, ...],
        settings: DrawSettings,
        resolution_px: int,
        last_step: int,
        load_vae: Callable[[], AutoencoderKL],
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.model = model
        self.scheduler = scheduler
        self.prompts = prompts
        self.null_prompt = null_prompt
        self.latent_shape = latent_shape
        self.settings = settings
        self.resolution_px = resolution_px
        self.last_step = last_step
        self.load_vae = load_vae
        self.accelerator = accelerator
        self.folder = folder
        self._last_step_drawn: int | None = None
        self._last_batch: PreviewBatch | None = None

    def on_step_end(self, step: int, metrics_logger: MetricsLogger | None) -> None:
        """Save a grid of previews if one is due and the step has none yet."""
        every = self.settings.every
        if not every or (step % every and step != self.last_step):
            return
        path = self.folder / step_name(step, ".png")
        if broadcast_decision(path.exists()):
            return

        previews = self.draw(step)
        if metrics_logger is not None:
            grid = label_grid(previews.images, [caption for caption, _ in self.prompts])
            self.folder.mkdir(parents=True, exist_ok=True)
            grid.save(path)
            metrics_logger.log_image("drawn", step, grid)

    def draw(self, step: int) -> PreviewBatch:
        """Draw the previews of the current weights. All processes must call it together.

        Args:
            step: Number of finished steps. Another call for the same step returns the same batch.
        """
        if self._last_batch is None or self._last_step_drawn != step:
            latents = self._sample_latents()
            images = []
            if self.accelerator.is_main_process:
                images = decode_latents(self.load_vae(), latents, self.accelerator.device)
            self._last_batch = PreviewBatch(latents, images)
            self._last_step_drawn = step
        return self._last_batch

    @torch.no_grad()
    def _sample_latents(self) -> torch.Tensor:
        """Sample (prompts * seeds, channels, height, width) float32 on the CPU."""
        device = self.accelerator.device
        pipeline = latent_pipeline(
            StableDiffusionXLPipeline,
            unet=self.accelerator.unwrap_model(self.model.module),
            scheduler=type(self.scheduler).from_config(self.scheduler.config),
        )
        null_embeds = self.null_prompt.embeds[None].to(device)
        null_pooled = self.null_prompt.pooled[None].to(device)
        height, width = time_ids(self.resolution_px)[:2]
        original_size = (int(height), int(width))

        latents = []
        with evaluation_mode(self.model, self.accelerator):
            for _, prompt in self.prompts:
                for seed in self.settings.seeds:
                    generator = torch_generator(seed, 0, "", "draw")
                    noise = torch.randn((1, *self.latent_shape), generator=generator)
                    result = pipeline(
                        prompt_embeds=prompt.embeds[None].to(device),
                        pooled_prompt_embeds=prompt.pooled[None].to(device),
                        negative_prompt_embeds=null_embeds,
                        negative_pooled_prompt_embeds=null_pooled,
                        height=self.resolution_px,
                        width=self.resolution_px,
                        original_size=original_size,
                        target_size=original_size,
                        num_inference_steps=self.settings.steps,
                        guidance_scale=self.settings.guidance,
                        latents=noise.to(device),
                        output_type="latent",
                    )
                    latents.append(result.images.float())
        return torch.cat(latents).cpu()
