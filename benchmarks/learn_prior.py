"""Whether Stage I learns: the losses of a small SDXL on real faces, and the images it generates.

    python benchmarks/learn_prior.py --folder DIR                 about 15 minutes on two cores
    python benchmarks/learn_prior.py --folder DIR --picture FILE  also plots docs/train-prior.md's
                                                                  picture

The photographs, their split by person and the small SDXL are those of `authface reproduce table2`,
except that both its validation and its test people are held out. The VAE is trained first, on
pieces of the training people's photographs. The text encoders are random: different captions give
different embeddings, but the embeddings have no meaning.

It is unknown whether the people in those photographs agreed to be shown. The picture therefore
shows generated images only, up to the checkpoint with the lowest held-out loss. Publish it only if
the audit reports no possible copies.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from authface_train.callbacks.image_grid import CELL_PX, LABEL_PX  # noqa: E402
from authface_train.data.crops import load_crop  # noqa: E402
from authface_train.reproduce import small_models  # noqa: E402
from authface_train.reproduce.small_data import Faces, prepare_faces  # noqa: E402
from authface_train.reproduce.small_settings import SIZE_PX  # noqa: E402
from manifests.run_folder import (  # noqa: E402
    AUDIT,
    AUDIT_FILE,
    PREVIEWS,
    is_finished,
    read_run,
    step_name,
)
from manifests.settings import SETTINGS_FILE  # noqa: E402
from manifests.support.console import run_command  # noqa: E402
from manifests.support.csv_file import read_rows  # noqa: E402

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

LATENT_CHANNELS = 16
NUM_CHECKPOINTS = 14
NUM_PICTURES = 6
"""Generated images per step in the picture."""
SETTINGS: dict[str, object] = {
    "resolution_px": SIZE_PX,
    "batch": 8,
    "micro_batch": 8,
    "learning_rate": 5e-4,
    "warmup_steps": 100,
    "ema_decay": 0.995,
    "caption_dropout": 0.1,
    "draw.count": 3,
    "draw.seeds": [0, 1],
    "draw.steps": 25,
    "draw.guidance": 1.5,
}


def prepare_held_out_faces(folder: Path) -> Faces:
    """Prepare the workspace of the small experiments, with the test people as validation people.

    Args:
        folder: Folder of the experiment.
    """
    faces = prepare_faces(folder, [])
    settings_file = Path(faces.workspace.root) / SETTINGS_FILE
    settings_file.write_text(settings_file.read_text().replace('= "test"', '= "val"'))
    return faces


@torch.no_grad()
def reconstruction_db(vae: AutoencoderKL, faces: Faces) -> float:
    """Mean PSNR of held-out faces after encoding and decoding, in dB.

    Args:
        vae: The VAE.
        faces: The faces; those of "val" and "test" are used.
    """
    held_out = pd.concat([faces.of_split("val"), faces.of_split("test")])
    crops = [load_crop(faces.workspace, path, SIZE_PX) for path in held_out["crop_path"]]
    images = small_models.to_tensor(crops)
    reconstructed = vae.decode(vae.encode(images).latent_dist.mean).sample
    return float(small_models.psnr(reconstructed, images).mean())


def train(faces: Faces, folder: Path, *, steps: int, vae_steps: int) -> Path:
    """Train the VAE and the prior; what the folder holds already is not trained again.

    Args:
        faces: The faces.
        folder: Folder of the experiment.
        steps: Training steps of the prior.
        vae_steps: Training steps of the VAE.

    Returns:
        The run folder of the prior.
    """
    base = folder / "base"
    run_folder = folder / "run"
    if not is_finished(base):
        photographs, crops = small_models.face_photographs(faces, "train")
        vae = small_models.train_vae(photographs + crops, LATENT_CHANNELS, vae_steps, SIZE_PX)
        print(f"VAE: {reconstruction_db(vae, faces):.1f} dB on held-out faces", flush=True)
        small_models.make_base(base, vae, SIZE_PX)
    if is_finished(run_folder):
        return run_folder

    every = steps // NUM_CHECKPOINTS
    arguments: list[object] = ["train-prior", "-w", faces.workspace.root, "--preset", "tiny"]
    arguments += ["--base", base, "--steps", steps, "--output", run_folder]
    for name, value in (SETTINGS | {"checkpoint_every": every, "draw.every": every}).items():
        arguments += ["--set", f"{name}={json.dumps(value)}"]
    if read_run(run_folder) is not None:
        arguments.append("--resume")
    run_command(*arguments)
    return run_folder


def print_audits(audits: list[dict[str, str]]) -> None:
    """Print the memorisation audits, and how far the held-out loss has fallen."""
    print("step  training  held out  faces seen  latent distance generated/held-out  copies")
    for row in audits:
        print(
            f"{row['step']:>5} {float(row['training_loss']):9.4f} "
            f"{float(row['held_out_loss']):9.4f} {row['faces_seen']:>6} of {row['drawn']} "
            f"{float(row['latent_nearest']):12.3f} / {float(row['latent_held_out']):.3f} "
            f"{row['copies']:>13}"
        )
    first_loss = float(audits[0]["held_out_loss"])
    best = best_audit(audits)
    print(
        f"held-out loss {first_loss:.4f} -> {float(best['held_out_loss']):.4f} at step "
        f"{best['step']}: {audits[-1]['advice']}"
    )


def best_audit(audits: list[dict[str, str]]) -> dict[str, str]:
    """The audit with the lowest held-out loss."""
    return min(audits, key=lambda row: float(row["held_out_loss"]))


def plot_learning(audits: list[dict[str, str]], previews: Path, output: Path) -> None:
    """Plot both losses, and show generated images up to the lowest held-out loss.

    Args:
        audits: The memorisation audits by step.
        previews: Folder of the preview grids.
        output: The picture to save.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = [int(row["step"]) for row in audits]
    best_step = int(best_audit(audits)["step"])
    best_index = steps.index(best_step)
    figure = plt.figure(figsize=(11, 4.2), dpi=110)
    axes = figure.add_axes((0.08, 0.13, 0.38, 0.8))
    for column, label in (
        ("training_loss", "training people"),
        ("held_out_loss", "held-out people"),
    ):
        losses = [float(row[column]) for row in audits]
        axes.plot(steps, losses, marker="o", markersize=3, label=label)
    axes.axvline(best_step, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("step")
    axes.set_ylabel("noise loss")
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter("{x:.2f}")
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.legend()

    for row, step in enumerate(sorted({0, steps[best_index // 2], best_step})):
        images = split_grid(previews / step_name(step, ".png"))[:NUM_PICTURES]
        for column, image in enumerate(images):
            cell = figure.add_axes((0.5 + 0.082 * column, 0.66 - 0.31 * row, 0.078, 0.27))
            cell.imshow(image)
            cell.axis("off")
            if column == 0:
                cell.set_title(f"generated at step {step}", fontsize=9, loc="left")
    figure.savefig(output, pil_kwargs={"quality": 88})


def split_grid(path: Path) -> list[np.ndarray]:
    """Cut a preview grid into its images.

    Args:
        path: A picture made by `label_grid`.

    Returns:
        The images row by row, (CELL_PX, CELL_PX, 3) uint8 each.
    """
    pixels = np.asarray(Image.open(path))
    images = []
    for top in range(LABEL_PX, len(pixels), CELL_PX + LABEL_PX):
        for left in range(0, pixels.shape[1], CELL_PX):
            images.append(pixels[top : top + CELL_PX, left : left + CELL_PX])
    return images


def main() -> None:
    """Train, print the audits and save the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="Folder of all files. A later call resumes."
    )
    parser.add_argument("--picture", type=Path, help="File to save the picture to.")
    parser.add_argument("--steps", type=int, default=2800, help="Training steps of the prior.")
    parser.add_argument("--vae-steps", type=int, default=2000, help="Training steps of the VAE.")
    arguments = parser.parse_args()

    started_s = time.monotonic()
    folder = arguments.folder.absolute()
    faces = prepare_held_out_faces(folder)
    run_folder = train(faces, folder, steps=arguments.steps, vae_steps=arguments.vae_steps)
    audits = read_rows(run_folder / AUDIT / AUDIT_FILE)
    minutes = (time.monotonic() - started_s) / 60
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"\n{minutes:.1f} minutes on {machine}")
    print_audits(audits)
    if arguments.picture:
        plot_learning(audits, run_folder / PREVIEWS, arguments.picture)
        print(f"the picture is in {arguments.picture}")


if __name__ == "__main__":
    main()
