"""Restores aligned faces with a trained model: one of this package or the authors' weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image

from authface_train.data.prompts import time_ids
from authface_train.models.loading import load_parts
from authface_train.restore.colour_fix import COLOUR_FIXES
from authface_train.restore.sampling import Sampling, make_scheduler
from manifests.run_folder import read_notes
from manifests.support import hub
from manifests.support.errors import UserError
from manifests.support.model_folder import explain_loading

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLControlNetPipeline

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

DEFAULT_RESOLUTION_PX = 512
"""Size in pixels of models without notes, such as the authors'."""
REQUIRED_PARTS = ("unet", "controlnet", "vae", "scheduler")


class Restorer:
    """A restoration model with encoded prompts.

    Args:
        model: Folder of a model in diffusers' layout, or its id on the Hugging Face hub.
        sampling: Settings of the sampler.
        weights_dir: Folder of downloaded models, searched before the hub.
        precision: Data type of U-Net and ControlNet. `auto` is fp16 on a GPU and fp32 on the CPU.

    Attributes:
        folder: Folder of the model.
        pipeline: The pipeline. Its text encoders are dropped after the prompts are encoded.
        notes: Resolution and time ids that the model was trained with.
        size_px: Side of the faces that the model restores.

    Raises:
        UserError: If the folder does not hold a restorer.
        MissingResourceError: If the model is neither local nor can be downloaded.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        weights_dir: str | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.sampling = sampling
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision == "auto":
            precision = "fp16" if self.device.type == "cuda" else "fp32"
        folder = hub.download_model(
            model, weights_dir, "model_index.json and the folders of its parts"
        )
        self.folder = folder
        notes = read_notes(folder)
        self.size_px: int = notes.get("resolution_px") or DEFAULT_RESOLUTION_PX
        ids = notes.get("time_ids") or time_ids(self.size_px)
        self.notes: dict[str, Any] = {**notes, "time_ids": ids}

        pipeline = _load_pipeline(model, folder, DTYPES[precision])
        pipeline.set_progress_bar_config(disable=True)
        with explain_loading(folder):
            # SDXL's VAE overflows in fp16.
            pipeline.vae.to(torch.float32)
            self.pipeline = pipeline.to(self.device)
        with explain_loading(folder / "scheduler"):
            pipeline.scheduler = make_scheduler(sampling.scheduler, pipeline.scheduler.config)

        self._prompts = self._encode_prompts()
        self.pipeline.text_encoder = None
        self.pipeline.text_encoder_2 = None

    @torch.no_grad()
    def restore(self, pictures: Sequence[np.ndarray], seed: int | None = None) -> list[np.ndarray]:
        """Restore a batch of aligned faces.

        Each face has a separate random generator, so its result does not depend on the others.

        Args:
            pictures: Square faces, (side, side, 3) uint8 RGB, of any size.
            seed: Seed of every generator. Defaults to the seed of the sampling settings.

        Returns:
            Restored faces, (size_px, size_px, 3) uint8 RGB each.
        """
        hints = [self._resize(picture) for picture in pictures]
        if seed is None:
            seed = self.sampling.seed
        generators = [torch.Generator("cpu").manual_seed(seed) for _ in hints]
        initial_latents = None
        if self.sampling.start == "degraded":
            initial_latents = self._noisy_hints(hints, generators)
        prompts = {
            name: embedding.repeat_interleave(len(hints), dim=0)
            for name, embedding in self._prompts.items()
        }
        ids = [int(number) for number in self.notes["time_ids"]]
        latents = self.pipeline(
            **prompts,
            latents=initial_latents,
            image=hints,
            width=self.size_px,
            height=self.size_px,
            original_size=tuple(ids[:2]),
            crops_coords_top_left=tuple(ids[2:4]),
            target_size=tuple(ids[4:]),
            num_inference_steps=self.sampling.steps,
            guidance_scale=self.sampling.guidance,
            controlnet_conditioning_scale=self.sampling.conditioning_scale,
            generator=generators,
            output_type="latent",
        ).images
        restored = self.decode(latents)
        fix = COLOUR_FIXES[self.sampling.colour_fix]
        return [fix(face, np.asarray(hint)) for face, hint in zip(restored, hints, strict=True)]

    @torch.no_grad()
    def encode(self, *pictures: np.ndarray) -> torch.Tensor:
        """Encode pictures with the VAE.

        Args:
            *pictures: Square, (side, side, 3) uint8 RGB each, resized to the model's size.

        Returns:
            (batch, channels, height, width) float32: means of the posterior times the scaling
            factor. For SDXL height and width are size_px / 8.
        """
        resized = [self._to_tensor(self._resize(picture)) for picture in pictures]
        signed = (torch.stack(resized).float() / 127.5 - 1).to(self.device)
        vae = self.pipeline.vae
        return vae.encode(signed).latent_dist.mean * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[np.ndarray]:
        """Decode latents in fp32; the pipeline itself would pass half precision to the VAE.

        Args:
            latents: (batch, channels, height, width), scaled as by `encode`.

        Returns:
            Pictures, (size_px, size_px, 3) uint8 RGB each.
        """
        vae = self.pipeline.vae
        decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
        images = self.pipeline.image_processor.postprocess(decoded, output_type="pil")
        return [np.asarray(image) for image in images]

    @torch.no_grad()
    def predict_noise(self, noisy: torch.Tensor, t_step: int, degraded: np.ndarray) -> torch.Tensor:
        """Predict the noise of noisy latents, without guidance.

        Args:
            noisy: (1, channels, height, width) latents with the noise of timestep `t_step`.
            t_step: Timestep, 0 to 999.
            degraded: (side, side, 3) uint8 RGB, the hint of the ControlNet.

        Returns:
            Predicted noise, float32, same shape as `noisy`.
        """
        dtype = self.pipeline.unet.dtype
        hint = self._to_tensor(self._resize(degraded))[None].float() / 255
        prompt_embeds = self._prompts["prompt_embeds"].to(dtype)
        added_conditions = {
            "text_embeds": self._prompts["pooled_prompt_embeds"].to(dtype),
            "time_ids": torch.tensor([self.notes["time_ids"]], dtype=dtype, device=self.device),
        }
        timestep = torch.tensor([t_step], device=self.device)
        sample = noisy.to(dtype)
        down_residuals, mid_residual = self.pipeline.controlnet(
            sample,
            timestep,
            prompt_embeds,
            hint.to(self.device, dtype),
            added_cond_kwargs=added_conditions,
            return_dict=False,
        )
        prediction = self.pipeline.unet(
            sample,
            timestep,
            prompt_embeds,
            added_cond_kwargs=added_conditions,
            down_block_additional_residuals=down_residuals,
            mid_block_additional_residual=mid_residual,
        )
        return prediction.sample.float()

    @torch.no_grad()
    def _encode_prompts(self) -> dict[str, torch.Tensor]:
        """Prompt embeddings, (1, ...) each, by the pipeline's argument names."""
        embeddings = self.pipeline.encode_prompt(
            prompt=self.sampling.prompt,
            negative_prompt=self.sampling.negative_prompt,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=self.sampling.guidance > 1,
        )
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        named = zip(names, embeddings, strict=True)
        return {name: embedding for name, embedding in named if embedding is not None}

    def _noisy_hints(
        self, hints: Sequence[Image.Image], generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Latents of the degraded faces with the noise of the first step.

        Returns:
            (batch, channels, height, width) in the U-Net's dtype, divided by the scheduler's
            `init_noise_sigma`, because the pipeline multiplies them by it.
        """
        scheduler = self.pipeline.scheduler
        clean = self.encode(*(np.asarray(hint) for hint in hints))
        shape = clean.shape[1:]
        samples = [torch.randn(shape, generator=generator) for generator in generators]
        noise = torch.stack(samples).to(self.device)
        scheduler.set_timesteps(self.sampling.steps, device=self.device)
        noisy = scheduler.add_noise(clean, noise, scheduler.timesteps[:1].expand(len(hints)))
        return (noisy / scheduler.init_noise_sigma).to(self.pipeline.unet.dtype)

    def _resize(self, picture: np.ndarray) -> Image.Image:
        size = (self.size_px, self.size_px)
        return Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)

    @staticmethod
    def _to_tensor(image: Image.Image) -> torch.Tensor:
        """(3, height, width) uint8."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _load_pipeline(
    model: str, folder: Path, dtype: torch.dtype
) -> StableDiffusionXLControlNetPipeline:
    """Load a pipeline from a folder with or without `model_index.json`.

    The authors' weights come without the index.

    Args:
        model: What the user named, for error messages.
        folder: The local folder of the model.
        dtype: Data type of the networks.

    Raises:
        UserError: If the folder does not hold a restorer.
    """
    from diffusers import StableDiffusionXLControlNetPipeline

    for part in REQUIRED_PARTS:
        if not (folder / part).is_dir():
            raise UserError(
                f"{model} is not a restorer (it has no {part}); "
                "use a run of `authface train-restore`"
            )
    parts = load_parts(folder, dtype, with_controlnet=True)
    with explain_loading(folder):
        return StableDiffusionXLControlNetPipeline(**parts, add_watermarker=False)
