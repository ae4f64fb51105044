"""Files in a collected folder that are no pictures: counted by suffix for messages and status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from authface_data.images.open import RAW_SUFFIXES
from manifests.support.text import excerpt, to_utf8
from manifests.workspace import FILES_OF_SYSTEMS, Workspace

COUNTS_FILE = "cache/skipped-files.json"
"""Folder -> suffix -> number of files, of the last collection of each folder."""
SIDECAR_SUFFIXES = (".json", ".csv")
RAW_ADVICE = "RAW files are not read: export JPEG or TIFF first"
NO_SUFFIX = "without suffix"
MAX_SUFFIX_LENGTH = 12
MAX_LISTED = 10
MAX_STORED = 100


def counted_suffix(name: str) -> str | None:
    """The suffix under which a file that is no picture is counted.

    Args:
        name: Name of the file.

    Returns:
        The suffix with its dot, in lower case. None for files that nobody misses: sidecar files,
        hidden files and those of file managers.
    """
    suffix = Path(name).suffix.lower()
    is_expected = name.startswith(".") or name in FILES_OF_SYSTEMS or suffix in SIDECAR_SUFFIXES
    return None if is_expected else excerpt(suffix, MAX_SUFFIX_LENGTH) or NO_SUFFIX


def describe_skipped(counts: Mapping[str, int]) -> str:
    """The counts in one line, with advice if RAW files are among them.

    Args:
        counts: Suffix -> number of files; at least one.
    """
    most_common = Counter(counts).most_common(MAX_LISTED)
    parts = [f"{count:,} {suffix}" for suffix, count in most_common]
    num_other = sum(counts.values()) - sum(count for _, count in most_common)
    if num_other:
        parts.append(f"{num_other:,} others")
    has_raw = any(suffix in RAW_SUFFIXES for suffix in counts)
    return ", ".join(parts) + (f"; {RAW_ADVICE}" if has_raw else "")


def store_skipped(workspace: Workspace, folder: Path, counts: Mapping[str, int]) -> None:
    """Store the counts of a folder in the workspace, in place of earlier ones.

    Args:
        workspace: The workspace.
        folder: The folder that was collected.
        counts: Suffix -> number of files.
    """
    stored = _read_counts(workspace)
    name = to_utf8(str(folder.absolute()))
    updated = dict(stored)
    updated.pop(name, None)
    if counts:
        updated[name] = dict(Counter(counts).most_common(MAX_STORED))
    if updated != stored:
        workspace.write_bytes(COUNTS_FILE, json.dumps(updated, indent=1).encode())


def read_skipped(workspace: Workspace) -> dict[str, int]:
    """Suffix -> number of files that were skipped in all folders, the most frequent first."""
    totals: Counter[str] = Counter()
    for counts in _read_counts(workspace).values():
        totals.update(counts)
    return dict(totals.most_common())


def _read_counts(workspace: Workspace) -> dict[str, dict[str, int]]:
    """The stored counts; those of a damaged file are lost."""
    try:
        content = json.loads(workspace.read_bytes(COUNTS_FILE))
        return {
            str(folder): {str(suffix): int(count) for suffix, count in counts.items()}
            for folder, counts in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
