"""Restoring aligned faces with a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from authface_train.data.prompts import time_ids
from authface_train.run import NOTES
from manifests import hub
from manifests.errors import UserMistake


class Restorer:
    """A model of ours, loaded once. Raises UserMistake for a folder that is no restorer, Missing where it cannot be had."""

    def __init__(self, model: str, weights_dir: str | None = None):
        from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline

        where = hub.locate(model, weights_dir)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        try:
            pipeline: Any = StableDiffusionXLControlNetPipeline.from_pretrained(where, dtype=dtype)
        except OSError as error:
            raise hub.missing(model, "model_index.json and the folders beside it", weights_dir, error) from error
        except ValueError as error:
            raise UserMistake(
                f"{model} is no restorer (it has no ControlNet): name a run of `authface train-restore`"
            ) from error
        pipeline.vae.to(torch.float32)
        # Latents are not pixels: they go beyond 1, and must not be clipped there.
        config = pipeline.scheduler.config
        pipeline.scheduler = DDPMScheduler.from_config(config, clip_sample=False, thresholding=False)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(self.device)
        notes = Path(where, NOTES)
        self.notes: dict[str, Any] = (
            json.loads(notes.read_text()) if notes.is_file() else {"resolution_px": 512, "time_ids": time_ids(512)}
        )
        self.size_px = int(self.notes["resolution_px"])

    def restore(self, pictures: Sequence[np.ndarray], steps: int, seed: int) -> list[np.ndarray]:
        """Restored pictures, (size, size, 3) uint8, of aligned faces (H, H, 3) uint8, each by its own generator of one seed.

        The null prompt is the encoded "", as in training; no classifier-free guidance.
        """
        size = (self.size_px, self.size_px)
        hints = [Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS) for picture in pictures]
        generators = [torch.Generator("cpu").manual_seed(seed) for _ in hints]
        ids = [int(number) for number in self.notes["time_ids"]]
        latents = self.pipeline(
            prompt=[""] * len(hints),
            image=hints,
            width=size[0],
            height=size[1],
            original_size=tuple(ids[:2]),
            crops_coords_top_left=tuple(ids[2:4]),
            target_size=tuple(ids[4:]),
            num_inference_steps=steps,
            guidance_scale=1.0,
            generator=generators,
            output_type="latent",
        ).images
        # Decoded here, in fp32: SDXL's VAE does not stand fp16, and diffusers would hand it half latents.
        vae = self.pipeline.vae
        with torch.no_grad():
            decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
        return [np.asarray(image) for image in self.pipeline.image_processor.postprocess(decoded, output_type="pil")]
