"""The metrics of a run on a full disk."""

import threading

import pytest
from full_disk import file_size_limit

from authface_train.commands.silence_libraries import silence_libraries
from authface_train.presets import load_preset
from authface_train.runs.training_run import TrainingRun
from authface_train.training.metrics_logger import MetricsLogger
from manifests.support.errors import UserError


def test_full_disk_is_one_line_that_names_the_folder_of_tensorboard(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    silence_libraries()
    tmp_path.joinpath("run").mkdir()
    run = TrainingRun(tmp_path / "run", "prior")
    settings = load_preset("prior", "tiny", {})

    def log_until_full():
        with MetricsLogger(run, settings, 0) as metrics_logger, file_size_limit(500):
            for step in range(100_000):
                metrics_logger.log_scalars("prior", step, {"loss": 1.0})

    with pytest.raises(UserError, match=f"cannot write {run.folder}/logs: File too large; use"):
        log_until_full()
    assert "Traceback" not in capfd.readouterr().err
