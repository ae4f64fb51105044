"""Results of earlier runs: another model's or another setting's are never taken for new ones."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from authface_train.restore.earlier_results import (
    MODEL_STATE,
    EarlierResults,
    describe_settings,
    model_state,
)
from authface_train.restore.output_folder import OutputTarget, ResultNames
from authface_train.restore.sampling import PRESETS, Sampling
from manifests.support.errors import UserError

SETTINGS = describe_settings(Sampling(), seeds=1, upscale=1)


@pytest.fixture
def model(tmp_path):
    """A folder with a file of weights."""
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/w.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def results(tmp_path, model):
    """Function that writes a record of two results and returns what checks them."""

    def make(**changes):
        out = tmp_path / "out"
        out.mkdir()
        rows = []
        for name in ("a.png", "b.png"):
            (out / name).touch()
            row = {"input": f"in/{name}", "output": name, "model": str(model), **SETTINGS}
            rows.append({**row, MODEL_STATE: model_state(model), **changes})
        pd.DataFrame(rows).to_parquet(out / "restored.parquet")
        earlier = EarlierResults(OutputTarget.parse(out), known_aligned=True)
        names = {
            Path("in", name): ResultNames(Path(name), Path(name)) for name in ("a.png", "b.png")
        }
        return lambda **now: earlier.check(
            earlier.find(names),
            **{"model": str(model), "folder": model, "settings": SETTINGS, **now},
        )

    return make


def test_same_model_and_settings_pass(results):
    results()()


def test_other_settings_are_refused(results):
    check = results()
    with pytest.raises(
        UserError, match=r"2 results of another run \(steps is 50 there and 9 now\)"
    ):
        check(settings=describe_settings(Sampling(steps=9), seeds=1, upscale=1))
    with pytest.raises(UserError, match=r"guidance is 1\.0 there and 8\.0 now.*--overwrite"):
        check(settings=describe_settings(PRESETS["authors"], seeds=1, upscale=1))


def test_fewer_seeds_are_enough_but_more_are_not(results):
    check = results(seeds=2)
    check()
    with pytest.raises(UserError, match="seeds is 2 there and 3 now"):
        check(settings=describe_settings(Sampling(), seeds=3, upscale=1))


def test_model_that_was_renamed_is_the_same(results, model, tmp_path):
    check = results()
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)  # keeps the times
    check(model=str(moved), folder=moved)


def test_model_that_was_trained_again_is_refused(results, model):
    check = results()
    os.utime(model / "unet/w.safetensors", (1, 1))
    with pytest.raises(UserError, match=r"their model is .*model; it has changed since"):
        check()


def test_another_model_is_refused(results, model, tmp_path):
    check = results(**{MODEL_STATE: None})  # a record of an earlier version
    check()
    with pytest.raises(UserError, match="their model is "):
        check(model="owner/name", folder=None)


def test_files_of_unknown_origin_are_refused(results, tmp_path):
    check = results()
    record = tmp_path / "out/restored.parquet"
    pd.read_parquet(record).iloc[:1].to_parquet(record)
    earlier = EarlierResults(OutputTarget.parse(tmp_path / "out"), known_aligned=True)
    names = {Path("in/b.png"): ResultNames(Path("b.png"), Path("b.png"))}
    with pytest.raises(UserError, match=r"1 file with names of results.* \(first: b\.png\)"):
        earlier.check(earlier.find(names), model="m", folder=None, settings=SETTINGS)
    check()


def test_single_file_is_not_replaced(tmp_path):
    file = tmp_path / "new.png"
    file.touch()
    earlier = EarlierResults(OutputTarget.parse(file), known_aligned=True)
    names = {Path("a.png"): ResultNames(Path("new.png"), Path("new.png"))}
    with pytest.raises(UserError, match=r"new\.png exists; --overwrite replaces it"):
        earlier.check(earlier.find(names), model="m", folder=None, settings=SETTINGS)


@pytest.mark.parametrize("name", ["runs/nope", "models/restorer-tny"])
def test_mistyped_folder_is_no_hub_id(authface_here, tmp_path, photos, name):
    (tmp_path / "models/restorer-tiny").mkdir(parents=True)
    options = ("--input", photos["obama.jpg"], "--output", "out")
    result = authface_here("restore", "--model", name, *options, cwd=tmp_path)
    assert result.returncode == 2
    hint = "; did you mean restorer-tiny?" if name.startswith("models") else ""
    assert result.stderr == f"authface: there is no folder {name}{hint}\n"
    assert not (tmp_path / "out").exists()
