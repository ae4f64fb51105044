"""Formats Tables 2 and 4 at small scale from result files: means and paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.reproduce.rows import ABLATIONS, METRICS, REGRESSION, Ablation
from authface_train.reproduce.small_settings import SIZE_PX
from authface_train.reproduce.trade import trade_report
from manifests.support.errors import UserError
from manifests.support.text import count_of

BASELINES = {
    "LQ": "degraded",
    "VAE(LQ)": "degraded, through the VAE",
    REGRESSION: "plain regression U-Net",
}
"""Rows that every table has, with their descriptions."""


@dataclass(frozen=True)
class Difference:
    """A metric of one row minus that of another, paired by picture.

    Attributes:
        metric: Name of the metric.
        mean: Mean difference over people.
        low: Lower end of its 95 % interval, a bootstrap over people.
        high: Upper end.
        seeds: Mean difference of each seed.
        num_people: Number of people.
    """

    metric: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    num_people: int

    @property
    def is_better(self) -> bool | None:
        """Whether the first row is better; None if the interval contains 0."""
        if self.low <= 0 <= self.high:
            return None
        return (self.mean > 0) == METRICS[self.metric].higher_is_better


def read_results(folder: Path) -> pd.DataFrame:
    """Read the scores of the test people.

    Args:
        folder: Folder of result files.

    Returns:
        One row per restored picture: `row`, `seed`, `file`, `person`, `face` (number of the face
        among those of the person in the file), `drawn` and the metrics.

    Raises:
        UserError: If there are no results.
    """
    frames = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        if record["split"] == "test":
            images = pd.DataFrame(record["images"])
            # A photograph may show a person twice.
            images["face"] = images.groupby(["file", "person", "drawn"]).cumcount()
            frames.append(images.assign(row=record["row"], seed=record["seed"]))
    if not frames:
        raise UserError(
            f"no results in {folder}; make them with `authface reproduce table2 --scale small`"
        )
    return pd.concat(frames, ignore_index=True)


def mean_scores(images: pd.DataFrame) -> pd.DataFrame:
    """Average the metrics of each row over pictures and seeds.

    Args:
        images: Scores, see `read_results`.

    Returns:
        One row per `row`: the mean of each metric, and the number of `seeds`.
    """
    means = images.groupby("row")[list(METRICS)].mean()
    return means.assign(seeds=images.groupby("row")["seed"].nunique().clip(lower=1))


def compare_rows(images: pd.DataFrame, row: str, other_row: str, metric: str) -> Difference | None:
    """Compare two rows, paired by picture and, if both have seeds, by seed.

    Args:
        images: Scores, see `read_results`.
        row: Name of a row.
        other_row: Name of the row it is compared with.
        metric: Name of the metric.

    Returns:
        The difference, or None if the rows have no picture in common with a value of the metric.
    """
    keys = ["file", "person", "face", "drawn"]
    first = images[images["row"] == row].dropna(subset=[metric])
    second = images[images["row"] == other_row].dropna(subset=[metric])
    if other_row == REGRESSION:
        # It may have fewer seeds than the rows that are compared with it.
        second = second.groupby(keys, as_index=False)[metric].mean()
    elif first["seed"].notna().all() and second["seed"].notna().all():
        keys = [*keys, "seed"]
    elif second["seed"].isna().all():
        second = second.drop(columns="seed")
    pairs = first.merge(second, on=keys, suffixes=("", "_other"))
    if pairs.empty:
        return None

    difference = pairs[metric] - pairs[f"{metric}_other"]
    by_person = difference.groupby(pairs["person"]).mean()
    low, high = bootstrap_interval(by_person.to_numpy())
    seeds: tuple[float, ...] = ()
    if "seed" in pairs:
        seeds = tuple(float(value) for value in difference.groupby(pairs["seed"]).mean())
    return Difference(
        metric=metric,
        mean=float(by_person.mean()),
        low=low,
        high=high,
        seeds=seeds,
        num_people=len(by_person),
    )


def report(folder: Path, name: str = "table2") -> str:
    """Format a table in Markdown: means, differences, comparisons with the baselines, tuning.

    Args:
        folder: Folder of result files.
        name: "table2" or "table4".
    """
    ablation = ABLATIONS[name]
    images = read_results(folder)
    means = mean_scores(images)
    rows = [row for row in (*BASELINES, *ablation.rows) if row in means.index]
    sections = [
        _describe_experiment(folder, images),
        _means_table(means, rows, ablation),
        _differences_table(images, rows, ablation),
        _beats_table(images, rows, ablation, "LQ"),
        _beats_table(images, rows, ablation, REGRESSION),
        trade_report(folder, images, ablation),
        _tuning_table(folder),
        f"{ablation.paper_note}. Other data, size and metrics: only the directions can be "
        "compared.",
    ]
    return "\n\n".join(section for section in sections if section)


def _describe_experiment(folder: Path, images: pd.DataFrame) -> str:
    records = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    record = next(record for record in records if record["split"] == "test")
    machines = sorted({record["machine"] for record in records})
    commits = sorted({record.get("commit", "unknown") for record in records})
    scale = record["scale"]
    check = record["gate"]
    latents = "a small AutoencoderKL"
    if record["latent"] == "unshuffle":
        latents = "latents of pixels side by side (lossless; not a VAE)"
    reconstruction = f"to {check['reconstruction_db']:.1f} dB"
    if check["reconstruction_db"] == float("inf"):
        reconstruction = "without loss"
    num_people = images["person"].nunique()
    num_pictures = images.groupby(["file", "person", "face", "drawn"]).ngroups
    return (
        f"{num_pictures} degraded faces ({scale['degradation']}, "
        f"{count_of(scale['drawn_per_face'], 'draw')} each) of {num_people} people who are not in "
        f"the training set, {scale.get('size_px', SIZE_PX)} px; {latents}, faces "
        f"reconstructed {reconstruction}, degraded {check['degraded_db']:.1f} dB; "
        f"{_describe_training(record)}; {'; '.join(machines)}; commit {', '.join(commits)}."
    )


def _describe_training(record: dict[str, Any]) -> str:
    scale = record["scale"]
    steps = f"{scale['restorer']} steps a restorer"
    if "trunk" in scale:
        steps = f"{scale['trunk']} common and {scale['restorer']} steps a restorer"
    if "faces" not in record:
        return steps
    return f"{steps} on {record['faces']['train']} faces of {record['people']['train']} people"


def _metric_headings() -> str:
    return " | ".join(metric.heading for metric in METRICS.values())


def _means_table(means: pd.DataFrame, rows: Sequence[str], ablation: Ablation) -> str:
    lines = [
        f"| row | what | seeds | {_metric_headings()} |",
        "|" + "---|" * (3 + len(METRICS)),
    ]
    for row in rows:
        description = BASELINES.get(row) or ablation.rows[row].description
        values = " | ".join(f"{means.loc[row, metric]:.3f}" for metric in METRICS)
        lines.append(f"| {row} | {description} | {means.loc[row, 'seeds']} | {values} |")
    return "\n".join(lines)


def _differences_table(images: pd.DataFrame, rows: Sequence[str], ablation: Ablation) -> str:
    lines = [
        "| difference | metric | mean | 95 % over people | each seed | result |",
        "|---|---|---|---|---|---|",
    ]
    results = {True: "better", False: "worse", None: "no difference resolved"}
    for row, other_row in ablation.compared:
        if row not in rows or other_row not in rows:
            continue
        for metric, info in METRICS.items():
            difference = compare_rows(images, row, other_row, metric)
            if difference is not None:
                result = results[difference.is_better]
                numbers = _format_numbers(difference)
                lines.append(f"| {row} - {other_row} | {info.heading} | {numbers} | {result} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _beats_table(
    images: pd.DataFrame, rows: Sequence[str], ablation: Ablation, baseline: str
) -> str:
    lines = [
        f"| restored beats {baseline} | metric | mean | 95 % over people | each seed | result |",
        "|---|---|---|---|---|---|",
    ]
    for row in (REGRESSION, *ablation.rows):
        if row not in rows or baseline not in rows or row == baseline:
            continue
        for metric, info in METRICS.items():
            difference = compare_rows(images, row, baseline, metric)
            if difference is not None:
                result = "PASS" if difference.is_better else "FAIL"
                numbers = _format_numbers(difference)
                lines.append(f"| {row} - {baseline} | {info.heading} | {numbers} | {result} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _format_numbers(difference: Difference) -> str:
    seeds = ", ".join(f"{value:+.3f}" for value in difference.seeds)
    return f"{difference.mean:+.3f} | {difference.low:+.3f} to {difference.high:+.3f} | {seeds}"


def _tuning_table(folder: Path) -> str:
    lines = [
        f"| times the default lambdas (row c', validation people) | {_metric_headings()} |",
        "|" + "---|" * (1 + len(METRICS)),
    ]
    for path in sorted(folder.glob("tuning-*.json")):
        record = json.loads(path.read_text("utf-8"))
        means = pd.DataFrame(record["images"])[list(METRICS)].mean()
        values = " | ".join(f"{value:.3f}" for value in means)
        lines.append(f"| {record['row'].removeprefix('tuning-')} | {values} |")
    return "\n".join(lines) if len(lines) > 2 else ""
