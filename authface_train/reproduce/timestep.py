"""Measures at which timestep a face becomes visible: a detector's confidence on predicted images.

The paper's appendix chooses m by this measurement. Noise is added to clean faces, the restorer
predicts it with the degraded faces as hints, and a face detector is run on the decoded
z0_pred = (z_t - sqrt(1 - abar) eps) / sqrt(abar). Normalised time is (timestep + 0.5) / 1000.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from authface_data.faces.detectors import make_detector
from authface_data.images.open import open_image
from authface_train.evaluation.image_pairs import find_pictures, match_pictures, read_picture
from authface_train.restore.pipeline import Restorer
from manifests.support.errors import UserError
from manifests.support.progress import track

PAPER_CROSSING = 0.32
"""Normalised time at which the paper's curve reaches 0.5."""
TIMESTEPS = tuple(range(19, 1000, 60))
MIN_DETECTION_PX = 256
"""Smaller images are enlarged to this side before detection."""
MIN_SCORE = 0.02
"""Detections below this score count as no face, with confidence 0."""


@torch.no_grad()
def measure_confidence(
    restorer: Restorer, degraded: Path, clean: Path, detector: str, weights_dir: str | None
) -> pd.DataFrame:
    """Measure a detector's confidence on the predicted images.

    Args:
        restorer: The restorer.
        degraded: Folder of degraded faces.
        clean: Folder of clean faces; pictures are paired by name.
        detector: Name of a face detector.
        weights_dir: Folder of downloaded weights.

    Returns:
        One row per timestep: `t_step`, normalised time `t`, mean `confidence` in [0, 1], share
        `seen` of faces with a confidence of at least 0.5, number of `faces`.

    Raises:
        UserError: If no names match.
    """
    pairs = match_pictures(find_pictures(degraded), find_pictures(clean)).pairs
    if not pairs:
        raise UserError(f"no picture in {degraded} has the name of a picture in {clean}")

    face_detector = make_detector(detector)
    face_detector.setup("cpu", weights_dir)
    generator = torch.Generator().manual_seed(0)
    confidences: dict[int, list[float]] = {timestep: [] for timestep in TIMESTEPS}
    for degraded_path, clean_path in track(list(pairs.values()), "faces", unit="faces"):
        images = _predicted_images(
            restorer, read_picture(degraded_path)[0], read_picture(clean_path)[0], generator
        )
        for timestep, image in zip(TIMESTEPS, images, strict=True):
            detections = face_detector.detect([_enlarge(image)], MIN_SCORE)[0]
            confidences[timestep].append(detections[0].score if detections else 0.0)

    rows = [
        {
            "t_step": timestep,
            "t": (timestep + 0.5) / 1000,
            "confidence": float(np.mean(values)),
            "seen": float(np.mean(np.array(values) >= 0.5)),
            "faces": len(values),
        }
        for timestep, values in confidences.items()
    ]
    return pd.DataFrame(rows)


def _predicted_images(
    restorer: Restorer, degraded: np.ndarray, clean: np.ndarray, generator: torch.Generator
) -> list[np.ndarray]:
    """Predict the clean image at each of TIMESTEPS with the same noise.

    Returns:
        (size, size, 3) uint8 each.
    """
    latents = restorer.encode(clean)
    alphas_cumprod = restorer.pipeline.scheduler.alphas_cumprod
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    images = []
    for timestep in TIMESTEPS:
        signal = alphas_cumprod[timestep].sqrt()
        sigma = (1 - alphas_cumprod[timestep]).sqrt()
        noisy = signal * latents + sigma * noise
        prediction = restorer.predict_noise(noisy, timestep, degraded)
        images.append(restorer.decode((noisy - sigma * prediction) / signal)[0])
    return images


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarge a square image that is smaller than MIN_DETECTION_PX."""
    if len(image) >= MIN_DETECTION_PX:
        return image
    size = (MIN_DETECTION_PX, MIN_DETECTION_PX)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def find_crossing(times: Sequence[float], confidence: Sequence[float]) -> float | None:
    """Find the latest time at which the mean confidence is at least 0.5.

    Args:
        times: Normalised times, ascending.
        confidence: Mean confidence at each time.

    Returns:
        The time, linearly interpolated between two measurements; None if 0.5 is never reached.
    """
    for index in range(len(times) - 1, -1, -1):
        if confidence[index] < 0.5:
            continue
        if index == len(times) - 1:
            return float(times[index])
        share = (confidence[index] - 0.5) / (confidence[index] - confidence[index + 1])
        return float(times[index] + share * (times[index + 1] - times[index]))
    return None


def format_report(table: pd.DataFrame) -> str:
    """The measurement as a Markdown table, with the time of the crossing beside the paper's."""
    crossing = find_crossing(table["t"].tolist(), table["confidence"].tolist())
    result = "never reaches 0.5" if crossing is None else f"reaches 0.5 at t = {crossing:.2f}"
    lines = ["| t | confidence | seen |", "|---|---|---|"]
    for row in table.itertuples():
        lines.append(f"| {row.t:.2f} | {row.confidence:.3f} | {row.seen:.0%} |")
    num_faces = table["faces"].iloc[0]
    lines += [
        "",
        f"The mean over {num_faces} faces {result}; the paper's does at t = {PAPER_CROSSING}.",
    ]
    return "\n".join(lines)


def plot_confidence(table: pd.DataFrame) -> Image.Image:
    """Plot mean confidence over normalised time.

    Returns:
        An RGB image.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=110, layout="constrained")
    axes.plot(table["t"], table["confidence"], marker="o", markersize=3)
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(PAPER_CROSSING, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("normalised time (dotted: where the paper's curve reaches 0.5)")
    axes.set_ylabel("detector confidence")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return open_image(buffer.getvalue()).convert("RGB")
