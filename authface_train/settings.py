"""Settings of the two trainers. docs/configuration.md lists them.

Settings marked `PAPER` have the paper's value in the preset `paper`; all other values are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from manifests.support.options import TrainingSource

Beta = Annotated[float, Field(ge=0, lt=1)]
WeightKind = Literal["time-aware", "constant", "constant-matched", "off"]
Reduction = Literal["region-sum", "patch-mean"]
PAPER: dict[str, JsonValue] = {"chosen_by": "paper"}


class Section(BaseModel):
    """A group of settings. Unknown keys are errors; field docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class TrainSettings(Section):
    """Settings of both stages."""

    resolution_px: int = Field(ge=64, multiple_of=8, json_schema_extra=PAPER)
    """Side of the square training crops, in pixels."""
    steps: int = Field(ge=1, json_schema_extra=PAPER)
    """Number of optimiser steps of the whole run."""
    batch: int = Field(ge=1, json_schema_extra=PAPER)
    """Global batch: samples per optimiser step over all processes. Gradient accumulation follows
    from it and the micro-batch."""
    micro_batch: int | None = Field(None, ge=1)
    """Samples per process and forward pass. Default: the largest that fits the GPU's memory."""
    learning_rate: float = Field(gt=0, json_schema_extra=PAPER)
    """AdamW learning rate after the warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up; `cosine` decays to 0 at the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    optimiser: Literal["adamw", "adamw-8bit", "adamw-8bit-bf16"] = Field(
        "adamw", json_schema_extra=PAPER
    )
    """AdamW variant. `adamw-8bit` (bitsandbytes) keeps the moments in 8 bits. `adamw-8bit-bf16`
    (torchao) also keeps the weights in bf16 and rounds stochastically, because nearest rounding
    loses updates as small as those of a learning rate of 5e-7."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW betas (beta1, beta2)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    clip_norm: float = Field(1.0, ge=0)
    """Maximum L2 norm of all gradients together; 0 disables clipping."""
    step_in_backward: bool = False
    """Update each parameter during the backward pass and free its gradient at once, which saves the
    memory of all gradients. Works with one process, without accumulation, clipping and fp16."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "bf16"
    """Precision of the forward and backward pass. `bf16` computes with bf16 weights, which are
    rounded from fp32 weights after every step (except with `adamw-8bit-bf16`); `fp16` is autocast
    of fp32 weights."""
    sharding: Literal["none", "gradients", "full"] = "none"
    """Distribution over several processes: `none` replicates the model, `gradients` gathers
    the weights once per step (ZeRO-2), `full` shards weights, gradients and moments (FSDP2,
    ZeRO-3)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: about a third slower, a fraction of the
    memory."""
    compile: bool = False
    """Compile the repeated blocks of the networks with `torch.compile`."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights, which is then saved as the model; 0
    disables it."""
    ema_device: Literal["cpu", "gpu"] = "cpu"
    """Device that holds the EMA weights. `cpu` saves GPU memory, and each update then copies all
    weights, which takes seconds for SDXL; see `ema_every`."""
    ema_every: int = Field(1, ge=1)
    """Steps between updates of the EMA. The decay applies to each step all the same. Steps after
    the last update are not in the average."""
    min_snr_gamma: float = Field(0.0, ge=0)
    """Weight the noise loss by min(SNR, gamma) / SNR (Min-SNR, Hang et al. 2023); 0 disables it."""
    source: TrainingSource | None = Field(None, json_schema_extra=PAPER)
    """Training faces: `ffhq` for those collected from FFHQ, `portraits` for all others (the paper's
    choice for Stage I), `workspace` for every kept face. Default: `portraits`, or `ffhq` if there
    are no others."""
    seed: int = Field(0, ge=0, le=2**63 - 2)
    """Seed of all random numbers."""
    workers: int | None = Field(None, ge=0)
    """Processes per card that prepare samples; 0 prepares them in the training process. Default:
    the card's share of the CPU cores less one, at most 8; 0 without a GPU."""
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints."""
    checkpoint_in_background: bool = False
    """Write checkpoints while training goes on. The main process copies the states first, 30 to
    40 GB of memory for SDXL."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of newest checkpoints to keep. The best one by the memorisation audit is kept too."""
    spike: float = Field(10.0, ge=0)
    """Stop the run when a loss exceeds this many times the median of the last 100; 0 stops only for
    losses that are not finite."""
    wandb: bool = False
    """Also log to Weights & Biases, project `authface`."""
    exact_resume: bool = True
    """Require of a resumed run the settings that give bit-identical results. `false` lets
    micro_batch, sharding, compile and the number of processes change, which only changes the order
    of sums."""

    @model_validator(mode="after")
    def _check_combinations(self) -> TrainSettings:
        if self.step_in_backward and (self.clip_norm or self.mixed_precision == "fp16"):
            raise ValueError(
                "step_in_backward never holds all gradients at once; it needs clip_norm=0 and "
                "mixed_precision=bf16 or no"
            )
        if self.optimiser == "adamw-8bit-bf16" and self.mixed_precision != "bf16":
            raise ValueError(
                "optimiser=adamw-8bit-bf16 keeps the weights in bf16; it needs mixed_precision=bf16"
            )
        return self


