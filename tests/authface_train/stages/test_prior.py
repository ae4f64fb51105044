"""Stage I's step: what it computes, that it moves weights where it should, and what each option does to it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.memory.dry_run import DummyCache
from authface_train.models.sdxl import detach_core, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.prior import PriorTrainer, noise_losses
from authface_train.training.ema import EMA
from authface_train.training.loop import TIMESTEP_BINS
from authface_train.training.metrics_logger import LossGuard
from authface_train.training.noise import accumulate_by_timestep
from authface_train.training.optimizer import BackwardStepper, learning_rate, make_optimizer
from manifests.support.errors import PartialFailureError, UserError

FACES = 6


class Latents(DummyCache):
    """Another for every face."""

    def __getitem__(self, index):
        return torch.randn(2, 2, 4, *self.one, generator=torch.Generator().manual_seed(index)) * 5


class Prompts(DummyCache):
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(100 + index)
        return Embedding(
            torch.randn(77, 64, generator=generator), torch.randn(32, generator=generator)
        )


NULL = Embedding(torch.zeros(77, 64), torch.zeros(32))


def make_trainer(*changes, cells=16) -> PriorTrainer:
    settings = load_preset("prior", "tiny", ["audit=false", *changes])
    view = pd.DataFrame({"face_id": [f"face-{number}" for number in range(FACES)]})
    accelerator = Accelerator(cpu=True, mixed_precision=settings.mixed_precision)
    prompts = Prompts(None, FACES * settings.orders)
    return PriorTrainer(
        settings,
        detach_core(tiny_sdxl(0)),
        view,
        Latents((cells, cells), FACES),
        prompts,
        NULL,
        accelerator,
    )


@pytest.fixture(autouse=True)
def fresh():
    """Precision belongs to the process's one accelerator."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def micros(trainer, draws, size=None):
    size = size or len(draws)
    for at in range(0, len(draws), size):
        samples = [trainer.sample(draw) for draw in draws[at : at + size]]
        yield {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def take_steps(trainer, count, size=None):
    told = []
    for step in range(count):
        draws = step_keys(0, step, trainer.settings.batch, trainer.faces)
        torch.manual_seed(step)
        told.append(trainer.step(step, draws, micros(trainer, draws, size)))
    return told


def weights(trainer):
    return {
        name: value.detach().clone()
        for name, value in trainer.parts["unet"].module.named_parameters()
    }


def test_the_loss_is_the_noise_loss_written_out():
    trainer = make_trainer()
    draws = step_keys(0, 0, 4, FACES)
    batch = next(micros(trainer, draws))
    config = trainer.draws.scheduler.config
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000) ** 2
    alpha_bar = torch.tensor(np.cumprod(1 - betas)[batch["t_step"].numpy()], dtype=torch.float32)[
        :, None, None, None
    ]
    noisy = alpha_bar.sqrt() * batch["latent"] + (1 - alpha_bar).sqrt() * batch["noise"]
    ids = torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 4)
    unet = trainer.parts["unet"].module
    with torch.no_grad():
        added = {"text_embeds": batch["pooled"], "time_ids": ids}
        prediction = unet(noisy, batch["t_step"], batch["embeds"], added_cond_kwargs=added).sample
    expected = (prediction - batch["noise"]).square().mean((1, 2, 3))
    told = trainer.step(0, draws, iter([batch]))
    assert float(told.means["loss"]) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert float(told.bands[0].sum()) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert (
        told.bands[1].tolist()
        == np.histogram(batch["t_step"], TIMESTEP_BINS, (0, 1000))[0].tolist()
    )
    assert trainer.draws.scaling_factor == 0.13025


def test_attention_is_torchs_own():
    kinds = {
        type(one).__name__ for one in make_trainer().parts["unet"].module.attn_processors.values()
    }
    assert kinds == {"AttnProcessor2_0"}


@pytest.mark.slow
def test_twenty_steps_at_the_papers_rate_move_fp32_weights_and_not_bf16_ones():
    """The spacing of bf16 numbers at .02 is 1.2e-4; a step of Adam is the learning rate, 5e-7."""
    trainer = make_trainer(
        "mixed_precision=bf16",
        "learning_rate=5e-7",
        "weight_decay=0",
        "batch=1",
        "micro_batch=1",
        cells=4,
    )
    before = weights(trainer)
    take_steps(trainer, 20)
    moved = [float((value - before[name]).abs().mean()) for name, value in weights(trainer).items()]
    assert min(moved) > 1e-7
    assert max(moved) <= 20 * 5e-7 * 1.01

    unet = tiny_sdxl(0).unet.to(torch.bfloat16)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=5e-7, weight_decay=0)
    before = {name: value.detach().clone() for name, value in unet.named_parameters()}
    batch = next(micros(trainer, step_keys(0, 0, 1, FACES)))
    for _ in range(20):
        low = {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in batch.items()
        }
        noise_losses(trainer.draws, unet, low, trainer.time_ids).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    for name, value in unet.named_parameters():
        large = before[name].abs() > 1e-3
        assert torch.equal(value[large], before[name][large])


