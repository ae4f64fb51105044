"""Models of the small experiments: a VAE, a small SDXL, and a generic prior in place of SDXL's."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from authface_data.images.open import open_image
from authface_train.data.crops import load_crop
from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.reproduce.small_data import PHOTO_SUFFIXES, Faces
from authface_train.reproduce.small_pairs import SharedPairs, degraded_variants
from authface_train.reproduce.small_settings import BETA_END, CELL_PX, SIZE_PX
from authface_train.reproduce.small_views import piece_rows, random_piece
from manifests.run_folder import read_run
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.files import apply_umask
from manifests.support.progress import ProgressBar
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from authface_train.models.pixel_unshuffle import PixelUnshuffle

logger = logging.getLogger(__name__)

MIN_VAE_MARGIN_DB = 6.0
"""A VAE must reconstruct faces this much better than the degraded faces are."""
PHOTOS_WITH_PEOPLE = ("astronaut", "camera")
"""Photographs of scikit-image that the generic prior must not see."""
MAX_SIDE_PX = 512
NUM_GENERIC_PIECES = 800


def generic_images() -> list[np.ndarray]:
    """Photographs and textures without people, from scikit-image and scikit-learn.

    Returns:
        Images of at most 512 px, (height, width, 3) uint8 each.

    Raises:
        UserError: If neither package is installed.
    """
    images = []
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for file in sorted((Path(spec.origin).parent / folder).iterdir()):
            if file.suffix in PHOTO_SUFFIXES and file.stem not in PHOTOS_WITH_PEOPLE:
                image = _read_reduced(file)
                if min(image.shape[:2]) >= SIZE_PX:
                    images.append(image)
    if not images:
        raise UserError(
            "the generic prior is trained on scikit-image's photographs; install them with "
            "`pip install 'authface[data]'`"
        )
    return images


def _read_reduced(file: Path) -> np.ndarray:
    with open_image(file) as image:
        rgb = image.convert("RGB")
        rgb.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        return np.asarray(rgb)


def face_photographs(faces: Faces, split: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The photographs and the crops of a split.

    Args:
        faces: The faces of the experiment.
        split: "train", "val" or "test".

    Returns:
        Whole photographs of at most 512 px and crops of 256 px, (height, width, 3) uint8 each.
    """
    rows = faces.of_split(split)
    photos = Store(faces.workspace, PHOTOS).read_pandas(["photo_id", "path"])
    path_of_photo = photos.set_index("photo_id")["path"]
    root = Path(faces.workspace.root)
    crops = [load_crop(faces.workspace, path, 256) for path in rows["crop_path"]]
    photographs = [
        _read_reduced(root / str(path_of_photo[photo_id])) for photo_id in rows["photo_id"].unique()
    ]
    return photographs, crops


def to_tensor(images: list[np.ndarray]) -> torch.Tensor:
    """Stack images of one size.

    Returns:
        (n, 3, height, width) float32 in [-1, 1].
    """
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """PSNR of images in [-1, 1].

    Args:
        images: (n, 3, height, width), clamped to [-1, 1].
        references: (n, 3, height, width) in [-1, 1].

    Returns:
        (n,) in dB.
    """
    error = (images.clamp(-1, 1) - references).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error)


