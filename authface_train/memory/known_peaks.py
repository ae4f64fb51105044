"""Peaks of SDXL's fake passes for the presets, so that a plan takes seconds.

A pass of SDXL takes tens of seconds on a CPU. `python -m authface_train.memory.known_peaks` runs the
passes that the table lacks and adds them, in minutes. If passes count otherwise, increase
`PASS_VERSION` of the estimator: the rows of another version are ignored and made again.
"""

from __future__ import annotations

import csv
import io
from importlib import resources
from pathlib import Path

import torch

from authface_train.memory.estimator import (
    PASS_VERSION,
    FakeTensorPass,
    MemoryEstimator,
    PassConfig,
    PeakKey,
)
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.models.sdxl import meta_networks
from authface_train.models.sdxl_config import SDXL_CONFIGURATION, TINY
from authface_train.presets import card_of, load_preset, preset_names
from authface_train.settings import STAGES, PriorSettings, RestorerSettings
from manifests.support.files import write_atomic

FILE = "sdxl_peaks.csv"


def load_known_peaks() -> dict[PeakKey, int]:
    """The peaks in bytes of SDXL's passes; empty if they were counted by another version."""
    text = (resources.files("authface_train.memory") / FILE).read_text("utf-8")
    peaks = {}
    for row in csv.DictReader(io.StringIO(text)):
        if int(row["pass_version"]) != PASS_VERSION:
            return {}
        key = PeakKey(
            stage=row["stage"],
            resolution_px=int(row["resolution_px"]),
            mixed_precision=row["mixed_precision"],
            gradient_checkpointing=row["gradient_checkpointing"] == "True",
            lora_rank=int(row["lora_rank"]),
            micro_batch=int(row["micro_batch"]),
            weight_dtype=row["weight_dtype"],
            gradients=row["gradients"],
            accumulate=row["accumulate"] == "True",
        )
        peaks[key] = int(row["bytes"])
    return peaks


def make_pass(
    settings: PriorSettings | RestorerSettings, unet: torch.nn.Module, vae_scale_factor: int
) -> PriorPass | RestorerPass:
    """The fake pass of the stage that settings belong to.

    Args:
        settings: Settings of a run.
        unet: U-Net of the base; its weights are not used.
        vae_scale_factor: Side of a latent cell in pixels.
    """
    if isinstance(settings, PriorSettings):
        return PriorPass(unet, settings, vae_scale_factor)
    return RestorerPass(unet, settings, vae_scale_factor)


class _Recorder(MemoryEstimator):
    """Records the peaks of the passes that it runs."""

    def __init__(self, fake_pass: FakeTensorPass, peaks: dict[PeakKey, int]) -> None:
        super().__init__(fake_pass, torch.device("cpu"), known_peaks=peaks)
        self.recorded = peaks

    def _peak_bytes(self, config: PassConfig) -> int:
        peak = super()._peak_bytes(config)
        self.recorded[PeakKey.of(config)] = peak
        return peak


def measure_peaks() -> dict[PeakKey, int]:
    """Run the passes of all presets that the table lacks.

    They are run for one process and for the number that the preset is made for.
    """
    networks = meta_networks(SDXL_CONFIGURATION)
    peaks = load_known_peaks()
    for stage in STAGES:
        for name in preset_names():
            settings = load_preset(stage, name)
            if name == TINY:
                continue
            card = card_of(name)
            recorder = _Recorder(
                make_pass(settings, networks.unet, networks.vae_scale_factor), peaks
            )
            for num_processes in {1, card.count if card else 1}:
                recorder.estimate(settings, 1, num_processes)
                # Without accumulation.
                recorder.estimate(settings, settings.batch // num_processes, num_processes)
    return peaks


def main() -> None:
    """Write the table beside this file."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["pass_version", *PeakKey._fields, "bytes"])
    for key, peak in sorted(measure_peaks().items()):
        writer.writerow([PASS_VERSION, *key, peak])
    write_atomic(Path(__file__).with_name(FILE), output.getvalue())


if __name__ == "__main__":
    main()
