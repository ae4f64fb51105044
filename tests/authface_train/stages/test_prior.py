"""One step of Stage I: what it computes, which weights it moves, and what each option changes."""

import math

import numpy as np
import pytest
import torch
from training_steps import NULL_PROMPT, NUM_FACES, first_batch, make_prior_trainer, take_step

from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.models.sdxl import tiny_sdxl
from authface_train.presets import load_preset, parse_set_option
from authface_train.stages.prior import PriorTrainer, prior_losses
from authface_train.training.ema import EMA
from authface_train.training.loop import TIMESTEP_BINS
from authface_train.training.loss_guard import LossGuard
from authface_train.training.noise import accumulate_by_timestep
from authface_train.training.optimizer import BackwardStepper, learning_rate, make_optimizer
from manifests.support.errors import PartialFailureError, UserError


def make_trainer(*set_options: str, latent_side: int = 16) -> PriorTrainer:
    return make_prior_trainer(dict(map(parse_set_option, set_options)), latent_side)


def take_steps(trainer, count, size=None):
    losses = []
    for step in range(count):
        torch.manual_seed(step)
        losses.append(take_step(trainer, step, size))
    return losses


def copy_weights(trainer):
    parameters = trainer.models["unet"].module.named_parameters()
    return {name: value.detach().clone() for name, value in parameters}


def test_loss_equals_the_written_out_noise_loss():
    trainer = make_trainer()
    keys = step_keys(0, 0, 4, NUM_FACES)
    batch = first_batch(trainer)
    timesteps = batch["timesteps"]
    config = trainer.scheduler.config
    # SDXL's "scaled_linear" schedule.
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000) ** 2
    alphas_cumprod = torch.tensor(np.cumprod(1 - betas)[timesteps.numpy()], dtype=torch.float32)
    alphas_cumprod = alphas_cumprod[:, None, None, None]
    noisy = alphas_cumprod.sqrt() * batch["latent"] + (1 - alphas_cumprod).sqrt() * batch["noise"]
    time_ids = torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 4)
    conditions = {"text_embeds": batch["pooled"], "time_ids": time_ids}
    unet = trainer.models["unet"].module
    with torch.no_grad():
        prediction = unet(noisy, timesteps, batch["embeds"], added_cond_kwargs=conditions).sample
    expected = (prediction - batch["noise"]).square().mean((1, 2, 3))

    losses = trainer.step(0, keys, iter([batch]))

    sums, counts = losses.by_timestep
    expected_counts, _ = np.histogram(timesteps, TIMESTEP_BINS, (0, 1000))
    assert float(losses.means["loss"]) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert float(sums.sum()) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert counts.tolist() == expected_counts.tolist()
    assert trainer.noise_sampler.scaling_factor == 0.13025


def test_attention_is_torch_sdpa():
    processors = make_trainer().models["unet"].module.attn_processors.values()
    assert {type(processor).__name__ for processor in processors} == {"AttnProcessor2_0"}


@pytest.mark.slow
def test_twenty_steps_at_the_papers_rate_move_master_weights_but_not_bf16_weights():
    """bf16 numbers near 0.02 are 1.2e-4 apart, and one step of Adam is the learning rate, 5e-7."""
    trainer = make_trainer(
        "mixed_precision=bf16",
        "learning_rate=5e-7",
        "weight_decay=0",
        "batch=1",
        "micro_batch=1",
        latent_side=4,
    )
    weights = trainer.models["unet"].weights
    before = [value.detach().clone() for value in weights]
    take_steps(trainer, 20)
    moved = [
        float((value - old).detach().abs().mean())
        for value, old in zip(weights, before, strict=True)
    ]
    assert {value.dtype for value in weights} == {torch.float32}
    assert min(moved) > 1e-7
    assert max(moved) <= 20 * 5e-7 * 1.01

    unet = tiny_sdxl(0).unet.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=5e-7, weight_decay=0)
    before = {name: value.detach().clone() for name, value in unet.named_parameters()}
    batch = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in first_batch(trainer, batch=1).items()
    }
    for _ in range(20):
        losses = prior_losses(unet, batch, trainer.time_ids, trainer.scheduler)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in unet.named_parameters():
        is_large = before[name].abs() > 1e-3
        assert torch.equal(value[is_large], before[name][is_large])


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
    assert {value.dtype for value in copy_weights(trainer).values()} == {torch.bfloat16}
    before = copy_weights(trainer)
    # torchao compiles its step, which takes longer than these few steps.
    with torch.compiler.set_stance("force_eager"):
        take_steps(trainer, 10)
    name = "mid_block.resnets.0.conv1.weight"
    change = (copy_weights(trainer)[name].float() - before[name].float()).abs()
    spacing = 2.0 ** (torch.floor(torch.log2(before[name].float().abs())) - 7)
    is_large = spacing > 4e-5  # rounded to nearest, none of these weights would move
    assert 0 < float((change[is_large] > 0).float().mean()) < 0.9


