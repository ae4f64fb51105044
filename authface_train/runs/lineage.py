"""Lineage: which photographs a model was trained on, recorded when its run starts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from manifests.licence_policy import basis_label, photographer_label
from manifests.run_folder import LINEAGE_FILE
from manifests.support.errors import UserError
from manifests.support.files import atomic_path
from manifests.support.model_folder import explain_loading
from manifests.support.text import escape_markdown, excerpt

COLUMNS = [
    "photo_id",
    "source",
    "sha256",
    "photographer_name",
    "photographer_url",
    "source_url",
    "licence",
    "licence_basis",
]


def write_lineage(folder: Path, stage: str, view: pd.DataFrame, base: Path) -> pd.DataFrame:
    """Write the lineage of a run, one row per face and stage.

    Args:
        folder: The run folder.
        stage: "prior" or "restorer".
        view: Training view of the run.
        base: Folder or single file of the base model. If it has a lineage, its rows are included;
            that of `NAME.safetensors` is `NAME.lineage.parquet`, as `authface export` writes it.

    Returns:
        The lineage with columns face_id, `COLUMNS` and stage.
    """
    rows = view[["face_id", *COLUMNS]].drop_duplicates("face_id").assign(stage=stage)
    tables = [rows]
    base_lineage = base.with_suffix(".lineage.parquet") if base.is_file() else base / LINEAGE_FILE
    if base_lineage.is_file():
        tables.append(_read(base_lineage))
    lineage = pd.concat(tables, ignore_index=True)

    with atomic_path(folder / LINEAGE_FILE) as temporary:
        lineage.to_parquet(temporary, index=False)
    return lineage


def read_lineage(folder: Path) -> pd.DataFrame:
    """Read the lineage of a run.

    Raises:
        UserError: If the file is damaged.
    """
    return _read(folder / LINEAGE_FILE)


def _read(path: Path) -> pd.DataFrame:
    advice = "restore it from a backup, or use another model"
    try:
        with explain_loading(path, advice):
            lineage = pd.read_parquet(path)
            if "photo_id" not in lineage:
                raise ValueError("it has no column photo_id")
            return lineage
    except OSError as error:
        raise UserError(f"{path} cannot be read ({excerpt(str(error))}); {advice}") from error


def credits_markdown(lineage: pd.DataFrame) -> str:
    """The photographs of a model as a Markdown list with photographer, link and licence basis."""
    photos = lineage.drop_duplicates("photo_id").sort_values("photo_id")
    return "\n".join(_credit_line(row) for _, row in photos.iterrows())


def _credit_line(row: pd.Series) -> str:
    name = row["photographer_name"]
    url = row["source_url"]
    credit = escape_markdown(photographer_label(name))
    link = f" ({escape_markdown(url)})" if isinstance(url, str) else ""
    basis = escape_markdown(basis_label(row["licence_basis"]))
    return f"- `{row['photo_id']}`: {credit}{link}; basis: {basis}"
