"""Runs of the small experiment: models first, then one restorer and result per row and seed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image

from authface_train.callbacks.image_grid import to_image
from authface_train.data.crops import cache_crops
from authface_train.data.degradation import REFERENCE_PX
from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.reproduce import small_models
from authface_train.reproduce.image_scores import ImageScores
from authface_train.reproduce.regression import RegressionTrainer, restore_images
from authface_train.reproduce.rows import REGRESSION, TABLE2_ROWS, Row
from authface_train.reproduce.small_data import Faces, prepare_faces
from authface_train.reproduce.small_settings import (
    CELL_PX,
    LAMBDA_D,
    LAMBDA_S,
    NO_PICTURES,
    RESTORER_SETTINGS,
    SIZE_PX,
    TUNING_FACTORS,
    Latent,
    Scale,
    training_settings,
)
from manifests.run_folder import is_finished, read_run
from manifests.support.console import run_command
from manifests.support.errors import UserError
from manifests.support.files import apply_umask, write_json
from manifests.training_view import training_view

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from authface_train.data.prompts import Embedding

RestoreFunction = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Restores degraded faces, (size, size, 3) uint8 each."""


class Experiment:
    """The small experiment in one folder. Models and results that the folder holds are reused.

    Args:
        folder: Folder of all data, models and results.
        extra_photos: Folders of photographs that are used in addition to those of the packages.
        latent: Latents of the models: lossless pixel-unshuffle, or a trained VAE.
        scale: Training steps and other sizes.

    Raises:
        UserError: If the folder holds an experiment with other latents or sizes.
    """

    def __init__(
        self, folder: Path, extra_photos: list[Path], latent: Latent, scale: Scale
    ) -> None:
        self.folder = folder.absolute()
        self.latent = latent
        self.scale = scale
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_same_experiment()
        self.faces: Faces = prepare_faces(self.folder, extra_photos)
        self.results = self.folder / "results"
        self.results.mkdir(exist_ok=True)
        # One core is left to the worker that degrades: threads on the same core would mostly wait
        # for each other.
        num_threads = max((os.cpu_count() or 1) - 1, 1)
        os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))

    def _check_same_experiment(self) -> None:
        """Refuse to mix results of different latents or sizes."""
        content = json.dumps({"latent": self.latent, **vars(self.scale)}, indent=1)
        file = self.folder / "experiment.json"
        if file.is_file() and file.read_text("utf-8") != content:
            raise UserError(
                f"{self.folder} holds an experiment with other latents or steps; use another "
                "--output"
            )
        file.write_text(content, "utf-8")

    # Models

    def train_models(self) -> None:
        """Create the base, and train the generic prior and the face prior."""
        base = self.folder / "base"
        generic = self.folder / "generic"
        prior = self.folder / "prior"
        if not is_finished(base):
            self._make_base(base)
        if not is_finished(generic):
            workspace, view = small_models.generic_view(self.folder / "generic-ws")
            overrides = training_settings(self.scale.generic) | NO_PICTURES
            small_models.train_generic_prior(workspace, view, base, generic, overrides)
        if not is_finished(prior):
            settings = training_settings(self.scale.prior) | {"tags": "none"} | NO_PICTURES
            self.train("train-prior", prior, base_option="--base", base=generic, settings=settings)

    def _make_base(self, folder: Path) -> None:
        photographs, crops = small_models.face_photographs(self.faces, "train")
        vae: AutoencoderKL | PixelUnshuffle
        if self.latent == "vae":
            images = small_models.generic_images() + photographs + crops
            vae = small_models.train_vae(images, channels=16, steps=self.scale.vae)
        else:
            vae = PixelUnshuffle(scaling_factor=1 / float(small_models.to_tensor(crops).std()))
        check = small_models.check_vae(vae, self.faces, self.scale.degradation)
        small_models.make_base(folder, vae)
        write_json(folder / "gate.json", check)

    def train(
        self,
        command: str,
        folder: Path,
        *,
        base_option: str,
        base: Path,
        settings: Mapping[str, object],
    ) -> None:
        """Start a training run, or resume it.

        Args:
            command: "train-prior" or "train-restore".
            folder: Folder of the run.
            base_option: Option that names the base, "--base" or "--prior".
            base: The model to start from.
            settings: Settings that override the preset `tiny`.
        """
        arguments: list[object] = [command, "-w", self.faces.workspace.root, "--preset", "tiny"]
        arguments += [base_option, base, "--output", folder]
        for name, value in settings.items():
            # JSON's numbers, booleans and lists are TOML too; strings need no quotes.
            text = value if isinstance(value, str) else json.dumps(value)
            arguments += ["--set", f"{name}={text}"]
        if read_run(folder) is not None:
            arguments.append("--resume")
        run_command(*arguments)

    # Restorers

    def run_row(self, row: Row, seed: int) -> None:
        """Train and score a restorer, unless its result exists.

        Args:
            row: The row of Table 2 or 4.
            seed: Seed of the training.
        """
        if (self.results / f"{row.name}-{seed}.json").is_file():
            return
        folder = self.folder / "runs" / f"{row.name}-{seed}"
        self._train_restorer(
            row,
            folder,
            seed=seed,
            steps=self.scale.restorer,
            lambda_factor=self.scale.lambda_times,
        )
        self._score(row.name, seed, "test", self._restore_function(folder))

    def tune(self) -> None:
        """Train short runs of row c' with different lambdas, and score them on the split `val`."""
        for factor in TUNING_FACTORS:
            name = f"tuning-{factor}"
            if (self.results / f"{name}-0.json").is_file():
                continue
            folder = self.folder / "runs" / name
            self._train_restorer(
                TABLE2_ROWS["c'"],
                folder,
                seed=0,
                steps=self.scale.tuning,
                lambda_factor=factor,
            )
            self._score(name, 0, "val", self._restore_function(folder))

    def _train_restorer(
        self, row: Row, folder: Path, *, seed: int, steps: int, lambda_factor: float
    ) -> None:
        """Train a restorer, unless the folder holds it.

        Rows with the same seed share the initial ControlNet, batches, timesteps, noise and
        degradations.
        """
        if is_finished(folder):
            return
        start_step = steps // 5
        settings = (
            training_settings(steps)
            | RESTORER_SETTINGS
            | {
                "seed": seed,
                "workers": 1,
                "degradation": self.scale.degradation,
                "facial.weight": row.weight,
                "facial.m": row.m,
                "facial.s": row.s,
                "facial.lambda_d": LAMBDA_D * lambda_factor,
                "facial.lambda_s": LAMBDA_S * lambda_factor,
                "facial.start_step": start_step,
                "facial.discriminator_only_steps": start_step // 4,
                "facial.ramp_steps": start_step // 2,
                "facial.discriminator_width": 32,
                "facial.eye_cells": 6,
                "facial.mouth_cells": 8,
                "facial.r1_every": 16,
                "ledger_every": max(steps // 10, 1),
                "validation.every": max(steps // 2, 1),
            }
        )
        self.train(
            "train-restore",
            folder,
            base_option="--prior",
            base=self.folder / row.base,
            settings=settings,
        )

    def _restore_function(self, folder: Path) -> RestoreFunction:
        from authface_train.restore.pipeline import Restorer
        from authface_train.restore.sampling import Sampling

        sampling = Sampling(steps=self.scale.sampling, start="degraded", colour_fix="wavelet")
        restorer = Restorer(str(folder), sampling)

        def restore(degraded: list[np.ndarray]) -> list[np.ndarray]:
            restored: list[np.ndarray] = []
            for first in range(0, len(degraded), 8):
                restored += restorer.restore(degraded[first : first + 8], seed=first)
            return restored

        return restore

    # Baselines

    def score_baselines(self) -> None:
        """Score the degraded faces; with a VAE, also after encoding and decoding them."""
        from authface_train.models.sdxl import load_vae

        if not (self.results / "LQ.json").is_file():
            self._score("LQ", None, "test", lambda degraded: degraded)
        if self.latent == "vae" and not (self.results / "VAE(LQ).json").is_file():
            vae = load_vae(str(self.folder / "base"), None, 0)
            self._score(
                "VAE(LQ)",
                None,
                "test",
                lambda degraded: [_reconstruct(vae, image) for image in degraded],
            )

    def run_regression(self, seed: int) -> None:
        """Train and score the plain regression baseline, unless its result exists."""
        if (self.results / f"{REGRESSION}-{seed}.json").is_file():
            return
        folder = self.folder / "runs" / f"{REGRESSION}-{seed}" / "unet"
        if not (folder / "config.json").is_file():
            self._train_regression(seed, folder)

        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_pretrained(folder).eval()
        null_prompt = self._null_prompt()
        self._score(
            REGRESSION,
            seed,
            "test",
            lambda degraded: restore_images(unet, degraded, CELL_PX, null_prompt),
        )

    def _train_regression(self, seed: int, folder: Path) -> None:
        from accelerate import Accelerator
        from diffusers import UNet2DConditionModel

        from authface_train.data.samples import NoiseSampler
        from authface_train.models.sdxl import detach_core, load_base
        from authface_train.presets import load_preset
        from authface_train.runs.saving import final_weights
        from authface_train.runs.training_run import TrainingRun
        from authface_train.settings import RestorerSettings
        from authface_train.training.loop import train

        overrides = training_settings(self.scale.restorer) | {
            "seed": seed,
            "workers": 1,
            "degradation": self.scale.degradation,
        }
        settings = load_preset("restorer", "tiny", overrides)
        assert isinstance(settings, RestorerSettings)
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        view = self._view("train")
        cache_crops(
            self.faces.workspace, view, REFERENCE_PX, accelerator, lambda completed, total: None
        )
        null_prompt = self._null_prompt()
        core = detach_core(load_base(str(self.folder / "base"), None, 0))
        config = small_models.unet_config(core.unet)
        config["in_channels"] = 3 * CELL_PX**2
        config["out_channels"] = 3 * CELL_PX**2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(**config)

        # The regression needs no latents; only the mirroring of the noise sampler is used.
        latents = [torch.zeros(2, 2, 1, 1, 1)] * len(view)
        trainer = RegressionTrainer(
            settings=settings,
            unet=unet,
            cell_px=CELL_PX,
            workspace=self.faces.workspace,
            view=view,
            noise_sampler=NoiseSampler(settings.seed, view, latents, core),
            null_prompt=null_prompt,
            accelerator=accelerator,
        )
        run = TrainingRun(folder.parent, "restorer")
        run.start(
            settings,
            view,
            resume=run.read_record() is not None,
            base="none",
            base_digest="none",
            processes=1,
        )
        try:
            train(trainer, [], settings=settings, run=run, accelerator=accelerator)
        finally:
            run.release()
        unet.load_state_dict(final_weights(trainer.models["unet"], accelerator))
        unet.save_pretrained(folder)
        apply_umask(folder)

    # Scoring

    def _view(self, split: str) -> pd.DataFrame:
        """The training view of a split with the columns `file` and `person`."""
        view = training_view(self.faces.workspace, "none").drop(columns=["person", "split"])
        people = self.faces.rows[["face_id", "file", "person", "split"]]
        return view.merge(people, on="face_id").query("split == @split")

    def _null_prompt(self) -> Embedding:
        from accelerate import Accelerator

        from authface_train.data.prompts import cached_prompts
        from authface_train.models.sdxl import load_base

        pipeline = load_base(str(self.folder / "base"), None, 0)
        accelerator = Accelerator(cpu=True)
        return cached_prompts(
            self.faces.workspace, pipeline, [""], accelerator, lambda completed, total: None
        )[0]

    def _score(self, name: str, seed: int | None, split: str, restore: RestoreFunction) -> None:
        """Restore the degraded faces of a split and save pictures and scores.

        All rows and seeds get the same degraded faces.
        """
        started = time.monotonic()
        view = self._view(split).reset_index(drop=True)
        pairs = DegradedPairs(self.faces.workspace, view, SIZE_PX, self.scale.degradation, seed=0)
        keys = [
            SampleKey(epoch, index)
            for epoch in range(self.scale.drawn_per_face)
            for index in range(len(view))
        ]
        degraded = [to_image(pairs.make_pair(key, False).degraded) for key in keys]

        suffix = "" if seed is None else f"-{seed}"
        pictures = self.folder / "pictures"
        image_scores = ImageScores()
        images = []
        for key, restored in zip(keys, restore(degraded), strict=True):
            face = view.iloc[key.index]
            clean = pairs.clean_crop(key, False)
            file_name = f"{face['face_id']}-{key.epoch}.png"
            _save_image(restored, pictures / f"{name}{suffix}" / file_name)
            if name == "LQ":
                _save_image(clean, pictures / "clean" / file_name)
            visible_boxes_px = pairs.boxes_px[key.index][pairs.visible[key.index]].numpy()
            scores = image_scores.measure(restored, clean, visible_boxes_px)
            images.append(
                {"file": face["file"], "person": face["person"], "drawn": key.epoch, **scores}
            )
        record = {
            "row": name,
            "seed": seed,
            "split": split,
            "latent": self.latent,
            "scale": vars(self.scale),
            "gate": json.loads((self.folder / "base" / "gate.json").read_text("utf-8")),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "evaluation_s": round(time.monotonic() - started, 1),
            "images": images,
        }
        write_json(self.results / f"{name}{suffix}.json", record)


def _save_image(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@torch.no_grad()
def _reconstruct(vae: AutoencoderKL, image: np.ndarray) -> np.ndarray:
    """Encode and decode one image, (height, width, 3) uint8."""
    latents = vae.encode(small_models.to_tensor([image])).latent_dist.mean
    decoded = vae.decode(latents).sample[0]
    pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(1, 2, 0).numpy()
