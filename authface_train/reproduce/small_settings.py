"""Settings of the small experiments: steps, learning rates, tuned weight of the facial loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIZE_PX = 64
CELL_PX = 4
"""Side of a latent cell in pixels."""

Latent = Literal["unshuffle", "vae"]


@dataclass(frozen=True)
class Scale:
    """Size of an experiment. Its fields are stored with every result.

    Attributes:
        vae: Training steps of the VAE.
        generic: Training steps of the generic prior.
        prior: Training steps of the face prior.
        restorer: Training steps of each restorer.
        tuning: Training steps of each tuning run.
        drawn_per_face: Degradations of each test face.
        sampling: Sampling steps when restoring.
        degradation: Name of the degradation preset.
        lambda_times: Factor on the two default weights of the facial loss, as tuned.
    """

    vae: int = 2000
    generic: int = 4000
    prior: int = 2500
    restorer: int = 2500
    tuning: int = 800
    drawn_per_face: int = 4
    sampling: int = 25
    degradation: str = "codeformer-large"
    lambda_times: float = 0.3


# Without min-SNR weighting the ControlNet would spend its few steps on the last of the noise.
RESTORER_SETTINGS: dict[str, object] = {"learning_rate": 2e-3, "min_snr_gamma": 0.05}
TUNING_FACTORS = (0.1, 0.3, 1.0, 3.0)
LAMBDA_D = 0.05
LAMBDA_S = 10.0
COMMON_SETTINGS: dict[str, object] = {
    "resolution_px": SIZE_PX,
    "batch": 8,
    "micro_batch": 8,
    "learning_rate": 5e-4,
    "warmup_steps": 100,
}
NO_PICTURES: dict[str, object] = {"audit": False, "draw.every": 0}
"""Overrides that switch off previews and memorisation audit."""


def training_settings(steps: int) -> dict[str, object]:
    """Settings that every model of the experiment is trained with."""
    return {
        **COMMON_SETTINGS,
        "schedule": "cosine",
        "ema_decay": 0.998,
        "steps": steps,
        "checkpoint_every": max(steps // 4, 1),
        "keep_checkpoints": 1,
    }
