"""Periodic validation of Stage II: restores and scores fixed degraded faces during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline

from authface_data.quality.library_weights import find_missing
from authface_train.callbacks.image_grid import label_grid, to_image
from authface_train.callbacks.sampling import decode_latents, evaluation_mode, latent_pipeline
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import SampleKey, torch_generator
from authface_train.evaluation.metrics import ImageMetrics
from authface_train.settings import ValidationSettings
from authface_train.training.sharding import broadcast_decision
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import VALIDATION_FACES_FILE, VALIDATION_FILE, step_name
from manifests.support.csv_file import read_rows, write_rows

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel

    from authface_train.training.metrics_logger import MetricsLogger

logger = logging.getLogger(__name__)


class Validation:
    """Restores fixed degraded faces every few steps, scores them and saves them as a strip.

    The ControlNet has its EMA weights if an EMA is kept. All processes restore, because the model
    may be sharded over them; only the main process decodes, scores and saves the images.

    Args:
        model: The ControlNet in training.
        unet: The frozen U-Net of the prior.
        scheduler: Noise scheduler of the prior; DDPM sampling with its configuration is used.
        pairs: Clean and degraded faces; the first `settings.faces` are restored.
        held_out: Whether the faces of `pairs` are held out of training. If not, the strip says so.
        null_prompt: Embedding of the empty prompt.
        latent_shape: (channels, height, width) of a latent.
        settings: Interval, number of faces and denoising steps.
        resolution_px: Side of the images.
        seed: Seed of the sampling noise.
        last_step: Number of steps of the whole run; validation also runs at its end.
        load_vae: Loads the VAE. It is loaded for each decoding and freed again to save memory.
        accelerator: The run's accelerator.
        folder: Where `validation.csv`, the strips `step-00001000.png` and the ids of the faces that
            they show are saved.
    """

    def __init__(
        self,
        *,
        model: TrainableModel,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        pairs: DegradedPairs,
        held_out: bool,
        null_prompt: Embedding,
        latent_shape: tuple[int, ...],
        settings: ValidationSettings,
        resolution_px: int,
        seed: int,
        last_step: int,
        load_vae: Callable[[], AutoencoderKL],
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.model = model
        self.unet = unet
        self.scheduler = scheduler
        self.pairs = pairs
        self.held_out = held_out
        self.null_prompt = null_prompt
        self.latent_shape = latent_shape
        self.settings = settings
        self.resolution_px = resolution_px
        self.seed = seed
        self.last_step = last_step
        self.load_vae = load_vae
        self.accelerator = accelerator
        self.folder = folder
        num_faces = min(settings.faces, len(pairs.face_ids))
        self.sample_keys = [SampleKey(epoch=0, index=index) for index in range(num_faces)]

    def on_step_end(self, step: int, metrics_logger: MetricsLogger | None) -> None:
        """Restore, score and save the faces if validation is due and the step has no strip yet."""
        every = self.settings.every
        if not every or (step % every and step != self.last_step):
            return
        path = self.folder / step_name(step, ".png")
        if broadcast_decision(path.exists()):
            return

        latents = self._restore_latents()
        if metrics_logger is None:
            return
        restored = decode_latents(self.load_vae(), latents, self.accelerator.device)
        clean = [self.pairs.clean_crop(key, False) for key in self.sample_keys]
        scores = _mean_scores(restored, clean)

        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_scores(step, scores)
        shown = [{"face_id": self.pairs.face_ids[key.index]} for key in self.sample_keys]
        write_rows(self.folder / VALIDATION_FACES_FILE, shown, columns=["face_id"])
        scores_text = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        faces = "held-out faces" if self.held_out else "training faces, no faces are held out"
        degraded = [to_image(self._degraded(key)) for key in self.sample_keys]
        strip = label_grid(
            [*degraded, *restored, *clean],
            [f"degraded ({faces})", f"restored at step {step}: {scores_text}", "clean"],
        )
        strip.save(path)
        metrics_logger.log_image("validation", step, strip)
        metrics_logger.log_scalars("validation", step, scores)
        logger.info("validation at step %d: %s", step, scores_text)

    def _degraded(self, key: SampleKey) -> torch.Tensor:
        """The degraded face, (3, size, size) float32 in [0, 1]."""
        return self.pairs.make_pair(key, False).degraded

    @torch.no_grad()
    def _restore_latents(self) -> torch.Tensor:
        """Restore (faces, channels, height, width) float32 latents, on the CPU."""
        device = self.accelerator.device
        image_size = (self.resolution_px, self.resolution_px)
        pipeline = latent_pipeline(
            StableDiffusionXLControlNetPipeline,
            unet=self.unet,
            controlnet=self.accelerator.unwrap_model(self.model.module),
            scheduler=DDPMScheduler.from_config(
                self.scheduler.config, clip_sample=False, thresholding=False
            ),
        )
        null_embeds = self.null_prompt.embeds[None].to(device)
        null_pooled = self.null_prompt.pooled[None].to(device)

        latents = []
        with evaluation_mode(self.model, self.accelerator):
            for key in self.sample_keys:
                # The sampler continues with this generator: the initial noise is its first draw.
                generator = torch_generator(
                    self.seed, 0, self.pairs.face_ids[key.index], "validation"
                )
                noise = torch.randn((1, *self.latent_shape), generator=generator)
                result = pipeline(
                    prompt_embeds=null_embeds,
                    pooled_prompt_embeds=null_pooled,
                    image=self._degraded(key)[None].to(device),
                    height=self.resolution_px,
                    width=self.resolution_px,
                    original_size=image_size,
                    target_size=image_size,
                    num_inference_steps=self.settings.steps,
                    guidance_scale=1.0,
                    latents=noise.to(device),
                    generator=generator,
                    output_type="latent",
                )
                latents.append(result.images.float())
        return torch.cat(latents).cpu()

    def _write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Add a row to validation.csv; rows of later steps, from before a resume, are dropped."""
        earlier = [row for row in read_validations(self.folder) if row["step"] < step]
        row = {"step": float(step), **scores}
        write_rows(self.folder / VALIDATION_FILE, [*earlier, row], columns=list(row))


def _mean_scores(restored: list[np.ndarray], clean: list[np.ndarray]) -> dict[str, float]:
    """Mean of each metric over the faces; LPIPS and MUSIQ only if their weights are installed."""
    optional = ["lpips", "musiq"]
    missing = find_missing(optional, None)
    names = ["psnr", "ssim", *(name for name in optional if name not in missing)]
    metrics = ImageMetrics(names, None, "cpu")
    scores_of_faces = []
    for image, reference in zip(restored, clean, strict=True):
        scores_of_faces.append(metrics.measure(image, reference))
    scores = pd.DataFrame(scores_of_faces)
    return {str(name): float(value) for name, value in scores.mean().items()}


def read_validations(folder: Path) -> list[dict[str, float]]:
    """Read validation.csv.

    Args:
        folder: The validation folder of a run; it may be missing.

    Returns:
        One dict per validation, by step: `step` and the metrics that have a value.
    """
    rows = []
    for row in read_rows(folder / VALIDATION_FILE):
        rows.append({name: float(value) for name, value in row.items() if value})
    return rows