def train_vae(
    images: list[np.ndarray],
    channels: int,
    steps: int,
    size_px: int,
    learning_rate: float = 2e-3,
) -> AutoencoderKL:
    """Train a small AutoencoderKL with cells of CELL_PX pixels on random pieces of images.

    Args:
        images: (height, width, 3) uint8 each.
        channels: Latent channels.
        steps: Training steps of batch 8.
        size_px: Side of the pieces.
        learning_rate: Peak learning rate of AdamW; it falls linearly to 3 %.
    """
    from diffusers import AutoencoderKL

    rng = np.random.default_rng(0)

    def random_batch(size: int) -> torch.Tensor:
        pieces = [random_piece(images[rng.integers(len(images))], rng) for _ in range(size)]
        return F.interpolate(to_tensor(pieces), (size_px, size_px), mode="area")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=8,
            latent_channels=channels,
            sample_size=size_px,
            layers_per_block=1,
            mid_block_add_attention=False,
        )
        optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, fused=True)
        with ProgressBar("VAE", steps, unit="steps") as bar:
            for step in range(steps):
                warmup = min(1, (step + 1) / 100)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * warmup * (1 - 0.97 * step / steps)
                batch = random_batch(8)
                posterior = vae.encode(batch).latent_dist
                reconstruction = vae.decode(posterior.sample()).sample
                loss = F.mse_loss(reconstruction, batch) + 1e-6 * posterior.kl().mean() / channels
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
                optimizer.step()
                bar.advance()
    with torch.no_grad():
        latents = vae.encode(random_batch(64)).latent_dist.mean
        vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return vae.eval()


@torch.no_grad()
def check_vae(
    vae: AutoencoderKL | PixelUnshuffle, faces: Faces, degradation: str, size_px: int
) -> dict[str, float]:
    """Check that a VAE reconstructs held-out faces well enough: what it loses cannot be restored.

    Args:
        vae: The VAE.
        faces: The faces of the experiment; those of "val" and "test" are used.
        degradation: Degradation preset of the experiment.
        size_px: Side of the faces.

    Returns:
        `reconstruction_db` and `degraded_db`: mean PSNR of reconstructed and of degraded faces.

    Raises:
        UserError: If the reconstructions are less than MIN_VAE_MARGIN_DB better.
    """
    held_out = pd.concat([faces.of_split("val"), faces.of_split("test")], ignore_index=True)
    pairs = DegradedPairs(faces.workspace, held_out, size_px, degradation, seed=0)
    num_faces = len(held_out)
    clean = to_tensor([pairs.clean_crop(SampleKey(0, index), False) for index in range(num_faces)])
    keys = [SampleKey(epoch, index) for epoch in range(4) for index in range(num_faces)]
    degraded = torch.stack([pairs.make_pair(key, False).degraded for key in keys]) * 2 - 1
    (reconstructed,) = vae.decode(vae.encode(clean).latent_dist.mean, return_dict=False)
    reconstruction_db = float(psnr(reconstructed, clean).mean())
    degraded_db = float(psnr(degraded, clean.repeat(4, 1, 1, 1)).mean())
    logger.info(
        "VAE: %.1f dB on %d held-out faces; degraded faces have %.1f dB",
        reconstruction_db,
        num_faces,
        degraded_db,
    )
    if reconstruction_db < degraded_db + MIN_VAE_MARGIN_DB:
        raise UserError(
            f"the VAE reaches {reconstruction_db:.1f} dB on held-out faces, less than "
            f"{MIN_VAE_MARGIN_DB:.0f} dB above degraded faces ({degraded_db:.1f} dB); add --photos "
            "or use --latent unshuffle"
        )
    return {"reconstruction_db": reconstruction_db, "degraded_db": degraded_db}


