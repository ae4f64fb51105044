"""Folders of the small experiment: what may be continued."""

import json

import pytest

from authface_train.reproduce import small_runs
from authface_train.reproduce.small_settings import Scale
from manifests.support.errors import UserError


@pytest.fixture(autouse=True)
def _no_faces(monkeypatch):
    """Finding the faces takes minutes, and comes after the check of the folder."""
    monkeypatch.setattr(small_runs, "prepare_faces", lambda *_: None)


def test_experiment_of_an_earlier_version_is_continued(tmp_path):
    stored = {"latent": "unshuffle", **vars(Scale())}
    del stored["size_px"]
    (tmp_path / "experiment.json").write_text(json.dumps(stored))
    small_runs.Experiment(tmp_path, [], "unshuffle", Scale())
    assert json.loads((tmp_path / "experiment.json").read_text())["size_px"] == 64


@pytest.mark.parametrize(
    ("latent", "scale", "difference"),
    [
        ("unshuffle", Scale(size_px=128), "size_px = 64, not 128"),
        ("vae", Scale(), "latent = unshuffle, not vae"),
        ("unshuffle", Scale(few_steps=(1,)), r"few_steps = \[1, 2, 4\], not \[1\]"),
    ],
)
def test_experiment_of_other_sizes_is_refused_by_name(tmp_path, latent, scale, difference):
    small_runs.Experiment(tmp_path, [], "unshuffle", Scale())
    with pytest.raises(UserError, match=f"with {difference}; use another --output"):
        small_runs.Experiment(tmp_path, [], latent, scale)
