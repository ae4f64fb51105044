"""Whether Stage I learns: a small SDXL on real faces, its loss on people it has never seen, and what it draws.

    python benchmarks/learn_prior.py --folder DIR              a quarter of an hour on two cores; DIR keeps everything
    python benchmarks/learn_prior.py --folder DIR --picture F  also the picture of docs/train-prior.md

Photographs, their division by person and the small SDXL are those of `authface reproduce table2`, with its validation and test
people held out here; the latents are a VAE's, first trained on pieces of the training people's photographs. Text encoders
are random, so that captions are told apart but not understood.

Whether the people in those photographs agreed to be shown is not known: the picture shows what the model draws, not them, from
the checkpoint at which the audit's held-out loss is lowest, and of those only what the audit does not call a copy.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from authface_train.reproduce.small_data import Faces, prepare  # noqa: E402
from authface_train.reproduce.small_models import as_tensor, make_base, photographs, psnr, train_vae  # noqa: E402
from manifests.support.console import run_command  # noqa: E402

SIZE_PX, CHANNELS = 64, 16
HELD_OUT = ("val", "test")


def held_out_people(folder: Path) -> Faces:
    """The workspace of the small experiments, in which the audit looks at test people as well."""
    faces = prepare(folder, [])
    settings = Path(faces.workspace.root) / "authface.toml"
    settings.write_text(settings.read_text().replace('= "test"', '= "val"'))
    return faces


@torch.no_grad()
def reconstruction_db(vae: Any, faces: Faces) -> float:
    """Peak signal to noise of held-out faces that the VAE has encoded and decoded."""
    rows = faces.rows[faces.rows["split"].isin(HELD_OUT)]
    root = Path(faces.workspace.root)
    pictures = [Image.open(root / path).convert("RGB") for path in rows["crop_path"]]
    clean = as_tensor(
        [np.asarray(one.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)) for one in pictures]
    )
    return float(psnr(vae.decode(vae.encode(clean).latent_dist.mean).sample, clean).mean())


def picture(run_folder: Path, file: Path) -> None:
    """The curve of both losses and what was drawn along it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = audits(run_folder)
    steps = [int(row["step"]) for row in rows]
    best = min(rows, key=lambda row: float(row["held_out_loss"]))
    at = steps.index(int(best["step"]))
    shown = sorted({0, steps[at // 2], steps[at]})
    figure = plt.figure(figsize=(11, 4.2), dpi=110)
    axes = figure.add_axes((0.08, 0.13, 0.38, 0.8))
    for name, label in (
        ("training_loss", "training people"),
        ("held_out_loss", "people never seen"),
    ):
        axes.plot(steps, [float(row[name]) for row in rows], marker="o", markersize=3, label=label)
    axes.axvline(int(best["step"]), color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("step")
    axes.set_ylabel("noise loss")
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter("{x:.2f}")
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.legend()
    for row, step in enumerate(shown):
        drawn = cells(run_folder / "drawn" / f"step-{step:08d}.png")[:6]
        for column, cell in enumerate(drawn):
            place = figure.add_axes((0.5 + 0.082 * column, 0.66 - 0.31 * row, 0.078, 0.27))
            place.imshow(cell)
            place.axis("off")
            if column == 0:
                place.set_title(f"drawn at step {step}", fontsize=9, loc="left")
    figure.savefig(file, pil_kwargs={"quality": 88})


def cells(sheet: Path) -> list[np.ndarray]:
    """The pictures of a grid that `train-prior` has drawn."""
    from authface_train.callbacks.image_grid import CELL_PX as SIDE
    from authface_train.callbacks.image_grid import LABEL_PX

    pixels = np.asarray(Image.open(sheet))
    found = []
    for top in range(LABEL_PX, len(pixels), SIDE + LABEL_PX):
        found += [
            pixels[top : top + SIDE, left : left + SIDE] for left in range(0, pixels.shape[1], SIDE)
        ]
    return found


def audits(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "audit/audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="where everything goes; taken up again if it is there",
    )
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--vae-steps", type=int, default=2000)
    given = parser.parse_args()
    began = time.monotonic()
    base, run_folder = given.folder.absolute() / "base", given.folder.absolute() / "run"
    faces = held_out_people(given.folder.absolute())
    root = faces.workspace.root
    if not (base / "model_index.json").is_file():
        vae = train_vae(photographs(faces, "train"), CHANNELS, given.vae_steps)
        print(f"VAE: {reconstruction_db(vae, faces):.1f} dB on held-out faces", flush=True)
        make_base(base, vae)
    settings = {
        "resolution_px": 64, "batch": 8, "micro_batch": 8, "learning_rate": 5e-4, "warmup_steps": 100,
        "ema_decay": 0.995, "caption_dropout": 0.1, "checkpoint_every": given.steps // 14, "draw.every": given.steps // 14,
        "draw.count": 3, "draw.seeds": "[0,1]", "draw.steps": 25, "draw.guidance": 1.5,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    resume = ["--resume"] if (run_folder / "run.json").is_file() else []
    words += [
        "--preset",
        "tiny",
        "--base",
        base,
        "--steps",
        given.steps,
        "--output",
        run_folder,
        "-w",
        root,
        *resume,
    ]
    if not (run_folder / "model_index.json").is_file():
        run_command("train-prior", *words)
    rows = audits(run_folder)
    best = min(rows, key=lambda row: float(row["held_out_loss"]))
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes on {platform.processor() or platform.machine()}, "
          f"{os.cpu_count()} cores")  # fmt: skip
    print("step  training  held out  faces seen  latent distance drawn/held-out  copies")
    for row in rows:
        print(
            f"{row['step']:>5} {float(row['training_loss']):9.4f} {float(row['held_out_loss']):9.4f} "
            f"{row['faces_seen']:>6} of {row['drawn']} {float(row['latent_nearest']):12.3f} / "
            f"{float(row['latent_held_out']):.3f} {row['copies']:>13}"
        )
    first = float(rows[0]["held_out_loss"])
    print(
        f"held-out loss {first:.4f} -> {float(best['held_out_loss']):.4f} at step {best['step']}: {rows[-1]['advice']}"
    )
    if given.picture:
        picture(run_folder, given.picture)
        print(f"made {given.picture}")


if __name__ == "__main__":
    main()
