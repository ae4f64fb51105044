"""The small experiments' SDXL: a VAE trained here, its classes in small, and a generic prior in the place of SDXL's own."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import Progress, TimeRemainingColumn

from authface_train.data.crops import load_crop
from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.reproduce.small_data import PICTURES, Faces
from authface_train.reproduce.small_settings import CELL_PX, SIZE_PX
from manifests.schema import PHOTOS
from manifests.settings import preset_text
from manifests.store import Store
from manifests.support.console import console
from manifests.support.errors import UserError
from manifests.workspace import Workspace

GATE_DB = 6.0
NOT_GENERIC = ("astronaut", "camera")  # people are in them
LONG_SIDE_PX = 512


def generic_pictures() -> list[np.ndarray]:
    """Photographs and textures without people inside scikit-image and scikit-learn, (H, W, 3) uint8, 512 px at most."""
    found = []
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        files = (
            sorted((Path(str(spec.origin)).parent / folder).iterdir())
            if spec and spec.origin
            else []
        )
        for file in files:
            if file.suffix in PICTURES and file.stem not in NOT_GENERIC:
                picture = _small(file)
                if min(picture.shape[:2]) >= SIZE_PX:
                    found.append(picture)
    if not found:
        raise UserError(
            "the generic prior learns from scikit-image's photographs: pip install 'authface[data]'"
        )
    return found


def _small(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        picture = image.convert("RGB")
        picture.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX), Image.Resampling.LANCZOS)
        return np.asarray(picture)


def photographs(faces: Faces, split: str) -> list[np.ndarray]:
    """The whole photographs of a split, and its crops."""
    rows, root = faces.of(split), Path(faces.workspace.root)
    paths = (
        Store(faces.workspace, PHOTOS)
        .read_pandas(["photo_id", "path"])
        .set_index("photo_id")["path"]
    )
    crops = [load_crop(faces.workspace, path, 256) for path in rows["crop_path"]]
    return [_small(root / str(paths[photo])) for photo in rows["photo_id"].unique()] + crops


def piece(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(SIZE_PX, SIZE_PX, 3): a square of a picture, of that size or up to four times as large."""
    side = int(rng.integers(SIZE_PX, max(min(*picture.shape[:2], 4 * SIZE_PX), SIZE_PX) + 1))
    top, left = (int(rng.integers(0, max(extent - side, 0) + 1)) for extent in picture.shape[:2])
    cut = Image.fromarray(picture[top : top + side, left : left + side])
    small = np.asarray(cut.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX))
    return small[:, :: rng.choice([-1, 1])].copy()


def as_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """(n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(n,) dB between pictures in [-1, 1]."""
    return 10 * torch.log10(4 / (one.clamp(-1, 1) - other).square().mean((1, 2, 3)))


