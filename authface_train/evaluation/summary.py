"""Summarises an evaluation as a table of methods by metrics, in the form of the paper's Table 1."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from authface_train.evaluation.evaluate import DEGRADED, Evaluation
from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.evaluation.metrics import get_metric
from authface_train.evaluation.test_sets import TEST_SETS, SetName

PAPER = "AuthFace, as printed"
"""Name of the row with the values of the paper."""
TWO_DECIMALS = ("psnr", "musiq", "fid", "landmarks")
"""Metrics that Table 1 prints with two decimals; the others have four."""


@dataclass(frozen=True)
class Cell:
    """A mean over pictures.

    Attributes:
        mean: The mean, or the value of a metric of kind `set`.
        low: Lower end of the confidence interval of the mean; None for FID and printed values.
        high: Upper end.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Summary:
    """A table of methods by metrics.

    Attributes:
        metrics: Names of the columns.
        cells: Method to metric to cell.
        best: Metric to its best method; only metrics that several methods have.
        counts: Method to its number of pictures.
    """

    metrics: list[str]
    cells: dict[str, dict[str, Cell]]
    best: dict[str, str]
    counts: dict[str, int]


def summarise(evaluation: Evaluation, test_set: SetName | None) -> Summary:
    """Average the metrics of each method.

    Args:
        evaluation: The measurements.
        test_set: Test set of the paper; its printed values become a row named `PAPER`.
    """
    cells = {method: _method_cells(evaluation, method) for method in evaluation.methods}
    best = _best_methods(cells, evaluation.metrics)
    if test_set is not None:
        printed = TEST_SETS[test_set].paper
        cells[PAPER] = {
            name: Cell(value) for name, value in printed.items() if name in evaluation.metrics
        }
    sizes = evaluation.scores.groupby("method", sort=False).size()
    counts = {str(method): int(count) for method, count in sizes.items()}
    return Summary(evaluation.metrics, cells, best, counts)


def _method_cells(evaluation: Evaluation, method: str) -> dict[str, Cell]:
    """Metric to mean and interval of one method."""
    cells: dict[str, Cell] = {}
    for name in evaluation.metrics:
        if name == "fid":
            if method in evaluation.fid:
                cells[name] = Cell(evaluation.fid[method])
            continue
        values = evaluation.values(method, name)
        if len(values):
            low, high = bootstrap_interval(values)
            cells[name] = Cell(float(values.mean()), low, high)
    return cells


def _best_methods(cells: dict[str, dict[str, Cell]], metrics: list[str]) -> dict[str, str]:
    """Metric to the best method; the degraded pictures do not compete."""
    best = {}
    for name in metrics:
        means = {
            method: method_cells[name].mean
            for method, method_cells in cells.items()
            if name in method_cells and method != DEGRADED
        }
        if len(means) > 1:
            choose = max if get_metric(name).higher_is_better else min
            best[name] = choose(means, key=lambda method: means[method])
    return best


def heading(name: str) -> str:
    """Column heading of a metric, with an arrow in the better direction."""
    metric = get_metric(name)
    return f"{metric.heading} {'↑' if metric.higher_is_better else '↓'}"


def decimals(name: str) -> int:
    """Number of decimals with which Table 1 prints a metric."""
    return 2 if name in TWO_DECIMALS else 4


def format_cell(cell: Cell | None, name: str) -> str:
    """Format a mean and its interval, for example "25.57 [25.10, 26.02]".

    Args:
        cell: The cell, or None if the method has no value.
        name: Name of the metric.
    """
    if cell is None:
        return "-"
    digits = decimals(name)
    text = f"{cell.mean:.{digits}f}"
    if cell.low is None:
        return text
    return f"{text} [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"


def format_markdown(summary: Summary) -> str:
    """Format the summary as a Markdown table; best values are bold."""
    headings = " | ".join(heading(name) for name in summary.metrics)
    lines = [f"| method | pictures | {headings} |", "|" + "---|" * (2 + len(summary.metrics))]
    for method, cells in summary.cells.items():
        texts = []
        for name in summary.metrics:
            text = format_cell(cells.get(name), name)
            texts.append(f"**{text}**" if summary.best.get(name) == method else text)
        lines.append(f"| {method} | {summary.counts.get(method, '')} | {' | '.join(texts)} |")
    return "\n".join(lines)


def format_latex(summary: Summary) -> str:
    """Format the means as a LaTeX tabular for the package booktabs; best values are bold."""
    arrows = {True: r"$\uparrow$", False: r"$\downarrow$"}
    headings = []
    for name in summary.metrics:
        metric = get_metric(name)
        headings.append(f"{_escape_latex(metric.heading)} {arrows[metric.higher_is_better]}")
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(summary.metrics)}}}",
        r"\toprule",
        rf"Method & {' & '.join(headings)} \\",
        r"\midrule",
    ]
    for method, cells in summary.cells.items():
        texts = []
        for name in summary.metrics:
            text = f"{cells[name].mean:.{decimals(name)}f}" if name in cells else "--"
            texts.append(rf"\textbf{{{text}}}" if summary.best.get(name) == method else text)
        lines.append(rf"{_escape_latex(method)} & {' & '.join(texts)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escape_latex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "%&_#$" else letter for letter in text)


def format_csv(summary: Summary) -> str:
    """Format the summary as CSV, one row per method and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low", "high", "pictures"])
    for method, cells in summary.cells.items():
        count = summary.counts.get(method)
        for name, cell in cells.items():
            writer.writerow([method, name, cell.mean, cell.low, cell.high, count])
    return buffer.getvalue()


def as_json(
    evaluation: Evaluation, summary: Summary, test_set: SetName | None
) -> dict[str, object]:
    """The summary as JSON values; `methods` holds the means.

    Args:
        evaluation: The measurements.
        summary: Their summary.
        test_set: Test set of the paper, whose printed values are included.
    """
    means: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, list[float | None]]] = {}
    for method, cells in summary.cells.items():
        if method == PAPER:
            continue
        means[method] = {name: cell.mean for name, cell in cells.items()}
        intervals[method] = {
            name: [cell.low, cell.high] for name, cell in cells.items() if cell.low is not None
        }
    fid_reference = None
    if evaluation.fid_reference is not None:
        fid_reference = {
            "folder": str(evaluation.fid_reference.folder),
            "count": evaluation.fid_reference.count,
            "sha256": evaluation.fid_reference.digest,
        }
    return {
        "set": test_set,
        "methods": means,
        "intervals": intervals,
        "pictures": summary.counts,
        "fid_reference": fid_reference,
        "missing": evaluation.missing,
        "unmatched": evaluation.unmatched,
        "failed": evaluation.failed,
        "notes": evaluation.notes,
        "paper": TEST_SETS[test_set].paper if test_set is not None else None,
    }