class DrawSettings(Section):
    """Preview pictures of Stage I."""

    every: int = Field(1000, ge=0)
    """Steps between preview grids; 0 disables them. The memorisation audit at every checkpoint
    does not use these pictures."""
    prompts: list[str] = []
    """Prompts of the previews. Default: captions of held-out people, or of the training set if no
    one is held out."""
    count: int = Field(4, ge=1)
    """Number of captions to use if no prompts are given."""
    seeds: list[Annotated[int, Field(ge=0, le=2**63 - 1)]] = [0, 1]
    """Seeds of the previews: each prompt is generated once per seed, with the same noise every
    time."""
    steps: int = Field(25, ge=1)
    """Denoising steps per preview."""
    guidance: float = Field(5.0, ge=1)
    """Classifier-free guidance scale against the encoded empty prompt; 1 disables guidance."""


class PriorSettings(TrainSettings):
    """Stage I: fine-tunes the whole U-Net of SDXL on captioned faces."""

    base: str = Field(json_schema_extra=PAPER)
    """SDXL model to start from: hub id, folder or .safetensors file; `tiny` builds a small random
    one."""
    tags: Literal["none", "semantic", "photographic", "both"] = Field(
        "both", json_schema_extra=PAPER
    )
    """Families of tags that make the captions."""
    tag_order: Literal["fixed", "shuffled"] = "fixed"
    """Whether the tags of a caption are shuffled."""
    tag_orders: int = Field(4, ge=1)
    """Number of orders that are encoded per caption if tags are shuffled; the epochs take them in
    turn."""
    caption_dropout: float = Field(0.0, ge=0, le=1)
    """Fraction of samples that get the empty prompt instead of their caption."""
    offset_noise: float = Field(0.0, ge=0)
    """Strength of the offset noise, a random constant per channel that is added to the noise."""
    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA layers on the attention, trained instead of the whole U-Net; 0 trains the whole
    U-Net."""
    draw: DrawSettings = DrawSettings()
    audit: bool = True
    """Memorisation audit at every checkpoint: the loss on held-out people next to the training
    loss, and the nearest training face of each generated face."""

    @property
    def orders(self) -> int:
        """Number of encoded captions per face."""
        return self.tag_orders if self.tag_order == "shuffled" else 1


class FacialSettings(Section):
    """The time-aware latent facial feature loss (paper Eq. 4); the time-aware weight is Eq. 3."""

    weight: WeightKind = Field("time-aware", json_schema_extra=PAPER)
    """Weight of the facial loss over time: `time-aware` is Eq. 3, `constant` is 1,
    `constant-matched` is the constant with the total pull of Eq. 3, `off` disables the loss."""
    m: float = Field(-0.5, json_schema_extra=PAPER)
    """Location m of Eq. 3: logit of the median timestep."""
    s: float = Field(1.0, gt=0, json_schema_extra=PAPER)
    """Scale s of Eq. 3, in logits."""
    lambda_d: float = Field(0.05, ge=0)
    """Weight of the adversarial term (Eq. 4)."""
    lambda_s: float = Field(10.0, ge=0)
    """Weight of the Gram matrix term (Eq. 4)."""
    reduction: Reduction = Field("region-sum", json_schema_extra=PAPER)
    """How the patches of a batch are reduced: `region-sum` is the sum over eyes and mouth of the
    mean over each region's visible patches, as in Eq. 4; `patch-mean` is the mean over all visible
    patches, in which eyes count twice as much as mouths."""
    adversarial: Literal["non-saturating", "paper-literal"] = "non-saturating"
    """Form of the adversarial term: -log D(fake), or log(1 - D(fake)) as the paper prints it, which
    saturates."""
    eye_cells: int = Field(10, ge=2)
    """Side of an eye patch, in latent cells."""
    mouth_cells: int = Field(15, ge=2)
    """Side of a mouth patch, in latent cells."""
    discriminator_width: int = Field(64, ge=4)
    """Channels of the first layer of the discriminators."""
    timestep_conditioning: bool = False
    """Whether the discriminators are conditioned on the timestep of a prediction."""
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    """Adam learning rate of the discriminators."""
    discriminator_betas: tuple[Beta, Beta] = (0.5, 0.99)
    """Adam betas (beta1, beta2) of the discriminators."""
    r1_gamma: float = Field(1.0, ge=0)
    """Weight of the R1 gradient penalty on real patches; 0 disables it."""
    r1_every: int = Field(16, ge=1)
    """Steps between gradient penalties."""
    start_step: int = Field(5000, ge=0)
    """Step at which the training of the discriminators starts."""
    discriminator_only_steps: int = Field(1000, ge=0)
    """Steps after `start_step` in which only the discriminators learn from the loss."""
    ramp_steps: int = Field(2000, ge=0)
    """Steps over which the facial loss of the ControlNet then rises to its full weight."""


class ValidationSettings(Section):
    """Periodic Stage II validation on fixed degraded faces, of held-out people if there are any."""

    every: int = Field(1000, ge=0)
    """Steps between validations; 0 disables them."""
    faces: int = Field(4, ge=1)
    """Number of faces to restore."""
    steps: int = Field(25, ge=1)
    """Denoising steps per face."""


class RestorerSettings(TrainSettings):
    """Stage II: trains a ControlNet on the frozen prior, with degradations made on the fly."""

    steps: int = Field(ge=1)
    """Number of optimiser steps of the whole run; the paper states none for Stage II."""
    source: TrainingSource = Field("workspace", json_schema_extra=PAPER)
    """Training faces: `ffhq` for those collected from FFHQ (the paper's choice for Stage II),
    `portraits` for all others, `workspace` for every kept face."""
    degradation: str = Field("gfpgan", json_schema_extra=PAPER)
    """Degradation preset: gfpgan, bfrffusion, codeformer-large, codeformer-small, diffbir, or high-iso
    (strong noise and little blur; of no paper)."""
    degrade_on: Literal["cpu", "gpu"] = "cpu"
    """Where faces are degraded: `cpu` in the data workers, `gpu` in batches on the training device,
    with the same parameters but other noise values."""
    facial: FacialSettings = FacialSettings()
    validation: ValidationSettings = ValidationSettings()
    ledger_every: int = Field(1000, ge=0)
    """Steps between entries of the gradient ledger; 0 disables it."""

    @model_validator(mode="after")
    def _check_backward(self) -> RestorerSettings:
        if self.step_in_backward:
            raise ValueError(
                "step_in_backward works with train-prior only; the facial loss needs all gradients"
            )
        return self


STAGES: dict[str, type[PriorSettings] | type[RestorerSettings]] = {
    "prior": PriorSettings,
    "restorer": RestorerSettings,
}

FREE_ON_RESUME = frozenset(
    {
        "steps",
        "workers",
        "gradient_checkpointing",
        "checkpoint_every",
        "checkpoint_in_background",
        "keep_checkpoints",
        "spike",
        "wandb",
        "ema_device",
        "exact_resume",
        "base",  # its digest is compared instead: the same weights may have moved
        "source",  # the faces themselves are compared instead
    }
)
"""Settings that a resumed run may change, because no step computes anything else with them."""

LATER_SETTINGS: dict[str, JsonValue] = {
    "ema_every": 1,
    "degrade_on": "cpu",
    "facial.timestep_conditioning": False,
    "facial.reduction": "patch-mean",
}
"""Settings that earlier versions did not have, with the values as which they behaved."""

FREE_WHERE_INEXACT = frozenset({"micro_batch", "sharding", "compile", "processes"})
"""Settings that change only the order of sums; free with `exact_resume=false`."""
