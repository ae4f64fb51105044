"""The small experiment's runs: models once, then a restorer for each row and seed, each with a result file of its own."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.reproduce import regression, small_models
from authface_train.reproduce.image_scores import PictureScores
from authface_train.reproduce.rows import REGRESSION, ROWS, Row
from authface_train.reproduce.small_data import Faces, prepare
from authface_train.reproduce.small_settings import (
    CELL_PX,
    LAMBDA_D,
    LAMBDA_S,
    RESTORER,
    SIZE_PX,
    TUNED,
    Latent,
    Scale,
    as_changes,
    no_pictures,
    training,
)
from manifests.support.console import console, run_command
from manifests.support.errors import UserError


class Experiment:
    """folder: everything lies there, and what is there is not made again."""

    def __init__(self, folder: Path, photographs: list[Path], latent: Latent, scale: Scale):
        self.folder, self.latent, self.scale = folder.absolute(), latent, scale
        self.folder.mkdir(parents=True, exist_ok=True)
        self._be_of_one_kind()
        self.faces: Faces = prepare(self.folder, photographs)
        self.results = self.folder / "results"
        self.results.mkdir(exist_ok=True)
        # A core is left to the worker that degrades: threads that share one spend their time waiting for each other.
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) - 1, 1)))

    def _be_of_one_kind(self) -> None:
        """Raises UserError where the folder holds an experiment of another latent or scale: their results do not mix."""
        kind = json.dumps({"latent": self.latent, **vars(self.scale)}, indent=1)
        file = self.folder / "experiment.json"
        if file.is_file() and file.read_text() != kind:
            raise UserError(
                f"{self.folder} holds an experiment of other latents or steps: name another --output"
            )
        file.write_text(kind)

    def models(self) -> None:
        """Base, generic prior and face prior."""
        base, generic, prior = (self.folder / name for name in ("base", "generic", "prior"))
        if not _whole(base):
            self._make_base(base)
        if not _whole(generic):
            workspace, view = small_models.generic_view(self.folder / "generic-ws")
            changes = as_changes(training(self.scale.generic) | no_pictures())
            small_models.train_generic(view, workspace, base, generic, changes)
        if not _whole(prior):
            settings = training(self.scale.prior) | {"tags": "none"} | no_pictures()
            self.train("train-prior", prior, "--base", generic, settings)

    def _make_base(self, folder: Path) -> None:
        if self.latent == "vae":
            pictures = small_models.generic_pictures() + small_models.photographs(
                self.faces, "train"
            )
            vae = small_models.train_vae(pictures, channels=16, steps=self.scale.vae)
        else:
            crops = small_models.as_tensor(
                small_models.photographs(self.faces, "train")[-len(self.faces.of("train")) :]
            )
            vae = PixelUnshuffle(scaling_factor=1 / float(crops.std()))
        gate = small_models.gate(vae, self.faces, self.scale.degradation)
        small_models.make_base(folder, vae)
        (folder / "gate.json").write_text(json.dumps(gate))

    def train(
        self, command: str, folder: Path, on: str, base: Path, settings: dict[str, Any]
    ) -> None:
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        resume = ["--resume"] if (folder / "run.json").is_file() else []
        root = self.faces.workspace.root
        run_command(
            command, "-w", root, "--preset", "tiny", on, base, "--output", folder, *words, *resume
        )

    def restorer(self, row: Row, seed: int, steps: int, lambda_times: float, folder: Path) -> None:
        """Train one. Rows of a seed share the ControlNet to begin with, batches, timesteps, noise and degradations."""
        if _whole(folder):
            return
        start = steps // 5
        settings = (
            training(steps)
            | RESTORER
            | {
                "seed": seed,
                "workers": 1,
                "degradation": self.scale.degradation,
                "facial.weight": row.weight,
                "facial.m": row.m,
                "facial.s": row.s,
                "facial.lambda_d": LAMBDA_D * lambda_times,
                "facial.lambda_s": LAMBDA_S * lambda_times,
                "facial.start_step": start,
                "facial.discriminator_only_steps": start // 4,
                "facial.ramp_steps": start // 2,
                "facial.discriminator_width": 32,
                "facial.eye_cells": 6,
                "facial.mouth_cells": 8,
                "facial.r1_every": 16,
                "ledger_every": max(steps // 10, 1),
                "validation.every": max(steps // 2, 1),
            }
        )
        self.train("train-restore", folder, "--prior", self.folder / row.base, settings)

    def regression(self, seed: int) -> None:
        """The plain baseline, of as many steps."""
        folder = self.folder / "runs" / f"{REGRESSION}-{seed}"
        if (folder / "unet" / "config.json").is_file():
            return
        from accelerate import Accelerator
        from diffusers import UNet2DConditionModel

        from authface_train.models.sdxl import detach_core, load_base
        from authface_train.presets import load_preset
        from authface_train.runs import saving
        from authface_train.runs.run_folder import RunFolder
        from authface_train.settings import RestorerSettings
        from authface_train.training import loop
        from authface_train.training.noise import NoiseSampler

        changes = training(self.scale.restorer) | {
            "seed": seed,
            "workers": 1,
            "degradation": self.scale.degradation,
        }
        settings = load_preset("restorer", "tiny", as_changes(changes))
        assert isinstance(settings, RestorerSettings)
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        view = self._view("train")
        null = self._null_prompt()
        core = detach_core(load_base(str(self.folder / "base"), None, 0))
        blank = torch.zeros(2, 2, 1, 1, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = {
                name: value for name, value in core.unet.config.items() if not name.startswith("_")
            }
            unet = UNet2DConditionModel(
                **{**config, "in_channels": 3 * CELL_PX**2, "out_channels": 3 * CELL_PX**2}
            )
        draws = NoiseSampler(settings, view, [blank] * len(view), core)
        trainer = regression.RegressionTrainer(
            settings, unet, CELL_PX, self.faces.workspace, view, draws, null, accelerator
        )  # fmt: skip
        run = RunFolder(folder, "restorer")
        run.begin(settings, view, run.record() is not None, "none", "none", 1)
        loop.train(trainer, settings, run, accelerator)
        unet.load_state_dict(saving.final_state(trainer.parts["unet"], accelerator))
        unet.save_pretrained(folder / "unet")

    def _view(self, split: str) -> pd.DataFrame:
        """The training view's rows of a split, with who is who."""
        from manifests.training_view import training_view

        view = training_view(self.faces.workspace, "none").drop(columns=["person", "split"])
        return view.merge(
            self.faces.rows[["face_id", "file", "person", "split"]], on="face_id"
        ).query("split == @split")

    def _null_prompt(self) -> Any:
        from accelerate import Accelerator

        from authface_train.data.prompts import cached_prompts
        from authface_train.models.sdxl import load_base

        pipeline = load_base(str(self.folder / "base"), None, 0)
        return cached_prompts(
            self.faces.workspace, pipeline, [""], Accelerator(cpu=True), lambda *_: None
        )[0]

    def score(
        self,
        name: str,
        seed: int | None,
        split: str,
        restore: Callable[[list[np.ndarray]], list[np.ndarray]],
    ) -> None:
        """Restore a split's degraded faces, always the same ones, and write `results/NAME-SEED.json`."""
        began = time.monotonic()
        view = self._view(split).reset_index(drop=True)
        pairs = DegradedPairs(self.faces.workspace, view, SIZE_PX, self.scale.degradation, seed=0)
        draws = [
            SampleKey(epoch, face)
            for epoch in range(self.scale.drawn_per_face)
            for face in range(len(view))
        ]
        degraded = [pairs.pair(draw, False).degraded.permute(1, 2, 0).numpy() for draw in draws]
        given = [np.rint(picture * 255).astype(np.uint8) for picture in degraded]
        scores = PictureScores()
        images = []
        suffix = "" if seed is None else f"-{seed}"
        pictures = self.folder / "pictures" / f"{name}{suffix}"
        for draw, made in zip(draws, restore(given), strict=True):
            face = view.iloc[draw.index]
            _save(made, pictures, face, draw)
            if name == "LQ":
                _save(pairs.clean(draw, False), self.folder / "pictures" / "clean", face, draw)
            values = scores.of(
                made,
                pairs.clean(draw, False),
                pairs.boxes_px[draw.index][pairs.visible[draw.index]].numpy(),
            )
            images.append(
                {"file": face["file"], "person": face["person"], "drawn": draw.epoch, **values}
            )
        record = {
            "row": name,
            "seed": seed,
            "split": split,
            "latent": self.latent,
            "scale": vars(self.scale),
            "gate": json.loads((self.folder / "base" / "gate.json").read_text()),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "evaluation_s": round(time.monotonic() - began, 1),
            "images": images,
        }
        temp = self.results / f".{name}{suffix}.json"
        temp.write_text(json.dumps(record, indent=1))
        temp.replace(self.results / f"{name}{suffix}.json")

    def baselines(self) -> None:
        """The degraded faces themselves, through the latent and back, and the clean ones through it."""
        from authface_train.models.sdxl import load_vae

        vae = load_vae(str(self.folder / "base"), None, 0) if self.latent == "vae" else None
        if not (self.results / "LQ.json").is_file():
            self.score("LQ", None, "test", lambda given: given)
        if vae is not None and not (self.results / "VAE(LQ).json").is_file():
            self.score(
                "VAE(LQ)", None, "test", lambda given: [_through(vae, picture) for picture in given]
            )

    def row(self, row: Row, seed: int) -> None:
        """A restorer and its result."""
        if (self.results / f"{row.name}-{seed}.json").is_file():
            return
        folder = self.folder / "runs" / f"{row.name}-{seed}"
        self.restorer(row, seed, self.scale.restorer, self.scale.lambda_times, folder)
        self.score(row.name, seed, "test", self._restoring(folder))

    def regression_row(self, seed: int) -> None:
        if (self.results / f"{REGRESSION}-{seed}.json").is_file():
            return
        self.regression(seed)
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_pretrained(
            self.folder / "runs" / f"{REGRESSION}-{seed}" / "unet"
        ).eval()
        null = self._null_prompt()
        self.score(
            REGRESSION, seed, "test", lambda given: regression.restore(unet, given, CELL_PX, null)
        )

    def tune(self) -> None:
        """Short runs of row c' on validation people, at each of TUNED times the default weights of the facial loss."""
        for times in TUNED:
            name = f"tuning-{times}"
            if (self.results / f"{name}-0.json").is_file():
                continue
            folder = self.folder / "runs" / name
            self.restorer(ROWS["c'"], 0, self.scale.tuning, times, folder)
            self.score(name, 0, "val", self._restoring(folder))

    def _restoring(self, folder: Path) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
        from authface_train.restore.pipeline import Restorer
        from authface_train.restore.sampling import Sampling

        restorer = Restorer(
            str(folder), Sampling(steps=self.scale.sampling, start="degraded", colour_fix="wavelet")
        )

        def restore(given: list[np.ndarray]) -> list[np.ndarray]:
            made: list[np.ndarray] = []
            for at in range(0, len(given), 8):
                made += restorer.restore(given[at : at + 8], seed=at)
            return made

        console.print(f"Restoring with {folder.name}, {self.scale.sampling} steps a face")
        return restore


def _save(picture: np.ndarray, folder: Path, face: pd.Series, draw: SampleKey) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{face['face_id']}-{draw.epoch}.png")


@torch.no_grad()
def _through(vae: Any, picture: np.ndarray) -> np.ndarray:
    made = vae.decode(vae.encode(small_models.as_tensor([picture])).latent_dist.mean).sample[0]
    return ((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def _whole(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()
