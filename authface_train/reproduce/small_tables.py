"""The paper's tables 1, 3 and 5 and its measurement over time, with the small experiment's models."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from authface_train.reproduce.paper_runs import PAPER3
from authface_train.reproduce.rows import REGRESSION, ROWS
from authface_train.reproduce.small_settings import COMMON
from manifests.support.console import run_command

if TYPE_CHECKING:
    from authface_train.reproduce.small_runs import Experiment

OF_TABLE1 = "psnr,ssim,lpips,maniqa,musiq,fid,clipiqa,identity,landmarks"
STUDY = ("d", "b")


def table1(experiment: Experiment) -> None:
    """Row d of Table 2 and the plain regression, evaluated as any method is, beside what the paper prints."""
    experiment.row(ROWS["d"], 0)
    experiment.regression_row(0)
    pictures = experiment.folder / "pictures"
    methods = {"row d, small": "d-0", "plain regression": f"{REGRESSION}-0"}
    words = [
        word
        for name, folder in methods.items()
        for word in ("--restored", f"{name}={pictures / folder}")
    ]
    run_command(
        "evaluate", *words, "--reference", pictures / "clean", "--degraded", pictures / "LQ", "--set", "celeba-test",
        "--metrics", OF_TABLE1, "--allow-missing", "--output", experiment.folder / "table1",
    )  # fmt: skip


def table3(experiment: Experiment) -> str:
    """Stage I with and without captions: the noise loss on people it has never seen, since no FID can be told of so few.

    The captions are the measured ones, which have photographic tags only; the text encoders are random.
    """
    steps = experiment.scale.prior
    audited = {
        "ema_decay": 0.998, "steps": steps, "checkpoint_every": max(steps // 5, 1), "keep_checkpoints": 1, "audit": "true",
        "draw.every": steps, "draw.count": 1, "draw.seeds": "[0]", "draw.steps": 2,
    }  # fmt: skip
    lines = [
        "| Stage I | loss on unseen people at the start | lowest | at step |",
        "|---|---|---|---|",
    ]
    for tags, words in (("none", "no prompts"), ("photographic", "photographic tags")):
        folder = experiment.folder / "runs" / f"prior-{tags}"
        if not (folder / "model_index.json").is_file():
            experiment.train(
                "train-prior",
                folder,
                "--base",
                experiment.folder / "generic",
                COMMON | audited | {"tags": tags},
            )
        rows = _audits(folder)
        best = min(rows, key=lambda row: float(row["held_out_loss"]))
        losses = f"{float(rows[0]['held_out_loss']):.4f} | {float(best['held_out_loss']):.4f}"
        lines.append(f"| {words} | {losses} | {best['step']} |")
    return "\n".join([*lines, "", f"{PAPER3}."])


def _audits(folder: Path) -> list[dict[str, str]]:
    with (folder / "audit/audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table5(experiment: Experiment) -> Path:
    """A study of rows d and b on test people. Returns its folder."""
    for name in STUDY:
        experiment.row(ROWS[name], 0)
    pictures, output = experiment.folder / "pictures", experiment.folder / "table5"
    a, b = (f"{name}={pictures / f'{name}-0'}" for name in STUDY)
    run_command(
        "study",
        "create",
        "--a",
        a,
        "--b",
        b,
        "--degraded",
        pictures / "LQ",
        "--count",
        20,
        "--output",
        output,
    )
    return output
