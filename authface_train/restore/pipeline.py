"""Restoring aligned faces with a trained model: one of ours, or the authors' released weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from authface_train.data.prompts import time_ids
from authface_train.restore.colour_fix import FIXES
from authface_train.restore.sampling import Sampling, make_scheduler
from authface_train.runs.run_folder import NOTES
from manifests.support import hub
from manifests.support.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Restorer:
    """A model, loaded once, its prompts encoded once. precision: of U-Net and ControlNet; auto is fp16 on a card, else fp32.

    Raises UserError for a folder that is no restorer, MissingResourceError where it cannot be had.
    """

    def __init__(
        self, model: str, sampling: Sampling, weights_dir: str | None = None, precision: Precision = "auto"
    ):  # fmt: skip
        self.sampling = sampling
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        kind = (
            ("fp16" if self.device.type == "cuda" else "fp32") if precision == "auto" else precision
        )
        where = hub.folder(model, weights_dir, "model_index.json and the folders beside it")
        pipeline = _load(model, where, TYPES[kind])
        # SDXL's VAE does not stand fp16.
        pipeline.vae.to(torch.float32)
        pipeline.scheduler = make_scheduler(sampling.scheduler, pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(self.device)
        self._prompts = self._encoded()
        for name in ("text_encoder", "text_encoder_2"):
            setattr(pipeline, name, None)  # they have said all they have to say
        notes = where / NOTES
        self.notes: dict[str, Any] = (
            json.loads(notes.read_text())
            if notes.is_file()
            else {"resolution_px": 512, "time_ids": time_ids(512)}
        )
        self.size_px = int(self.notes["resolution_px"])

    @torch.no_grad()
    def _encoded(self) -> dict[str, torch.Tensor]:
        guided = self.sampling.guidance > 1
        found = self.pipeline.encode_prompt(
            prompt=self.sampling.prompt,
            negative_prompt=self.sampling.negative_prompt,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
        )
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        return {name: value for name, value in zip(names, found, strict=True) if value is not None}

    @torch.no_grad()
    def restore(self, pictures: Sequence[np.ndarray], seed: int | None = None) -> list[np.ndarray]:
        """Restored pictures, (size, size, 3) uint8, of aligned faces (H, H, 3) uint8, each by its own generator of one seed.

        seed: the sampling's own where it is not given. What a face becomes does not depend on the others.
        """
        size = (self.size_px, self.size_px)
        hints = [self._at_size(picture) for picture in pictures]
        ids = [int(number) for number in self.notes["time_ids"]]
        asked = self.sampling
        generators = [
            torch.Generator("cpu").manual_seed(asked.seed if seed is None else seed) for _ in hints
        ]
        latents = self.pipeline(
            latents=self._start(hints, generators) if asked.start == "degraded" else None,
            **{
                name: value.repeat_interleave(len(hints), dim=0)
                for name, value in self._prompts.items()
            },
            image=hints,
            width=size[0],
            height=size[1],
            original_size=tuple(ids[:2]),
            crops_coords_top_left=tuple(ids[2:4]),
            target_size=tuple(ids[4:]),
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            controlnet_conditioning_scale=asked.conditioning_scale,
            generator=generators,
            output_type="latent",
        ).images
        made = self.decode(latents)
        fix = FIXES[asked.colour_fix]
        return [fix(picture, np.asarray(hint)) for picture, hint in zip(made, hints, strict=True)]

    def _at_size(self, picture: np.ndarray) -> Image.Image:
        return Image.fromarray(picture).resize(
            (self.size_px, self.size_px), Image.Resampling.LANCZOS
        )

    @torch.no_grad()
    def encode(self, *pictures: np.ndarray) -> torch.Tensor:
        """(n, channels, h, w) latents, times the scaling factor, of pictures (H, H, 3) uint8 brought to the model's size."""
        sized = [
            torch.from_numpy(np.array(self._at_size(picture))).permute(2, 0, 1)
            for picture in pictures
        ]
        signed = (torch.stack(sized).float() / 127.5 - 1).to(self.device)
        return (
            self.pipeline.vae.encode(signed).latent_dist.mean
            * self.pipeline.vae.config.scaling_factor
        )

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[np.ndarray]:
        """Pictures (size, size, 3) uint8 of latents as `encode` gives them, in fp32: diffusers would hand the VAE halves."""
        vae = self.pipeline.vae
        decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
        return [
            np.asarray(image)
            for image in self.pipeline.image_processor.postprocess(decoded, output_type="pil")
        ]

    @torch.no_grad()
    def predict(self, noisy: torch.Tensor, t_step: int, degraded: np.ndarray) -> torch.Tensor:
        """The noise prediction, fp32 (1, channels, h, w), of noisy latents, with a degraded face (H, H, 3) uint8 as hint."""
        pipeline, dtype = self.pipeline, self.pipeline.unet.dtype
        hint = (
            torch.from_numpy(np.array(self._at_size(degraded))).permute(2, 0, 1)[None].float() / 255
        )
        embeds = self._prompts["prompt_embeds"].to(dtype)
        ids = torch.tensor([self.notes["time_ids"]], dtype=dtype, device=self.device)
        added = {"text_embeds": self._prompts["pooled_prompt_embeds"].to(dtype), "time_ids": ids}
        time = torch.tensor([t_step], device=self.device)
        given = noisy.to(dtype)
        down, middle = pipeline.controlnet(
            given,
            time,
            embeds,
            hint.to(self.device, dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return pipeline.unet(
            given, time, embeds, added_cond_kwargs=added, down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.float()  # fmt: skip

    def _start(self, hints: list[Image.Image], generators: list[torch.Generator]) -> torch.Tensor:
        """The hints' latents under the noise of the first step, (b, channels, h, w), as the pipeline scales them."""
        scheduler = self.pipeline.scheduler
        clean = self.encode(*(np.asarray(hint) for hint in hints))
        noise = torch.stack(
            [torch.randn(clean.shape[1:], generator=generator) for generator in generators]
        ).to(self.device)
        scheduler.set_timesteps(self.sampling.steps, device=self.device)
        noisy = scheduler.add_noise(clean, noise, scheduler.timesteps[:1].expand(len(hints)))
        return (noisy / scheduler.init_noise_sigma).to(self.pipeline.unet.dtype)


def _load(model: str, where: Path, dtype: torch.dtype) -> Any:
    """The pipeline of a folder. The authors' has the parts side by side, with or without an index of them."""
    import diffusers
    import transformers

    kind: Any = diffusers.StableDiffusionXLControlNetPipeline
    missing = [
        name for name in ("unet", "controlnet", "vae", "scheduler") if not (where / name).is_dir()
    ]
    if missing:
        raise UserError(
            f"{model} is no restorer (it has no {missing[0]}): name a run of `authface train-restore`"
        )
    try:
        if (where / "model_index.json").is_file():
            return kind.from_pretrained(where, dtype=dtype)
        parts: dict[str, Any] = {
            "tokenizer": transformers.CLIPTokenizer,
            "tokenizer_2": transformers.CLIPTokenizer,
            "text_encoder": transformers.CLIPTextModel,
            "text_encoder_2": transformers.CLIPTextModelWithProjection,
            "unet": diffusers.UNet2DConditionModel,
            "controlnet": diffusers.ControlNetModel,
            "vae": diffusers.AutoencoderKL,
            "scheduler": diffusers.DDPMScheduler,
        }
        typed = {name for name in parts if not name.startswith(("tokenizer", "scheduler"))}
        loaded = {
            name: part.from_pretrained(where / name, **({"dtype": dtype} if name in typed else {}))
            for name, part in parts.items()
        }
        return kind(**loaded, add_watermarker=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model} cannot be loaded as a restorer: {str(error).splitlines()[0][:200]}"
        ) from error