def make_base(folder: Path, vae: AutoencoderKL | PixelUnshuffle, size_px: int = SIZE_PX) -> None:
    """Save a small SDXL with an untrained U-Net of about 2 M parameters.

    Args:
        folder: Where to save it.
        vae: Its VAE, which decides the latent channels.
        size_px: Side of its images.
    """
    from diffusers import UNet2DConditionModel

    from authface_train.models.sdxl import tiny_sdxl

    pipeline = tiny_sdxl(0)
    pipeline.vae = vae
    # Restoring in a few steps starts at the last timestep, not in the middle of the schedule.
    pipeline.scheduler.register_to_config(timestep_spacing="trailing", beta_end=BETA_END)
    channels = vae.config.latent_channels
    config = unet_config(pipeline.unet)
    config["in_channels"] = channels
    config["out_channels"] = channels
    config["sample_size"] = size_px // CELL_PX
    config["block_out_channels"] = (2 * channels, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline.unet = make_identity(UNet2DConditionModel(**config))
    pipeline.save_pretrained(folder)
    apply_umask(folder)


def unet_config(unet: UNet2DConditionModel) -> dict[str, Any]:
    """The constructor's arguments of a U-Net by name."""
    return {name: value for name, value in unet.config.items() if not name.startswith("_")}


@torch.no_grad()
def make_identity(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Initialise a U-Net in place, so that it predicts its input as the noise.

    At high noise levels this is nearly right, and such a small model would spend its training on
    learning it. The first level, twice as wide as the latents, holds x and -x, and
    SiLU(x) - SiLU(-x) = x; the last residual branch starts at 0.

    Args:
        unet: A U-Net whose first level has twice as many channels as its input.

    Returns:
        The same U-Net.
    """
    channels = unet.config.in_channels
    width = unet.config.block_out_channels[0]
    identity = torch.eye(channels)
    both_signs = torch.cat([identity, -identity])
    for layer in (unet.conv_in, unet.conv_out, unet.up_blocks[-1].resnets[-1].conv2):
        layer.weight.zero_()
        layer.bias.zero_()
    unet.conv_in.weight[..., 1, 1] = both_signs
    unet.conv_out.weight[..., 1, 1] = both_signs.T
    shortcut = unet.up_blocks[-1].resnets[-1].conv_shortcut
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    shortcut.weight[:, -width:, 0, 0] = torch.eye(width)
    return unet


def generic_view(workspace: Workspace) -> pd.DataFrame:
    """Rows of a training view of NUM_GENERIC_PIECES random squares of generic images.

    Args:
        workspace: The squares are stored in its folder.
    """
    return piece_rows(
        workspace,
        generic_images(),
        NUM_GENERIC_PIECES,
        prefix="generic",
        licence_basis="other:inside scikit-image and scikit-learn",
        seed=1,
    )


def train_stage(
    stage: Literal["prior", "restorer"],
    workspace: Workspace,
    view: pd.DataFrame,
    *,
    base: Path,
    folder: Path,
    overrides: Mapping[str, object],
    held_out: pd.DataFrame | None = None,
    degraded: Path | None = None,
    controlnet: Path | None = None,
) -> None:
    """Train a stage with its trainer on given rows, or resume the run.

    Args:
        stage: The stage.
        workspace: Holds the crops of the rows.
        view: The training rows.
        base: The model to start from.
        folder: Folder of the run; a run that it holds is resumed.
        overrides: Settings that override the preset `tiny`.
        held_out: The held-out rows. Default: none.
        degraded: Stage II: file of the degradations that all runs share, see `degraded_variants`.
        controlnet: Stage II: folder of the run whose ControlNet is the initial one. Default: a copy
            of the prior's encoder.
    """
    from authface_train.presets import load_preset
    from authface_train.training.jobs import JobRequest, build_job, run_job
    from authface_train.training.setup import TrainingRows

    settings = load_preset(stage, "tiny", overrides)
    request = JobRequest(
        workspace=workspace,
        settings=settings,
        base=str(base),
        folder=folder,
        resume=read_run(folder) is not None,
        rows=TrainingRows(training=view, held_out=view.iloc[:0] if held_out is None else held_out),
    )
    job = build_job(request)
    if degraded is not None:
        from authface_train.stages.restorer import RestorerTrainer

        trainer = job.trainer
        assert isinstance(trainer, RestorerTrainer)
        variants = degraded_variants(degraded, trainer.pairs)
        # The same samples from another class, which does not degrade.
        trainer.dataset = SharedPairs(  # type: ignore[assignment]
            trainer.noise_sampler, trainer.pairs, variants
        )
        if controlnet is not None:
            from diffusers import ControlNetModel

            initial = ControlNetModel.from_pretrained(controlnet / "controlnet")
            trainer.models["controlnet"].module.load_state_dict(initial.state_dict())
    run_job(job)
