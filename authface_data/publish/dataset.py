"""The kept faces as a data set of the Hugging Face hub: Parquet files and a dataset card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from authface_data.rights.licences import credits_markdown, list_credits
from manifests.licence_policy import basis_label, require_publishable
from manifests.missing_files import require_crops
from manifests.support.errors import UserError
from manifests.support.files import write_atomic
from manifests.support.progress import ProgressBar
from manifests.support.text import count_of
from manifests.training_view import LIGHT_COLUMNS, training_view
from manifests.workspace import Workspace

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""Split of the workspace -> its name on the hub."""
MAX_SHARD_BYTES = 500_000_000
TEXT_COLUMNS = (
    "face_id",
    "photo_id",
    "caption",
    "photographer_name",
    "source_url",
    "licence",
    "licence_basis",
)
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in TEXT_COLUMNS),
    ]
)
FEATURES = {
    "image": {"_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in TEXT_COLUMNS},
}
"""The columns as `datasets` describes them."""


def build_dataset(workspace: Workspace, folder: Path, name: str) -> dict[str, int]:
    """Write the kept faces as Parquet files, with a dataset card and credits.

    Args:
        workspace: The workspace.
        folder: An empty folder.
        name: Title of the card.

    Returns:
        Split -> number of faces.

    Raises:
        UserError: If no face is kept, a crop is missing, or the licence of a photograph does not
            allow publishing its face.
    """
    view = training_view(workspace, face_columns=LIGHT_COLUMNS, allow_unknown_licence=True)
    if view.empty:
        raise UserError("no face is kept; run `authface filter` first")
    require_publishable(view)
    require_crops(workspace, dict(zip(view["face_id"], view["crop_path"], strict=True)))

    counts: Counter[str] = Counter()
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    schema = SCHEMA.with_metadata(metadata)
    with ProgressBar("data set", len(view), unit="faces") as bar:
        for split, split_name in SPLIT_NAMES.items():
            rows = view[view["split"] == split]
            shards = list(_shards(workspace, rows.to_dict("records")))
            for index, shard in enumerate(shards):
                path = folder / f"data/{split_name}-{index:05d}-of-{len(shards):05d}.parquet"
                path.parent.mkdir(exist_ok=True)
                _write_shard(workspace, path, shard, schema)
                bar.advance(len(shard))
            if len(rows):
                counts[split_name] = len(rows)
    credits = list_credits(workspace)
    write_atomic(folder / "CREDITS.md", credits_markdown(credits))
    write_atomic(folder / "README.md", dataset_card(view, counts, name))
    return dict(counts)


def _shards(workspace: Workspace, rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Divide rows so that the crops of each part have at most `MAX_SHARD_BYTES`."""
    shard: list[dict[str, Any]] = []
    shard_bytes = 0
    for row in rows:
        size = workspace.size(row["crop_path"])
        if shard and shard_bytes + size > MAX_SHARD_BYTES:
            yield shard
            shard, shard_bytes = [], 0
        shard.append(row)
        shard_bytes += size
    if shard:
        yield shard


def _write_shard(
    workspace: Workspace, path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema
) -> None:
    records = []
    for row in rows:
        crop_path = row["crop_path"]
        image = {"bytes": workspace.read_bytes(crop_path), "path": Path(crop_path).name}
        texts = {name: row[name] if isinstance(row[name], str) else None for name in TEXT_COLUMNS}
        records.append({"image": image, **texts})
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path, row_group_size=100)


def dataset_card(view: pd.DataFrame, counts: dict[str, int], name: str) -> str:
    """The dataset card: front matter that `datasets` reads, splits, licences and credits.

    Args:
        view: Rows of the training view.
        counts: Split -> number of faces.
        name: Title of the card.
    """
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in counts)
    splits = "\n".join(f"| {split} | {count:,} |" for split, count in counts.items())
    bases = Counter(
        (basis_label(row.licence_basis), row.licence if isinstance(row.licence, str) else "")
        for row in view.itertuples()
    )
    licences = "\n".join(
        f"| {basis} | {licence or '–'} | {count:,} |"
        for (basis, licence), count in bases.most_common()
    )
    num_photos = view["photo_id"].nunique()
    return f"""---
pretty_name: {json.dumps(name)}
license: other
license_name: by-photograph
task_categories:
- image-to-image
- text-to-image
tags:
- faces
- authface
configs:
- config_name: default
  data_files:
{files}---

# {name}

{count_of(len(view), "aligned face")} from {count_of(num_photos, "photograph")}, made with AuthFace.
Each row has the crop, its caption, and the photographer, source and licence of its photograph.

| split | faces |
|---|---|
{splits}

People, photographers' series and near-duplicates are never divided between splits.

## Licences

The licence is that of each photograph, in the columns `licence` and `licence_basis`. Photographers
are named in [CREDITS.md](CREDITS.md).

| basis | licence | faces |
|---|---|---|
{licences}

A licence of a photograph is not the consent of the person in it. To have a face removed, write to
the owner of this repository with its `face_id` or `photo_id`.
"""
