"""Processes of several machines must have the same command, faces, base and run folder."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pandas as pd
import pytest

from authface_train.presets import load_preset
from authface_train.runs.training_run import TrainingRun
from authface_train.training import machines, processes
from authface_train.training.machines import check_same_request, check_shared_run
from manifests.run_folder import RUN_FILE
from manifests.support.errors import UserError
from manifests.support.files import write_json

SETTINGS = load_preset("prior", "tiny")
FACES = pd.DataFrame({"face_id": ["a"], "crop_sha256": ["b"], "caption": ["c"]})
RECORD = {"stage": "prior", "settings": {}, "base": "tiny", "base_digest": "d1"}


@pytest.fixture
def check_on_two(monkeypatch):
    """Checks the request of a main process, then that of a process on another machine."""
    accelerator = SimpleNamespace(num_processes=2)

    def check(**other):
        gathered = []
        monkeypatch.setattr(
            machines, "gather_object", lambda local: gathered.extend(local) or gathered
        )
        for host, changes in (("node-a", {}), ("node-b", other)):
            monkeypatch.setattr(machines.socket, "gethostname", lambda host=host: host)
            request = {"settings": SETTINGS, "view": FACES, "resume": True, **changes}
            check_same_request(**request, accelerator=accelerator)

    return check


def test_same_requests_pass_and_machines_may_have_a_base_and_workers_of_their_own(check_on_two):
    check_on_two()
    check_on_two(settings=SETTINGS.model_copy(update={"base": "/scratch/sdxl", "workers": 3}))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"settings": SETTINGS.model_copy(update={"micro_batch": 2})},
            "micro_batch is 2 in a process on node-b and 4 in the main process on node-a",
        ),
        ({"resume": False}, "--resume is False in a process on node-b and True"),
        ({"view": FACES.assign(caption="other")}, "node-b reads other faces or captions"),
    ],
)
def test_differing_request_is_named(check_on_two, other, message):
    with pytest.raises(UserError, match=message):
        check_on_two(**other)


@pytest.fixture
def check_run(tmp_path, monkeypatch):
    """Checks a run as a process that does not write it."""
    monkeypatch.setattr(processes, "SHARED_DISK_DELAY_S", 0.3)

    def broadcast(values):
        values[0] = RECORD

    def check(digest=None):
        monkeypatch.setattr(machines, "broadcast_object_list", broadcast)
        base_digest = None
        if digest is not None:
            base_digest = Future()
            base_digest.set_result(digest)
        accelerator = SimpleNamespace(is_main_process=False)
        check_shared_run(TrainingRun(tmp_path, "prior"), base_digest, accelerator)

    return check


def test_run_folder_that_is_not_shared_is_named(check_run, tmp_path):
    with pytest.raises(UserError, match=r"does not see the run\.json .* a disk that all machines"):
        check_run()
    write_json(tmp_path / RUN_FILE, {**RECORD, "base": "of an earlier run"})
    with pytest.raises(UserError, match=r"does not see the run\.json"):
        check_run()


def test_run_folder_that_appears_late_is_waited_for(check_run, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SHARED_DISK_DELAY_S", 20.0)
    writer = threading.Timer(0.3, write_json, (tmp_path / RUN_FILE, RECORD))
    writer.start()
    check_run(digest="d1")
    writer.join()


def test_other_base_on_another_machine_is_refused(check_run, tmp_path):
    write_json(tmp_path / RUN_FILE, RECORD)
    with pytest.raises(UserError, match="is not the one of the main process"):
        check_run(digest="d2")
