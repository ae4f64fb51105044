"""How many good faces are dropped once their photographs have salt-and-pepper noise.

    python benchmarks/pepper.py --photos DIR --labels CSV [--share 0.01] [--size 512]

A share of the pixels of each photograph becomes black or white. The labels are those of
curation.py; faces that the person keeps are counted, by their size in the photograph.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from curation import match, read_faces, read_labels, run
from PIL import Image

GATE = "pepper_noise"
SIZE_EDGES_PX = [0, 512, 1024, 1600, 100_000]


def add_noise(source: Path, target: Path, share: float, seed: int) -> None:
    """Write a photograph with noise as PNG.

    Args:
        source: The photograph.
        target: Where to write it.
        share: Share of the pixels that become black or white.
        seed: Seed of their places.
    """
    with Image.open(source) as image:
        pixels = np.array(image.convert("RGB"))
    rng = np.random.default_rng(seed)
    is_dot = rng.random(pixels.shape[:2]) < share
    pixels[is_dot] = rng.choice([0, 255], is_dot.sum())[:, None]
    Image.fromarray(pixels).save(target, compress_level=1)


def main() -> None:
    """Parse the command line, filter the noisy photographs and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--labels", type=Path, required=True, help="CSV of the labels")
    parser.add_argument("--share", type=float, default=0.01, help="share of the pixels")
    parser.add_argument(
        "--size", type=int, default=1024, help="side of the crops; that of the preset paper"
    )
    options = parser.parse_args()

    labels = read_labels(options.labels, None)
    labels = labels[(labels["x0"] != "") & (labels["decision"] == "keep")].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        noisy = Path(folder) / "photographs"
        noisy.mkdir()
        for seed, file in enumerate(sorted(labels["file"].unique())):
            add_noise(options.photos / file, noisy / f"{file}.png", options.share, seed)
        workspace = Path(folder) / "workspace"
        run("init", workspace, "--preset", "embedded")
        run("collect", "-w", workspace, "--source", "folder", "--path", noisy,
            "--licence-basis", "own")  # fmt: skip
        run("filter", "-w", workspace, "--size", str(options.size))
        faces = read_faces(workspace, noisy)
    labels["file"] += ".png"
    rows = [row for row in match(labels, faces) if row is not None]
    found = faces.loc[rows]
    is_dropped = pd.Series([GATE in gates for gates in found["gates"]], index=found.index)
    sizes = pd.cut(found["qsize_px"], SIZE_EDGES_PX)
    print(f"{len(found)} of {len(labels)} good faces are detected; {is_dropped.sum()} are dropped")
    print(is_dropped.groupby(sizes, observed=True).agg(dropped="sum", faces="count"))


if __name__ == "__main__":
    main()
