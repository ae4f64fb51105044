"""Tables 2 and 4 at small scale, from the result files of its runs: means, paired differences, and what can be said of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from authface_train.evaluation.intervals import bootstrap
from authface_train.reproduce.rows import ABLATIONS, METRICS, REGRESSION, Ablation
from manifests.support.errors import UserError


@dataclass(frozen=True)
class Difference:
    """One less the other, paired by picture. low, high: bootstrap over people; seeds: the difference of each seed alone."""

    metric: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    people: int

    @property
    def better(self) -> bool | None:
        """Whether the interval says that the first is better; None where it holds 0: no difference resolved."""
        if self.low <= 0 <= self.high:
            return None
        return (self.mean > 0) == METRICS[self.metric][1]


def read(folder: Path) -> pd.DataFrame:
    """One row per restored picture of the test people: row, seed, file, person, drawn and the metrics."""
    frames = []
    for path in sorted(folder.glob("*.json")):
        record: dict[str, Any] = json.loads(path.read_text())
        if record["split"] == "test":
            frames.append(
                pd.DataFrame(record["images"]).assign(row=record["row"], seed=record["seed"])
            )
    if not frames:
        raise UserError(
            f"no results in {folder}: `authface reproduce table2 --scale small` makes them"
        )
    return pd.concat(frames, ignore_index=True)


def means(images: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by row, over pictures and seeds; and the number of seeds."""
    table = images.groupby("row")[list(METRICS)].mean()
    return table.assign(seeds=images.groupby("row")["seed"].nunique().clip(lower=1))


def difference(images: pd.DataFrame, one: str, other: str, metric: str) -> Difference | None:
    """Paired by picture and, where both have seeds, by seed; None where the two share no picture that has the metric."""
    keys = ["file", "person", "drawn"]
    first, second = (images[images["row"] == name].dropna(subset=[metric]) for name in (one, other))
    if first["seed"].notna().all() and second["seed"].notna().all():
        keys = [*keys, "seed"]
    elif second["seed"].isna().all():
        second = second.drop(columns="seed")
    pairs = first.merge(second, on=keys, suffixes=("", "_other"))
    if pairs.empty:
        return None
    gain = pairs[metric] - pairs[f"{metric}_other"]
    by_person = gain.groupby(pairs["person"]).mean()
    low, high = bootstrap(by_person.to_numpy())
    seeds = (
        tuple(float(value) for value in gain.groupby(pairs["seed"]).mean())
        if "seed" in pairs
        else ()
    )
    return Difference(metric, float(by_person.mean()), low, high, seeds, len(by_person))


def report(folder: Path, which: str = "table2") -> str:
    """Markdown: the table, the differences, whether restoring helps, and what it was made with. which: of ABLATIONS."""
    of = ABLATIONS[which]
    images = read(folder)
    table = means(images)
    names = [name for name in ("LQ", "VAE(LQ)", REGRESSION, *of.rows) if name in table.index]
    return "\n\n".join(
        part
        for part in (
            _about(folder, images),
            _table(table, names, of),
            _differences(images, names, of),
            _beats(images, names, of),
            _tuning(folder),
            f"{of.printed}. Other data, size and metrics: only the directions can be compared.",
        )
        if part
    )


def _about(folder: Path, images: pd.DataFrame) -> str:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    record = next(one for one in records if one["split"] == "test")
    machines, scale, gate = (
        sorted({one["machine"] for one in records}),
        record["scale"],
        record["gate"],
    )
    kind = (
        "latents of pixels side by side (lossless; not a VAE)"
        if record["latent"] == "unshuffle"
        else "a small AutoencoderKL"
    )
    reconstructed = gate["reconstruction_db"]
    told = "without loss" if reconstructed == float("inf") else f"to {reconstructed:.1f} dB"
    people, pictures = (
        images["person"].nunique(),
        images.groupby(["file", "person", "drawn"]).ngroups,
    )
    return (
        f"{pictures} degraded faces ({scale['degradation']}, {scale['drawn_per_face']} draws each) of {people} people who are "
        f"not in the training set, 64 px; {kind}, faces reconstructed {told}, degraded {gate['degraded_db']:.1f} dB; "
        f"{scale['restorer']} steps a restorer; {'; '.join(machines)}."
    )


def _table(table: pd.DataFrame, names: Sequence[str], of: Ablation) -> str:
    lines = [
        "| row | what | seeds | " + " | ".join(heading for heading, _ in METRICS.values()) + " |"
    ]
    lines.append("|" + "---|" * (3 + len(METRICS)))
    words = {
        "LQ": "degraded",
        "VAE(LQ)": "degraded, through the VAE",
        REGRESSION: "plain regression U-Net",
    }
    for name in names:
        what = of.rows[name].words if name in of.rows else words[name]
        values = " | ".join(f"{table.loc[name, metric]:.3f}" for metric in METRICS)
        lines.append(f"| {name} | {what} | {table.loc[name, 'seeds']} | {values} |")
    return "\n".join(lines)


def _differences(images: pd.DataFrame, names: Sequence[str], of: Ablation) -> str:
    lines = [
        "| difference | metric | mean | 95 % over people | each seed | said |",
        "|---|---|---|---|---|---|",
    ]
    for one, other in of.compared:
        if one in names and other in names:
            for metric in METRICS:
                if (found := difference(images, one, other, metric)) is None:
                    continue
                said = {True: "better", False: "worse", None: "no difference resolved"}[
                    found.better
                ]
                lines.append(
                    f"| {one} - {other} | {METRICS[metric][0]} | {_numbers(found)} | {said} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def _beats(images: pd.DataFrame, names: Sequence[str], of: Ablation) -> str:
    lines = [
        "| restored beats LQ | metric | mean | 95 % over people | each seed | said |",
        "|---|---|---|---|---|---|",
    ]
    for one in (REGRESSION, *of.rows):
        if one in names and "LQ" in names:
            for metric in METRICS:
                if (found := difference(images, one, "LQ", metric)) is None:
                    continue
                said = "PASS" if found.better else "FAIL"
                lines.append(f"| {one} - LQ | {METRICS[metric][0]} | {_numbers(found)} | {said} |")
    return "\n".join(lines)


def _numbers(found: Difference) -> str:
    seeds = ", ".join(f"{value:+.3f}" for value in found.seeds)
    return f"{found.mean:+.3f} | {found.low:+.3f} to {found.high:+.3f} | {seeds}"


def _tuning(folder: Path) -> str:
    lines = [
        "| times the default lambdas (row c', validation people) | "
        + " | ".join(heading for heading, _ in METRICS.values())
        + " |",
        "|" + "---|" * (1 + len(METRICS)),
    ]
    for path in sorted(folder.glob("tuning-*.json")):
        record = json.loads(path.read_text())
        values = pd.DataFrame(record["images"])[list(METRICS)].mean()
        lines.append(
            f"| {record['row'].removeprefix('tuning-')} | "
            + " | ".join(f"{value:.3f}" for value in values)
            + " |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""