@pytest.mark.slow
def test_stochastic_rounding_moves_bf16_weights():
    trainer = make_trainer(
        "mixed_precision=bf16",
        "optimiser=adamw-8bit-bf16",
        "learning_rate=1e-5",
        "weight_decay=0",
        "batch=1",
        "micro_batch=1",
    )
    assert {value.dtype for value in weights(trainer).values()} == {torch.bfloat16}
    before = weights(trainer)
    with torch.compiler.set_stance(
        "force_eager"
    ):  # torchao compiles its step: not for the sake of a few numbers
        take_steps(trainer, 10)
    name = "mid_block.resnets.0.conv1.weight"
    change = (weights(trainer)[name].float() - before[name].float()).abs()
    spacing = 2.0 ** (torch.floor(torch.log2(before[name].float().abs())) - 7)
    large = spacing > 4e-5  # every one of them would stay where it is, rounded plainly
    assert 0 < float((change[large] > 0).float().mean()) < 0.9


@pytest.mark.slow
def test_eight_bit_moments_learn_like_plain_ones():
    plain, eight = make_trainer(), make_trainer("optimiser=adamw-8bit")
    a, b = (
        np.array([float(told.means["loss"]) for told in take_steps(trainer, 12)])
        for trainer in (plain, eight)
    )
    assert a[-3:].mean() < a[:3].mean()
    assert np.allclose(a, b, rtol=0.02)
    assert any(
        own["state1"].dtype == torch.uint8
        for own in eight.parts["unet"].optimiser.optimizer.state.values()
    )


