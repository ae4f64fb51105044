"""Settings of the two trainers, each documented where it stands: docs/train-prior.md is made from here.

`PAPER` marks what the paper states; everything else is our choice.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0, lt=1)]
WeightKind = Literal["time-aware", "constant", "constant-matched", "off"]
PAPER: dict[str, Any] = {"whose": "paper"}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class TrainSettings(Section):
    """What both stages share."""

    resolution_px: int = Field(ge=64, multiple_of=8, json_schema_extra=PAPER)
    """Side of the square crops it trains at, pixels."""
    steps: int = Field(ge=1, json_schema_extra=PAPER)
    """Optimiser steps of the whole run."""
    batch: int = Field(ge=1, json_schema_extra=PAPER)
    """Global batch: samples of one optimiser step, over all processes. Micro-batch and accumulation follow from it."""
    micro_batch: int | None = Field(None, ge=1)
    """Samples per process and forward pass. Where it is not set, the most that the card's memory holds."""
    learning_rate: float = Field(gt=0, json_schema_extra=PAPER)
    """Of AdamW, after the warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up; `cosine` falls to 0 at the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    optimiser: Literal["adamw", "adamw-8bit", "adamw-8bit-bf16"] = Field(
        "adamw", json_schema_extra=PAPER
    )
    """`adamw-8bit` (bitsandbytes) keeps the moments in 8 bits; `adamw-8bit-bf16` (torchao) the weights in bf16 too, and rounds
    stochastically, since at 5e-7 plain rounding would lose every update."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW."""
    epsilon: float = Field(1e-8, gt=0)
    """Of AdamW."""
    clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm over all parameters; 0 leaves them."""
    step_in_backward: bool = False
    """Each parameter is stepped as soon as its gradient is there, which is then freed: saves the gradients' memory. For one
    process, without accumulation, clipping and fp16."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "bf16"
    """Autocast. The weights stay fp32."""
    sharding: Literal["none", "gradients", "full"] = "none"
    """Over several processes: `full` divides weights, gradients and moments (FSDP2, as ZeRO-3), `gradients` gathers the weights
    once a step (as ZeRO-2), `none` keeps a copy each (DDP)."""
    gradient_checkpointing: bool = True
    """Activations are computed again in the backward pass: slower by about a third, a fraction of the memory."""
    compile: bool = False
    """`torch.compile` of the trained model."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Of the moving average of the weights, which is then what is saved as the model; 0 keeps none."""
    ema_device: Literal["cpu", "gpu"] = "cpu"
    """Where the average is kept."""
    min_snr_gamma: float = Field(0.0, ge=0)
    """Weights the noise loss by min(SNR, gamma) / SNR (Hang 2023, for noise prediction); 0 leaves it."""
    seed: int = 0
    """Of everything that is drawn."""
    workers: int = Field(0, ge=0)
    """Processes that prepare samples; 0 prepares them in the trainer's own."""
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many checkpoints stay."""
    spike: float = Field(10.0, ge=0)
    """A loss of so many times the median of the last 100 stops the run; 0 looks only for NaN."""
    wandb: bool = False
    """Log to Weights & Biases too, project `authface`."""
    exact_resume: bool = True
    """A resumed run is held to what gives the same bits. `false` lets micro_batch, sharding and the number of processes change:
    the same training, summed in another order."""

    @model_validator(mode="after")
    def _go_together(self) -> TrainSettings:
        if self.step_in_backward and (self.clip_norm or self.mixed_precision == "fp16"):
            raise ValueError(
                "step_in_backward never has all gradients at once: it goes with clip_norm=0, and not with fp16"
            )
        if self.optimiser == "adamw-8bit-bf16" and self.mixed_precision != "bf16":
            raise ValueError(
                "optimiser adamw-8bit-bf16 keeps the weights in bf16: it goes with mixed_precision=bf16"
            )
        return self


class DrawSettings(Section):
    """Pictures that a run draws to be looked at."""

    every: int = Field(1000, ge=0)
    """Steps between grids; 0 draws none. The memorisation audit, at every checkpoint, draws its own."""
    prompts: list[str] = []
    """What to draw. Where empty: captions of held-out people, or of the training set where nobody is held out."""
    count: int = Field(4, ge=1)
    """How many captions are taken where no prompts are given."""
    seeds: list[int] = [0, 1]
    """Each prompt is drawn from each of these; always the same noise."""
    steps: int = Field(25, ge=1)
    """Denoising steps of a picture."""
    guidance: float = Field(5.0, ge=1)
    """Classifier-free guidance scale, against the encoded empty prompt; 1 is none."""


class PriorSettings(TrainSettings):
    """Stage I: the whole U-Net on captioned faces."""

    base: str = Field(json_schema_extra=PAPER)
    """SDXL to start from: hub id or folder; `tiny` builds a random one."""
    tags: Literal["none", "semantic", "photographic", "both"] = Field(
        "both", json_schema_extra=PAPER
    )
    """Which families of tags make the captions."""
    tag_order: Literal["fixed", "shuffled"] = "fixed"
    """Whether a caption's tags are shuffled."""
    tag_orders: int = Field(4, ge=1)
    """Where shuffled: how many orders of a caption are encoded, an epoch each in turn."""
    caption_dropout: float = Field(0.0, ge=0, le=1)
    """Share of samples that see the empty prompt instead of their caption."""
    offset_noise: float = Field(0.0, ge=0)
    """Strength of a constant per channel added to the noise."""
    lora_rank: int = Field(0, ge=0)
    """Trains low-rank additions to the attention layers instead of the whole U-Net; 0 trains it all."""
    draw: DrawSettings = DrawSettings()
    audit: bool = True
    """At every checkpoint: the loss on held-out people beside that in training, and the nearest training face of what is
    drawn."""

    @property
    def orders(self) -> int:
        """How many captions each face has."""
        return self.tag_orders if self.tag_order == "shuffled" else 1


