"""Tallies the answers of a user study as in Table 5: shares with intervals, and a sign test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from authface_train.evaluation.csv_file import read_csv_file
from authface_train.evaluation.intervals import bootstrap_two_ways
from manifests.support.errors import UserError

COLUMNS = ["study", "rater", "pair", "a", "b", "left", "answer", "answered_at"]
"""Columns of the CSV files that the page saves."""
ANSWERS = ("a", "equal", "b")


@dataclass(frozen=True)
class Tally:
    """Result of a user study.

    Attributes:
        a: Name of the first method.
        b: Name of the second method.
        raters: Number of raters.
        pairs: Number of pairs.
        answers: Number of answers.
        shares: Answer to (share, low, high), where low and high bound the confidence interval of
            the share, bootstrapped over raters and pairs.
        p_answers: p-value of the two-sided sign test over answers, without ties.
        p_pairs: p-value of the same test over pairs, each counted by the majority of its answers.
            Answers about one pair are correlated, so this test is the safer one.
        left_share: Share of the left picture among the answers that chose one.
    """

    a: str
    b: str
    raters: int
    pairs: int
    answers: int
    shares: dict[str, tuple[float, float, float]]
    p_answers: float
    p_pairs: float
    left_share: float


def read_answers(files: Sequence[Path]) -> pd.DataFrame:
    """Read the CSV files that raters have saved.

    Args:
        files: CSV files of one study.

    Returns:
        One row per answer with `COLUMNS` and `file`.

    Raises:
        UserError: If a file is not such a CSV file, if the files belong to different studies, or if
            a rater has answered a pair twice.
    """
    answers = pd.concat([_read_file(file) for file in files], ignore_index=True)
    if answers.empty:
        raise UserError("the files contain no answers")

    studies = sorted(set(answers["study"]))
    if len(studies) > 1:
        raise UserError(
            f"the files are answers of {len(studies)} studies ({', '.join(studies)}); tally each "
            "study separately"
        )

    duplicates = answers[answers.duplicated(["rater", "pair"])]
    if len(duplicates):
        rater = duplicates.iloc[0]["rater"]
        pair = duplicates.iloc[0]["pair"]
        same = answers[(answers["rater"] == rater) & (answers["pair"] == pair)]
        raise UserError(
            f"{rater} has answered {pair} twice (in {' and '.join(same['file'])}); leave one file "
            "out"
        )
    return answers


def read_csv_columns(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that the page of a study has saved.

    Args:
        file: The file.
        columns: Columns that the page saves.

    Returns:
        The columns as text, and `file`, the name of the file.

    Raises:
        UserError: If it is not such a file.
    """
    table = read_csv_file(file)
    if list(table.columns) != list(columns):
        raise UserError(
            f"{file} was not saved by the page of a study (its columns are "
            f"{', '.join(table.columns)}, not {', '.join(columns)})"
        )
    return table.assign(file=file.name)


def _read_file(file: Path) -> pd.DataFrame:
    """Read and check one CSV file of answers."""
    table = read_csv_columns(file, COLUMNS)
    unknown = set(table["answer"]) - set(ANSWERS)
    if unknown:
        raise UserError(
            f"{file} has the unknown answer {min(unknown)!r}; valid answers: {', '.join(ANSWERS)}"
        )
    return table


def tally_answers(answers: pd.DataFrame) -> Tally:
    """Tally the answers of one study.

    Args:
        answers: The answers, as `read_answers` returns them.
    """
    first = answers.iloc[0]
    counts = {answer: int((answers["answer"] == answer).sum()) for answer in ANSWERS}
    shares = {}
    for answer in ANSWERS:
        low, high = _share_interval(answers, answer)
        shares[answer] = (counts[answer] / len(answers), low, high)

    signs = answers["answer"].map({"a": 1, "equal": 0, "b": -1})
    majority = signs.groupby(answers["pair"]).sum()
    chose_left = answers["answer"] == answers["left"]
    return Tally(
        a=first["a"],
        b=first["b"],
        raters=answers["rater"].nunique(),
        pairs=answers["pair"].nunique(),
        answers=len(answers),
        shares=shares,
        p_answers=_sign_test(counts["a"], counts["b"]),
        p_pairs=_sign_test(int((majority > 0).sum()), int((majority < 0).sum())),
        left_share=float(chose_left.sum() / max(counts["a"] + counts["b"], 1)),
    )


def _share_interval(answers: pd.DataFrame, answer: str) -> tuple[float, float]:
    """Confidence interval of the share of an answer."""
    hits = answers.assign(hit=(answers["answer"] == answer).astype(float))
    table = hits.pivot(index="rater", columns="pair", values="hit")
    return bootstrap_two_ways(table.to_numpy(float))


def _sign_test(wins: int, losses: int) -> float:
    """p-value of the exact two-sided sign test; 1 without wins and losses."""
    from scipy.stats import binomtest

    if wins + losses == 0:
        return 1.0
    return float(binomtest(wins, wins + losses).pvalue)


def format_report(tally: Tally) -> str:
    """Format a tally as Markdown, in the form of Table 5."""
    labels = {
        "a": f"{tally.a} is better",
        "equal": "both equally good",
        "b": f"{tally.b} is better",
    }
    lines = ["| answer | share | 95 % |", "|---|---|---|"]
    for answer, (share, low, high) in tally.shares.items():
        lines.append(f"| {labels[answer]} | {share:.1%} | {low:.1%} to {high:.1%} |")
    lines += [
        "",
        f"{tally.answers} answers of {tally.raters} raters about {tally.pairs} pairs. "
        f"Sign test (two-sided, without ties): p = {tally.p_answers:.3g} over answers, "
        f"{tally.p_pairs:.3g} over pairs by majority. "
        f"Of the answers that chose one picture, {tally.left_share:.0%} chose the left one.",
    ]
    return "\n".join(lines)
