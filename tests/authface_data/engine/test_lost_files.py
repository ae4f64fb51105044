"""A result whose file is gone is made again, and only that one."""

import logging

import pyarrow.compute as pc
from stages import CropStage, no_picture

from authface_data.engine.run import Engine, run_chain
from authface_data.engine.stage import Chain
from manifests.schema import FACES, VERDICTS
from manifests.store import Store


def make_inputs(**actions):
    """Inputs fs_0 to fs_3; `actions` as in `NumberStage`."""
    return [
        (f"fs_{number}", {"number": float(number), "action": actions.get(f"fs_{number}", "")})
        for number in range(4)
    ]


def run(workspace, inputs=None, **options):
    chain = Chain([CropStage(name="faces")], no_picture)
    inputs = make_inputs() if inputs is None else inputs
    return run_chain(workspace, chain, inputs, title="test", engine=Engine(workers=1), **options)


def crop_paths(workspace):
    rows = Store(workspace, FACES).read(["photo_id", "crop_path"]).to_pylist()
    return {row["photo_id"]: row["crop_path"] for row in rows}


def read_reasons(workspace):
    verdicts = Store(workspace, VERDICTS).read(["id", "verdict", "reason"])
    failed = verdicts.filter(pc.equal(verdicts["verdict"], "failed"))
    return dict(zip(failed["id"].to_pylist(), failed["reason"].to_pylist(), strict=True))


def test_lost_file_is_made_again(workspace, caplog):
    run(workspace)
    paths = crop_paths(workspace)
    workspace.remove(paths["fs_1"])
    with caplog.at_level(logging.WARNING):
        outcomes = run(workspace)
    assert "files of 1 photos are missing in faces/; they are made again" in caplog.text
    assert outcomes.processed == {"faces": 1}
    assert crop_paths(workspace) == paths
    assert all(workspace.exists(path) for path in paths.values())
    assert run(workspace).processed == {}


def test_row_and_reason_stay_while_the_file_cannot_be_made_again(workspace):
    run(workspace)
    paths = crop_paths(workspace)
    workspace.remove(paths["fs_2"])
    for _ in range(2):  # it is tried again each time, without --retry failed
        outcomes = run(workspace, make_inputs(fs_2="raise"))
        assert outcomes.failed == {"faces": 1}
        assert crop_paths(workspace) == paths
        assert read_reasons(workspace) == {"fs_2": "RuntimeError: row 2.0 is bad"}
    run(workspace)
    assert workspace.exists(paths["fs_2"])
    assert read_reasons(workspace) == {}


def test_link_to_a_missing_original_is_not_made_again(workspace, tmp_path):
    """Its source looks for the original, see `linked_files`."""
    run(workspace)
    path = crop_paths(workspace)["fs_0"]
    workspace.link(path, str(tmp_path / "gone.jpg"), hard=False)
    assert run(workspace).processed == {}