class FacialSettings(Section):
    """The time-aware latent facial feature loss (paper Eq. 3 to 5); values are ours where the paper gives none."""

    weight: WeightKind = Field("time-aware", json_schema_extra=PAPER)
    """How the loss counts over time: Eq. 3, 1 everywhere, its mean everywhere, or no facial loss."""
    m: float = Field(-0.5, json_schema_extra=PAPER)
    """Of Eq. 3: the median's logit."""
    s: float = Field(1.0, gt=0, json_schema_extra=PAPER)
    """Of Eq. 3: the width in logits."""
    lambda_d: float = Field(0.05, ge=0)
    """Weight of the adversarial term."""
    lambda_s: float = Field(10.0, ge=0)
    """Weight of the Gram term."""
    adversarial: Literal["non-saturating", "paper-literal"] = "non-saturating"
    """The paper prints log(1 - D(fake)), which saturates."""
    eye_cells: int = Field(10, ge=2)
    """Side of an eye patch, latent cells."""
    mouth_cells: int = Field(15, ge=2)
    """Side of a mouth patch, latent cells."""
    discriminator_width: int = Field(64, ge=4)
    """Channels of the discriminators' first layer."""
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    """Of their Adam."""
    discriminator_betas: tuple[Beta, Beta] = (0.5, 0.99)
    """Of their Adam."""
    r1_gamma: float = Field(1.0, ge=0)
    """Of the gradient penalty on real patches; 0 is none."""
    r1_every: int = Field(16, ge=1)
    """Steps between gradient penalties."""
    start_step: int = Field(5000, ge=0)
    """The discriminators start here."""
    discriminator_only_steps: int = Field(1000, ge=0)
    """Steps before the loss reaches the ControlNet."""
    ramp_steps: int = Field(2000, ge=0)
    """Steps over which it grows to its full weight."""


class ValidationSettings(Section):
    """Fixed degraded faces that are restored along the way, of held-out people where anybody is held out."""

    every: int = Field(1000, ge=0)
    """Steps between strips; 0 makes none."""
    faces: int = Field(4, ge=1)
    """How many faces."""
    steps: int = Field(25, ge=1)
    """Denoising steps of each."""


class RestorerSettings(TrainSettings):
    """Stage II: a ControlNet on the frozen prior, null prompt, degradations on the fly."""

    steps: int = Field(ge=1)
    """Optimiser steps of the whole run; the paper gives none."""
    degradation: str = Field("gfpgan", json_schema_extra=PAPER)
    """Preset of the degradations: gfpgan, bfrffusion, codeformer-large, codeformer-small or diffbir."""
    source: Literal["workspace", "ffhq"] = Field("workspace", json_schema_extra=PAPER)
    """Which kept faces it learns from: all of the workspace, or those collected with `--source ffhq`, as the paper's are."""
    facial: FacialSettings = FacialSettings()
    validation: ValidationSettings = ValidationSettings()
    ledger_every: int = Field(1000, ge=0)
    """Steps between entries of the gradient ledger; 0 keeps none."""

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> RestorerSettings:
        if self.step_in_backward:
            raise ValueError(
                "step_in_backward is for train-prior: the facial loss needs the whole gradient first"
            )
        return self


STAGES: dict[str, type[PriorSettings] | type[RestorerSettings]] = {
    "prior": PriorSettings,
    "restorer": RestorerSettings,
}
# Settings that may change between a run and its resumption: they do not change what is computed at a step.
FREE_ON_RESUME = {"steps", "workers", "gradient_checkpointing", "checkpoint_every", "keep_checkpoints", "spike", "wandb",
                  "ema_device", "exact_resume"}  # fmt: skip
# Those change the order of sums only: free where exactness to the bit is not asked for.
FREE_WHERE_INEXACT = {"micro_batch", "sharding", "compile", "processes"}
