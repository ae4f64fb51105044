"""The register of runs: appended by processes, read in spite of cut lines and lost folders."""

import json

import pandas as pd

from manifests.run_folder import LINEAGE_FILE
from manifests.run_register import (
    REGISTER_FILE,
    find_trained_runs,
    list_registered_runs,
    register_run,
)


def make_run(folder, *photo_ids):
    folder.mkdir(parents=True)
    pd.DataFrame({"photo_id": photo_ids}).to_parquet(folder / LINEAGE_FILE)
    return folder


def test_runs_inside_are_relative_and_a_repeated_run_is_listed_once(workspace, tmp_path):
    inside = make_run(workspace.local_path("runs/prior"), "fs_a")
    outside = make_run(tmp_path / "models/prior", "fs_a")
    for folder, stage in ((inside, "prior"), (outside, "prior"), (inside, "restorer")):
        register_run(workspace, folder, stage)
    runs = [(run.folder, run.stage) for run in list_registered_runs(workspace)]
    assert runs == [(str(outside), "prior"), ("runs/prior", "restorer")]


def test_cut_line_is_passed_over_and_does_not_spoil_the_next(workspace, tmp_path):
    register_run(workspace, tmp_path / "one", "prior")
    path = workspace.local_path(REGISTER_FILE)
    path.write_bytes(path.read_bytes() + b'{"folder": "/cut\n[1]\n{"folder": "/cut')
    register_run(workspace, tmp_path / "two", "prior")
    names = [run.folder for run in list_registered_runs(workspace)]
    assert names == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert json.loads(path.read_text().splitlines()[-1])["stage"] == "prior"


def test_trained_moved_and_damaged_runs_are_told_apart(workspace, tmp_path):
    learned = make_run(tmp_path / "learned", "fs_a", "fs_b")
    other = make_run(tmp_path / "other", "fs_b")
    moved = make_run(tmp_path / "moved", "fs_a")
    damaged = make_run(tmp_path / "damaged", "fs_a")
    inside = make_run(workspace.local_path("runs/prior"), "fs_a")
    for folder in (learned, other, moved, damaged, inside):
        register_run(workspace, folder, "prior")
    moved.rename(tmp_path / "elsewhere")
    (damaged / LINEAGE_FILE).write_bytes(b"PAR1 cut")
    trained = find_trained_runs(workspace, {"fs_a"})
    assert trained.outside == [str(learned)]
    assert trained.unreadable == [str(moved), str(damaged)]


def test_workspace_without_a_register_has_no_runs(workspace):
    assert list_registered_runs(workspace) == []
