"""Runs of the small experiment: models first, then one restorer and result per row and seed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from authface_train.data.crops import load_crop
from authface_train.data.pairs import DegradedPairs
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.reproduce import small_models
from authface_train.reproduce.regression import RegressionTrainer, restore_images
from authface_train.reproduce.rows import REGRESSION, TABLE2_ROWS, TRADE, Row
from authface_train.reproduce.small_data import LICENCE_BASIS, Faces, prepare_faces
from authface_train.reproduce.small_pairs import SharedPairs, degraded_variants
from authface_train.reproduce.small_scores import (
    ScoredFaces,
    degrade_faces,
    measure_restored,
    save_image,
    source_commit,
)
from authface_train.reproduce.small_settings import (
    CELL_PX,
    DISCRIMINATOR_LEARNING_RATE,
    EYE_SHARE,
    GENERIC_LEARNING_RATE,
    LAMBDA_D,
    LAMBDA_S,
    MOUTH_SHARE,
    NO_PICTURES,
    NUM_PIECES,
    REGRESSION_LEARNING_RATE,
    RESTORER_LEARNING_RATE,
    RESTORER_SETTINGS,
    TRUNK_LEARNING_RATE,
    TUNING_FACTORS,
    Latent,
    Scale,
    training_settings,
)
from authface_train.reproduce.small_views import piece_rows, with_copies
from manifests.run_folder import is_finished
from manifests.support.errors import UserError
from manifests.support.files import apply_umask, write_json
from manifests.training_view import TagChoice, training_view

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from authface_train.data.prompts import Embedding
    from authface_train.restore.sampling import Start

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
        (self.results / TRADE).mkdir(parents=True, exist_ok=True)

    def _check_same_experiment(self) -> None:
        """Refuse to mix results of different latents or sizes."""
        content = json.loads(json.dumps({"latent": self.latent, **vars(self.scale)}))
        file = self.folder / "experiment.json"
        if file.is_file():
            # Experiments of earlier versions lack what could not be chosen then.
            defaults = json.loads(json.dumps(vars(Scale())))
            stored = defaults | json.loads(file.read_text("utf-8"))
            for name, value in content.items():
                if stored.get(name) != value:
                    raise UserError(
                        f"{self.folder} holds an experiment with {name} = {stored.get(name)}, not "
                        f"{value}; use another --output"
                    )
        file.write_text(json.dumps(content, indent=1), "utf-8")

    # Models

    def train_models(self) -> None:
        """Create the base, and train the generic prior and the face prior."""
        base = self.folder / "base"
        generic = self.folder / "generic"
        prior = self.folder / "prior"
        workspace = self.faces.workspace
        if not is_finished(base):
            self._make_base(base)
        if not is_finished(generic):
            small_models.train_stage(
                "prior",
                workspace,
                small_models.generic_view(workspace),
                base=base,
                folder=generic,
                overrides=self._settings(self.scale.generic)
                | {"learning_rate": GENERIC_LEARNING_RATE}
                | NO_PICTURES,
            )
        if not is_finished(prior):
            small_models.train_stage(
                "prior",
                workspace,
                with_copies(workspace, self.view("train")),
                base=generic,
                folder=prior,
                overrides=self._settings(self.scale.prior) | {"tags": "none"} | NO_PICTURES,
            )

    def _make_base(self, folder: Path) -> None:
        photographs, crops = small_models.face_photographs(self.faces, "train")
        vae: AutoencoderKL | PixelUnshuffle
        if self.latent == "vae":
            images = small_models.generic_images() + photographs + crops
            vae = small_models.train_vae(
                images, channels=16, steps=self.scale.vae, size_px=self.scale.size_px
            )
        else:
            vae = PixelUnshuffle(scaling_factor=1 / float(small_models.to_tensor(crops).std()))
        check = small_models.check_vae(vae, self.faces, self.scale.degradation, self.scale.size_px)
        small_models.make_base(folder, vae, self.scale.size_px)
        write_json(folder / "gate.json", check)

    def _settings(self, steps: int) -> dict[str, object]:
        return training_settings(steps, self.scale.size_px)

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
        self._score_trade(row.name, seed, folder)
        self._score(row.name, seed, "test", self.restore_function(folder, self.scale.sampling))

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
            restore = self.restore_function(folder, self.scale.sampling)
            self._score(name, 0, "val", restore)

    def _train_restorer(
        self, row: Row, folder: Path, *, seed: int, steps: int, lambda_factor: float
    ) -> None:
        """Train a restorer, unless the folder holds it.

        Rows with the same seed share the initial ControlNet, batches, timesteps, noise and
        degradations.
        """
        if is_finished(folder):
            return
        start_step = steps // 10
        latent_side = self.scale.size_px // CELL_PX
        overrides = (
            self._settings(steps)
            | RESTORER_SETTINGS
            | {
                "learning_rate": RESTORER_LEARNING_RATE,
                "seed": seed,
                "degradation": self.scale.degradation,
                "facial.weight": row.weight,
                "facial.m": row.m,
                "facial.s": row.s,
                "facial.lambda_d": LAMBDA_D * lambda_factor,
                "facial.lambda_s": LAMBDA_S * lambda_factor,
                "facial.start_step": 0,
                "facial.discriminator_only_steps": start_step,
                "facial.ramp_steps": start_step,
                "facial.discriminator_width": 32,
                "facial.discriminator_learning_rate": DISCRIMINATOR_LEARNING_RATE,
                "facial.timestep_conditioning": row.timestep_conditioning,
                "facial.eye_cells": int(latent_side * EYE_SHARE + 0.5),
                "facial.mouth_cells": int(latent_side * MOUTH_SHARE + 0.5),
                "facial.r1_every": 16,
            }
        )
        small_models.train_stage(
            "restorer",
            self.faces.workspace,
            self._restorer_view(),
            base=self.folder / row.base,
            folder=folder,
            overrides=overrides,
            degraded=self._degraded_file,
            controlnet=self._train_trunk(row.base),
        )

    def _train_trunk(self, base: str) -> Path:
        """Train Stage II without facial loss on a prior, unless the experiment holds the result.

        Returns:
            Folder of the run.
        """
        folder = self.folder / "runs" / f"trunk-{base}"
        if not is_finished(folder):
            settings = {
                "learning_rate": TRUNK_LEARNING_RATE,
                "degradation": self.scale.degradation,
                "facial.weight": "off",
            }
            small_models.train_stage(
                "restorer",
                self.faces.workspace,
                self._restorer_view(),
                base=self.folder / base,
                folder=folder,
                overrides=self._settings(self.scale.trunk) | RESTORER_SETTINGS | settings,
                degraded=self._degraded_file,
            )
        return folder

    @property
    def _degraded_file(self) -> Path:
        """The degradations that all restorers and the regression learn from."""
        return self.folder / "degraded.npy"

    def _restorer_view(self) -> pd.DataFrame:
        """The training faces with changed copies, and pieces of photographs."""
        workspace = self.faces.workspace
        photographs, _ = small_models.face_photographs(self.faces, "train")
        images = photographs + small_models.generic_images()
        pieces = piece_rows(
            workspace,
            images,
            NUM_PIECES,
            prefix="photo",
            licence_basis=LICENCE_BASIS,
            seed=2,
        )
        faces = with_copies(workspace, self.view("train"))
        return pd.concat([faces, pieces], ignore_index=True)

    def restore_function(
        self,
        folder: Path,
        steps: int,
        *,
        start: Start = "degraded",
        conditioning_scale: float = 1.0,
    ) -> RestoreFunction:
        """Load the model of a run.

        Args:
            folder: Folder of the run.
            steps: Number of sampling steps.
            start: Initial latents.
            conditioning_scale: Scale of the ControlNet's residuals.

        Returns:
            A function that restores with it.
        """
        from authface_train.restore.pipeline import Restorer
        from authface_train.restore.sampling import Sampling

        sampling = Sampling(
            steps=steps,
            start=start,
            conditioning_scale=conditioning_scale,
            colour_fix="wavelet",
        )
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

        self._score(REGRESSION, seed, "test", self.regression_function(seed))

    def regression_function(self, seed: int) -> RestoreFunction:
        """Load a regression.

        Args:
            seed: Seed of its training.

        Returns:
            A function that restores with it.
        """
        from diffusers import UNet2DConditionModel

        folder = self.folder / "runs" / f"{REGRESSION}-{seed}" / "unet"
        unet = UNet2DConditionModel.from_pretrained(folder).eval()
        null_prompt = self._null_prompt()
        return lambda degraded: restore_images(unet, degraded, CELL_PX, null_prompt)

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

        overrides = self._settings(self.scale.regression) | {
            "learning_rate": REGRESSION_LEARNING_RATE,
            "seed": seed,
            "degradation": self.scale.degradation,
        }
        settings = load_preset("restorer", "tiny", overrides)
        assert isinstance(settings, RestorerSettings)
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        view = self._restorer_view()
        null_prompt = self._null_prompt()
        core = detach_core(load_base(str(self.folder / "base"), None, 0))
        config = small_models.unet_config(core.unet)
        config["in_channels"] = 3 * CELL_PX**2
        config["out_channels"] = 3 * CELL_PX**2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(**config)
        # At first the regression changes nothing.
        torch.nn.init.zeros_(unet.conv_out.weight)
        torch.nn.init.zeros_(unet.conv_out.bias)

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
        trainer.dataset = SharedPairs(
            trainer.noise_sampler,
            trainer.pairs,
            degraded_variants(self._degraded_file, trainer.pairs),
            clean=self._clean_faces(view),
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

    def _clean_faces(self, view: pd.DataFrame) -> np.ndarray:
        """The faces of a view, (faces, 3, size, size) uint8."""
        size_px = self.scale.size_px
        crops = [load_crop(self.faces.workspace, path, size_px) for path in view["crop_path"]]
        return np.stack(crops).transpose(0, 3, 1, 2)

    # Scoring

    def view(self, split: str, tags: TagChoice = "none") -> pd.DataFrame:
        """The training view of a split with the columns `file`, `place` and `person`.

        `place` counts the faces of a photograph from the left.

        Args:
            split: "train", "val" or "test".
            tags: The families of tags that captions are made of.
        """
        view = training_view(self.faces.workspace, tags).drop(columns=["person", "split"])
        people = self.faces.rows[["face_id", "file", "place", "person", "split"]]
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
        faces = self.scored_faces(split)
        suffix = "" if seed is None else f"-{seed}"
        folder = self.folder / "pictures" / f"{name}{suffix}"
        images = measure_restored(faces, restore(faces.degraded), folder)
        if name == "LQ":
            for file_name, clean in zip(faces.file_names, faces.clean, strict=True):
                save_image(clean, self.folder / "pictures" / "clean" / file_name)
        record = self.record(name, seed, split, started) | {"images": images}
        write_json(self.results / f"{name}{suffix}.json", record)

    def _score_trade(self, name: str, seed: int, folder: Path) -> None:
        """Restore the test faces with fewer sampling steps too, and save the scores."""
        faces = self.scored_faces("test")
        for steps in self.scale.few_steps:
            started = time.monotonic()
            restored = self.restore_function(folder, steps)(faces.degraded)
            pictures = self.folder / "pictures" / f"{name}-{seed}-steps{steps}"
            images = measure_restored(faces, restored, pictures)
            record = self.record(name, seed, "test", started) | {"images": images}
            write_json(
                self.results / TRADE / f"{name}-{seed}-{steps}.json",
                record | {"sampling_steps": steps},
            )

    def scored_faces(self, split: str) -> ScoredFaces:
        """Degrade the faces of a split that are restored, the same way in every call.

        Args:
            split: "val" or "test".
        """
        view = self.view(split)
        rank = view.groupby("person").cumcount()
        view = view[rank < self.scale.faces_per_person].reset_index(drop=True)
        pairs = DegradedPairs(
            self.faces.workspace, view, self.scale.size_px, self.scale.degradation, seed=0
        )
        return degrade_faces(view, pairs, self.scale.drawn_per_face)

    def record(self, name: str, seed: int | None, split: str, started: float) -> dict[str, object]:
        """What a result file states besides the scores.

        Args:
            name: Name of the row.
            seed: Seed of the training, or None.
            split: Split of the scored faces.
            started: `time.monotonic()` at the start of the evaluation.

        Returns:
            The record by column.
        """
        faces = self.faces.rows
        return {
            "row": name,
            "seed": seed,
            "split": split,
            "commit": source_commit(),
            "latent": self.latent,
            "scale": vars(self.scale),
            "faces": faces.groupby("split").size().to_dict(),
            "people": faces.groupby("split")["person"].nunique().to_dict(),
            "gate": json.loads((self.folder / "base" / "gate.json").read_text("utf-8")),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "evaluation_s": round(time.monotonic() - started, 1),
        }


@torch.no_grad()
def _reconstruct(vae: AutoencoderKL, image: np.ndarray) -> np.ndarray:
    """Encode and decode one image, (height, width, 3) uint8."""
    latents = vae.encode(small_models.to_tensor([image])).latent_dist.mean
    decoded = vae.decode(latents).sample[0]
    pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(1, 2, 0).numpy()