@pytest.mark.slow
def test_8bit_moments_train_like_32bit_moments():
    trainers = {"32bit": make_trainer(), "8bit": make_trainer("optimiser=adamw-8bit")}
    losses = {
        name: np.array([float(step.means["loss"]) for step in take_steps(trainer, 12)])
        for name, trainer in trainers.items()
    }
    assert losses["32bit"][-3:].mean() < losses["32bit"][:3].mean()
    assert np.allclose(losses["32bit"], losses["8bit"], rtol=0.02)
    states = trainers["8bit"].models["unet"].optimizer.optimizer.state.values()
    assert any(state["state1"].dtype == torch.uint8 for state in states)


@pytest.mark.slow
def test_step_in_backward_gives_the_same_bits_and_keeps_no_gradient():
    plain = make_trainer("clip_norm=0")
    in_backward = make_trainer("clip_norm=0", "step_in_backward=true")
    take_steps(plain, 3)
    take_steps(in_backward, 3)
    expected = copy_weights(plain)
    assert all(
        torch.equal(value, expected[name]) for name, value in copy_weights(in_backward).items()
    )
    module = in_backward.models["unet"].module
    assert all(parameter.grad is None for parameter in module.parameters())

    state = in_backward.models["unet"].optimizer.state_dict()
    other = make_trainer("clip_norm=0", "step_in_backward=true").models["unet"].optimizer
    other.load_state_dict(state)
    assert isinstance(other.optimizer, BackwardStepper)
    assert torch.equal(
        other.state_dict()["own"][3]["state"][0]["exp_avg"],
        state["own"][3]["state"][0]["exp_avg"],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["step_in_backward=true"], "clip_norm=0"),
        (["optimiser=adamw-8bit-bf16"], "mixed_precision=bf16"),
        (["sharding=half"], "sharding"),
    ],
)
def test_incompatible_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        load_preset("prior", "tiny", dict(map(parse_set_option, options)))


def test_accumulation_and_gradient_checkpointing_change_nothing():
    whole = make_trainer()
    accumulated = make_trainer()
    checkpointed = make_trainer("gradient_checkpointing=true")
    take_steps(whole, 2)
    take_steps(accumulated, 2, size=1)
    take_steps(checkpointed, 2)
    assert checkpointed.models["unet"].module.is_gradient_checkpointing

    expected = copy_weights(whole)
    differences = [
        (value - expected[name]).abs().flatten()
        for name, value in copy_weights(accumulated).items()
    ]
    # Not exact: Adam turns any gradient into a full step, even one that is only rounding error.
    assert float(torch.cat(differences).mean()) < 1e-8
    assert all(
        torch.equal(value, expected[name]) for name, value in copy_weights(checkpointed).items()
    )


def test_min_snr_weights_the_loss_by_timestep():
    """SNR falls to gamma = 5 near timestep 200 of this schedule; earlier losses are scaled down."""
    trainer = make_trainer()
    unet = trainer.models["unet"].module
    scheduler = trainer.scheduler
    batch = first_batch(trainer)
    batch["timesteps"] = torch.tensor([10, 100, 500, 999])
    with torch.no_grad():
        plain = prior_losses(unet, batch, trainer.time_ids, scheduler)
        weighted = prior_losses(unet, batch, trainer.time_ids, scheduler, min_snr_gamma=5)
    alphas_cumprod = scheduler.alphas_cumprod[batch["timesteps"]].double()
    snr = alphas_cumprod / (1 - alphas_cumprod)
    ratio = weighted / plain
    assert torch.allclose(ratio.double(), torch.clamp(snr, max=5) / snr, rtol=1e-5)
    assert ratio[2:].tolist() == pytest.approx([1, 1])
    assert ratio[0] < 0.1


def test_offset_noise_adds_a_constant_per_channel():
    plain = make_trainer().dataset[SampleKey(0, 2)]["noise"]
    difference = make_trainer("offset_noise=0.1").dataset[SampleKey(0, 2)]["noise"] - plain
    assert torch.allclose(difference, difference[:, :1, :1].expand_as(difference), atol=1e-6)
    assert len(set(difference[:, 0, 0].tolist())) == 4


