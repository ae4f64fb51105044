"""How a restorer is asked: its steps, scheduler, prompts and guidance, and the two sets of them that have a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from manifests.support.errors import UserError

Scheduler = Literal["ddpm", "ddim", "dpm++", "euler", "unipc"]
ColourFix = Literal["none", "wavelet", "adain"]
Start = Literal["noise", "degraded"]
CLASSES: dict[Scheduler, str] = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@dataclass(frozen=True)
class Sampling:
    """guidance: the scale of classifier-free guidance, of which 1 is none. The null prompt "" is encoded, as in training.

    start: from noise alone, or from the degraded face under the first step's noise. SDXL's schedule ends at a signal that is
    not quite 0, and a model has learnt to take colours from it: those of pure noise are grey (Lin et al. 2024).
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
        if self.scheduler not in CLASSES:
            raise UserError(f"no scheduler {self.scheduler!r}: there are {', '.join(CLASSES)}")
        if self.colour_fix not in get_args(ColourFix):
            raise UserError(
                f"no colour fix {self.colour_fix!r}: there are {', '.join(get_args(ColourFix))}"
            )
        if self.start not in get_args(Start):
            raise UserError(f"no start {self.start!r}: there are {', '.join(get_args(Start))}")


# What the paper's text says, and what the script does that its authors released with their weights.
PRESETS = {
    "ours": Sampling(),
    "authors": Sampling(
        guidance=8.0,
        prompt=(
            "hyper-realistic portrait, face close-up, super detailed, Cinematic, High Contrast, highly detailed, "
            "taken using a Canon EOS R camera,hyper detailed photo - realistic maximum detail, 32k, ultra HD,"
            "extreme meticulous detailing, skin pore detailing,hyper sharpness, perfect without deformations"
        ),
        negative_prompt=(
            "unreal face, asymmetrical eyes, oil painting, illustration, drawing, art, sketch,cartoon, CG Style, 3D render, "
            "unreal engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, "
            "deformed, lowres, over-smooth, malformed/disproportionate hands/fingers, ugly, easy negative"
        ),
        colour_fix="wavelet",
    ),
}


def make_scheduler(name: Scheduler, config: Any) -> Any:
    """One of diffusers', of the same noise schedule. Latents are no pixels: they go beyond 1, and must not be clipped there."""
    import diffusers

    unclipped = {"clip_sample": False, "thresholding": False} if name in ("ddpm", "ddim") else {}
    return getattr(diffusers, CLASSES[name]).from_config(config, **unclipped)