def train_vae(
    pictures: list[np.ndarray], channels: int, steps: int, learning_rate: float = 2e-3
) -> Any:
    """An AutoencoderKL of CELL_PX pixels a cell, on pieces of pictures."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=8, latent_channels=channels, sample_size=SIZE_PX,
            layers_per_block=1, mid_block_add_attention=False,
        )  # fmt: skip
        optimiser = torch.optim.AdamW(vae.parameters(), lr=learning_rate, fused=True)
        rng = np.random.default_rng(0)
        with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn()) as progress:
            bar = progress.add_task("VAE", total=steps)
            for step in range(steps):
                rate = learning_rate * min(1, (step + 1) / 100) * (1 - 0.97 * step / steps)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                batch = as_tensor(
                    [piece(pictures[rng.integers(len(pictures))], rng) for _ in range(8)]
                )
                posterior = vae.encode(batch).latent_dist
                made = vae.decode(posterior.sample()).sample
                loss = F.mse_loss(made, batch) + 1e-6 * posterior.kl().mean() / channels
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
                optimiser.step()
                progress.advance(bar)
    with torch.no_grad():
        seen = as_tensor([piece(pictures[rng.integers(len(pictures))], rng) for _ in range(64)])
        vae.register_to_config(scaling_factor=1 / float(vae.encode(seen).latent_dist.mean.std()))
    return vae.eval()


@torch.no_grad()
def gate(vae: Any, faces: Faces, degradation: str) -> dict[str, float]:
    """dB of held-out faces through the VAE, and of their degraded selves. Raises UserError where the VAE is too poor.

    What it loses cannot be restored: it must stand at least GATE_DB above what is to be restored.
    """
    held_out = pd.concat([faces.of("val"), faces.of("test")], ignore_index=True)
    pairs = DegradedPairs(faces.workspace, held_out, SIZE_PX, degradation, seed=0)
    clean = as_tensor([pairs.clean(SampleKey(0, index), False) for index in range(len(held_out))])
    draws = [SampleKey(epoch, index) for epoch in range(4) for index in range(len(held_out))]
    degraded = torch.stack([pairs.pair(draw, False).degraded for draw in draws]) * 2 - 1
    found = {
        "reconstruction_db": float(
            psnr(vae.decode(vae.encode(clean).latent_dist.mean).sample, clean).mean()
        ),
        "degraded_db": float(psnr(degraded, clean.repeat(4, 1, 1, 1)).mean()),
    }
    console.print(
        f"VAE: {found['reconstruction_db']:.1f} dB on {len(held_out)} held-out faces; their degraded selves have "
        f"{found['degraded_db']:.1f} dB"
    )
    if found["reconstruction_db"] < found["degraded_db"] + GATE_DB:
        raise UserError(
            f"the VAE reaches {found['reconstruction_db']:.1f} dB on held-out faces, less than {GATE_DB:.0f} above the "
            f"degraded ones' {found['degraded_db']:.1f}: nothing could be told by it; give more --photos"
        )
    return found


def make_base(folder: Path, vae: Any) -> None:
    """A small SDXL with that VAE and nothing learnt in its U-Net (about 2 M parameters), for --base."""
    from diffusers import UNet2DConditionModel

    from authface_train.models.sdxl import tiny_sdxl

    pipeline = tiny_sdxl(0)
    pipeline.vae = vae
    own = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    channels = vae.config.latent_channels
    own |= {"in_channels": channels, "out_channels": channels, "sample_size": SIZE_PX // CELL_PX}
    own["block_out_channels"] = (2 * channels, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline.unet = passing_through(UNet2DConditionModel(**own))
    pipeline.save_pretrained(folder)


@torch.no_grad()
def passing_through(unet: Any) -> Any:
    """A U-Net that begins by predicting the noise to be what it is given, which is nearly right where there is much of it.

    So small a model would spend its training on learning to let the noise of every channel through. Its first level, twice as
    wide as the latents, holds x and -x, and SiLU(x) - SiLU(-x) = x; the last residual branch begins at 0.
    """
    channels, width = unet.config.in_channels, unet.config.block_out_channels[0]
    eye = torch.eye(channels)
    both = torch.cat([eye, -eye])
    for layer in (unet.conv_in, unet.conv_out, unet.up_blocks[-1].resnets[-1].conv2):
        layer.weight.zero_()
        layer.bias.zero_()
    unet.conv_in.weight[..., 1, 1] = both
    unet.conv_out.weight[..., 1, 1] = both.T
    shortcut = unet.up_blocks[-1].resnets[-1].conv_shortcut
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    shortcut.weight[:, -width:, 0, 0] = torch.eye(width)
    return unet


GENERIC_PIECES = 800


def generic_view(folder: Path) -> tuple[Workspace, pd.DataFrame]:
    """A workspace of GENERIC_PIECES pieces of generic pictures, and rows of them as a trainer reads them."""
    workspace = (
        Workspace(folder)
        if (folder / "authface.toml").is_file()
        else Workspace.create(folder, preset_text("embedded"))
    )
    pictures, rng, rows = generic_pictures(), np.random.default_rng(1), []
    for number in range(GENERIC_PIECES):
        path = workspace.local(f"faces/piece-{number:04d}.png")
        path.parent.mkdir(exist_ok=True)
        made = Image.fromarray(piece(pictures[number % len(pictures)], rng))
        made.save(path)
        rows.append(
            {"face_id": f"piece-{number:04d}", "crop_path": f"faces/{path.name}", 
             "photo_id": f"generic-{number % len(pictures)}",
             "crop_sha256": hashlib.sha256(made.tobytes()).hexdigest(), "sha256": "", "photographer_name": None,
             "photographer_url": None, "source_url": None, "licence": None, "caption": "",
             "licence_basis": "other:inside scikit-image and scikit-learn"}
        )  # fmt: skip
    return workspace, pd.DataFrame(rows)


def train_generic(
    view: pd.DataFrame, workspace: Workspace, base: Path, folder: Path, changes: list[str]
) -> None:
    """What SDXL is in the paper: a prior of the world at large, by Stage I's own trainer on generic pieces."""
    from authface_train.data.latents import cached_latents
    from authface_train.data.prompts import cached_prompts
    from authface_train.models.sdxl import detach_core, load_base
    from authface_train.presets import load_preset
    from authface_train.runs import saving
    from authface_train.runs.run_folder import RunFolder
    from authface_train.settings import PriorSettings
    from authface_train.stages.prior import PriorTrainer
    from authface_train.training import loop
    from authface_train.training import setup as start

    asked = load_preset("prior", "tiny", changes)
    assert isinstance(asked, PriorSettings)
    accelerator, settings = start.processes(asked)
    pipeline = load_base(str(base), None, 0)
    run = RunFolder(folder, "prior")
    resume = run.record() is not None
    start.begin(run, accelerator, settings, view, resume, str(base), pipeline.unet, 0.0)
    latents = cached_latents(workspace, pipeline.vae, view, SIZE_PX, accelerator, lambda *_: None)
    null = cached_prompts(workspace, pipeline, [""], accelerator, lambda *_: None)[0]
    trainer = PriorTrainer(
        settings, detach_core(pipeline), view, latents, [null] * len(view), null, accelerator
    )
    loop.train(trainer, settings, run, accelerator)
    state = saving.final_state(trainer.parts["unet"], accelerator)
    saving.save_prior(run, settings, state, lambda: load_base(str(base), None, 0), str(base))
