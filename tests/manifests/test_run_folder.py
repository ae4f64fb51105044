"""Readers of run folders, on the local file system and in workspaces."""

import json

import pandas as pd
import pytest

from authface_data.report.status import describe_runs
from manifests import run_folder
from manifests.support.errors import UserError


@pytest.fixture
def run(workspace):
    """The folder of a run in a workspace."""
    folder = workspace.local_path(f"{run_folder.RUNS}/prior")
    folder.mkdir()
    return folder


def test_empty_folder_is_not_a_run(workspace, run):
    (workspace_run,) = run_folder.list_runs(workspace)
    assert workspace_run.name == "prior"
    assert workspace_run.read_run() is None
    assert workspace_run.read_notes() == {}
    assert workspace_run.read_file(run_folder.METRICS_FILE) is None
    assert workspace_run.lineage_photo_ids() == set()
    assert not workspace_run.is_finished()
    assert run_folder.read_run(run) is None
    assert run_folder.read_notes(run) == {}
    assert not run_folder.is_finished(run)


def test_both_readers_give_the_same(workspace, run):
    (run / run_folder.RUN_FILE).write_text(json.dumps({"stage": "prior"}))
    (run / run_folder.NOTES_FILE).write_text(json.dumps({"untrained": True}))
    (run / run_folder.MODEL_INDEX_FILE).write_text("{}")
    (workspace_run,) = run_folder.list_runs(workspace)
    assert workspace_run.read_run() == run_folder.read_run(run) == {"stage": "prior"}
    assert workspace_run.read_notes() == run_folder.read_notes(run) == {"untrained": True}
    assert workspace_run.is_finished()
    assert run_folder.is_finished(run)


def test_lineage_gives_photo_ids(workspace, run):
    lineage = pd.DataFrame({"face_id": ["a_1", "a_2", "b_1"], "photo_id": ["a", "a", "b"]})
    lineage.to_parquet(run / run_folder.LINEAGE_FILE)
    (workspace_run,) = run_folder.list_runs(workspace)
    assert workspace_run.lineage_photo_ids() == {"a", "b"}


def test_step_names_sort_by_step():
    assert run_folder.step_name(1000, ".png") == "step-00001000.png"
    assert run_folder.step_name(20) < run_folder.step_name(100)


DAMAGED = [b"", b"[]", b"\xff", b"[" * 100_000, b"null"]
DAMAGED_RUNS = [*DAMAGED, b'{"stage": 7}', b'{"settings": []}', b'{"base": null}', b'{"data": {}}']
DAMAGED_NOTES = [*DAMAGED, b'{"resolution_px": "512"}', b'{"resolution_px": 10000000}']
DAMAGED_NOTES += [b'{"time_ids": [1]}', b'{"time_ids": "abcdef"}', b'{"untrained": "no"}']


@pytest.mark.parametrize("content", DAMAGED_RUNS)
def test_damaged_record_of_a_run_is_one_line(workspace, run, content):
    (run / run_folder.RUN_FILE).write_bytes(content)
    (workspace_run,) = run_folder.list_runs(workspace)
    for read in (workspace_run.read_run, lambda: run_folder.read_run(run)):
        with pytest.raises(UserError, match=r"runs/prior/run\.json is damaged \(") as error:
            read()
        assert str(error.value).isprintable()


@pytest.mark.parametrize("content", DAMAGED_NOTES)
def test_damaged_notes_of_a_model_are_one_line(workspace, run, content):
    (run / run_folder.NOTES_FILE).write_bytes(content)
    (workspace_run,) = run_folder.list_runs(workspace)
    for read in (workspace_run.read_notes, lambda: run_folder.read_notes(run)):
        with pytest.raises(UserError, match=r"runs/prior/authface\.json is damaged \(") as error:
            read()
        assert str(error.value).isprintable()


def test_damaged_lineage_is_one_line(workspace, run):
    (run / run_folder.LINEAGE_FILE).write_bytes(b"PAR1" + bytes(100))
    (workspace_run,) = run_folder.list_runs(workspace)
    with pytest.raises(UserError, match=r"lineage\.parquet is damaged \("):
        workspace_run.lineage_photo_ids()
    pd.DataFrame({"a": [1]}).to_parquet(run / run_folder.LINEAGE_FILE)
    with pytest.raises(UserError, match=r"lineage\.parquet is damaged \("):
        workspace_run.lineage_photo_ids()


def test_damaged_run_does_not_hide_the_status_of_the_others(workspace, run):
    (run / run_folder.RUN_FILE).write_bytes(b"[1]")
    good = workspace.local_path(f"{run_folder.RUNS}/restorer")
    good.mkdir()
    (good / run_folder.RUN_FILE).write_text('{"stage": "restorer", "settings": {"steps": 7}}')
    runs = describe_runs(workspace)
    assert "run.json is damaged" in runs["prior"]
    assert runs["restorer"] == "restorer, 7 steps, not finished"
