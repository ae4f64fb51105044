"""The weights that commands need: which are on this machine, and where the others come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from authface_data import weights
from authface_data.quality.hps import HPS_V2
from authface_data.quality.library_weights import LIBRARY_FILES, find_in_hub_cache
from authface_data.weights import WeightFile
from manifests.run_folder import MODEL_INDEX_FILE
from manifests.settings import Settings, load_settings, preset_names, preset_text
from manifests.support.extras import missing_modules

DETECTOR_WEIGHTS = {
    "retinaface": weights.RETINAFACE,
    "retinaface-mobile": weights.RETINAFACE_MOBILE,
}
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
HUB_PAGE = "https://huggingface.co"
INDEX_FILES = (MODEL_INDEX_FILE, "config.json")
"""Files of which a model of the hub has one."""


@dataclass(frozen=True)
class WeightState:
    """A file or a model that a command reads.

    Attributes:
        command: The command.
        file: Name of the file in `weights_dir`, or id of a model of the hub.
        source: The package or the URL that it comes from.
        found: Its path on this machine, or None.
        place: Where to put it, if it cannot be downloaded.
    """

    command: str
    file: str
    source: str
    found: str | None
    place: str


def inspect_presets() -> dict[str, list[WeightState]]:
    """The weights of each workspace preset."""
    return {
        name: inspect_weights(load_settings(preset_text(name).encode(), name))
        for name in preset_names()
    }


def inspect_evaluation(weights_dir: str | None) -> list[WeightState]:
    """The weights of the metrics of `authface evaluate`.

    Args:
        weights_dir: Folder of the setting `weights_dir`, if any.
    """
    states = [
        state
        for metric in LIBRARY_FILES
        for state in _metric_states(metric, weights_dir, "evaluate")
    ]
    files = [weights.DLIB_DESCRIPTOR]
    if not missing_modules("hps"):
        files.append(HPS_V2)
    return [*states, *(_file_state("evaluate", file, weights_dir) for file in files)]


def inspect_weights(settings: Settings) -> list[WeightState]:
    """The weights that the commands read with some settings.

    Args:
        settings: Settings of a workspace.
    """
    weights_dir = settings.weights_dir
    files = [DETECTOR_WEIGHTS[settings.filter.detector], weights.DLIB_DESCRIPTOR]
    files += [weights.MEDIAPIPE_MESH, weights.MEDIAPIPE_IRIS]
    if settings.filter.landmarks == "dlib":
        files.append(weights.DLIB68)
    if "niqe" in settings.filter.metrics:
        files.append(weights.NIQE)
    states = [_file_state("filter", file, weights_dir) for file in files]
    for metric in settings.filter.metrics:
        states += _metric_states(metric, weights_dir, "filter")
    if settings.captions.captioner == "measured":
        states.append(_file_state("caption", weights.MEDIAPIPE_PERSON, weights_dir))
    if settings.captions.captioner == "llava":
        states.append(_hub_state("caption", settings.captions.model, weights_dir))
    if settings.filter.detector == "retinaface":  # the paper's trainers, not the preset `tiny`
        states.append(_hub_state("train-prior", SDXL, weights_dir))
    return states


def count_missing(states: Iterable[WeightState], command: str) -> int:
    """Number of files that a command does not find.

    Args:
        states: The weights.
        command: The command.
    """
    return sum(state.command == command and state.found is None for state in states)


def _file_state(command: str, file: WeightFile, weights_dir: str | None) -> WeightState:
    path = weights.find_local(file, weights_dir)
    return WeightState(
        command=command,
        file=file.file,
        source=file.source,
        found=None if path is None else str(path),
        place=str(weights.user_folder(weights_dir) / file.file),
    )


def _metric_states(metric: str, weights_dir: str | None, command: str) -> list[WeightState]:
    states = []
    for file in LIBRARY_FILES.get(metric, ()):
        path = file.find(weights_dir)
        states.append(
            WeightState(
                command=command,
                file=file.file,
                source=file.url,
                found=None if path is None else str(path),
                place=str(weights.user_folder(weights_dir) / file.file),
            )
        )
    return states


def _hub_state(command: str, model: str, weights_dir: str | None) -> WeightState:
    folder = _find_model(model, weights_dir)
    return WeightState(
        command=command,
        file=model,
        source=f"{HUB_PAGE}/{model}",
        found=None if folder is None else str(folder),
        place=f"{weights_dir}/{model}"
        if weights_dir
        else f"DIR/{model} and set weights_dir to DIR",
    )


def _find_model(model: str, weights_dir: str | None) -> Path | None:
    """The folder of a model of the hub with weights in it, or None."""
    folders = [Path(model), *([Path(weights_dir, model)] if weights_dir else [])]
    folders += [path.parent for name in INDEX_FILES for path in find_in_hub_cache(model, name)]
    for folder in folders:
        if folder.is_dir() and any(folder.rglob("*.safetensors")):
            return folder
    return None