def test_caption_dropout_replaces_captions_only():
    plain = make_trainer()
    with_dropout = make_trainer("caption_dropout=0.25")
    num_dropped = 0
    for epoch in range(200):
        key = SampleKey(epoch, epoch % NUM_FACES)
        expected = plain.dataset[key]
        sample = with_dropout.dataset[key]
        is_dropped = torch.equal(sample["embeds"], NULL_PROMPT.embeds)
        assert torch.equal(sample["noise"], expected["noise"])
        assert is_dropped or torch.equal(sample["embeds"], expected["embeds"])
        assert is_dropped == torch.equal(sample["pooled"], NULL_PROMPT.pooled)
        num_dropped += is_dropped
    assert 30 < num_dropped < 70


def test_each_epoch_takes_the_next_tag_order():
    trainer = make_trainer("tag_order=shuffled", "tag_orders=3")
    for epoch in range(4):
        embeds = trainer.dataset[SampleKey(epoch, 1)]["embeds"]
        assert torch.equal(embeds, trainer.dataset.prompts[3 + epoch % 3].embeds)


def test_lora_trains_lora_layers_only():
    trainer = make_trainer("lora_rank=4")
    before = copy_weights(trainer)
    take_steps(trainer, 2)
    after = copy_weights(trainer)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora" in name for name in changed)


def test_ema_equals_the_written_out_recursion():
    module = torch.nn.Linear(2, 2)
    ema = EMA(list(module.parameters()), 0.5, torch.device("cpu"), lambda: None)
    expected = module.weight.detach().clone()
    for step in range(6):
        with torch.no_grad():
            module.weight.add_(1.0)
        last = module.weight.detach().clone()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * last
        ema.update()
    with ema.swapped_in():
        assert torch.allclose(module.weight, expected)
    assert torch.equal(module.weight, last)

    other_weights = list(torch.nn.Linear(2, 2).parameters())
    other = EMA(other_weights, 0.5, torch.device("cpu"), lambda: None)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.average[0], ema.average[0])
    assert other.steps == 6


def test_ema_with_an_interval_decays_by_all_its_steps():
    weight = torch.nn.Parameter(torch.zeros(1))
    ema = EMA([weight], 0.5, torch.device("cpu"), lambda: None, every=3)
    ema.steps = 30  # far enough that the decay is not limited any more
    with torch.no_grad():
        weight.add_(1.0)
    averages = []
    for _ in range(6):
        ema.update()
        averages.append(float(ema.average[0]))
    assert averages == [0, 0, 1 - 0.5**3, 1 - 0.5**3, 1 - 0.5**3, 1 - 0.5**6]


def test_learning_rate_is_a_function_of_the_step():
    overrides = {"learning_rate": 1.0, "steps": 110, "warmup_steps": 10}
    settings = load_preset("prior", "tiny", overrides)
    assert [learning_rate(settings, step) for step in (0, 4, 9, 10, 109)] == [0.1, 0.5, 1, 1, 1]
    cosine = settings.model_copy(update={"schedule": "cosine"})
    assert learning_rate(cosine, 60) == pytest.approx(0.5)
    assert learning_rate(cosine, 109) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_optimizer_takes_its_numbers_from_the_settings():
    overrides = {"betas": [0.8, 0.9], "weight_decay": 0.3, "epsilon": 1e-6}
    settings = load_preset("prior", "tiny", overrides)
    (group,) = make_optimizer(torch.nn.Linear(2, 2).parameters(), settings).param_groups
    assert group["betas"] == (0.8, 0.9)
    assert group["weight_decay"] == 0.3
    assert group["eps"] == 1e-6
    assert group["lr"] == 1e-4


def test_losses_are_accumulated_by_timestep_bin():
    totals = torch.zeros(2, TIMESTEP_BINS)
    accumulate_by_timestep(totals, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 999, 950]))
    accumulate_by_timestep(totals, torch.tensor([8.0]), torch.tensor([99]))
    assert totals[0].tolist() == [9, 0, 0, 0, 0, 0, 0, 0, 0, 6]
    assert totals[1].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_loss_guard_stops_on_a_spike_and_on_nan():
    guard = LossGuard(4, [1.0] * 15)
    for step in range(15, 25):
        guard.check(step, {"loss": 1.0, "gradient_norm": float("inf")})
    message = r"step 25: loss 4.1 is more than 4x the recent median 1; .*last checkpoint is kept"
    with pytest.raises(PartialFailureError, match=message):
        guard.check(25, {"loss": 4.1})
    guard.check(25, {"loss": 3.9, "loss_t900": None})
    with pytest.raises(PartialFailureError, match="step 26: loss is nan"):
        guard.check(26, {"loss": float("nan")})


def test_loss_guard_needs_enough_history_and_can_be_switched_off():
    LossGuard(4, [1.0] * 10).check(11, {"loss": 100.0})
    LossGuard(0, [1.0] * 100).check(101, {"loss": 100.0})
