"""Exports a finished model: as one file with SDXL's original names, or as a plain model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from authface_train.models.single_file_check import CONFIGURATION_KEY, UNTRAINED_KEY
from authface_train.models.single_file_loading import read_configuration
from authface_train.runs.checkpoint import list_steps
from authface_train.runs.single_file import original_state_dict
from manifests.run_folder import (
    CHECKPOINTS,
    LINEAGE_FILE,
    MODEL_CARD_FILE,
    MODEL_INDEX_FILE,
    NOTES_FILE,
    is_finished,
    read_notes,
    read_run,
)
from manifests.support.errors import UserError
from manifests.support.files import (
    apply_umask,
    atomic_path,
    explain_write_errors,
    write_atomic,
)
from manifests.support.model_folder import check_model_files, explain_loading

LORA_WEIGHTS_FILE = "pytorch_lora_weights.safetensors"


def check_output(folder: Path, output: Path, *, single_file: bool) -> None:
    """Check that an export can be written.

    Args:
        folder: Folder of a run or of a model.
        output: File or folder to write.
        single_file: Whether `output` is a single file.

    Raises:
        UserError: If the model does not fit in a single file, or `output` exists or has a wrong
            suffix.
    """
    run = read_run(folder) or {}
    if single_file and ((folder / "controlnet").is_dir() or run.get("stage") == "restorer"):
        raise UserError(
            "a restorer is a prior with a ControlNet and does not fit in a single file; "
            "use --format folder"
        )
    if single_file and output.suffix != ".safetensors":
        raise UserError(f"--output {output} must be named NAME.safetensors")
    if output.exists():
        raise UserError(f"{output} already exists; use another --output")


def export_single_file(folder: Path, output: Path, *, half: bool = False) -> list[Path]:
    """Export a prior as one safetensors file, with its model card and lineage next to it.

    Args:
        folder: Run folder of a finished prior.
        output: File to write, `NAME.safetensors`. The card becomes `NAME.md` and the lineage
            `NAME.lineage.parquet`.
        half: Store the U-Net and the text encoders in fp16. The VAE stays in fp32, because SDXL's
            VAE overflows in fp16.

    Returns:
        The files that were written.

    Raises:
        UserError: If the folder holds no finished prior, or `output` exists or has another suffix.
    """
    from safetensors.torch import save_file

    _check_finished(folder)
    check_output(folder, output, single_file=True)

    configuration = read_configuration(folder)
    with explain_loading(folder):
        state = original_state_dict(folder)
    if half:
        state = {
            name: value if name.startswith("first_stage_model.") else _to_half(value)
            for name, value in state.items()
        }
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": output.stem,
        UNTRAINED_KEY: str(bool(read_notes(folder).get("untrained"))).lower(),
        CONFIGURATION_KEY: json.dumps(configuration),
    }
    with atomic_path(output) as temporary:
        save_file(state, temporary, metadata=metadata)
        apply_umask(temporary)

    written = [output]
    companions = {
        MODEL_CARD_FILE: output.with_suffix(".md"),
        LINEAGE_FILE: output.with_suffix(".lineage.parquet"),
    }
    for name, target in companions.items():
        if (folder / name).is_file():
            write_atomic(target, (folder / name).read_bytes())
            written.append(target)
    return written


def export_folder(folder: Path, output: Path, *, half: bool = False) -> list[Path]:
    """Export a model as a diffusers folder without the checkpoints and pictures of its run.

    Args:
        folder: Run folder of a finished model.
        output: Folder to create.
        half: Store everything except the VAE in fp16.

    Returns:
        The folder that was written, as a list of one.

    Raises:
        UserError: If the folder holds no finished model, or `output` exists.
    """
    _check_finished(folder)
    check_output(folder, output, single_file=False)

    temporary = output.with_name(f".{output.name}")
    with explain_write_errors(output):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _copy_model(folder, temporary, half)
            temporary.replace(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [output]


def _copy_model(folder: Path, target: Path, half: bool) -> None:
    for component in [item for item in sorted(folder.iterdir()) if _is_component(item)]:
        shutil.copytree(component, target / component.name)
        if half and component.name != "vae":
            for file in (target / component.name).glob("*.safetensors"):
                _convert_file_to_half(file)
    for name in (MODEL_INDEX_FILE, MODEL_CARD_FILE, LINEAGE_FILE, NOTES_FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    apply_umask(target)


def _check_finished(folder: Path) -> None:
    if not is_finished(folder):
        advice = "train one with `authface train-prior`"
        if list_steps(folder / CHECKPOINTS):
            advice = "continue the run with --resume, or export a checkpoint with --checkpoint STEP"
        raise UserError(f"{folder} holds no finished model (no {MODEL_INDEX_FILE}); {advice}")
    check_model_files(folder)


def _is_component(path: Path) -> bool:
    """Whether a path is a model, tokenizer, scheduler or LoRA folder of a pipeline."""
    if not path.is_dir():
        return False
    return any(path.glob("*config.json")) or (path / LORA_WEIGHTS_FILE).is_file()


def _convert_file_to_half(file: Path) -> None:
    """Rewrite a safetensors file with its floating-point tensors in fp16."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as opened:
        state = {name: _to_half(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    save_file(state, file, metadata=metadata)


def _to_half(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value
