"""Model servers: workers share the models of few processes, and the rows are those of one process.

The servers own "cpu" here; on a machine with GPUs they own one each.
"""

import os
import threading
import time

import pytest
from stages import ModelStage, Scaler, no_picture

from authface_data.engine import local
from authface_data.engine.model_server import Batcher
from authface_data.engine.run import Engine, run_chain
from authface_data.engine.stage import Chain
from manifests.schema import SCORES, VERDICTS
from manifests.store import Store
from manifests.support.errors import MissingResourceError


@pytest.fixture
def two_servers(monkeypatch):
    """A machine with two devices for models."""
    monkeypatch.setattr(local, "_find_gpus", lambda: ["cpu", "cpu"])


def run(workspace, numbers, stages, workers):
    """Run stages over numbers.

    Returns:
        The rows of `scores` and the reasons of failures, by metric and key.
    """
    inputs = [(f"f{index}", {"number": number}) for index, number in enumerate(numbers)]
    run_chain(
        workspace, Chain(stages, no_picture), inputs, title="t", engine=Engine(workers=workers)
    )
    rows = {
        (row["metric"], row["face_id"]): row for row in Store(workspace, SCORES).read().to_pylist()
    }
    verdicts = Store(workspace, VERDICTS).read().to_pylist()
    return rows, {(row["gate"], row["id"]): row["reason"] for row in verdicts}


@pytest.mark.slow
def test_workers_share_the_models_of_the_servers(workspace, two_servers):
    stages = [ModelStage("double", 2.0, batch_size=3), ModelStage("triple", 3.0)]
    rows, failures = run(workspace, [*range(20), -1], stages, workers=3)
    assert {key: row["value"] for key, row in rows.items()} == {
        (metric, f"f{number}"): factor * number
        for metric, factor in (("double", 2.0), ("triple", 3.0))
        for number in range(20)
    }
    assert failures == {
        (f"scores:{metric}", "f20"): "RuntimeError: the model cannot compute -1"
        for metric in ("double", "triple")
    }
    processes = {row["model_revision"] for row in rows.values()}
    assert len(processes) <= 2
    assert f"process {os.getpid()}" not in processes
    assert {row["device"] for row in rows.values()} == {"cpu"}


@pytest.mark.slow
def test_only_the_input_that_kills_the_server_fails(workspace, two_servers):
    rows, failures = run(workspace, [0, 1, -2, 3], [ModelStage("m", 2.0)], workers=2)
    assert {key: row["value"] for key, row in rows.items()} == {
        ("m", "f0"): 0,
        ("m", "f1"): 2,
        ("m", "f3"): 6,
    }
    assert "worker process died" in failures["scores:m", "f2"]


@pytest.mark.slow
def test_missing_weights_of_a_server_end_the_run(workspace, two_servers):
    with pytest.raises(MissingResourceError, match="the weights are missing"):
        run(workspace, [0, 1, 2, 3], [ModelStage("m", 0.0)], workers=2)
    assert len(Store(workspace, VERDICTS).read()) == 0


class SlowScaler(Scaler):
    """Records the sizes of its batches; the first batch takes until others wait."""

    def __init__(self):
        super().__init__(2.0)
        self.batch_sizes = []

    def predict(self, inputs):
        self.batch_sizes.append(len(inputs))
        time.sleep(0.2 if len(self.batch_sizes) == 1 else 0)
        return super().predict(inputs)


def test_requests_that_wait_are_computed_together():
    batcher = Batcher()
    model = SlowScaler()
    results = {}

    def send(number):
        results[number] = batcher.predict(model, [number, number + 0.5])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [2 * number, 2 * number + 1] for number in range(8)}
    assert len(model.batch_sizes) < 8
    assert max(model.batch_sizes) > 2


def test_bad_request_does_not_fail_those_computed_with_it():
    batcher = Batcher()
    model = SlowScaler()
    results = {}

    def send(number):
        try:
            results[number] = batcher.predict(model, [number])
        except RuntimeError as error:
            results[number] = str(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in (5, -1, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {5: [10], -1: "the model cannot compute -1", 1: [2], 2: [4]}
