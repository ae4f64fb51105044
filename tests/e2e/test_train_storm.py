"""A short form of benchmarks/train_storm.py: Stage I under torchrun, killed and terminated."""

import shutil

import pytest
from processes import launch_torchrun
from train_storm import NUM_PROCESSES, Schedule, TrainStorm

pytestmark = pytest.mark.slow

SCHEDULE = Schedule(
    kills=2, terms=1, steps=12, checkpoint_every=3, max_steps=5, start_s=2.0, stages=("prior",)
)


def test_storm_changes_no_bit(filled, tmp_path):
    workspace = tmp_path / "workspace"
    shutil.copytree(filled, workspace)

    def launch(command, folder):
        return launch_torchrun(NUM_PROCESSES, command, folder)

    figures = TrainStorm(tmp_path, workspace, launch, SCHEDULE, show=print).run()

    assert not any(figures.faults().values()), figures.faults()
    assert figures.kills == SCHEDULE.kills
    assert figures.terms == SCHEDULE.terms
    assert figures.resumes > 0
    assert figures.completed >= 1
    assert figures.compared_files > 10
