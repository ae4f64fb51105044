"""Duplicate faces: one picture of a face twice, within a photograph or in two of them.

Parts of one photograph, pasted faces and mirror images are no duplicates as photographs. Their
crops are: the perceptual hashes of two crops, or of one and the mirror image of the other, differ
in at most `filter.duplicate_face_radius` of 64 bits.

Crops of different people are as near by chance, a few pairs in a million. In a set of 10,000 faces,
one face in twenty would have such a pair. Therefore the fine hashes must agree as well where both
are known, see manifests/fine_hash.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from authface_data.duplicates import Match, NearGroups, Rank
from manifests.fine_hash import FineHashes
from manifests.hamming import parse_hash_column
from manifests.support.components import connected_labels
from manifests.verdicts import DUPLICATE_FACE_PREFIX

WIDE_RADIUS = 8
NARROW_RADIUS = 6
MAX_WIDE_FACES = 200_000
"""With more faces, the search within the wide radius takes minutes."""


def choose_radius(setting: int | Literal["auto", "off"], num_faces: int) -> int | None:
    """Choose the radius of the search for duplicate faces.

    Args:
        setting: `filter.duplicate_face_radius`.
        num_faces: Number of faces in the workspace.

    Returns:
        Largest number of differing bits of two perceptual hashes; None if no faces are compared.
    """
    if setting == "off":
        return None
    if setting == "auto":
        return WIDE_RADIUS if num_faces <= MAX_WIDE_FACES else NARROW_RADIUS
    return setting


@dataclass(frozen=True)
class FaceHashes:
    """The hashes of n faces.

    Attributes:
        face_ids: (n,) string.
        hashes: (n,) string: `faces.crop_phash`.
        mirrored: (n,) string: `faces.crop_phash_mirrored`. Null: not compared with mirror images.
        fine: (n,) string: `faces.crop_fine_hash`. Null: the perceptual hash decides alone.
    """

    face_ids: pa.Array
    hashes: pa.Array
    mirrored: pa.Array
    fine: pa.Array


class _Faces:
    """Faces in groups of equal hashes, and which groups are near.

    Args:
        hashes: The hashes of n faces.
        radius: Largest number of differing bits of two perceptual hashes.
    """

    def __init__(self, hashes: FaceHashes, radius: int) -> None:
        rows, bits = parse_hash_column(hashes.hashes)
        unique, codes = np.unique(bits, return_inverse=True)
        mirrored_rows, mirrored_bits = parse_hash_column(hashes.mirrored)
        unique_mirrored, mirrored_codes = np.unique(mirrored_bits, return_inverse=True)

        count = len(hashes.face_ids)
        self.num_groups = len(unique)
        self.groups = np.full(count, -1)
        """(n,) int: the group of a face, -1 without a hash."""
        self.groups[rows] = codes
        self.mirrored_groups = np.full(count, -1)
        """(n,) int: the group of equal hashes of the mirror image, -1 without one."""
        self.mirrored_groups[mirrored_rows] = mirrored_codes
        self.near = NearGroups(unique, unique, radius)
        self.near_mirrored = NearGroups(unique_mirrored, unique, radius)
        self._fine = FineHashes.parse(hashes.fine)

    def neighbours(self, row: int) -> Iterator[tuple[int, int, bool]]:
        """(group, distance in bits, whether its faces are mirror images) of each near group."""
        for group, distance in self.near.of(self.groups[row]):
            yield group, distance, False
        if self.mirrored_groups[row] >= 0:
            for group, distance in self.near_mirrored.of(self.mirrored_groups[row]):
                yield group, distance, True

    def are_confirmed(self, first: np.ndarray, second: np.ndarray, is_mirrored: bool) -> np.ndarray:
        """Whether fine hashes confirm that faces are copies.

        Args:
            first: (m,) int, rows.
            second: (m,) int, rows.
            is_mirrored: Whether the faces are mirror images.

        Returns:
            (m,) bool; True where a fine hash is unknown.
        """
        return self._fine.take(first).confirm(self._fine.take(second), is_mirrored=is_mirrored)

    def label(self) -> np.ndarray:
        """(n,) int: equal for faces that may be copies of each other, directly or in a chain."""
        first_row = _first_rows(self.groups, self.num_groups)
        pairs = self.near.pairs
        confirmed = self.are_confirmed(first_row[pairs.first], first_row[pairs.second], False)
        edges = np.stack([pairs.first, pairs.second], axis=1)[confirmed]

        pairs = self.near_mirrored.pairs
        rows = _first_rows(self.mirrored_groups, int(self.mirrored_groups.max(initial=-1)) + 1)
        sources = rows[pairs.first]
        confirmed = self.are_confirmed(sources, first_row[pairs.second], True)
        mirrored = np.stack([self.groups[sources], pairs.second], axis=1)[
            confirmed & (self.groups[sources] >= 0)
        ]
        labels = connected_labels(self.num_groups + 1, np.concatenate([edges, mirrored]))
        return labels[self.groups]  # faces without a hash have the last label, of no group


def find_face_duplicates(
    hashes: FaceHashes, competing: np.ndarray, radius: int, rank: Rank
) -> dict[str, Match]:
    """Find the faces to drop in favour of a better copy.

    The search is greedy, best face first: a face is dropped only in favour of a kept one.

    Args:
        hashes: The hashes of n faces.
        competing: (n,) bool: the faces to compare. The others are ignored.
        radius: Largest number of differing bits of two perceptual hashes, 0 to 63.
        rank: Orders the faces that have copies.

    Returns:
        face_id of each duplicate -> the kept face that it is dropped for.
    """
    selected = np.flatnonzero(competing)
    if not len(selected):
        return {}
    index = pa.array(selected)
    hashes = FaceHashes(
        face_ids=hashes.face_ids.take(index),
        hashes=hashes.hashes.take(index),
        mirrored=hashes.mirrored.take(index),
        fine=hashes.fine.take(index),
    )
    faces = _Faces(hashes, radius)
    labels = faces.label()
    has_hash = faces.groups >= 0
    has_copy = has_hash & (np.bincount(labels[has_hash], minlength=len(labels) + 1)[labels] > 1)
    rows = np.flatnonzero(has_copy)
    order = np.searchsorted(selected, rank(selected[rows], labels[rows]))

    kept_by_group: dict[int, list[int]] = {}
    duplicates: dict[str, Match] = {}
    for row in order.tolist():
        nearest = _nearest_kept(faces, row, kept_by_group)
        if nearest is None:
            kept_by_group.setdefault(int(faces.groups[row]), []).append(row)
            continue
        distance, kept_row = nearest
        kept_id = hashes.face_ids[kept_row].as_py()
        duplicates[hashes.face_ids[row].as_py()] = Match(
            f"{DUPLICATE_FACE_PREFIX}{kept_id}", float(distance)
        )
    return duplicates


def _nearest_kept(
    faces: _Faces, row: int, kept_by_group: dict[int, list[int]]
) -> tuple[int, int] | None:
    """(distance in bits, row) of the nearest kept copy of a face, or None."""
    copies = []
    for group, distance, is_mirrored in faces.neighbours(row):
        kept_rows = kept_by_group.get(group)
        if not kept_rows:
            continue
        confirmed = faces.are_confirmed(
            np.full(len(kept_rows), row), np.array(kept_rows, int), is_mirrored
        )
        copies += [
            (distance, kept_row)
            for kept_row, is_copy in zip(kept_rows, confirmed, strict=True)
            if is_copy
        ]
    return min(copies, default=None)


def _first_rows(groups: np.ndarray, count: int) -> np.ndarray:
    """(count,) int: the first row of each group; groups: (n,) int, -1 for rows of no group."""
    rows = np.zeros(count, int)
    of_group = np.flatnonzero(groups >= 0)[::-1]
    rows[groups[of_group]] = of_group
    return rows
