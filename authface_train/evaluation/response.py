"""How a method answers to damage: its metrics against blur, downscaling, noise and JPEG, from the recorded draws."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_train.evaluation.evaluate import Evaluation
from authface_train.evaluation.image_pairs import pictures_by_name
from authface_train.evaluation.intervals import bootstrap
from authface_train.evaluation.metrics import known
from manifests.support.errors import UserError

BINS, LEAST = 5, 3  # as many pictures in each bin, and no bin of fewer than LEAST
DAMAGES = {
    "blur_px": "blur, sigma px",
    "down": "downscaling",
    "noise": "noise, of 255",
    "jpeg": "JPEG quality",
}


def read_draws(path: Path, folders: Iterable[Path]) -> pd.DataFrame:
    """name and each of DAMAGES, of the `draws.parquet` that `authface degrade` writes.

    Raises UserError for another file, and where it names no picture of the folders.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is not there: `authface degrade` writes draws.parquet beside the pictures it makes"
        )
    table = pd.read_parquet(path)
    if missing := {"file", "sigmas_px", "down", "noise", "jpeg"} - set(table.columns):
        raise UserError(f"{path} is no record of draws (it has no {sorted(missing)[0]})")
    names = [Path(file).stem for file in table["file"]]
    if not set(names) & {
        picture.stem for folder in folders for picture in pictures_by_name(folder).values()
    }:
        raise UserError(f"{path} names none of the pictures: it is of another test set")
    return pd.DataFrame(
        {
            "name": names,
            "blur_px": [float(np.sqrt(np.prod(list(sigmas)))) for sigmas in table["sigmas_px"]],
            **{name: table[name].astype(float) for name in ("down", "noise", "jpeg")},
        }
    )


def curves(found: Evaluation, draws: pd.DataFrame) -> pd.DataFrame:
    """method, metric, damage, at (the bin's mean), mean, low, high, pictures. Empty where no picture was drawn for."""
    rows = found.scores.assign(name=[Path(name).name for name in found.scores["name"]]).merge(
        draws, on="name"
    )
    made = []
    for method, own in rows.groupby("method", sort=False):
        for damage in DAMAGES:
            ordered = own.sort_values(damage)
            bins = np.array_split(np.arange(len(ordered)), max(min(BINS, len(ordered) // LEAST), 1))
            for place in bins:
                part = ordered.iloc[place]
                for metric in (name for name in found.metrics if name != "fid"):
                    values = part[metric].dropna().to_numpy(float)
                    if len(values):
                        low, high = bootstrap(values)
                        made.append(
                            [
                                method,
                                metric,
                                damage,
                                part[damage].mean(),
                                values.mean(),
                                low,
                                high,
                                len(values),
                            ]
                        )
    return pd.DataFrame(
        made, columns=["method", "metric", "damage", "at", "mean", "low", "high", "pictures"]
    )


def draw(table: pd.DataFrame) -> Image.Image:
    """A panel for each metric and damage, a line for each method with its interval."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = list(dict.fromkeys(table["metric"]))
    size = (3.1 * len(DAMAGES), 2.3 * len(metrics) + 0.4)
    figure, panels = plt.subplots(
        len(metrics), len(DAMAGES), figsize=size, dpi=100, squeeze=False, layout="constrained"
    )
    for row, metric in enumerate(metrics):
        for column, (damage, words) in enumerate(DAMAGES.items()):
            panel = panels[row, column]
            for method, own in table[
                (table["metric"] == metric) & (table["damage"] == damage)
            ].groupby("method", sort=False):
                panel.plot(own["at"], own["mean"], marker="o", markersize=3, label=method)
                panel.fill_between(own["at"], own["low"], own["high"], alpha=0.15)
            if row == len(metrics) - 1:
                panel.set_xlabel(words)
            if column == 0:
                panel.set_ylabel(known(metric).heading)
    panels[0, 0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")
