"""What a workspace holds apart from times, to compare a disturbed run with an undisturbed one."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pandas as pd

from manifests.schema import MANIFESTS
from manifests.workspace import STRIP_FILE

TIME_COLUMNS = [
    *("created_at", "collected_at", "decided_at", "forgotten_at", "restored_at", "seconds")
]
REVIEW_TIME = re.compile(rb"-[0-9a-f]{13}(?=[,;\t])")
"""The time of the export in the state of a face in a review table."""


def read_rows(path: Path) -> pd.DataFrame:
    """Read a Parquet file, or a folder of them, without the columns of times."""
    return pd.read_parquet(path).drop(columns=TIME_COLUMNS, errors="ignore")


def count_doubled(root: Path) -> dict[str, int]:
    """Number of rows of each manifest whose key another row has."""
    doubled = {}
    for name, manifest in MANIFESTS.items():
        folder = root / "manifests" / name
        rows = pd.read_parquet(folder) if folder.is_dir() else pd.DataFrame()
        if rows.empty:
            continue
        doubled[name] = int(rows.duplicated(list(manifest.key)).sum())
    return doubled


def read_state(root: Path) -> dict[str, object]:
    """Everything in a workspace that must not depend on kills: rows without times, and files.

    Files are represented by their digests. The key of the hashes of tombstones differs in
    each workspace, so that only their number is compared.
    """
    state: dict[str, object] = {}
    for name in MANIFESTS:
        folder = root / "manifests" / name
        if not folder.is_dir():
            continue
        rows = read_rows(folder)
        if name == "decisions":  # The fingerprint of a decision is the time of its table.
            rows = rows.drop(columns="fingerprint")
        records = sorted(rows.astype(str).to_dict("records"), key=str)
        state[name] = len(records) if name == "tombstones" else records
        state[f"{name} parts in progress"] = [
            part for part in os.listdir(folder) if part.startswith(".")
        ]
    for name in ("photos", "faces"):
        state[f"{name} files"] = read_files(root / name)
    temporary = root / ".tmp"
    state["temporary files"] = list(temporary.iterdir()) if temporary.exists() else []
    state["is locked"] = (root / ".lock").exists()
    return state


def read_files(folder: Path) -> dict[str, object]:
    """Content of the files below a folder by relative path.

    Pages and logs with times are left out, and the strip of `authface restore`, which shows the
    faces of its last run.

    Args:
        folder: A folder, or a file.

    Returns:
        Rows of Parquet files, and the digests of other files.
    """
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    content: dict[str, object] = {}
    for path in files:
        if not path.is_file() or path.suffix in (".html", ".log", ".lock"):
            continue
        if path.name == STRIP_FILE:
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            content[name] = sorted(read_rows(path).astype(str).to_dict("records"), key=str)
        else:
            data = path.read_bytes()
            if path.suffix == ".csv":
                data = REVIEW_TIME.sub(b"", data)
            content[name] = hashlib.sha256(data).hexdigest()
    return content


def differences(calm: dict[str, object], stormy: dict[str, object]) -> dict[str, str]:
    """Describe each part of a state that differs, by its name.

    Args:
        calm: The state of an undisturbed run.
        stormy: The state of a disturbed run.
    """
    found = {}
    for name in sorted({*calm, *stormy}):
        left, right = calm.get(name), stormy.get(name)
        if left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            files = sorted(file for file in {*left, *right} if left.get(file) != right.get(file))
            found[name] = f"{len(files)} files differ, first {files[0]}"
        elif isinstance(left, list) and isinstance(right, list):
            calm_rows, stormy_rows = set(map(str, left)), set(map(str, right))
            missing = sorted(calm_rows - stormy_rows)
            added = sorted(stormy_rows - calm_rows)
            found[name] = (
                f"{len(left)} rows became {len(right)}; missing {str(missing[:1])[:300]}, "
                f"added {str(added[:1])[:300]}"
            )
        else:
            found[name] = f"{str(left)[:200]} became {str(right)[:200]}"
    return found
