"""The pictures of docs/evidence.md and a table of it, from the folder of a small experiment.

    python benchmarks/evidence.py --experiment DIR --trade docs/evidence-trade.png
    python benchmarks/evidence.py --experiment DIR --row b --picture docs/evidence.jpg
    python benchmarks/evidence.py --experiment DIR --row b --sampling sampling.md

The picture shows one person only, NASA's portrait of Eileen Collins, which is in the public domain
and belongs to the test people: clean, degraded, by the regression, and restored. It is unknown
whether the other people of the experiment agreed to be shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

from authface_train.callbacks.image_grid import label_grid  # noqa: E402
from authface_train.commands.silence_libraries import silence_libraries  # noqa: E402
from authface_train.data.pairs import DegradedPairs  # noqa: E402
from authface_train.reproduce.ablation import read_results  # noqa: E402
from authface_train.reproduce.rows import ABLATIONS, METRICS  # noqa: E402
from authface_train.reproduce.small_scores import degrade_faces, measure_restored  # noqa: E402
from authface_train.reproduce.small_settings import Scale  # noqa: E402
from authface_train.reproduce.trade import SHOWN, plot_trade  # noqa: E402
from authface_train.restore.sampling import Start  # noqa: E402

if TYPE_CHECKING:
    from authface_train.reproduce.small_runs import Experiment

PORTRAIT = "astronaut-nasa.png"
DEGRADATIONS = 6
ENLARGED_PX = 160
CONDITIONING_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


def main() -> None:
    """Write the requested files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--experiment", type=Path, required=True, help="folder of the experiment")
    parser.add_argument("--trade", type=Path, help="where to save the figure")
    parser.add_argument("--picture", type=Path, help="where to save the picture")
    parser.add_argument(
        "--sampling", type=Path, help="where to save the table of conditioning scales and starts"
    )
    parser.add_argument("--row", default="b", help="row of Table 2 that picture and table show")
    parser.add_argument("--seed", type=int, default=0, help="seed of its training")
    arguments = parser.parse_args()
    if arguments.trade:
        results = arguments.experiment / "results"
        plot_trade(results, read_results(results), ABLATIONS["table2"]).save(arguments.trade)
    if arguments.picture:
        picture = draw_portrait(arguments.experiment, arguments.row, arguments.seed)
        picture.save(arguments.picture, quality=92)
    if arguments.sampling:
        table = compare_sampling(arguments.experiment, arguments.row, arguments.seed)
        arguments.sampling.write_text(table, "utf-8")


def open_experiment(folder: Path) -> Experiment:
    """Open the experiment of a folder with the sizes that it has."""
    silence_libraries()
    from authface_train.reproduce.small_runs import Experiment

    stored = json.loads((folder / "experiment.json").read_text("utf-8"))
    return Experiment(folder, [], stored.pop("latent"), Scale(**stored))


def compare_sampling(folder: Path, row: str, seed: int) -> str:
    """Restore the test faces with several conditioning scales, from both starts.

    Args:
        folder: Folder of the experiment.
        row: Row of Table 2.
        seed: Seed of its training.

    Returns:
        A table in Markdown.
    """
    experiment = open_experiment(folder)
    faces = experiment.scored_faces("test")
    lines = [
        f"| start | conditioning scale | {' | '.join(METRICS[name].heading for name in SHOWN)} |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for start in get_args(Start):
        for scale in CONDITIONING_SCALES:
            restore = experiment.restore_function(
                folder / "runs" / f"{row}-{seed}",
                experiment.scale.sampling,
                start=start,
                conditioning_scale=scale,
            )
            pictures = folder / "pictures" / f"{row}-{seed}-{start}-{scale}"
            scores = pd.DataFrame(measure_restored(faces, restore(faces.degraded), pictures))
            cells = " | ".join(_mean_cell(scores[name].astype(float)) for name in SHOWN)
            lines.append(f"| {start} | {scale} | {cells} |")
    return "\n".join(lines) + "\n"


def _mean_cell(values: pd.Series) -> str:
    """The mean of a metric, and in how many pictures it could not be measured."""
    missing = int(values.isna().sum())
    if missing == len(values):
        return "not measured"
    return f"{values.mean():.3f}" + (f" ({missing} missing)" if missing else "")


def draw_portrait(folder: Path, row: str, seed: int) -> Image.Image:
    """Degrade and restore the portrait several times.

    Args:
        folder: Folder of the experiment.
        row: Row of Table 2.
        seed: Seed of its training.
    """
    experiment = open_experiment(folder)
    view = experiment.view("test")
    view = view[view["file"] == PORTRAIT].reset_index(drop=True)
    scale = experiment.scale
    pairs = DegradedPairs(
        experiment.faces.workspace, view, scale.size_px, scale.degradation, seed=1
    )
    faces = degrade_faces(view, pairs, DEGRADATIONS)
    restore = experiment.restore_function(folder / "runs" / f"{row}-{seed}", scale.sampling)
    rows = {
        "clean": faces.clean,
        "degraded": faces.degraded,
        "regression": experiment.regression_function(0)(faces.degraded),
        f"row {row}": restore(faces.degraded),
    }
    images = [image for row_images in rows.values() for image in row_images]
    return label_grid(images, list(rows), ENLARGED_PX)


if __name__ == "__main__":
    main()
