"""Table 1's form: methods by metrics, means with intervals over pictures; for people, papers and machines."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from authface_train.evaluation.evaluate import DEGRADED, Evaluation, values
from authface_train.evaluation.intervals import bootstrap
from authface_train.evaluation.metrics import known
from authface_train.evaluation.test_sets import SETS, SetName

PAPER = "AuthFace, as printed"


@dataclass(frozen=True)
class Cell:
    """low, high: of the mean, by bootstrap over pictures; None where it has none (FID, the paper's)."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Summary:
    """cells: by method, then metric. best: the best method of each metric, where several were evaluated."""

    metrics: list[str]
    cells: dict[str, dict[str, Cell]]
    best: dict[str, str]
    counts: dict[str, int]


def summarise(found: Evaluation, test_set: SetName | None) -> Summary:
    cells: dict[str, dict[str, Cell]] = {}
    for method in found.methods:
        cells[method] = {}
        for name in found.metrics:
            if name == "fid":
                if method in found.fid:
                    cells[method][name] = Cell(found.fid[method])
            elif len(of := values(found, method, name)):
                cells[method][name] = Cell(float(of.mean()), *bootstrap(of))
    best = {}
    for name in found.metrics:
        own = {
            method: of[name].mean
            for method, of in cells.items()
            if name in of and method != DEGRADED
        }
        if len(own) > 1:
            best[name] = (max if known(name).more else min)(own, key=lambda method: own[method])
    if test_set is not None:
        paper = {
            name: Cell(value)
            for name, value in SETS[test_set].paper.items()
            if name in found.metrics
        }
        cells[PAPER] = paper
    counts = {
        str(method): int(count)
        for method, count in found.scores.groupby("method", sort=False).size().items()
    }
    return Summary(found.metrics, cells, best, counts)


def heading(name: str) -> str:
    metric = known(name)
    return f"{metric.heading} {'↑' if metric.more else '↓'}"


def digits(name: str) -> int:
    """Decimals, as Table 1 prints them."""
    return 2 if name in ("psnr", "musiq", "fid", "landmarks") else 4


def words(cell: Cell | None, name: str) -> str:
    if cell is None:
        return "-"
    text = f"{cell.mean:.{digits(name)}f}"
    return (
        text
        if cell.low is None
        else f"{text} [{cell.low:.{digits(name)}f}, {cell.high:.{digits(name)}f}]"
    )


def rich_table(summary: Summary) -> Table:
    table = Table(show_lines=True)
    for name in ("method", "pictures", *map(heading, summary.metrics)):
        table.add_column(name, overflow="fold")
    for method, cells in summary.cells.items():
        row = [
            words(cells.get(name), name).replace(" [", "\n[").replace(", ", "\n ")
            for name in summary.metrics
        ]
        marked = [
            f"[bold]{escape(text)}[/]" if summary.best.get(name) == method else escape(text)
            for name, text in zip(summary.metrics, row, strict=True)
        ]
        table.add_row(method, str(summary.counts.get(method, "")), *marked)
    return table


def markdown(summary: Summary) -> str:
    lines = ["| method | pictures | " + " | ".join(map(heading, summary.metrics)) + " |"]
    lines.append("|" + "---|" * (2 + len(summary.metrics)))
    for method, cells in summary.cells.items():
        row = " | ".join(
            f"**{words(cells.get(name), name)}**"
            if summary.best.get(name) == method
            else words(cells.get(name), name)
            for name in summary.metrics
        )
        lines.append(f"| {method} | {summary.counts.get(method, '')} | {row} |")
    return "\n".join(lines)


def latex(summary: Summary) -> str:
    """A tabular for booktabs, means only."""
    arrows = {True: r"$\uparrow$", False: r"$\downarrow$"}
    heads = " & ".join(
        f"{_tex(known(name).heading)} {arrows[known(name).more]}" for name in summary.metrics
    )
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(summary.metrics)}}}",
        r"\toprule",
        rf"Method & {heads} \\",
        r"\midrule",
    ]
    for method, cells in summary.cells.items():
        row = []
        for name in summary.metrics:
            text = f"{cells[name].mean:.{digits(name)}f}" if name in cells else "--"
            row.append(rf"\textbf{{{text}}}" if summary.best.get(name) == method else text)
        lines.append(rf"{_tex(method)} & {' & '.join(row)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _tex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "%&_#$" else letter for letter in text)


def as_csv(summary: Summary) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low", "high", "pictures"])
    for method, cells in summary.cells.items():
        for name, cell in cells.items():
            writer.writerow(
                [method, name, cell.mean, cell.low, cell.high, summary.counts.get(method)]
            )
    return buffer.getvalue()


def as_json(found: Evaluation, summary: Summary, test_set: SetName | None) -> dict[str, Any]:
    """What a machine reads: `methods` holds the means."""
    own = {method: cells for method, cells in summary.cells.items() if method != PAPER}
    fid = found.fid_reference
    return {
        "set": test_set,
        "methods": {
            method: {name: cell.mean for name, cell in cells.items()}
            for method, cells in own.items()
        },
        "intervals": {
            method: {
                name: [cell.low, cell.high] for name, cell in cells.items() if cell.low is not None
            }
            for method, cells in own.items()
        },
        "pictures": summary.counts,
        "fid_reference": fid
        and {"folder": str(fid.folder), "count": fid.count, "sha256": fid.digest},
        "missing": found.missing,
        "unmatched": found.unmatched,
        "failed": found.failed,
        "notes": found.notes,
        "paper": SETS[test_set].paper if test_set is not None else None,
    }