@pytest.mark.slow
def test_stepping_in_the_backward_pass_gives_the_same_bits_and_keeps_no_gradient():
    plain, inside = (
        make_trainer("clip_norm=0"),
        make_trainer("clip_norm=0", "step_in_backward=true"),
    )
    take_steps(plain, 3)
    take_steps(inside, 3)
    a, b = weights(plain), weights(inside)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert all(parameter.grad is None for parameter in inside.parts["unet"].module.parameters())
    state = inside.parts["unet"].optimiser.state_dict()
    other = make_trainer("clip_norm=0", "step_in_backward=true")
    other.parts["unet"].optimiser.load_state_dict(state)
    assert isinstance(other.parts["unet"].optimiser.optimizer, BackwardStepper)
    assert torch.equal(
        other.parts["unet"].optimiser.state_dict()["own"][3]["state"][0]["exp_avg"],
        state["own"][3]["state"][0]["exp_avg"],
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["step_in_backward=true"], "clip_norm=0"),
        (["optimiser=adamw-8bit-bf16"], "mixed_precision=bf16"),
        (["sharding=half"], "sharding"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        load_preset("prior", "tiny", changes)


def test_accumulation_and_checkpointing_change_nothing():
    whole, pieces, checkpointed = (
        make_trainer(),
        make_trainer(),
        make_trainer("gradient_checkpointing=true"),
    )
    take_steps(whole, 2)
    take_steps(pieces, 2, size=1)
    take_steps(checkpointed, 2)
    assert checkpointed.parts["unet"].module.is_gradient_checkpointing
    a, b, c = weights(whole), weights(pieces), weights(checkpointed)
    difference = torch.cat([(a[name] - b[name]).abs().flatten() for name in a])
    assert float(difference.mean()) < 1e-8  # Adam makes a step of any gradient, were it rounding
    assert all(torch.equal(a[name], c[name]) for name in a)


def test_min_snr_weights_by_timestep():
    """gamma 5: SNR = abar / (1 - abar) is 5 about step 200 of this schedule; before it the loss is weighted down."""
    trainer = make_trainer()
    unet = trainer.parts["unet"].module
    batch = next(micros(trainer, step_keys(0, 0, 4, FACES)))
    batch["t_step"] = torch.tensor([10, 100, 500, 999])
    with torch.no_grad():
        plain, weighted = (
            noise_losses(trainer.draws, unet, batch, trainer.time_ids, gamma) for gamma in (0, 5)
        )
    abar = trainer.draws.scheduler.alphas_cumprod[batch["t_step"]].double()
    snr = abar / (1 - abar)
    assert torch.allclose((weighted / plain).double(), torch.clamp(snr, max=5) / snr, rtol=1e-5)
    assert (weighted / plain)[2:].tolist() == pytest.approx([1, 1])
    assert (weighted / plain)[0] < 0.1


def test_offset_noise_adds_a_constant_per_channel():
    plain, offset = make_trainer(), make_trainer("offset_noise=0.1")
    difference = offset.sample(SampleKey(0, 2))["noise"] - plain.sample(SampleKey(0, 2))["noise"]
    assert torch.allclose(difference, difference[:, :1, :1].expand_as(difference), atol=1e-6)
    assert len(set(difference[:, 0, 0].tolist())) == 4


def test_dropped_captions_become_the_empty_prompt_and_nothing_else_changes():
    plain, dropping = make_trainer(), make_trainer("caption_dropout=0.25")
    dropped = 0
    for epoch in range(200):
        a, b = (
            plain.sample(SampleKey(epoch, epoch % FACES)),
            dropping.sample(SampleKey(epoch, epoch % FACES)),
        )
        assert torch.equal(a["noise"], b["noise"])
        is_null = torch.equal(b["embeds"], NULL.embeds)
        assert is_null or torch.equal(a["embeds"], b["embeds"])
        assert is_null == torch.equal(b["pooled"], NULL.pooled)
        dropped += is_null
    assert 30 < dropped < 70


def test_an_epoch_has_the_next_order_of_a_caption():
    trainer = make_trainer("tag_order=shuffled", "tag_orders=3")
    for epoch in range(4):
        assert torch.equal(
            trainer.sample(SampleKey(epoch, 1))["embeds"], trainer.prompts[3 + epoch % 3].embeds
        )


def test_lora_trains_additions_alone():
    trainer = make_trainer("lora_rank=4")
    before = weights(trainer)
    take_steps(trainer, 2)
    changed = {
        name for name, value in weights(trainer).items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all("lora" in name for name in changed)


def test_the_average_is_the_recursion_written_out():
    module = torch.nn.Linear(2, 2)
    ema = EMA(module, 0.5, torch.device("cpu"))
    expected, values = module.weight.detach().clone(), []
    for step in range(6):
        with torch.no_grad():
            module.weight.add_(1.0)
        values.append(module.weight.detach().clone())
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * values[-1]
        ema.update()
    with ema.in_place():
        assert torch.allclose(module.weight, expected)
    assert torch.equal(module.weight, values[-1])
    other = EMA(torch.nn.Linear(2, 2), 0.5, torch.device("cpu"))
    other.load(ema.state())
    assert torch.equal(other.average[0], ema.average[0])
    assert other.steps == 6


def test_the_learning_rate_is_a_function_of_the_step():
    settings = load_preset("prior", "tiny", ["learning_rate=1.0", "steps=110", "warmup_steps=10"])
    assert [learning_rate(settings, step) for step in (0, 4, 9, 10, 109)] == [0.1, 0.5, 1, 1, 1]
    cosine = settings.model_copy(update={"schedule": "cosine"})
    assert learning_rate(cosine, 60) == pytest.approx(0.5)
    assert learning_rate(cosine, 109) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_the_optimiser_has_the_settings_numbers():
    settings = load_preset("prior", "tiny", ["betas=[0.8,0.9]", "weight_decay=0.3", "epsilon=1e-6"])
    (group,) = make_optimizer(torch.nn.Linear(2, 2).parameters(), settings).param_groups
    assert (group["betas"], group["weight_decay"], group["eps"], group["lr"]) == (
        (0.8, 0.9),
        0.3,
        1e-6,
        1e-4,
    )


def test_losses_fall_into_bands_of_timesteps():
    bands = torch.zeros(2, TIMESTEP_BINS)
    accumulate_by_timestep(bands, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 999, 950]))
    accumulate_by_timestep(bands, torch.tensor([8.0]), torch.tensor([99]))
    assert bands[0].tolist() == [9, 0, 0, 0, 0, 0, 0, 0, 0, 6]
    assert bands[1].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_a_jump_or_nan_stops_and_says_so():
    settings = load_preset("prior", "tiny", ["spike=4"])
    sanity = LossGuard(settings, [1.0] * 15)
    for step in range(15, 25):
        sanity.check(step, {"loss": 1.0, "gradient_norm": float("inf")})
    with pytest.raises(
        PartialFailureError,
        match=r"step 25: the loss is 4.1, and 1 is usual.*last checkpoint is kept",
    ):
        sanity.check(25, {"loss": 4.1})
    sanity.check(25, {"loss": 3.9, "loss_t900": None})
    with pytest.raises(PartialFailureError, match="step 26: loss is not a number"):
        sanity.check(26, {"loss": float("nan")})
    LossGuard(settings, [1.0] * 10).check(11, {"loss": 100.0})  # too few to know what is usual
    LossGuard(settings.model_copy(update={"spike": 0.0}), [1.0] * 100).check(101, {"loss": 100.0})
