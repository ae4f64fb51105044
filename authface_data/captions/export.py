"""Exports crops and captions in the formats of other trainers.

Every format has the crops in one folder per split (`train`, `validation`, `test`) and CREDITS.md:

| format | captions | configuration |
|---|---|---|
| kohya | `<crop>.txt` next to each crop | dataset.toml, for `--dataset_config` |
| simpletuner | `<crop>.txt` next to each crop | multidatabackend.json, for `data_backend_config` |
| imagefolder | metadata.jsonl per split | none: `datasets.load_dataset("imagefolder", data_dir=DIR)` |
| jsonl | captions.jsonl, with provenance | none |

Paths in the configurations are relative: start the trainers in the exported folder.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from authface_data.rights import licences
from manifests.missing_files import require_crops
from manifests.splits import explain_empty_val
from manifests.support.errors import UserError
from manifests.support.files import new_folder, write_atomic
from manifests.support.progress import track
from manifests.training_view import LIGHT_COLUMNS, TagChoice, training_view
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

ExportFormat = Literal["kohya", "simpletuner", "imagefolder", "jsonl"]

SPLIT_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
PROVENANCE_COLUMNS = (
    "face_id",
    "captioner",
    "licence",
    "licence_basis",
    "photographer_name",
    "source_url",
)


@dataclass(frozen=True)
class ExportedCrop:
    """A crop in the exported folder.

    Attributes:
        path: Path relative to the folder, with forward slashes.
        split: Name of the split's folder.
        caption: The caption; "" without tags.
        provenance: Further JSON fields, for formats that can store them.
    """

    path: str
    split: str
    caption: str
    provenance: dict[str, object]


def export_dataset(
    workspace: Workspace,
    output: Path,
    export_format: ExportFormat,
    *,
    tags: TagChoice = "both",
    allow_unknown_licence: bool = False,
) -> dict[str, int]:
    """Export every kept face with its caption.

    Args:
        workspace: The workspace.
        output: A new or empty folder.
        export_format: Trainer or library that will read the folder.
        tags: Families of tags that the captions contain.
        allow_unknown_licence: Also export faces without a licence basis.

    Returns:
        Split -> number of crops, without empty splits.

    Raises:
        UserError: If the folder is not empty, no face is kept, or a face has no caption or crop.
            Nothing is written then.
    """
    view = training_view(workspace, tags, allow_unknown_licence, face_columns=LIGHT_COLUMNS)
    if view.empty:
        raise UserError(
            "no face is kept; run `authface filter` first (`authface status` shows why faces "
            "were dropped)"
        )
    uncaptioned = int((view["caption"].fillna("") == "").sum())
    if uncaptioned and tags != "none":
        kind = "caption" if tags == "both" else f"caption with {tags} tags"
        raise UserError(
            f"{uncaptioned} kept faces have no {kind}; run `authface caption` first, or use "
            "--tags none"
        )

    require_crops(workspace, dict(zip(view["face_id"], view["crop_path"], strict=True)))

    crops = []
    with new_folder(output) as folder:
        for row in track(view.to_dict("records"), "export", unit="crops"):
            crop = _exported_crop(row)
            write_atomic(folder / crop.path, workspace.read_bytes(row["crop_path"]))
            crops.append(crop)
        FORMATS[export_format](folder, crops, workspace.settings.filter.size)
        credits_text = licences.credits_markdown(licences.list_credits(workspace))
        write_atomic(folder / "CREDITS.md", credits_text)

    why_none_held_out = explain_empty_val(view, workspace.settings.splits)
    if why_none_held_out is not None:
        logger.warning(why_none_held_out)
    counts = Counter(crop.split for crop in crops)
    return {split: counts[split] for split in SPLIT_FOLDERS.values() if counts[split]}


def _exported_crop(row: Mapping[str, Any]) -> ExportedCrop:
    split = SPLIT_FOLDERS[row["split"]]
    tags = row["tags"] if isinstance(row["tags"], list) else []
    provenance: dict[str, object] = {"tags": tags}
    provenance.update({column: _text(row[column]) for column in PROVENANCE_COLUMNS})
    return ExportedCrop(
        path=f"{split}/{Path(row['crop_path']).name}",
        split=split,
        caption=_text(row["caption"]),
        provenance=provenance,
    )


def _text(value: object) -> str:
    """Return a text cell of the training view; a missing value becomes ""."""
    return value if isinstance(value, str) else ""


def _write_caption_files(output: Path, crops: Sequence[ExportedCrop]) -> None:
    """Write each caption to a text file next to its crop, with the same name."""
    for crop in crops:
        write_atomic((output / crop.path).with_suffix(".txt"), crop.caption + "\n")


def _write_kohya(output: Path, crops: Sequence[ExportedCrop], size_px: int) -> None:
    _write_caption_files(output, crops)
    config = f"""# Dataset configuration for kohya's sd-scripts.
# Start the training script in this folder with --dataset_config dataset.toml
[general]
caption_extension = ".txt"
shuffle_caption = false
enable_bucket = false

[[datasets]]
resolution = {size_px}
batch_size = 1

[[datasets.subsets]]
image_dir = "train"
num_repeats = 1
"""
    write_atomic(output / "dataset.toml", config)


def _write_simpletuner(output: Path, crops: Sequence[ExportedCrop], size_px: int) -> None:
    _write_caption_files(output, crops)
    image_backend = {
        "id": "authface",
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": "train",
        "caption_strategy": "textfile",
        "resolution": size_px,
        "resolution_type": "pixel",
        "crop": True,
        "crop_aspect": "square",
        "crop_style": "center",
        "minimum_image_size": size_px,
        "cache_dir_vae": "cache/vae",
        "repeats": 0,
    }
    text_backend = {
        "id": "authface-text",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "cache/text",
    }
    config = json.dumps([image_backend, text_backend], indent=2)
    write_atomic(output / "multidatabackend.json", config + "\n")


def _write_imagefolder(output: Path, crops: Sequence[ExportedCrop], size_px: int) -> None:
    rows_of_split: dict[str, list[dict[str, object]]] = {}
    for crop in crops:
        row: dict[str, object] = {"file_name": Path(crop.path).name, "text": crop.caption}
        rows_of_split.setdefault(crop.split, []).append(row)
    for split, rows in rows_of_split.items():
        _write_json_lines(output / split / "metadata.jsonl", rows)


def _write_jsonl(output: Path, crops: Sequence[ExportedCrop], size_px: int) -> None:
    rows = [
        {"file_name": crop.path, "text": crop.caption, "split": crop.split, **crop.provenance}
        for crop in crops
    ]
    _write_json_lines(output / "captions.jsonl", rows)


def _write_json_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


FORMATS: dict[ExportFormat, Callable[[Path, Sequence[ExportedCrop], int], None]] = {
    "kohya": _write_kohya,
    "simpletuner": _write_simpletuner,
    "imagefolder": _write_imagefolder,
    "jsonl": _write_jsonl,
}
"""Name -> function that writes captions and configuration, given the crops and their side in px."""
