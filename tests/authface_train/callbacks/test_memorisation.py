"""Learning by heart: what the audit measures, and what it advises."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from authface_data.faces.descriptor import SAME_PERSON, Descriptor
from authface_train.callbacks import nearest_faces as neighbours_module
from authface_train.callbacks.memorisation import advice
from authface_train.callbacks.nearest_faces import (
    FaceSet,
    NearestFaces,
    NearestMatch,
    pairs_picture,
)
from authface_train.data.cache import Cache
from authface_train.data.latents import Latents
from manifests.support.errors import MissingResourceError
from manifests.training_view import training_view
from manifests.workspace import Workspace

SCALE = 0.5


def few(**faces) -> Latents:
    """Latents of a few faces by key."""
    both = {key: torch.stack([mean, mean.flip(-1)]) for key, mean in faces.items()}
    cache = {
        key: {"latents": torch.stack([means, torch.zeros_like(means)], 1)}
        for key, means in both.items()
    }
    return Latents(cache, list(faces))


def latent(seed):
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))


class ByBrightness:
    """Stands for the descriptor: who a picture shows is its mean; black ones show no face."""

    def setup(self, weights_dir):
        self.asked = 0

    def describe(self, picture):
        self.asked += 1
        return None if picture.max() == 0 else np.full(128, picture.mean() / 255)


@pytest.fixture
def compared(workspace, monkeypatch):
    """Three training faces and two held-out ones."""
    monkeypatch.setattr(neighbours_module, "Descriptor", ByBrightness)
    crops = {
        name: np.full((16, 16, 3), value, np.uint8)
        for name, value in zip("abcde", (50, 100, 0, 120, 200), strict=True)
    }
    training = few(a=latent(1), b=latent(2), c=latent(3))
    held_out = few(d=latent(4), e=latent(5))
    return NearestFaces(
        training, held_out, crops.__getitem__, SCALE, Cache(workspace, "cache/descriptors"), None
    )


def test_the_nearest_is_found_by_latents_mirrored_or_not_and_by_who_it_is(compared):
    nearly = latent(2).flip(-1) + 0.01
    drawn = FaceSet(
        torch.stack([SCALE * nearly, SCALE * latent(9)]),
        [np.full((16, 16, 3), 52, np.uint8), np.zeros((16, 16, 3), np.uint8)],
    )
    first, second = compared.nearest(drawn)
    assert first.place == {"latent": 1, "descriptor": 0}
    assert first.distance["latent"] == pytest.approx(SCALE * 0.01, rel=1e-3)
    assert first.distance["descriptor"] == pytest.approx(128**0.5 * 2 / 255, rel=1e-3)
    assert first.picture.mean() == 50  # the descriptor's word on who it is goes first
    assert set(second.distance) == {"latent"}  # no face
    means = [SCALE * one for one in (latent(1), latent(2), latent(3))]
    expected = min(
        float((SCALE * latent(9) - each).square().mean().sqrt())
        for mean in means
        for each in (mean, mean.flip(-1))
    )
    assert second.distance["latent"] == pytest.approx(expected, rel=1e-5)


def test_held_out_people_are_the_yardstick(compared):
    usual = compared.held_out
    assert usual.least["descriptor"] == pytest.approx(128**0.5 * 20 / 255)
    assert usual.median["descriptor"] == pytest.approx(128**0.5 * 60 / 255)
    assert 0 < usual.least["latent"] <= usual.median["latent"]
    asked = compared._descriptor.asked
    compared.nearest(FaceSet(latent(9)[None], [np.full((16, 16, 3), 9, np.uint8)]))
    assert compared._descriptor.asked == asked + 1  # those of crops are kept


def test_of_a_large_set_always_the_same_are_compared(workspace, monkeypatch):
    monkeypatch.setattr(neighbours_module, "MOST", 2)
    faces = {name: latent(number) for number, name in enumerate("abcde")}
    made = [NearestFaces(few(**dict(order)), few(), None, 1.0, Cache(workspace, "cache/d"), None)
            for order in (faces.items(), reversed(faces.items()))]  # fmt: skip
    chosen = [{one.training.keys[place] for place in one.places} for one in made]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 2


def test_without_the_descriptors_weights_latents_are_compared_and_that_is_said(
    compared, monkeypatch, capsys
):
    def setup(self, weights_dir):
        raise MissingResourceError("no such file")

    monkeypatch.setattr(ByBrightness, "setup", setup)
    (near,) = compared.nearest(
        FaceSet(latent(1)[None] * SCALE, [np.full((16, 16, 3), 52, np.uint8)])
    )
    assert set(near.distance) == {"latent"}
    assert near.picture.mean() == 50
    assert capsys.readouterr().out.count("compares latents only") == 1


def test_pairs_are_shown_side_by_side():
    drawn = np.full((8, 8, 3), 200, np.uint8)
    near = NearestMatch({"latent": 0}, {"latent": 0.1}, np.full((8, 8, 3), 90, np.uint8))
    sheet = np.asarray(pairs_picture([drawn, drawn], [near, NearestMatch()], [True, False]))
    assert sheet.shape == (2 * (256 + 18), 512, 3)
    assert [sheet[place].tolist() for place in ((100, 100), (100, 400), (400, 400))] == [
        [200] * 3,
        [90] * 3,
        [0] * 3,
    ]


def row(step, training, held_out=None, copies=0):
    return {
        "step": step,
        "training_loss": training,
        "held_out_loss": held_out,
        "drawn": 4,
        "copies": copies,
    }


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [row(0, 1.0, 1.0), row(10, 0.5, 0.6)],
            r"^go on: loss 0.5000 in training, 0.6000 on held-out people$",
        ),
        (
            [row(0, 1.0, 1.0), row(10, 0.5, 0.6), row(20, 0.3, 0.61), row(30, 0.2, 0.65)],
            "^stop: .* lowest at step 10",
        ),
        (
            [row(0, 1.0, 1.0), row(10, 0.5, 0.6), row(20, 0.3, 0.65)],
            "^go on",
        ),  # one audit may be chance
        ([row(0, 1.0, 1.0), row(10, 0.5, 0.6), row(20, 0.3, 0.601), row(30, 0.2, 0.602)], "^go on"),
        (
            [row(0, 1.0, 1.0), row(10, 0.1, 0.9, copies=2)],
            "^2 of 4 drawn faces are nearer .* nearest-step-00000010.png",
        ),
        ([row(0, 1.0), row(10, 0.1)], "nobody is held out"),
    ],
)
def test_advice(rows, says):
    import re

    assert re.search(says, advice(rows))
    as_read = [
        {name: "" if value is None else str(value) for name, value in one.items()} for one in rows
    ]
    assert advice(as_read) == advice(rows)


def test_the_descriptor_tells_people_apart(photos, weights):
    """Three photographs of one man, one of another; noise is nobody."""
    descriptor = Descriptor()
    descriptor.setup(None)
    pictures = {
        name.split(".")[0]: np.asarray(Image.open(path).convert("RGB"))
        for name, path in photos.items()
    }
    small = {name: np.asarray(Image.fromarray(picture).resize((512, 512 * picture.shape[0] // picture.shape[1])))
             for name, picture in pictures.items()}  # fmt: skip
    first, second, other = (
        descriptor.describe(small[name]) for name in ("obama", "obama2", "biden")
    )
    assert np.linalg.norm(first - second) < SAME_PERSON < np.linalg.norm(first - other)
    rng = np.random.default_rng(0)
    assert descriptor.describe(rng.integers(0, 255, (64, 64, 3), np.uint8)) is None


@pytest.mark.slow
def test_a_run_is_audited_at_its_checkpoints_and_not_twice(filled, tmp_path, authface_here):
    root, run = tmp_path / "ws", tmp_path / "run"
    shutil.copytree(filled, root)
    settings = (root / "authface.toml").read_text()
    for seed in range(20):
        (root / "authface.toml").write_text(
            settings.replace("val = 0.05", f"val = 0.5\nseed = {seed}")
        )
        if set(training_view(Workspace(root))["split"]) == {"train", "val"}:
            break
    words = [
        "train-prior",
        "--preset",
        "tiny",
        "--set",
        "checkpoint_every=2",
        "--set",
        "draw.every=4",
    ]
    words += ["-w", root, "--output", run]
    done = authface_here(*words, "--steps", 4)
    assert done.returncode == 0, done.stderr
    audits = pd.read_csv(run / "audit/audit.csv")
    assert audits["step"].tolist() == [0, 2, 4]
    assert audits["held_out_loss"].between(0.5, 2).all()
    assert audits["training_loss"].iloc[-1] < audits["training_loss"].iloc[0]
    prompts = len(set(captions(root)))
    assert audits["drawn"].tolist() == [2 * prompts] * 3
    assert audits["latent_held_out"].nunique() == 1
    assert done.stdout.count("audit, step") == 3
    for step in (0, 2, 4):
        assert Image.open(run / f"audit/nearest-step-{step:08d}.png").size == (
            512,
            2 * prompts * 274,
        )
    assert {path.name for path in (run / "drawn").iterdir()} == {
        f"step-{step:08d}.png" for step in (0, 4)
    }
    assert Image.open(run / "drawn/step-00000000.png").size == (512, 274 * prompts)
    before = (run / "audit/audit.csv").read_text()
    assert authface_here(*words, "--steps", 5, "--resume").returncode == 0
    after = (run / "audit/audit.csv").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5


def captions(root):
    view = training_view(Workspace(root))
    return view.loc[view["split"] == "val", "caption"].tolist()[:2]
