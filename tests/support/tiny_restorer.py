"""A tiny restorer of the real classes, saved as `authface train-restore` saves one."""

from pathlib import Path

from diffusers import StableDiffusionXLControlNetPipeline

from authface_train.models.sdxl import tiny_sdxl
from authface_train.stages.restorer import make_controlnet
from manifests.run_folder import NOTES_FILE
from manifests.support.files import write_json


def save_tiny_restorer(folder: Path, size_px: int) -> Path:
    """Save an untrained restorer of faces of `size_px` to a folder, and return the folder."""
    base = tiny_sdxl(0)
    controlnet = make_controlnet(base.unet, 0, 8)
    pipeline = StableDiffusionXLControlNetPipeline(**base.components, controlnet=controlnet)
    pipeline.save_pretrained(folder)
    notes = {
        "resolution_px": size_px,
        "time_ids": [size_px, size_px, 0, 0, size_px, size_px],
        "untrained": True,
    }
    write_json(folder / NOTES_FILE, notes)
    return folder
