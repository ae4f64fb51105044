"""Table 5 from the answers of several raters: shares with intervals, and a sign test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from authface_train.evaluation.intervals import RESAMPLES, SHARE
from manifests.support.errors import UserError

COLUMNS = ["study", "rater", "pair", "a", "b", "left", "answer", "answered_at"]
ANSWERS = ("a", "equal", "b")


@dataclass(frozen=True)
class Tally:
    """shares: answer -> (share, low, high), by bootstrap over raters and pairs. p_answers: two-sided sign test over answers,
    ties left out; p_pairs: over pairs, by the majority of their raters, since a rater's answers hang together."""

    a: str
    b: str
    raters: int
    pairs: int
    answers: int
    shares: dict[str, tuple[float, float, float]]
    p_answers: float
    p_pairs: float
    left_share: float


def read(files: Sequence[Path]) -> pd.DataFrame:
    """The answers of some CSVs. Raises UserError for a file of another form or study, and for a pair answered twice by one
    rater."""
    frames = []
    for file in files:
        try:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
        except (
            OSError,
            UnicodeDecodeError,
            pd.errors.ParserError,
            pd.errors.EmptyDataError,
        ) as error:
            raise UserError(
                f"{file} cannot be read as a table ({str(error).splitlines()[0]})"
            ) from error
        if list(table.columns) != COLUMNS:
            raise UserError(
                f"{file} is not what a study's page saves (its columns are {', '.join(table.columns)})"
            )
        if wrong := set(table["answer"]) - set(ANSWERS):
            raise UserError(f"{file} has the answer {min(wrong)!r}: there are {', '.join(ANSWERS)}")
        frames.append(table.assign(file=file.name))
    answers = pd.concat(frames, ignore_index=True)
    if answers.empty:
        raise UserError("there is no answer in these files")
    if len(studies := sorted(set(answers["study"]))) > 1:
        raise UserError(
            f"these are answers of {len(studies)} studies ({', '.join(studies)}): tally them one by one"
        )
    if (twice := answers[answers.duplicated(["rater", "pair"])]).size:
        row = twice.iloc[0]
        both = answers[(answers["rater"] == row["rater"]) & (answers["pair"] == row["pair"])][
            "file"
        ]
        raise UserError(
            f"{row['rater']} has answered {row['pair']} twice (in {' and '.join(both)}): leave one file out"
        )
    return answers


def tally(answers: pd.DataFrame) -> Tally:
    first = answers.iloc[0]
    count = {answer: int((answers["answer"] == answer).sum()) for answer in ANSWERS}
    signed = answers["answer"].map({"a": 1, "equal": 0, "b": -1})
    majority = signed.groupby(answers["pair"]).sum()
    chose_left = answers["answer"] == answers["left"]
    return Tally(
        a=first["a"],
        b=first["b"],
        raters=answers["rater"].nunique(),
        pairs=answers["pair"].nunique(),
        answers=len(answers),
        shares={
            answer: (count[answer] / len(answers), *_interval(answers, answer))
            for answer in ANSWERS
        },
        p_answers=_sign_test(count["a"], count["b"]),
        p_pairs=_sign_test(int((majority > 0).sum()), int((majority < 0).sum())),
        left_share=float(chose_left.sum() / max(count["a"] + count["b"], 1)),
    )


def _interval(answers: pd.DataFrame, answer: str, seed: int = 0) -> tuple[float, float]:
    """Raters and pairs are both drawn with replacement: other people would have answered about other faces."""
    table = answers.assign(hit=answers["answer"] == answer).pivot(
        index="rater", columns="pair", values="hit"
    )
    hits, there = table.fillna(False).to_numpy(float), table.notna().to_numpy(float)
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(RESAMPLES):
        of_raters = np.bincount(rng.integers(0, len(hits), len(hits)), minlength=len(hits))
        of_pairs = np.bincount(
            rng.integers(0, hits.shape[1], hits.shape[1]), minlength=hits.shape[1]
        )
        if weight := of_raters @ there @ of_pairs:
            shares.append(of_raters @ hits @ of_pairs / weight)
    low, high = np.quantile(shares, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def _sign_test(wins: int, losses: int) -> float:
    """Two-sided, exact; 1 where there is nothing to test."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def report(made: Tally) -> str:
    """Markdown in Table 5's form."""
    words = {"a": f"{made.a} is better", "equal": "both equally good", "b": f"{made.b} is better"}
    lines = ["| answer | share | 95 % |", "|---|---|---|"]
    for answer, (share, low, high) in made.shares.items():
        lines.append(f"| {words[answer]} | {share:.1%} | {low:.1%} to {high:.1%} |")
    lines += [
        "",
        f"{made.answers} answers of {made.raters} raters about {made.pairs} pairs. Sign test (two-sided, ties left out): "
        f"p = {made.p_answers:.3g} over answers, {made.p_pairs:.3g} over pairs by majority. "
        f"Of the answers that chose one, {made.left_share:.0%} chose the left.",
    ]
    return "\n".join(lines)
