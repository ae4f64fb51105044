"""What in a restored face was invented: where several seeds disagree, and what of it the degraded picture bears out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from authface_data.faces.descriptor import Descriptor

# Pixels of a 512 px face. Which blur a picture went through is not known: the one that explains it best is taken.
BLURS_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
FULL_SCALE = 40.0  # of luma, 0..255: a disagreement so large is drawn as the brightest
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Certainty:
    """disagreement: (H, W) deviation of luma over the seeds, 0..255. consistency_db: of the first restored face,
    degraded again, to the degraded one. Distances of 128-d descriptors (below .6 is one person), None where no face is seen:
    identity_drift: of the first to the degraded face; identity_spread: the mean between the seeds."""

    disagreement: np.ndarray
    consistency_db: float
    identity_drift: float | None
    identity_spread: float | None

    def row(self) -> dict[str, float | None]:
        return {
            "disagreement": float(self.disagreement.mean()),
            "consistency_db": self.consistency_db,
            "identity_drift": self.identity_drift,
            "identity_spread": self.identity_spread,
        }


def certainty(
    degraded: np.ndarray, restored: Sequence[np.ndarray], descriptor: Descriptor
) -> Certainty:
    """Of one face: pictures (H, W, 3) uint8 of one size; `restored` by two seeds at least."""
    lumas = np.stack([picture.astype(np.float32) @ LUMA for picture in restored])
    before, *after = (descriptor.describe(picture) for picture in (degraded, *restored))
    seen = [one for one in after if one is not None]
    pairs = [(one, other) for place, one in enumerate(seen) for other in seen[:place]]
    return Certainty(
        disagreement=lumas.std(axis=0),
        consistency_db=consistency_db(restored[0], degraded),
        identity_drift=None
        if before is None or after[0] is None
        else float(np.linalg.norm(after[0] - before)),
        identity_spread=float(np.mean([np.linalg.norm(one - other) for one, other in pairs]))
        if pairs
        else None,
    )


def consistency_db(restored: np.ndarray, degraded: np.ndarray) -> float:
    """PSNR to the degraded face of the restored one, blurred as comes nearest to it. The degraded face's noise is in it."""
    import cv2

    scale = degraded.shape[0] / 512
    picture, given = restored.astype(np.float32), degraded.astype(np.float32)
    errors = [
        float(
            np.square(
                (cv2.GaussianBlur(picture, (0, 0), blur * scale) if blur else picture) - given
            ).mean()
        )
        for blur in BLURS_PX
    ]
    return float(10 * np.log10(255**2 / max(min(errors), 1e-9)))


def drawn(degraded: np.ndarray, restored: np.ndarray, disagreement: np.ndarray) -> Image.Image:
    """Degraded, restored, and the map, side by side: dark where the seeds agree, bright where they do not."""
    from matplotlib import colormaps

    heat = colormaps["inferno"](np.clip(disagreement / FULL_SCALE, 0, 1))[..., :3]
    return Image.fromarray(
        np.concatenate([degraded, restored, np.rint(heat * 255).astype(np.uint8)], axis=1)
    )
