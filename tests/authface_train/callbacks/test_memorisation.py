"""The memorisation audit: nearest faces, baseline, advice, and the audits of a run."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import set_options
from PIL import Image

from authface_data.faces.descriptor import SAME_PERSON_DISTANCE, FaceDescriptor
from authface_train.callbacks import nearest_faces as nearest_faces_module
from authface_train.callbacks.memorisation import advise
from authface_train.callbacks.nearest_faces import NearestFaces, NearestMatch, nearest_grid
from authface_train.data.cache import Cache
from authface_train.data.latents import Latents
from manifests.support.errors import MissingResourceError
from manifests.training_view import training_view
from manifests.workspace import Workspace

SCALE = 0.5


def make_latents(**means) -> Latents:
    """Cached latents of a few faces, by key, from their posterior means."""
    cache = {}
    for key, mean in means.items():
        flips = torch.stack([mean, mean.flip(-1)])
        cache[key] = {"latents": torch.stack([flips, torch.zeros_like(flips)], 1)}
    return Latents(cache, list(means))


def random_mean(seed):
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))


def gray_image(value):
    return np.full((16, 16, 3), value, np.uint8)


class BrightnessDescriptor:
    """A fake face descriptor: the brightness of an image; a black image shows no face."""

    def setup(self, weights_dir):
        self.calls = 0

    def describe(self, image):
        self.calls += 1
        return None if image.max() == 0 else np.full(128, image.mean() / 255)


@pytest.fixture
def nearest_faces(workspace, monkeypatch):
    """Three training faces a, b, c and two held-out faces d, e."""
    monkeypatch.setattr(nearest_faces_module, "FaceDescriptor", BrightnessDescriptor)
    brightness = {"a": 50, "b": 100, "c": 0, "d": 120, "e": 200}
    crops = {key: gray_image(value) for key, value in brightness.items()}
    return NearestFaces(
        training=make_latents(a=random_mean(1), b=random_mean(2), c=random_mean(3)),
        held_out=make_latents(d=random_mean(4), e=random_mean(5)),
        load_crop=crops.__getitem__,
        scaling_factor=SCALE,
        descriptors=Cache(workspace, "cache/descriptors"),
        weights_dir=None,
    )


def test_nearest_face_is_found_by_latent_mirrored_or_not_and_by_descriptor(nearest_faces):
    almost_b_mirrored = random_mean(2).flip(-1) + 0.01
    latents = torch.stack([SCALE * almost_b_mirrored, SCALE * random_mean(9)])
    first, second = nearest_faces.find(latents, [gray_image(52), gray_image(0)])
    assert first.index == {"latent": 1, "descriptor": 0}
    assert first.distance["latent"] == pytest.approx(SCALE * 0.01, rel=1e-3)
    assert first.distance["descriptor"] == pytest.approx(128**0.5 * 2 / 255, rel=1e-3)
    # The nearest face by descriptor is shown.
    assert first.image.mean() == 50

    # The second image shows no face.
    assert set(second.distance) == {"latent"}
    distances = []
    for seed in (1, 2, 3):
        for mean in (random_mean(seed), random_mean(seed).flip(-1)):
            difference = SCALE * random_mean(9) - SCALE * mean
            distances.append(float(difference.square().mean().sqrt()))
    assert second.distance["latent"] == pytest.approx(min(distances), rel=1e-5)


def test_baseline_holds_distances_of_held_out_faces(nearest_faces):
    baseline = nearest_faces.baseline
    assert baseline.minimum["descriptor"] == pytest.approx(128**0.5 * 20 / 255)
    assert baseline.median["descriptor"] == pytest.approx(128**0.5 * 60 / 255)
    assert 0 < baseline.minimum["latent"] <= baseline.median["latent"]


def test_descriptors_of_crops_are_computed_once(nearest_faces):
    assert nearest_faces.baseline.minimum
    calls_before = nearest_faces._descriptor.calls
    nearest_faces.find(random_mean(9)[None], [gray_image(9)])
    assert nearest_faces._descriptor.calls == calls_before + 1


def test_subset_of_a_large_training_set_does_not_depend_on_the_order(workspace, monkeypatch):
    monkeypatch.setattr(nearest_faces_module, "MAX_TRAINING_FACES", 2)
    means = {name: random_mean(seed) for seed, name in enumerate("abcde")}
    chosen = []
    for items in (means.items(), reversed(means.items())):
        nearest_faces = NearestFaces(
            training=make_latents(**dict(items)),
            held_out=make_latents(),
            load_crop=None,
            scaling_factor=1.0,
            descriptors=Cache(workspace, "cache/d"),
            weights_dir=None,
        )
        keys = nearest_faces.training.keys
        chosen.append({keys[index] for index in nearest_faces.training_indices})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 2


def test_without_descriptor_weights_latents_are_compared_with_one_warning(
    nearest_faces, monkeypatch, caplog
):
    def setup(self, weights_dir):
        raise MissingResourceError("no such file")

    monkeypatch.setattr(BrightnessDescriptor, "setup", setup)
    (match,) = nearest_faces.find(random_mean(1)[None] * SCALE, [gray_image(52)])
    assert set(match.distance) == {"latent"}
    assert match.image.mean() == 50
    assert caplog.text.count("compares latents only") == 1


def test_grid_shows_each_image_beside_its_nearest_face():
    image = np.full((8, 8, 3), 200, np.uint8)
    match = NearestMatch({"latent": 0}, {"latent": 0.1}, np.full((8, 8, 3), 90, np.uint8))
    grid = np.asarray(nearest_grid([image, image], [match, NearestMatch()], [True, False]))
    assert grid.shape == (2 * (256 + 18), 512, 3)
    assert grid[100, 100].tolist() == [200] * 3
    assert grid[100, 400].tolist() == [90] * 3
    assert grid[400, 400].tolist() == [0] * 3


RUN = Path("my run")


def audit(step, training_loss, held_out_loss=None, copies=0):
    return {
        "step": step,
        "training_loss": training_loss,
        "held_out_loss": held_out_loss,
        "drawn": 4,
        "copies": copies,
    }


@pytest.mark.parametrize(
    ("audits", "pattern"),
    [
        (
            [audit(0, 1.0, 1.0), audit(10, 0.5, 0.6)],
            r"^continue: training loss 0.5000, held-out loss 0.6000$",
        ),
        (
            [audit(0, 1.0, 1.0), audit(10, 0.5, 0.6), audit(20, 0.3, 0.61), audit(30, 0.2, 0.65)],
            "^stop: .* lowest at step 10",
        ),
        # A single audit above the minimum may be chance.
        ([audit(0, 1.0, 1.0), audit(10, 0.5, 0.6), audit(20, 0.3, 0.65)], "^continue"),
        # The rise is within 1 %.
        (
            [audit(0, 1.0, 1.0), audit(10, 0.5, 0.6), audit(20, 0.3, 0.601), audit(30, 0.2, 0.602)],
            "^continue",
        ),
        (
            [audit(0, 1.0, 1.0), audit(10, 0.1, 0.9, copies=2)],
            "^2 of 4 previews are closer .* nearest-step-00000010.png",
        ),
        ([audit(0, 1.0), audit(10, 0.1)], "no faces are held out"),
    ],
)
def test_advice_follows_from_held_out_loss_and_copies(audits, pattern):
    assert re.search(pattern, advise(audits, RUN, []))
    # Rows that are read from the file hold strings.
    read_rows = []
    for row in audits:
        read_rows.append({name: "" if value is None else str(value) for name, value in row.items()})
    assert advise(read_rows, RUN, []) == advise(audits, RUN, [])


RISING = [audit(0, 1.0, 1.0), audit(10, 0.5, 0.6), audit(20, 0.3, 0.65), audit(30, 0.2, 0.7)]


@pytest.mark.parametrize(
    ("checkpoints", "end"),
    [
        ([10, 20, 30], "export it with `authface export 'my run' --checkpoint 10`"),
        # Runs of earlier versions have removed the best checkpoint.
        (
            [20, 30],
            "export the best of the kept ones (0.6500) with `authface export 'my run' "
            "--checkpoint 20`",
        ),
        ([], "lowest at step 10 (0.6000, now 0.7000)"),
    ],
)
def test_advice_names_the_export_of_a_checkpoint_that_exists(checkpoints, end):
    assert advise(RISING, RUN, checkpoints).endswith(end)


def test_base_is_never_advised_as_a_checkpoint():
    rising = [audit(step, 1.0, 1.0 + step) for step in (0, 10, 20)]
    assert advise(rising, RUN, [10, 20]).endswith("lowest at step 0 (1.0000, now 21.0000)")


def test_face_descriptor_separates_people(photos, weights):
    descriptor = FaceDescriptor()
    descriptor.setup(None)
    descriptors = {}
    for file_name, path in photos.items():
        name = file_name.split(".")[0]
        if name in ("obama", "obama2", "biden"):
            image = Image.open(path).convert("RGB")
            image = image.resize((512, 512 * image.height // image.width))
            descriptors[name] = descriptor.describe(np.asarray(image))
    same_person = np.linalg.norm(descriptors["obama"] - descriptors["obama2"])
    other_person = np.linalg.norm(descriptors["obama"] - descriptors["biden"])
    assert same_person < SAME_PERSON_DISTANCE < other_person


def test_face_descriptor_finds_no_face_in_noise(weights):
    descriptor = FaceDescriptor()
    descriptor.setup(None)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert descriptor.describe(noise) is None


def copy_with_held_out_faces(filled, root):
    """A copy of the workspace whose seed puts faces into both splits."""
    shutil.copytree(filled, root)
    settings_file = root / "authface.toml"
    settings = settings_file.read_text()
    for seed in range(20):
        settings_file.write_text(settings.replace("val = 0.05", f"val = 0.5\nseed = {seed}"))
        if set(training_view(Workspace(root))["split"]) == {"train", "val"}:
            return


@pytest.mark.slow
def test_run_is_audited_once_at_each_checkpoint(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    run = tmp_path / "run"
    copy_with_held_out_faces(filled, root)
    command = ["train-prior", "--preset", "tiny", "-w", root, "--output", run]
    command += set_options("checkpoint_every=2", "draw.every=4", "keep_checkpoints=1")
    result = authface_here(*command, "--steps", 4)
    assert result.returncode == 0, result.stderr

    audits = pd.read_csv(run / "audit/audit.csv")
    assert audits["step"].tolist() == [0, 2, 4]
    assert audits["held_out_loss"].between(0.5, 2).all()
    assert audits["training_loss"].iloc[-1] < audits["training_loss"].iloc[0]
    num_prompts = len(set(preview_captions(root)))
    assert audits["drawn"].tolist() == [2 * num_prompts] * 3
    assert audits["latent_held_out"].nunique() == 1
    assert result.stderr.count("memorisation audit at step") == 3
    for step in (0, 2, 4):
        picture = Image.open(run / f"audit/nearest-step-{step:08d}.png")
        assert picture.size == (512, 2 * num_prompts * 274)

    previews = {path.name for path in (run / "drawn").iterdir()}
    assert previews == {f"step-{step:08d}.png" for step in (0, 4)}
    assert Image.open(run / "drawn/step-00000000.png").size == (512, 274 * num_prompts)

    audits.loc[audits["step"] == 2, "held_out_loss"] = 0.001
    audits.to_csv(run / "audit/audit.csv", index=False)
    before = (run / "audit/audit.csv").read_text()
    assert authface_here(*command, "--steps", 5, "--resume").returncode == 0
    after = (run / "audit/audit.csv").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5
    # The best checkpoint is kept beside the newest one.
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000005"]
    assert f"export it with `authface export {run} --checkpoint 2`" in after


def preview_captions(root):
    """The captions that a run draws by default, from held-out faces."""
    view = training_view(Workspace(root))
    return view.loc[view["split"] == "val", "caption"].tolist()[:2]
