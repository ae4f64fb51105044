"""Measures how much memory training adds to a process, next to the estimate of the dry run.

    python growth.py KEY=VALUE...

The arguments are settings of Stage I. A U-Net of 71 M parameters is trained at 256 px on the CPU
for two steps. The script prints `estimated_bytes` and `measured_bytes` as JSON. Each measurement
needs a new process, because the peak of resident memory belongs to the process.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pandas as pd
import psutil
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from training_steps import take_step

from authface_train.data.prompts import Embedding
from authface_train.memory.dry_run import DummyCache
from authface_train.memory.estimator import MemoryEstimator
from authface_train.memory.fake_tensor_pass import PriorPass
from authface_train.models.sdxl import DiffusionCore, tiny_sdxl
from authface_train.presets import load_preset, parse_set_option
from authface_train.settings import PriorSettings
from authface_train.stages.prior import PriorTrainer

WIDER_UNET = {
    "block_out_channels": (160, 480),
    "attention_head_dim": (4, 8),
    "layers_per_block": 2,
}


def main(set_options: list[str]) -> None:
    """Train for two steps and print the two numbers of bytes.

    Args:
        set_options: Settings of Stage I, as "key=value".
    """
    overrides = {"resolution_px": 256, "audit": False, **dict(map(parse_set_option, set_options))}
    settings = load_preset("prior", "tiny", overrides)
    assert isinstance(settings, PriorSettings)
    tiny = tiny_sdxl(0)
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, **WIDER_UNET})
    accelerator = Accelerator(cpu=True)
    estimator = MemoryEstimator(PriorPass(unet, settings, 8), accelerator.device)
    estimate = estimator.estimate(settings, settings.micro_batch, 1)

    gc.collect()
    before = start_peak_measurement()
    prompt = Embedding(torch.randn(77, 64), torch.randn(32))
    trainer = PriorTrainer(
        settings=settings,
        core=DiffusionCore(unet, tiny.scheduler, 0.13, 8),
        view=pd.DataFrame({"face_id": ["a", "b"]}),
        latents=DummyCache(torch.randn(2, 2, 4, 32, 32), 2),
        prompts=DummyCache(prompt, 2),
        null_prompt=prompt,
        accelerator=accelerator,
    )
    for step in range(2):
        take_step(trainer, step, settings.micro_batch)

    result = {
        # The weights were in memory before the measurement started.
        "estimated_bytes": estimate.total - estimate.parameters,
        "measured_bytes": peak_resident_bytes() - before,
    }
    print(json.dumps(result))


def start_peak_measurement() -> int:
    """Reset the process's peak of resident memory. Returns the resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """Peak of the process's resident memory since `start_peak_measurement`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main(sys.argv[1:])
