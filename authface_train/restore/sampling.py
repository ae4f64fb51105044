"""Settings of the sampler (steps, scheduler, prompts, guidance), with two presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from manifests.support.errors import UserError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

Scheduler = Literal["ddpm", "ddim", "dpm++", "euler", "unipc"]
ColourFix = Literal["none", "wavelet", "adain"]
Start = Literal["noise", "degraded"]

SCHEDULER_CLASSES: dict[Scheduler, str] = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Name of a scheduler to its class in diffusers."""


@dataclass(frozen=True)
class Sampling:
    """How a restorer samples.

    Attributes:
        steps: Number of denoising steps.
        seed: Seed of the initial noise.
        scheduler: Name of the scheduler.
        guidance: Scale of classifier-free guidance. 1 disables guidance.
        conditioning_scale: Scale of the ControlNet's residuals.
        prompt: Positive prompt. An empty prompt is encoded, as in training.
        negative_prompt: Negative prompt, used if guidance is enabled.
        colour_fix: Correction of the colours of the restored face (see restore/colour_fix.py).
        start: Initial latents: pure noise, or the degraded face with the noise of the first step.
            At the last timestep of SDXL's schedule the signal is not quite 0, so a model learns to
            read colours from it; faces sampled from pure noise tend to grey (Lin et al. 2024,
            "Common Diffusion Noise Schedules and Sample Steps are Flawed").

    Raises:
        UserError: If a name is unknown.
    """

    steps: int = 50
    seed: int = 123
    scheduler: Scheduler = "ddpm"
    guidance: float = 1.0
    conditioning_scale: float = 1.0
    prompt: str = ""
    negative_prompt: str = ""
    colour_fix: ColourFix = "none"
    start: Start = "noise"

    def __post_init__(self) -> None:
        _check_choice("scheduler", self.scheduler, tuple(SCHEDULER_CLASSES))
        _check_choice("colour fix", self.colour_fix, get_args(ColourFix))
        _check_choice("start", self.start, get_args(Start))


def _check_choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {setting} {value!r}; choose from: {', '.join(choices)}")


# The paper's text fixes the null prompt, and thus no guidance. It names neither the number of steps
# nor the scheduler nor a seed: 50 DDPM steps and seed 123 are those of the script that the authors
# released with their weights. `ours` combines the two; `authors` follows the script throughout.
PRESETS = {
    "ours": Sampling(),
    "authors": Sampling(
        guidance=8.0,
        prompt=(
            "hyper-realistic portrait, face close-up, super detailed, Cinematic, High Contrast, "
            "highly detailed, "
            "taken using a Canon EOS R camera,hyper detailed photo - realistic maximum detail, "
            "32k, ultra HD,"
            "extreme meticulous detailing, skin pore detailing,hyper sharpness, "
            "perfect without deformations"
        ),
        negative_prompt=(
            "unreal face, asymmetrical eyes, oil painting, illustration, drawing, art, "
            "sketch,cartoon, CG Style, 3D render, "
            "unreal engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, "
            "signature, jpeg artifacts, "
            "deformed, lowres, over-smooth, malformed/disproportionate hands/fingers, ugly, "
            "easy negative"
        ),
        colour_fix="wavelet",
    ),
}


def make_scheduler(name: Scheduler, config: Mapping[str, object]) -> SchedulerMixin:
    """Make a scheduler with the noise schedule of a model.

    Args:
        name: Name of the scheduler.
        config: Configuration of the scheduler that was saved with the model.
    """
    import diffusers

    scheduler_class = getattr(diffusers, SCHEDULER_CLASSES[name])
    if name in ("ddpm", "ddim"):
        # Clipping is meant for pixels in [-1, 1]; latents exceed that range.
        return scheduler_class.from_config(config, clip_sample=False, thresholding=False)
    return scheduler_class.from_config(config)
