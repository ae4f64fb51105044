"""A finished model for others: one file under SDXL's original names, or its folder without the run around it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from authface_train.runs import lineage
from authface_train.runs.run_folder import NOTES
from authface_train.runs.saving import notes_of
from manifests.support.errors import UserError

CARD = "README.md"


def check_model(folder: Path) -> None:
    """Raises UserError for a folder without a finished model."""
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} holds no finished model (no model_index.json): `authface train-prior` makes one"
        )


def export_single_file(folder: Path, output: Path, half: bool = False) -> list[Path]:
    """`output`, a .safetensors file, with card and lineage beside it. Raises UserError for a restorer. Returns the files.

    half: U-Net and text encoders in fp16; SDXL's VAE does not stand that.
    """
    from safetensors.torch import save_file

    from authface_train.runs.single_file import from_folder

    check_model(folder)
    if (folder / "controlnet").is_dir():
        raise UserError(
            "a restorer is a ControlNet beside a prior, and one file holds one model: --format folder"
        )
    if output.suffix != ".safetensors":
        raise UserError(f"--output {output}: a single file is named NAME.safetensors")
    if output.exists():
        raise UserError(f"{output} is there already: name another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": output.stem,
        "authface.untrained": str(bool(notes_of(folder).get("untrained"))).lower(),
    }
    temp = output.with_name(f".{output.name}")
    state = from_folder(folder)
    if half:
        state = {
            name: value if name.startswith("first_stage_model.") else _half(value)
            for name, value in state.items()
        }
    save_file(state, temp, metadata=metadata)
    temp.replace(output)
    made = [output]
    for name, beside in (
        (CARD, output.with_suffix(".md")),
        (lineage.FILE, output.with_suffix(".lineage.parquet")),
    ):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, beside)
            made.append(beside)
    return made


def export_folder(folder: Path, output: Path, half: bool = False) -> list[Path]:
    """The model's own parts, its card, lineage and notes, in a new folder. Returns it. half: all but the VAE in fp16."""
    check_model(folder)
    if output.exists():
        raise UserError(f"{output} is there already: name another --output")
    parts = [item for item in sorted(folder.iterdir()) if item.is_dir() and _is_part(item)]
    temp = output.with_name(f".{output.name}")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    for part in parts:
        shutil.copytree(part, temp / part.name)
        if half and part.name != "vae":
            for file in (temp / part.name).glob("*.safetensors"):
                _halve(file)
    for name in ("model_index.json", CARD, lineage.FILE, NOTES):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, temp / name)
    temp.replace(output)
    return [output]


def _halve(file: Path) -> None:
    """A file of weights, its floating-point tensors in fp16."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as opened:
        state = {name: _half(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    save_file(state, file, metadata=metadata)


def _half(value: Any) -> Any:
    return value.half() if value.is_floating_point() else value


def _is_part(folder: Path) -> bool:
    """A model, a tokenizer or a scheduler; LoRA layers."""
    return any(folder.glob("*config.json")) or any(folder.glob("pytorch_lora_weights.safetensors"))
