"""Which photographs are in a model: frozen when its run begins."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from manifests.support.markdown import plain

COLUMNS = [
    "photo_id",
    "sha256",
    "photographer_name",
    "photographer_url",
    "source_url",
    "licence",
    "licence_basis",
]
FILE = "lineage.parquet"


def freeze(folder: Path, stage: str, view: pd.DataFrame, base: Path) -> pd.DataFrame:
    """Write `lineage.parquet`: one row per face and stage; a run that it begins from brings its own. Returns it."""
    rows = view[["face_id", *COLUMNS]].drop_duplicates("face_id").assign(stage=stage)
    tables = [rows]
    if (base / FILE).is_file():
        tables.append(pd.read_parquet(base / FILE))
    lineage = pd.concat(tables, ignore_index=True)
    temp = folder / f".{FILE}"
    lineage.to_parquet(temp, index=False)
    os.replace(temp, folder / FILE)
    return lineage


def credits_markdown(lineage: pd.DataFrame) -> str:
    """The photographs of a model as a Markdown list: who took them, and on what ground they were used."""
    photos = lineage.drop_duplicates("photo_id").sort_values("photo_id")
    lines = []
    for row in photos.itertuples():
        who = (
            plain(row.photographer_name)
            if isinstance(row.photographer_name, str)
            else "photographer not stated"
        )
        link = f" ({plain(row.source_url)})" if isinstance(row.source_url, str) else ""
        lines.append(f"- `{row.photo_id}`: {who}{link}; basis: {plain(str(row.licence_basis))}")
    return "\n".join(lines)
