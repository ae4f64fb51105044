"""Settings of the small experiments: steps, learning rates, tuned weight of the facial loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIZE_PX = 64
"""Side of the faces, unless `--size` says otherwise."""
CELL_PX = 4
"""Side of a latent cell in pixels."""

BETA_END = 0.0017
"""Last beta of the noise schedule, .012 in SDXL. Here the last timestep keeps 29 % of the signal's
variance, in SDXL .5 %. A small model trained for minutes predicts nothing useful from almost pure
noise, and restoring starts from the degraded face under the noise of the last timestep."""

Latent = Literal["unshuffle", "vae"]


@dataclass(frozen=True)
class Scale:
    """Size of an experiment. Its fields are stored with every result.

    Attributes:
        size_px: Side of the faces.
        vae: Training steps of the VAE.
        generic: Training steps of the generic prior.
        prior: Training steps of the face prior.
        trunk: Training steps of Stage II without facial loss, which rows on one prior share.
        restorer: Training steps of each restorer after those.
        regression: Training steps of the regression.
        tuning: Training steps of each tuning run.
        faces_per_person: Largest number of faces of a test person that are restored.
        drawn_per_face: Degradations of each test face.
        sampling: Sampling steps of the results.
        few_steps: Smaller numbers of sampling steps, for the trade of distortion and detail.
        degradation: Name of the degradation preset.
        lambda_times: Factor on the two default weights of the facial loss, as tuned.
    """

    size_px: int = SIZE_PX
    vae: int = 2000
    generic: int = 1500
    prior: int = 1500
    trunk: int = 4000
    restorer: int = 400
    regression: int = 2000
    tuning: int = 200
    faces_per_person: int = 2
    drawn_per_face: int = 1
    sampling: int = 12
    few_steps: tuple[int, ...] = (1, 2, 4)
    degradation: str = "high-iso"
    lambda_times: float = 0.1


RESTORER_SETTINGS: dict[str, object] = {"ledger_every": 0, "validation.every": 0}
TUNING_FACTORS = (0.1, 0.3, 1.0, 3.0)
LAMBDA_D = 0.05
LAMBDA_S = 10.0
COMMON_SETTINGS: dict[str, object] = {
    "batch": 8,
    "micro_batch": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    # All SNRs are larger: every timestep weights the error of the predicted face equally.
    "min_snr_gamma": 0.05,
}
GENERIC_LEARNING_RATE = 2e-3
TRUNK_LEARNING_RATE = 2e-3
RESTORER_LEARNING_RATE = 5e-4
REGRESSION_LEARNING_RATE = 6e-4
EYE_SHARE = 6 / 16
"""Side of an eye patch, in sides of the latents."""
MOUTH_SHARE = 8 / 16
DISCRIMINATOR_LEARNING_RATE = 5e-4
NUM_PIECES = 300
"""Pieces of photographs among the training data of restorers."""
NO_PICTURES: dict[str, object] = {"audit": False, "draw.every": 0}
"""Overrides that switch off previews and memorisation audit."""


def training_settings(steps: int, size_px: int) -> dict[str, object]:
    """Settings that every model of the experiment is trained with.

    Args:
        steps: Training steps.
        size_px: Side of the faces.
    """
    return {
        **COMMON_SETTINGS,
        "resolution_px": size_px,
        "schedule": "cosine",
        "ema_decay": 0.995,
        "steps": steps,
        "workers": 0,
        "checkpoint_every": max(steps // 4, 1),
        "keep_checkpoints": 1,
    }
