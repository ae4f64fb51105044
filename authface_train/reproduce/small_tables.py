"""Tables 1, 3 and 5 at small scale, with the models of the small experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from authface_train.reproduce.paper_runs import PAPER_TABLE3
from authface_train.reproduce.rows import REGRESSION, TABLE2_ROWS
from authface_train.reproduce.small_settings import COMMON_SETTINGS
from manifests.run_folder import AUDIT, AUDIT_FILE, is_finished
from manifests.support.console import run_command
from manifests.support.csv_file import read_rows

if TYPE_CHECKING:
    from authface_train.reproduce.small_runs import Experiment

TABLE1_METRICS = "psnr,ssim,lpips,maniqa,musiq,fid,clipiqa,identity,landmarks"
STUDY_ROWS = ("d", "b")
NUM_STUDY_PAIRS = 20


def run_table1(experiment: Experiment) -> None:
    """Evaluate row d of Table 2 and the plain regression with `authface evaluate`."""
    experiment.run_row(TABLE2_ROWS["d"], 0)
    experiment.run_regression(0)
    pictures = experiment.folder / "pictures"
    arguments: list[object] = ["evaluate"]
    for name, folder in (("row d, small", "d-0"), ("plain regression", f"{REGRESSION}-0")):
        arguments += ["--restored", f"{name}={pictures / folder}"]
    arguments += ["--reference", pictures / "clean", "--degraded", pictures / "LQ"]
    arguments += ["--set", "celeba-test", "--metrics", TABLE1_METRICS, "--allow-missing"]
    run_command(*arguments, "--output", experiment.folder / "table1")


def run_table3(experiment: Experiment) -> str:
    """Compare Stage I with and without captions by the noise loss on held-out people.

    There are too few faces for FID. The captions have photographic tags only, which are measured,
    and the text encoders are random.

    Returns:
        The table in Markdown.
    """
    steps = experiment.scale.prior
    settings = COMMON_SETTINGS | {
        "ema_decay": 0.998,
        "steps": steps,
        "checkpoint_every": max(steps // 5, 1),
        "keep_checkpoints": 1,
        "audit": True,
        "draw.every": steps,
        "draw.count": 1,
        "draw.seeds": [0],
        "draw.steps": 2,
    }
    lines = [
        "| Stage I | loss on unseen people at the start | lowest | at step |",
        "|---|---|---|---|",
    ]
    for tags, description in (("none", "no prompts"), ("photographic", "photographic tags")):
        folder = experiment.folder / "runs" / f"prior-{tags}"
        if not is_finished(folder):
            generic = experiment.folder / "generic"
            experiment.train(
                "train-prior",
                folder,
                base_option="--base",
                base=generic,
                settings=settings | {"tags": tags},
            )
        audits = read_rows(folder / AUDIT / AUDIT_FILE)
        best = min(audits, key=lambda row: float(row["held_out_loss"]))
        first_loss = float(audits[0]["held_out_loss"])
        best_loss = float(best["held_out_loss"])
        lines.append(f"| {description} | {first_loss:.4f} | {best_loss:.4f} | {best['step']} |")
    return "\n".join([*lines, "", f"{PAPER_TABLE3}."])


def create_table5_study(experiment: Experiment) -> Path:
    """Create a study of rows d and b on the test people.

    Returns:
        The folder of the study.
    """
    for name in STUDY_ROWS:
        experiment.run_row(TABLE2_ROWS[name], 0)
    pictures = experiment.folder / "pictures"
    output = experiment.folder / "table5"
    first, second = (f"{name}={pictures / f'{name}-0'}" for name in STUDY_ROWS)
    arguments = ["study", "create", "--a", first, "--b", second, "--degraded", pictures / "LQ"]
    run_command(*arguments, "--count", NUM_STUDY_PAIRS, "--output", output)
    return output
