"""The trade of distortion and detail: rows with several numbers of sampling steps.

A restorer that samples in few steps comes close to the mean of all plausible faces: little
distortion, little detail. More steps give more detail and more distortion (Blau and Michaeli 2018,
"The Perception-Distortion Tradeoff"). Two rows are therefore also compared at the same PSNR.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.images.open import open_image
from authface_train.evaluation.intervals import CONFIDENCE
from authface_train.reproduce.rows import METRICS, TRADE, Ablation

SHOWN = ("psnr", "features", "descriptor", "detail_error")
COMPARED = ("features", "descriptor", "detail_error")
"""Metrics that are compared at the same PSNR."""
RESAMPLES = 2000


def read_trade(folder: Path, images: pd.DataFrame) -> pd.DataFrame:
    """Read the scores with all numbers of sampling steps.

    Args:
        folder: Folder of result files.
        images: Their scores, see `ablation.read_results`.

    Returns:
        Scores as in `images` with the additional column `steps`; empty if no row has any.
    """
    frames = []
    for path in sorted((folder / TRADE).glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        scores = pd.DataFrame(record["images"])
        frames.append(
            scores.assign(row=record["row"], seed=record["seed"], steps=record["sampling_steps"])
        )
    if not frames:
        return pd.DataFrame()
    few = pd.concat(frames, ignore_index=True)
    records = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    steps = {record["row"]: record["scale"]["sampling"] for record in records}
    full = images[images["row"].isin(few["row"].unique())]
    return pd.concat([few, full.assign(steps=full["row"].map(steps))], ignore_index=True)


def trade_report(folder: Path, images: pd.DataFrame, ablation: Ablation) -> str:
    """Format the trade in Markdown: a line per row and number of steps, and rows at equal PSNR.

    Args:
        folder: Folder of result files.
        images: Their scores.
        ablation: The table.
    """
    trade = read_trade(folder, images)
    if trade.empty:
        return ""
    headings = " | ".join(METRICS[name].heading for name in SHOWN)
    lines = [f"| row | sampling steps | {headings} |", "|---|---|" + "---|" * len(SHOWN)]
    for row in ablation.rows:
        means = trade[trade["row"] == row].groupby("steps")[list(SHOWN)].mean()
        for steps, values in means.iterrows():
            numbers = " | ".join(f"{values[name]:.3f}" for name in SHOWN)
            lines.append(f"| {row} | {steps} | {numbers} |")

    comparisons = []
    results = {True: "better", False: "worse", None: "no difference resolved"}
    for row, other_row in ablation.compared:
        for metric in COMPARED:
            difference = at_equal_psnr(trade, row, other_row, metric)
            if difference is None:
                continue
            mean, low, high = difference
            is_better = None if low <= 0 <= high else mean < 0
            numbers = f"{mean:+.3f} | {low:+.3f} to {high:+.3f} | {results[is_better]}"
            comparisons.append(f"| {row} - {other_row} | {METRICS[metric].heading} | {numbers} |")
    if comparisons:
        lines += ["", "| at equal PSNR | metric | mean | 95 % over people | result |"]
        lines += ["|---|---|---|---|---|", *comparisons]
    return "\n".join(lines)


def at_equal_psnr(
    trade: pd.DataFrame, row: str, other_row: str, metric: str
) -> tuple[float, float, float] | None:
    """Compare two rows where their PSNR is equal.

    Each row has a curve of the metric over PSNR, one point per number of steps, linear in between.
    The difference is averaged over the PSNRs that both curves cover.

    Args:
        trade: Scores, see `read_trade`.
        row: Name of a row.
        other_row: Name of the row it is compared with.
        metric: Name of the metric.

    Returns:
        The mean difference and its 95 % interval, a bootstrap over people; None if one of the rows
        has no curve or the curves do not overlap.
    """
    curves = []
    for name in (row, other_row):
        scores = trade[trade["row"] == name].dropna(subset=["psnr", metric])
        if scores["steps"].nunique() < 2:
            return None
        by_person = scores.groupby(["person", "steps"])[["psnr", metric]].mean().unstack("steps")
        curves.append((by_person["psnr"], by_person[metric]))
    people = curves[0][0].index.intersection(curves[1][0].index)
    arrays = [
        (psnr.loc[people].to_numpy(), values.loc[people].to_numpy()) for psnr, values in curves
    ]
    rng = np.random.default_rng(0)
    everyone = np.arange(len(people))
    mean = _mean_gap(arrays, everyone)
    if np.isnan(mean):
        return None
    samples = [
        _mean_gap(arrays, rng.integers(0, len(people), len(people))) for _ in range(RESAMPLES)
    ]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.nanquantile(samples, tails)
    return mean, float(low), float(high)


def _mean_gap(arrays: list[tuple[np.ndarray, np.ndarray]], people: np.ndarray) -> float:
    """The mean distance of two curves over their common range of PSNR; NaN without one."""
    curves = []
    for psnr, values in arrays:
        x = np.nanmean(psnr[people], axis=0)
        y = np.nanmean(values[people], axis=0)
        order = np.argsort(x)
        curves.append((x[order], y[order]))
    low = max(x[0] for x, _ in curves)
    high = min(x[-1] for x, _ in curves)
    if low >= high:
        return float("nan")
    grid = np.linspace(low, high, 50)
    first, second = (np.interp(grid, x, y) for x, y in curves)
    return float((first - second).mean())


def plot_trade(folder: Path, images: pd.DataFrame, ablation: Ablation) -> Image.Image:
    """Plot feature distance and detail error over PSNR, a curve per row, with the baselines.

    Args:
        folder: Folder of result files.
        images: Their scores.
        ablation: The table.

    Returns:
        The figure as an RGBA picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    trade = read_trade(folder, images)
    baselines = images[~images["row"].isin(ablation.rows)]
    figure, panels = plt.subplots(1, len(COMPARED), figsize=(13, 4), dpi=110, layout="constrained")
    for axes, metric in zip(panels, COMPARED, strict=True):
        for row in ablation.rows:
            means = trade[trade["row"] == row].groupby("steps")[["psnr", metric]].mean()
            if means.empty:
                continue
            axes.plot(means["psnr"], means[metric], "o-", label=f"row {row}")
            for steps, values in means.iterrows():
                place = (values["psnr"], values[metric])
                axes.annotate(
                    f"{steps}", place, xytext=(4, 2), textcoords="offset points", fontsize=7
                )
        for row, values in baselines.groupby("row")[["psnr", metric]].mean().iterrows():
            axes.plot(values["psnr"], values[metric], "k*")
            is_left = values["psnr"] < sum(axes.get_xlim()) / 2
            axes.annotate(
                str(row),
                (values["psnr"], values[metric]),
                xytext=(6 if is_left else -6, -3),
                textcoords="offset points",
                ha="left" if is_left else "right",
                fontsize=8,
            )
        axes.set_xlabel("PSNR in dB, better to the right")
        axes.set_ylabel(f"{METRICS[metric].heading}, better below")
    panels[0].legend(title="numbers: sampling steps")

    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return open_image(file.getvalue())
