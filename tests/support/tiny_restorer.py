"""A restorer of the real classes at tiny size, saved as `authface train-restore` saves one."""

import json
from pathlib import Path

from diffusers import StableDiffusionXLControlNetPipeline

from authface_train.models.sdxl import tiny_sdxl
from authface_train.stages.restorer import make_controlnet


def save(folder: Path, size_px: int) -> Path:
    base = tiny_sdxl(0)
    controlnet = make_controlnet(base.unet, 0, 8)
    StableDiffusionXLControlNetPipeline(**base.components, controlnet=controlnet).save_pretrained(
        folder
    )
    notes = {
        "resolution_px": size_px,
        "time_ids": [size_px, size_px, 0, 0, size_px, size_px],
        "untrained": True,
    }
    (folder / "authface.json").write_text(json.dumps(notes))
    return folder
