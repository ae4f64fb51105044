"""Data sets of both stages without a model, for tests of data workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import Dataset

from authface_train.data.cache import Cache
from authface_train.data.latents import Latents
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding, Prompts
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import NoiseSampler, PriorDataset, RestorerDataset, Sample
from authface_train.facial_loss.regions import REGIONS
from authface_train.presets import load_preset
from authface_train.training.sample_loader import sample_loader
from manifests.settings import preset_text
from manifests.workspace import Workspace

NUM_FACES = 3
SIZE_PX = 64


class BothStages(Dataset):
    """Samples of Stage I and Stage II for the same key.

    Args:
        prior: The samples of Stage I.
        restorer: The samples of Stage II.
    """

    def __init__(self, prior: PriorDataset, restorer: RestorerDataset) -> None:
        self.prior = prior
        self.restorer = restorer

    def __getitem__(self, key: SampleKey) -> Sample:
        """The tensors of both samples, and the number of OpenCV's threads as `threads`."""
        import cv2

        threads = torch.tensor(cv2.getNumThreads())
        return {**self.prior[key], **self.restorer[key], "threads": threads}


def both_stages(workspace: Workspace) -> BothStages:
    """Samples of random crops, latents and prompts, which are written into the workspace."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    names = [f"face-{number}" for number in range(NUM_FACES)]
    view = pd.DataFrame({"face_id": names, "crop_sha256": names, "crop_size_px": SIZE_PX})
    view["crop_path"] = [f"faces/{name}.png" for name in names]
    for region in REGIONS:
        view[f"{region}_box_crop_px"] = [[8.0, 8.0, 24.0, 24.0]] * NUM_FACES
        view[f"{region}_visible"] = True
    for path in view["crop_path"]:
        pixels = rng.integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8)
        Image.fromarray(pixels).save(workspace.local_path(path))

    latents = Cache(workspace, "cache/latents/x")
    prompts = Cache(workspace, "cache/prompts/x")
    latents.write(
        {name: {"latents": torch.randn(2, 2, 4, 8, 8, generator=generator)} for name in names}
    )
    prompts.write(
        {
            name: {
                "embeds": torch.randn(77, 8, generator=generator),
                "pooled": torch.randn(8, generator=generator),
            }
            for name in names
        }
    )
    scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
    core = SimpleNamespace(scaling_factor=0.13, scheduler=scheduler)
    sampler = NoiseSampler(0, view, Latents(latents, names), core)
    settings = load_preset("prior", "tiny", {"caption_dropout": 0.5})
    null_prompt = Embedding(torch.zeros(77, 8), torch.zeros(8))
    return BothStages(
        PriorDataset(settings, sampler, Prompts(prompts, names), null_prompt),
        RestorerDataset(sampler, DegradedPairs(workspace, view, SIZE_PX, "gfpgan", 0)),
    )


def load_until_killed(root: Path) -> None:
    """Load samples with two workers, print their process ids and kill this process with SIGKILL.

    Args:
        root: Where a workspace is created.
    """
    dataset = both_stages(Workspace.create(root, preset_text("embedded")))
    overrides = {"workers": 2, "batch": 2, "micro_batch": 2, "steps": 9}
    settings = load_preset("prior", "tiny", overrides)
    with sample_loader(dataset, NUM_FACES, settings, 0, Accelerator(cpu=True)) as loader:
        for _ in range(2):  # one batch of each worker, which has then set its signal handlers
            next(loader)
        workers = multiprocessing.active_children()
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGUSR1)
            os.kill(worker.pid, signal.SIGTERM)
        next(loader)
        print(*(worker.pid for worker in workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
