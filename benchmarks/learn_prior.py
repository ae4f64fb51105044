"""Whether Stage I learns: a small SDXL on real faces, its loss on people it has never seen, and what it draws.

    python benchmarks/learn_prior.py --folder DIR              a quarter of an hour on two cores; DIR keeps everything
    python benchmarks/learn_prior.py --folder DIR --picture F  also the picture of docs/train-prior.md

All by the commands that a user runs. The photographs are those of the tests and the demo, divided by person: those that show
the same person (128-d descriptor) are one group. The base is SDXL's classes in small with nothing learnt in its U-Net (about
1 M parameters, latents of 16 x 16) and a VAE that is first trained here on pieces of the training people's photographs. Its
text encoders are random, so that captions are told apart but not understood.

Whether the people in those photographs agreed to be shown is not known: the picture shows what the model draws, not them, from
the checkpoint at which the audit's held-out loss is lowest, and of those only what the audit does not call a copy.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402

SIZE_PX, CELL_PX, CHANNELS = 64, 4, 8
SETTINGS = """
[filter]
detector = "retinaface-mobile"
landmarks = "dlib"
size = 512
metrics = []

[[gates]]
name = "face_size"
metric = "qsize_px"
op = ">="
threshold = 60

[captions]
captioner = "measured"
use = ["measured"]

[splits]
val = 0.25
test = 0.0
seed = {seed}
"""
SPLIT_SEED = 3


def run(*words: object) -> None:
    """One command of authface, as a user types it."""
    line = [str(word) for word in words]
    print("$ authface", *line, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-P", "-m", "cli", *line], check=True, env=environment)


def make_workspace(root: Path) -> None:
    """Photographs collected with the people in them named by descriptor; faces found, aligned and captioned."""
    from public_faces import photographs

    folder = root.with_name("photographs")
    for begun in (folder, root):
        shutil.rmtree(begun, ignore_errors=True)
    folder.mkdir()
    paths = {**photographs(), **{path.name: path for path in Path(os.environ["AUTHFACE_CACHE"], "photos").rglob("*.*")}}
    paths = {name: path for name, path in paths.items() if path.suffix.lower() in (".jpg", ".jpeg", ".png")}
    for name, path in paths.items():
        shutil.copy(path, folder / name)
    run("init", root, "--preset", "embedded")
    (root / "authface.toml").write_text(SETTINGS.format(seed=SPLIT_SEED))
    basis = "other:a benchmark on one machine; consent unknown"
    run("collect", "-w", root, "--source", "folder", "--path", folder, "--licence-basis", basis)
    run("filter", "-w", root)
    for name, person in people(root).items():
        (folder / f"{name}.json").write_text(json.dumps({"person": person}))
    run("collect", "-w", root, "--source", "folder", "--refresh", "--yes")
    run("caption", "-w", root)


def people(root: Path) -> dict[str, str]:
    """File name of each photograph -> a name for the group of photographs that it shares people with."""
    import pandas as pd

    from authface_data.faces.descriptor import SAME_PERSON, Descriptor

    describe = Descriptor()
    describe.setup(None)
    faces = pd.read_parquet(root / "manifests/faces")
    photos = pd.read_parquet(root / "manifests/photos").set_index("photo_id")
    shown: dict[str, list[np.ndarray]] = {photo_id: [] for photo_id in photos.index}
    for row in faces.itertuples():
        own = describe.describe(np.asarray(Image.open(root / str(row.crop_path)).convert("RGB")))
        if own is not None:
            shown[str(row.photo_id)].append(own)
    group = {photo_id: photo_id for photo_id in shown}
    for one in shown:
        for other in shown:
            near = any(np.linalg.norm(a - b) < SAME_PERSON for a in shown[one] for b in shown[other])
            if near and group[one] != group[other]:
                old, new = sorted((group[one], group[other]), reverse=True)
                group = {photo: new if of == old else of for photo, of in group.items()}
    return {Path(str(photos.loc[photo, "source_url"])).name: of for photo, of in group.items()}


def pieces(root: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures to train the VAE on, those of training people, and held-out faces of SIZE_PX to measure it on."""
    from manifests.views import training_view
    from manifests.workspace import Workspace

    view = training_view(Workspace(root))
    photos = Workspace(root)
    training = view[view["split"] == "train"]
    import pandas as pd

    paths = pd.read_parquet(root / "manifests/photos").set_index("photo_id")["path"]
    pictures = [root / path for path in training["crop_path"]]
    pictures += [Path(photos.root) / paths[photo] for photo in training["photo_id"].unique()]
    loaded = []
    for path in pictures:
        image = Image.open(path).convert("RGB")
        image.thumbnail((512, 512))
        loaded.append(np.asarray(image))
    held_out = [
        np.asarray(Image.open(root / path).convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS))
        for path in view.loc[view["split"] == "val", "crop_path"]
    ]
    return loaded, held_out


