"""Both stages in bf16: float32 master weights, float32 sums of gradients, equal results."""

import gc
import shutil
import weakref

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from training_steps import make_prior_trainer, make_restorer_trainer, take_step

from authface_train.presets import load_preset, parse_set_option
from authface_train.training.compilation import COMPILED_BLOCKS
from authface_train.training.master_weights import MasterWeights
from authface_train.training.trainable_model import prepare_for_training
from manifests.training_view import training_view
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow  # many CPUs emulate bf16
BF16 = "mixed_precision=bf16"
SMALL = ("batch=1", "micro_batch=1")
IN_BACKWARD = ("step_in_backward=true", "clip_norm=0")


@pytest.fixture(scope="module")
def workspace(filled, tmp_path_factory) -> Workspace:
    """A copy of the filled workspace: trainers write into its cache."""
    copy = tmp_path_factory.mktemp("precision") / "workspace"
    shutil.copytree(filled, copy)
    return Workspace(copy)


@pytest.fixture(scope="module")
def view(workspace) -> pd.DataFrame:
    return training_view(workspace)


@pytest.fixture
def make_trainer(workspace, view):
    def make(stage: str, *options: str):
        overrides = dict(map(parse_set_option, options))
        if stage == "prior":
            return make_prior_trainer(overrides)
        return make_restorer_trainer(workspace, view, overrides)

    return make


def trained_model(trainer):
    return next(iter(trainer.models.values()))


def copy_state(trainer) -> dict[str, torch.Tensor]:
    state = trained_model(trainer).state(trainer.accelerator)
    return {name: value.clone() for name, value in state.items()}


def take_steps(trainer, count: int, size: int | None = None) -> list[float]:
    return [float(take_step(trainer, step, size).means["loss"]) for step in range(count)]


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("prior", ()),
        ("prior", ("gradient_checkpointing=true", "ema_decay=0.9")),
        ("prior", ("optimiser=adamw-8bit",)),
        ("restorer", ("gradient_checkpointing=true", "ema_decay=0.9")),
        ("restorer", ("optimiser=adamw-8bit-bf16",)),
    ],
    ids=str,
)
def test_losses_in_bf16_are_those_in_float32(make_trainer, stage, options):
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its step
        losses = take_steps(make_trainer(stage, BF16, *SMALL, *options), 2)
    expected = take_steps(make_trainer(stage, *SMALL), 2)
    assert losses == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("stage", ["prior", "restorer"])
def test_model_computes_with_bf16_weights(make_trainer, stage):
    trainer = make_trainer(stage, BF16, *SMALL)
    model = trained_model(trainer)
    dtypes = set()
    for module in model.module.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda *call: dtypes.add(call[2].dtype))
    take_step(trainer, 0)
    assert dtypes == {torch.bfloat16}
    for name, weight in model.module.named_parameters():
        assert torch.equal(weight, model.masters.weights[name].bfloat16())
        assert weight.grad is None


def test_gradients_of_micro_batches_are_added_in_float32():
    weight = torch.nn.Linear(1, 1, bias=False)
    masters = MasterWeights(weight, num_processes=1)
    gradients = [1.0, *[2.0**-9] * 8]  # in bf16 1 + 2**-9 is 1
    for gradient in gradients:
        weight(torch.tensor([[gradient]], dtype=torch.bfloat16)).sum().backward()
    assert float(masters.weights["weight"].grad) == sum(gradients)


def test_models_out_of_use_free_their_weights():
    module = torch.nn.Linear(2, 2)
    masters = MasterWeights(module, num_processes=1)
    weights = [weakref.ref(value) for value in (module.weight, masters.weights["weight"])]
    del module, masters
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


@pytest.mark.parametrize("options", [IN_BACKWARD, ("lora_rank=2",)], ids=" ".join)
def test_prior_options_work_with_master_weights(make_trainer, options):
    trainer = make_trainer("prior", BF16, *SMALL, *options)
    trained = set(trained_model(trainer).masters.weights)
    before = copy_state(trainer)
    take_steps(trainer, 2)
    after = copy_state(trainer)
    assert trained == set(after)
    assert all(not torch.equal(value, before[name]) for name, value in after.items())
    if options == IN_BACKWARD:
        plain = make_trainer("prior", BF16, *SMALL, "clip_norm=0")
        take_steps(plain, 2)
        expected = copy_state(plain)
        assert all(torch.equal(value, expected[name]) for name, value in after.items())
    else:
        assert all("lora" in name for name in trained)


def test_state_holds_the_master_weights_and_ema_weights_are_lent(make_trainer):
    trainer = make_trainer("prior", BF16, *SMALL, "ema_decay=0.9")
    model = trained_model(trainer)
    take_steps(trainer, 2)
    trained = copy_state(trainer)
    with model.ema_weights():
        average = copy_state(trainer)
        name = "conv_in.weight"
        assert torch.equal(model.module.get_parameter(name), average[name].bfloat16())
    assert not torch.equal(average[name], trained[name])
    assert torch.equal(copy_state(trainer)[name], trained[name])
    assert torch.equal(model.module.get_parameter(name), trained[name].bfloat16())

    other = make_trainer("prior", BF16, *SMALL, "ema_decay=0.9")
    trained_model(other).load_state(trained, other.accelerator)
    assert all(torch.equal(value, trained[name]) for name, value in copy_state(other).items())
    assert torch.equal(
        trained_model(other).module.get_parameter(name), model.module.get_parameter(name)
    )


@pytest.mark.parametrize("options", [(), (BF16,), ("sharding=full",)], ids=str)
def test_base_in_half_precision_is_trained_in_float32(options):
    settings = load_preset("prior", "tiny", dict(map(parse_set_option, options)))
    module = torch.nn.Linear(3, 3).half()
    expected = module.weight.detach().float()
    model = prepare_for_training(module, settings, Accelerator(cpu=True))
    state = model.state(Accelerator(cpu=True))
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], expected)


def test_compile_applies_to_the_repeated_blocks_of_all_networks(make_trainer):
    prior = make_trainer("prior", "compile=true", *SMALL)
    restorer = make_trainer("restorer", "compile=true", *SMALL)
    for network in (trained_model(prior).module, trained_model(restorer).module, restorer.unet):
        blocks = [block for block in network.modules() if type(block).__name__ in COMPILED_BLOCKS]
        assert blocks
        assert all(block._compiled_call_impl is not None for block in blocks)
    with torch.compiler.set_stance("force_eager"):
        losses = take_steps(prior, 1) + take_steps(restorer, 1)
    eager = [make_trainer("prior", *SMALL), make_trainer("restorer", *SMALL)]
    assert losses == [loss for trainer in eager for loss in take_steps(trainer, 1)]
