"""Tables 1 and 5 at small scale, with the models of the small experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from authface_train.reproduce.rows import REGRESSION, TABLE2_ROWS
from manifests.support.console import run_command

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
