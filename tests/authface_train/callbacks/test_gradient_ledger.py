"""The gradient ledger: its gradients, its files and its plot."""

import shutil

import pytest
import torch
from training_steps import make_restorer_trainer

from authface_train.callbacks.gradient_ledger import (
    GradientLedger,
    overall_ratio,
    plot_ledger,
    read_ledger,
    write_ledger,
)
from authface_train.data.sample_keys import SampleKey
from authface_train.training.loop import stack_samples
from manifests.training_view import training_view
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def trainer(filled, tmp_path_factory):
    # A copy, because latents are written into the workspace's cache.
    root = tmp_path_factory.mktemp("ledger") / "ws"
    shutil.copytree(filled, root)
    workspace = Workspace(root)
    return make_restorer_trainer(workspace, training_view(workspace))


@pytest.fixture
def ledger(trainer, tmp_path):
    return GradientLedger(trainer=trainer, folder=tmp_path)


def ledger_batch(trainer, ledger, timestep):
    """The batch that the ledger measures, at one timestep."""
    batch = stack_samples([trainer.dataset[SampleKey(0, index)] for index in ledger.face_indices])
    return {**batch, "timesteps": torch.full_like(batch["timesteps"], timestep)}


def test_noise_gradient_is_twice_the_error_divided_by_the_number_of_values(trainer, ledger):
    entry = ledger.measure()[3]
    batch = ledger_batch(trainer, ledger, timestep=350)
    with torch.no_grad():
        _, eps = trainer.predict(trainer.models["controlnet"].module, batch)
    gradient = 2 * (eps - batch["noise"]) / eps.numel()
    mean_norm = gradient.flatten(1).norm(dim=1).mean()
    assert entry["noise"] == pytest.approx(float(mean_norm), rel=1e-4)


def test_style_gradient_agrees_with_a_finite_difference_of_the_loss(trainer, ledger):
    entry = ledger.measure()[5]
    batch = ledger_batch(trainer, ledger, timestep=550)
    with torch.no_grad():
        noisy, eps = trainer.predict(trainer.models["controlnet"].module, batch)
    facial = trainer.facial
    visible = facial.count_visible(batch["visible"])

    def style_loss(prediction):
        pairs = trainer.region_pairs(noisy, prediction, batch)
        terms = facial.unweighted_terms(pairs, visible)
        return trainer.settings.facial.lambda_s * terms.style

    leaf = eps.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(style_loss(leaf), leaf)
    mean_norm = gradient.flatten(1).norm(dim=1).mean()
    assert entry["style"] == pytest.approx(float(mean_norm), rel=1e-4)

    step = 1e-2 * gradient / gradient.norm()
    difference = float(style_loss(eps + step) - style_loss(eps - step)) / 2e-2
    assert difference == pytest.approx(float(gradient.norm()), rel=0.05)


def test_measuring_changes_no_weight_and_leaves_no_gradient(trainer, ledger):
    modules = [model.module for model in trainer.models.values()]
    before = [
        {name: tensor.clone() for name, tensor in module.state_dict().items()} for module in modules
    ]
    assert ledger.measure() == ledger.measure()
    for module, old_state in zip(modules, before, strict=True):
        state = module.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in old_state.items())
        assert all(parameter.grad is None for parameter in module.parameters())


def test_entries_are_saved_and_plotted(tmp_path):
    entries = [
        {
            "step": float(step),
            "band": float(band),
            "noise": 2.0,
            "adversarial": 0.1,
            "style": 0.1,
            "ratio": 0.05 * band,
            "cosine_adversarial": 0.5,
            "cosine_style": -0.5,
        }
        for step in (0, 100)
        for band in range(10)
    ]
    assert read_ledger(tmp_path) == []
    write_ledger(tmp_path, entries)
    assert read_ledger(tmp_path) == entries
    assert overall_ratio(entries[:10]) == pytest.approx(0.05 * sum(range(10)) / 10)
    plot = plot_ledger(entries)
    assert plot.width > plot.height > 200
