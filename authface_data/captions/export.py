"""Crops and captions as other trainers read them: kohya's sd-scripts, SimpleTuner, `datasets`, or plain JSON lines.

All have the crops in a folder per split, `train`, `validation` and `test`, and CREDITS.md; what else each needs lies beside:

| format | captions | configuration |
|---|---|---|
| kohya | `<crop>.txt` beside each crop | dataset.toml, for `--dataset_config` |
| simpletuner | `<crop>.txt` beside each crop | multidatabackend.json, for `data_backend_config` |
| imagefolder | metadata.jsonl in each split | none: `datasets.load_dataset("imagefolder", data_dir=DIR)` |
| jsonl | captions.jsonl, with provenance | none |

Paths in them are relative: the trainers are started in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authface_data.rights import licences
from manifests.support.errors import UserError
from manifests.training_view import TagChoice, training_view
from manifests.workspace import Workspace

SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Picture:
    """file: the crop's path in the folder; more: provenance, for formats that can hold it."""

    file: str
    split: str
    caption: str
    more: dict[str, Any]


def export_dataset(
    workspace: Workspace,
    output: Path,
    form: str,
    tags: TagChoice,
    allow_unknown_licence: bool,
    watch: Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]] = lambda rows: rows,
) -> dict[str, int]:
    """Write the folder. Returns how many pictures each split has. watch: told of the rows, to show how far it is.

    Raises UserError for a folder that is not empty, and for faces without a caption.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is not an empty folder: name another")
    view = training_view(workspace, tags, allow_unknown_licence)
    if view.empty:
        raise UserError(
            "no face is kept: `authface filter` first (`authface status` says why faces were dropped)"
        )
    lacking = int((view["caption"].fillna("") == "").sum())
    if lacking and tags != "none":
        kind = "" if tags == "both" else f" of {tags} tags"
        raise UserError(
            f"{lacking} kept faces have no caption{kind}: `authface caption` first, or --tags none"
        )
    pictures = []
    for row in watch(view.to_dict("records")):
        file = f"{SPLITS[row['split']]}/{Path(row['crop_path']).name}"
        (output / file).parent.mkdir(parents=True, exist_ok=True)
        (output / file).write_bytes(workspace.read_bytes(row["crop_path"]))
        pictures.append(_picture(row, file))
    FORMATS[form](output, pictures, workspace.settings.filter.size)
    (output / "CREDITS.md").write_text(licences.credits_markdown(licences.list_credits(workspace)), "utf-8")
    return {
        split: count
        for split in SPLITS.values()
        if (count := sum(one.split == split for one in pictures))
    }


def _picture(row: dict[str, Any], file: str) -> Picture:
    def text(name: str) -> str:
        return row[name] if isinstance(row[name], str) else ""

    more = {
        name: text(name)
        for name in (
            "face_id",
            "captioner",
            "licence",
            "licence_basis",
            "photographer_name",
            "source_url",
        )
    }
    tags = row["tags"] if isinstance(row["tags"], list) else []
    return Picture(file, SPLITS[row["split"]], text("caption"), {"tags": tags, **more})


def _beside(output: Path, pictures: Sequence[Picture]) -> None:
    """A text file of the same name beside each picture."""
    for one in pictures:
        (output / one.file).with_suffix(".txt").write_text(one.caption + "\n", "utf-8")


def _kohya(output: Path, pictures: Sequence[Picture], size_px: int) -> None:
    _beside(output, pictures)
    (output / "dataset.toml").write_text(
        f"""# For the training scripts of kohya's sd-scripts: --dataset_config dataset.toml, started in this folder.
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
""",
        "utf-8",
    )


def _simpletuner(output: Path, pictures: Sequence[Picture], size_px: int) -> None:
    _beside(output, pictures)
    images = {
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
    texts = {
        "id": "authface-text",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "cache/text",
    }
    (output / "multidatabackend.json").write_text(
        json.dumps([images, texts], indent=2) + "\n", "utf-8"
    )


def _imagefolder(output: Path, pictures: Sequence[Picture], size_px: int) -> None:
    for split in {one.split for one in pictures}:
        rows = [
            {"file_name": Path(one.file).name, "text": one.caption}
            for one in pictures
            if one.split == split
        ]
        _lines(output / split / "metadata.jsonl", rows)


def _jsonl(output: Path, pictures: Sequence[Picture], size_px: int) -> None:
    rows = [
        {"file_name": one.file, "text": one.caption, "split": one.split, **one.more}
        for one in pictures
    ]
    _lines(output / "captions.jsonl", rows)


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


FORMATS: dict[str, Callable[[Path, Sequence[Picture], int], None]] = {
    "kohya": _kohya,
    "simpletuner": _simpletuner,
    "imagefolder": _imagefolder,
    "jsonl": _jsonl,
}
