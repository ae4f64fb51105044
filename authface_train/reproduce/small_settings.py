"""What the small experiments are set to: steps, learning rates, and the facial loss's weights as tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SIZE_PX, CELL_PX = 64, 4
Latent = Literal["unshuffle", "vae"]


@dataclass(frozen=True)
class Scale:
    """Steps of each part and what the rows are set to. lambda_times: of the facial loss's two default weights, as tuned."""

    vae: int = 2000
    generic: int = 4000
    prior: int = 2500
    restorer: int = 2500
    tuning: int = 800
    drawn_per_face: int = 4
    sampling: int = 25
    degradation: str = "codeformer-large"
    lambda_times: float = 0.3


# At small scale the ControlNet would spend its few steps on the last of the noise: see `min_snr_gamma`.
RESTORER = {"learning_rate": 2e-3, "min_snr_gamma": 0.05}
TUNED = (0.1, 0.3, 1.0, 3.0)
LAMBDA_D, LAMBDA_S = 0.05, 10.0
COMMON = {
    "resolution_px": SIZE_PX,
    "batch": 8,
    "micro_batch": 8,
    "learning_rate": 5e-4,
    "warmup_steps": 100,
}


def training(steps: int) -> dict[str, Any]:
    """Settings that every model of the experiment is trained with."""
    average = {"schedule": "cosine", "ema_decay": 0.998}
    return (
        COMMON
        | average
        | {"steps": steps, "checkpoint_every": max(steps // 4, 1), "keep_checkpoints": 1}
    )


def no_pictures() -> dict[str, Any]:
    return {"audit": "false", "draw.every": 0}


def as_changes(settings: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]
