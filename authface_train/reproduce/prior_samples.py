"""Pictures of a prior for Table 3: held-out people's captions, each by a seed of its own."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from rich.progress import track

from authface_train.models.sdxl import load_base
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace

STEPS, GUIDANCE = 50, 5.0


def draw_pictures(
    workspace: Workspace, model: str, folder: Path, count: int, steps: int = STEPS
) -> None:
    """`count` PNGs, and captions.csv when all are there. What is there is not drawn again."""
    view = training_view(workspace)
    held_out = view[view["split"] != "train"]
    captions = sorted((held_out if len(held_out) else view)["caption"].unique())
    if not captions:
        raise UserError("the workspace has no captions to draw: run `authface caption` first")
    pipeline = load_base(model, workspace.weights_dir, 0).to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    pipeline.set_progress_bar_config(disable=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in track(range(count), description="draw"):
        caption, path = captions[number % len(captions)], folder / f"{number:05d}.png"
        rows.append((path.name, caption))
        if path.exists():
            continue
        generator = torch.Generator("cpu").manual_seed(number)
        image = pipeline(
            caption, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator
        ).images[0]
        temp = path.with_name(f".{path.name}")
        image.save(temp, "PNG")
        temp.replace(path)
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "caption"), *rows])