def train_vae(root: Path, minutes: float) -> object:
    """An AutoencoderKL; prints its peak signal to noise on held-out faces."""
    from diffusers import AutoencoderKL

    loaded, held_out = pieces(root)
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=8, latent_channels=CHANNELS, sample_size=SIZE_PX,
        layers_per_block=1,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(vae.parameters(), lr=3e-3, fused=True)
    rng = np.random.default_rng(0)
    began, step = time.monotonic(), 0
    while (spent := time.monotonic() - began) < 60 * minutes:
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - 0.95 * spent / (60 * minutes))
        batch = torch.from_numpy(np.stack([_piece(loaded[rng.integers(len(loaded))], rng) for _ in range(8)]))
        batch = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
        posterior = vae.encode(batch).latent_dist
        made = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(made, batch) + 1e-5 * posterior.kl().mean() / batch[0].numel()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
    faces = torch.from_numpy(np.stack(held_out)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(faces).latent_dist.mean
        error = F.mse_loss(vae.decode(latents).sample.clamp(-1, 1), faces)
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    psnr = float(10 * torch.log10(4 / error))
    print(f"VAE: {step} steps in {minutes:.1f} minutes, {psnr:.1f} dB on {len(held_out)} held-out faces", flush=True)
    return vae


def _piece(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of a picture at SIZE_PX, of any size from that to the whole."""
    side = int(rng.integers(SIZE_PX, min(picture.shape[:2]) + 1)) if min(picture.shape[:2]) > SIZE_PX else None
    if side is None:
        return np.asarray(Image.fromarray(picture).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    cut = Image.fromarray(picture[top : top + side, left : left + side])
    cut = cut.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(cut)[:, :: rng.choice([-1, 1])].copy()


def make_base(folder: Path, vae: object) -> int:
    """A small SDXL with that VAE, saved for --base. Returns the U-Net's parameters."""
    from diffusers import UNet2DConditionModel

    from authface_train.sdxl import tiny_sdxl

    pipeline = tiny_sdxl(0)
    pipeline.vae = vae
    torch.manual_seed(0)
    own = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    own |= {"in_channels": CHANNELS, "out_channels": CHANNELS, "sample_size": SIZE_PX // CELL_PX}
    pipeline.unet = UNet2DConditionModel(**own)
    pipeline.save_pretrained(folder)
    return sum(parameter.numel() for parameter in pipeline.unet.parameters())


def picture(root: Path, run_folder: Path, file: Path) -> None:
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
    axes = figure.add_axes((0.06, 0.13, 0.4, 0.8))
    for name, label in (("training_loss", "training people"), ("held_out_loss", "people never seen")):
        axes.plot(steps, [float(row[name]) for row in rows], marker="o", markersize=3, label=label)
    axes.axvline(int(best["step"]), color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("step")
    axes.set_ylabel("noise loss")
    axes.set_yscale("log")
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
    from authface_train.drawing import CELL_PX as SIDE
    from authface_train.drawing import LABEL_PX

    pixels = np.asarray(Image.open(sheet))
    found = []
    for top in range(LABEL_PX, len(pixels), SIDE + LABEL_PX):
        found += [pixels[top : top + SIDE, left : left + SIDE] for left in range(0, pixels.shape[1], SIDE)]
    return found


def audits(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "audit/audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything goes; taken up again if it is there")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--vae-minutes", type=float, default=6)
    given = parser.parse_args()
    began = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    root, base, run_folder = (given.folder.absolute() / name for name in ("ws", "base", "run"))
    if not (root / "made").is_file():
        make_workspace(root)
        (root / "made").touch()
    if not (base / "model_index.json").is_file():
        vae = train_vae(root, given.vae_minutes)
        count = make_base(base, vae)
        print(f"U-Net: {count / 1e6:.2f} M parameters, latents of {SIZE_PX // CELL_PX} x {SIZE_PX // CELL_PX}", flush=True)
    settings = {
        "resolution_px": 64, "batch": 8, "micro_batch": 8, "learning_rate": 5e-4, "warmup_steps": 100,
        "ema_decay": 0.995, "caption_dropout": 0.1, "checkpoint_every": given.steps // 14, "draw.every": given.steps // 14,
        "draw.count": 3, "draw.seeds": "[0,1]", "draw.steps": 25, "draw.guidance": 1.5,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    resume = ["--resume"] if (run_folder / "run.json").is_file() else []
    words += ["--preset", "tiny", "--base", base, "--steps", given.steps, "--output", run_folder, "-w", root, *resume]
    if not (run_folder / "model_index.json").is_file():
        run("train-prior", *words)
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
    print(f"held-out loss {first:.4f} -> {float(best['held_out_loss']):.4f} at step {best['step']}: {rows[-1]['advice']}")
    if given.picture:
        picture(root, run_folder, given.picture)
        print(f"made {given.picture}")


if __name__ == "__main__":
    main()
