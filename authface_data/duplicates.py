"""Duplicates over the whole set: of photographs that look the same one is kept, and which; and what must stay out.

Two photographs are duplicates where their pixels are equal or their perceptual hashes differ in at most
`filter.duplicate_radius` of 64 bits. Greedy, best first: a photograph is dropped only for one that is itself kept and within
the radius, so chains of small differences do not pull in what is far apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from manifests.hamming import pairs_within_radius, to_bits
from manifests.support.errors import UserError
from manifests.verdicts import DUPLICATE_PREFIX
from manifests.workspace import Workspace

EXCLUDED_FILE = "excluded-hashes.txt"
DIGITS = {16: "perceptual", 32: "pixels", 64: "file"}


@dataclass(frozen=True)
class Same:
    """reason: `duplicate_of:ID` or `excluded:NAME`. distance: bits that differ."""

    reason: str
    distance: float


def find_duplicates(photos: pd.DataFrame, radius: int) -> dict[str, Same]:
    """photo_id -> for which other one it is dropped. photos: photo_id, phash, pixel_hash, best first."""
    ids = photos["photo_id"].tolist()
    hashes = photos["phash"].fillna("").tolist()
    rows = [row for row, text in enumerate(hashes) if len(text) == 16]
    bits = to_bits([hashes[row] for row in rows])
    unique, which = np.unique(bits, return_inverse=True)
    one, other, distances = pairs_within_radius(unique, unique, radius)
    order = np.argsort(one, kind="stable")
    other, distances = other[order], distances[order]
    begins = np.searchsorted(one[order], np.arange(len(unique) + 1))
    number = dict(zip(rows, which.tolist(), strict=True))

    kept_of_hash: dict[int, str] = {}
    kept_of_pixels: dict[str, str] = {}
    found: dict[str, Same] = {}
    for row, (photo_id, pixels) in enumerate(
        zip(ids, photos["pixel_hash"].fillna(""), strict=True)
    ):
        if pixels and pixels in kept_of_pixels:
            found[photo_id] = Same(f"{DUPLICATE_PREFIX}{kept_of_pixels[pixels]}", 0.0)
            continue
        near: tuple[float, str] | None = None
        if row in number:
            here = slice(begins[number[row]], begins[number[row] + 1])
            for neighbour, distance in zip(
                other[here].tolist(), distances[here].tolist(), strict=True
            ):
                kept = kept_of_hash.get(neighbour)
                if kept is not None and (near is None or distance < near[0]):
                    near = float(distance), kept
        if near is not None:
            found[photo_id] = Same(f"{DUPLICATE_PREFIX}{near[1]}", near[0])
            continue
        if row in number:
            kept_of_hash[number[row]] = photo_id
        if pixels:
            kept_of_pixels[pixels] = photo_id
    return found


class Exclusions:
    """Hashes of pictures that must stay out of the set: a test set's, say. Picklable; `bool` is whether there are any."""

    def __init__(self, lines: Iterable[str], where: str):
        self.names: dict[str, dict[str, str]] = {kind: {} for kind in DIGITS.values()}
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].replace(",", " ").replace(";", " ").split(maxsplit=1)
            if not words:
                continue
            text = words[0].lower()
            if len(text) not in DIGITS or not all(digit in "0123456789abcdef" for digit in text):
                raise UserError(
                    f"{where}, line {number}: {words[0][:40]!r} is no hash: 16 hex digits of a perceptual hash, 32 of pixels "
                    "or 64 of a file's SHA-256, and after it a name if you like (`authface hashes DIR` writes such a file)"
                )
            self.names[DIGITS[len(text)]][text] = words[1].strip() if len(words) > 1 else text

    def __bool__(self) -> bool:
        return any(self.names.values())

    @classmethod
    def of(cls, workspace: Workspace) -> Exclusions:
        """Those that the workspace keeps."""
        if not workspace.exists(EXCLUDED_FILE):
            return cls([], EXCLUDED_FILE)
        return cls(
            workspace.read_bytes(EXCLUDED_FILE).decode().splitlines(),
            f"{workspace.root}/{EXCLUDED_FILE}",
        )

    def find(self, frame: pd.DataFrame, columns: dict[str, str], radius: int) -> dict[str, Same]:
        """Value of the first column -> what excludes it. columns: kind of hash -> the frame's column of it."""
        ids = frame.iloc[:, 0].tolist()
        found: dict[str, Same] = {}
        perceptual = self.names["perceptual"]
        if perceptual and "perceptual" in columns:
            texts = frame[columns["perceptual"]].fillna("").tolist()
            rows = [row for row, text in enumerate(texts) if len(text) == 16]
            theirs = list(perceptual)
            mine, others, distances = pairs_within_radius(
                to_bits([texts[row] for row in rows]), to_bits(theirs), radius
            )
            for at in np.argsort(distances, kind="stable"):
                name = perceptual[theirs[others[at]]]
                found.setdefault(
                    ids[rows[mine[at]]], Same(f"excluded:{name}", float(distances[at]))
                )
        for kind in ("pixels", "file"):
            if kind in columns and self.names[kind]:
                for photo_id, text in zip(ids, frame[columns[kind]].fillna(""), strict=True):
                    if text in self.names[kind]:
                        found[photo_id] = Same(f"excluded:{self.names[kind][text]}", 0.0)
        return found


def keep_exclusions(workspace: Workspace, file: Path) -> int:
    """Add a file's hashes to those that the workspace keeps. Returns how many lines are new. Raises UserError."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--exclude-hashes {file} cannot be read: {error}") from error
    if not Exclusions(lines, str(file)):
        raise UserError(f"--exclude-hashes {file} holds no hash")
    there = (
        workspace.read_bytes(EXCLUDED_FILE).decode().splitlines()
        if workspace.exists(EXCLUDED_FILE)
        else []
    )
    known = set(there)
    new = [line for line in dict.fromkeys(lines) if line.strip() and line not in known]
    if new:
        workspace.write_bytes(EXCLUDED_FILE, ("\n".join([*there, *new]) + "\n").encode())
    return len(new)
