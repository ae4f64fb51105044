"""How much a process grows when it really trains, and what the budget says it would. Prints both in bytes as JSON.

    python growth.py KEY=VALUE…     settings over a U-Net of 71 M parameters at 256 px

In a process of its own: the peak of resident memory is the process's.
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

from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import micro_batches, step_keys
from authface_train.memory.dry_run import DummyCache
from authface_train.memory.estimator import MemoryEstimator
from authface_train.memory.fake_tensor_pass import PriorPass
from authface_train.models.sdxl import DiffusionCore, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.prior import PriorTrainer


def main(changes: list[str]) -> None:
    settings = load_preset("prior", "tiny", ["resolution_px=256", "audit=false", *changes])
    tiny = tiny_sdxl(0)
    wider = {"block_out_channels": (160, 480), "attention_head_dim": (4, 8), "layers_per_block": 2}
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, **wider})
    accelerator = Accelerator(cpu=True, mixed_precision=settings.mixed_precision)
    said = MemoryEstimator(PriorPass(unet, settings, 8), accelerator.device).memory(
        settings, settings.micro_batch, 1
    )
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = psutil.Process().memory_info().rss
    prompt = Embedding(torch.randn(77, 64), torch.randn(32))
    view, latents = (
        pd.DataFrame({"face_id": ["a", "b"]}),
        DummyCache(torch.randn(2, 2, 4, 32, 32), 2),
    )
    core = DiffusionCore(unet, tiny.scheduler, 0.13, 8)
    trainer = PriorTrainer(
        settings, core, view, latents, DummyCache(prompt, 2), prompt, accelerator
    )
    for step in range(2):
        draws = step_keys(0, step, settings.batch, 2)
        pieces = [
            [trainer.sample(draw) for draw in piece]
            for piece in micro_batches(draws, 0, 1, settings.micro_batch)
        ]
        micros = [
            {name: torch.stack([one[name] for one in piece]) for name in piece[0]}
            for piece in pieces
        ]
        trainer.step(step, draws, iter(micros))
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"said": said.total - said.parameters, "grew": peak - before}))


if __name__ == "__main__":
    main(sys.argv[1:])
