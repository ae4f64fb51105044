"""Tallies the rankings of a user study: mean rank of each method with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from authface_train.evaluation.intervals import bootstrap_two_ways
from authface_train.study.tally import read_csv_columns
from manifests.support.errors import UserError

COLUMNS = ["study", "rater", "item", "method", "place", "rank", "answered_at"]
"""Columns of the CSV files that the page of a ranking saves, one row per picture."""


@dataclass(frozen=True)
class MethodRank:
    """Result of one method.

    Attributes:
        mean: Mean rank; 1 is best.
        low: Lower end of the confidence interval, bootstrapped over raters and items.
        high: Upper end.
        first_share: Share of the rankings that put the method first.
    """

    mean: float
    low: float
    high: float
    first_share: float


@dataclass(frozen=True)
class RankingTally:
    """Result of a ranking.

    Attributes:
        methods: Method to its result, the best first.
        raters: Number of raters.
        items: Number of items, such as prompts.
        rankings: Number of rankings.
        p_friedman: p-value of Friedman's test over items, on their mean ranks; None for fewer than
            three methods or items. A small value means that the methods differ.
        left_rank: Mean rank of the leftmost picture; (methods + 1) / 2 without a preference for
            places.
    """

    methods: dict[str, MethodRank]
    raters: int
    items: int
    rankings: int
    p_friedman: float | None
    left_rank: float


def is_ranking(file: Path) -> bool:
    """Whether a CSV file begins with the columns of a ranking."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            return lines.readline().strip() == ",".join(COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def read_rankings(files: Sequence[Path]) -> pd.DataFrame:
    """Read the CSV files that raters have saved.

    Args:
        files: CSV files of one study.

    Returns:
        One row per picture with `COLUMNS` and `file`; place and rank are int64.

    Raises:
        UserError: If a file is not such a CSV file, if the files belong to different studies, if a
            rater has ranked an item twice, or if a ranking is incomplete.
    """
    rows = pd.concat([read_csv_columns(file, COLUMNS) for file in files], ignore_index=True)
    if rows.empty:
        raise UserError("the files contain no answers")
    studies = sorted(set(rows["study"]))
    if len(studies) > 1:
        raise UserError(
            f"the files are answers of {len(studies)} studies ({', '.join(studies)}); tally each "
            "study separately"
        )
    duplicates = rows[rows.duplicated(["rater", "item", "method"])]
    if len(duplicates):
        rater, item = duplicates.iloc[0][["rater", "item"]]
        same = rows[(rows["rater"] == rater) & (rows["item"] == item)]
        raise UserError(
            f"{rater} has ranked {item} twice (in {' and '.join(sorted(set(same['file'])))}); "
            "leave one file out"
        )

    for column in ("place", "rank"):
        rows[column] = pd.to_numeric(rows[column], errors="coerce").fillna(0).astype("int64")
    methods = sorted(set(rows["method"]))
    valid = list(range(1, len(methods) + 1))
    for (rater, item), ranking in rows.groupby(["rater", "item"]):
        if sorted(ranking["rank"]) != valid:
            raise UserError(
                f"{ranking['file'].iloc[0]}: the ranking of {item} by {rater} is incomplete; each "
                f"of {', '.join(methods)} needs one rank from 1 to {len(methods)}"
            )
    return rows


def tally_rankings(rows: pd.DataFrame) -> RankingTally:
    """Tally the rankings of one study.

    Args:
        rows: The rankings, as `read_rankings` returns them.
    """
    results = {}
    for method, of_method in rows.groupby("method"):
        ranks = of_method.pivot(index="rater", columns="item", values="rank")
        low, high = bootstrap_two_ways(ranks.to_numpy(float))
        results[str(method)] = MethodRank(
            mean=float(of_method["rank"].mean()),
            low=low,
            high=high,
            first_share=float((of_method["rank"] == 1).mean()),
        )
    best_first = sorted(results, key=lambda method: results[method].mean)
    return RankingTally(
        methods={method: results[method] for method in best_first},
        raters=rows["rater"].nunique(),
        items=rows["item"].nunique(),
        rankings=len(rows) // len(results),
        p_friedman=_friedman_test(rows),
        left_rank=float(rows.loc[rows["place"] == 1, "rank"].mean()),
    )


def _friedman_test(rows: pd.DataFrame) -> float | None:
    """p-value of Friedman's test; rankings of one item are correlated and count once."""
    from scipy.stats import friedmanchisquare

    ranks = rows.pivot_table(index="item", columns="method", values="rank", aggfunc="mean")
    if min(ranks.shape) < 3:
        return None
    return float(friedmanchisquare(*(ranks[method] for method in ranks)).pvalue)


def format_report(tally: RankingTally) -> str:
    """Format a tally as Markdown."""
    lines = ["| method | mean rank | 95 % | ranked first |", "|---|---|---|---|"]
    for method, result in tally.methods.items():
        lines.append(
            f"| {method} | {result.mean:.2f} | {result.low:.2f} to {result.high:.2f} | "
            f"{result.first_share:.1%} |"
        )
    test = ""
    if tally.p_friedman is not None:
        test = f"Friedman's test over the {tally.items} pictures: p = {tally.p_friedman:.3g}. "
    middle = (len(tally.methods) + 1) / 2
    lines += [
        "",
        f"{tally.rankings} rankings of {tally.raters} raters; rank 1 is best. {test}"
        f"Mean rank of the leftmost picture: {tally.left_rank:.2f} ({middle:.2f} without a "
        "preference for a place).",
    ]
    return "\n".join(lines)
