"""Near-duplicate photographs, and pictures that must stay out of the set.

Two photographs are duplicates if their pixels are equal, or if their perceptual hashes differ in
at most `filter.duplicate_radius` of 64 bits. The search is greedy, best photograph first: a
photograph is dropped only in favour of one that is itself kept and within the radius. A chain of
small differences therefore never drops a photograph for one that looks different.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from authface_data.images.hashes import hash_pixels, perceptual_hash
from authface_data.images.open import PICTURE_ERRORS, Photo, read_file
from manifests.hamming import HashPairs, pairs_within_radius, parse_hash_column, parse_hashes
from manifests.store import text_array
from manifests.support.components import connected_labels
from manifests.support.errors import UserError
from manifests.verdicts import DUPLICATE_PREFIX
from manifests.workspace import Workspace

EXCLUDED_FILE = "excluded-hashes.txt"
EXCLUDED_PREFIX = "excluded:"
HASH_KINDS = {16: "perceptual", 32: "pixels", 64: "file"}
"""Number of hex digits of a hash -> what it is a hash of."""


@dataclass(frozen=True)
class Match:
    """A picture that is dropped because it equals or resembles another one."""

    reason: str
    """`duplicate_of:ID`, `duplicate_face_of:ID` or `excluded:NAME`, as stored in `verdicts`."""
    distance: float
    """Number of differing bits of the perceptual hashes; 0 for equal pixels or files."""


Rank = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Orders the rows of pictures that have copies, (m,) int. The second argument, (m,) int, has the
same number for copies of one picture. Returns the rows, the best of each group first."""


class NearGroups:
    """Hashes that are near to other hashes.

    Args:
        hashes: (n,) uint64, distinct.
        others: (m,) uint64, distinct.
        radius: Largest number of differing bits.

    Attributes:
        pairs: Every pair of a hash and another one within the radius, by ascending `first`.
    """

    def __init__(self, hashes: np.ndarray, others: np.ndarray, radius: int) -> None:
        pairs = pairs_within_radius(hashes, others, radius)
        order = np.argsort(pairs.first, kind="stable")
        self.pairs = HashPairs(*(column[order] for column in pairs))
        self._starts = np.searchsorted(self.pairs.first, np.arange(len(hashes) + 1))

    def of(self, index: int) -> Iterator[tuple[int, int]]:
        """(index of the other hash, distance in bits) of each hash near to a hash."""
        part = slice(self._starts[index], self._starts[index + 1])
        others, distances = self.pairs.second[part], self.pairs.distance[part]
        yield from zip(others.tolist(), distances.tolist(), strict=True)


def find_duplicates(
    photos: pd.DataFrame, radius: int, rank: Rank | None = None
) -> dict[str, Match]:
    """Find the photographs to drop in favour of a better one.

    Args:
        photos: Columns `photo_id`, `phash` and `pixel_hash` (null if unknown).
        radius: Largest number of differing bits of two perceptual hashes, 0 to 63.
        rank: Orders the photographs that have copies. Default: the order of `photos`.

    Returns:
        photo_id of each duplicate -> the kept photograph that it is dropped for.
    """
    hashed_rows, bits = parse_hash_column(text_array(photos["phash"]))
    unique, groups = np.unique(bits, return_inverse=True)
    near = NearGroups(unique, unique, radius)
    group_of_row = np.full(len(photos), -1)
    group_of_row[hashed_rows] = groups

    # Most photographs resemble no other one.
    pixel_hashes = photos["pixel_hash"].fillna("")
    pixel_codes = pd.factorize(pixel_hashes)[0]
    nodes = np.where(group_of_row < 0, len(unique) + pixel_codes, group_of_row)
    links = np.stack([nodes, len(unique) + pixel_codes], axis=1)[(pixel_hashes != "").to_numpy()]
    edges = np.concatenate([np.stack(near.pairs[:2], axis=1), links])
    labels = connected_labels(len(unique) + len(photos), edges)[nodes]
    is_hashed = (group_of_row >= 0) | (pixel_hashes != "").to_numpy()
    group_sizes = np.bincount(labels[is_hashed], minlength=len(unique) + len(photos))
    rows = np.flatnonzero(is_hashed & (group_sizes[labels] > 1))
    if rank is not None:
        rows = rank(rows, labels[rows])

    kept_by_group: dict[int, str] = {}
    kept_by_pixels: dict[str, str] = {}
    duplicates: dict[str, Match] = {}
    for photo_id, pixels, group in zip(
        photos["photo_id"].iloc[rows],
        pixel_hashes.iloc[rows],
        group_of_row[rows].tolist(),
        strict=True,
    ):
        if pixels and pixels in kept_by_pixels:
            duplicates[photo_id] = Match(f"{DUPLICATE_PREFIX}{kept_by_pixels[pixels]}", 0.0)
            continue

        match = None if group < 0 else _nearest_kept(near, group, kept_by_group)
        if match is not None:
            duplicates[photo_id] = match
            continue

        if group >= 0:
            kept_by_group[group] = photo_id
        if pixels:
            kept_by_pixels[pixels] = photo_id
    return duplicates


def _nearest_kept(near: NearGroups, group: int, kept_by_group: Mapping[int, str]) -> Match | None:
    """The nearest kept photograph to a group of equal hashes; of equally near ones the first."""
    nearest: Match | None = None
    for neighbour, distance in near.of(group):
        photo_id = kept_by_group.get(neighbour)
        if photo_id is not None and (nearest is None or distance < nearest.distance):
            nearest = Match(f"{DUPLICATE_PREFIX}{photo_id}", float(distance))
    return nearest


class Exclusions:
    """Hashes of pictures that must stay out of the set, for example those of a test set.

    Picklable. `bool()` is True if there are any hashes.

    Args:
        lines: Lines of an exclusion file: a hash in hex digits, optionally followed by a name.
            Everything after `#` is a comment.
        where: Name of the file, for error messages.

    Raises:
        UserError: If a line does not begin with a hash.
    """

    def __init__(self, lines: Iterable[str], where: str) -> None:
        self.names: dict[str, dict[str, str]] = {kind: {} for kind in HASH_KINDS.values()}
        for number, line in enumerate(lines, 1):
            parts = line.split("#")[0].replace(",", " ").replace(";", " ").split(maxsplit=1)
            if not parts:
                continue
            digest = parts[0].lower()
            is_hex = all(digit in "0123456789abcdef" for digit in digest)
            if len(digest) not in HASH_KINDS or not is_hex:
                raise UserError(
                    f"{where}, line {number}: {parts[0][:40]!r} is not a hash; each line needs 16 "
                    "hex digits (perceptual hash), 32 (pixels) or 64 (SHA-256 of a file), then "
                    "optionally a name. `authface hashes` writes such a file"
                )
            name = parts[1].strip() if len(parts) > 1 else digest
            self.names[HASH_KINDS[len(digest)]][digest] = name

    def __bool__(self) -> bool:
        return any(self.names.values())

    @classmethod
    def load(cls, workspace: Workspace) -> Exclusions:
        """The exclusions stored in a workspace; empty if it has none."""
        return cls(_read_excluded_lines(workspace), f"{workspace.root}/{EXCLUDED_FILE}")

    def find(
        self, frame: pd.DataFrame, columns: Mapping[str, str], radius: int
    ) -> dict[str, Match]:
        """Find the rows that an excluded hash matches.

        Args:
            frame: One row per picture; its first column is the id.
            columns: Kind of hash ("perceptual", "pixels", "file") -> the column that holds it.
            radius: Largest number of differing bits of two perceptual hashes.

        Returns:
            Id -> the exclusion that matches it. Equal pixels or files come before similar ones.
        """
        matches: dict[str, Match] = {}
        if self.names["perceptual"] and "perceptual" in columns:
            matches |= self._find_similar(frame, columns["perceptual"], radius)

        ids = frame.iloc[:, 0]
        for kind in ("pixels", "file"):
            names = self.names[kind]
            if kind not in columns or not names:
                continue
            digests = frame[columns[kind]]
            is_excluded = digests.isin(names).to_numpy()
            for picture_id, digest in zip(ids[is_excluded], digests[is_excluded], strict=True):
                matches[picture_id] = Match(f"{EXCLUDED_PREFIX}{names[digest]}", 0.0)
        return matches

    def _find_similar(self, frame: pd.DataFrame, column: str, radius: int) -> dict[str, Match]:
        """Id -> the nearest excluded perceptual hash within the radius."""
        ids = frame.iloc[:, 0]
        excluded = self.names["perceptual"]
        excluded_digests = list(excluded)
        rows, bits = parse_hash_column(text_array(frame[column]))
        first, second, distances = pairs_within_radius(bits, parse_hashes(excluded_digests), radius)

        matches: dict[str, Match] = {}
        for pair in np.argsort(distances, kind="stable"):
            name = excluded[excluded_digests[second[pair]]]
            match = Match(f"{EXCLUDED_PREFIX}{name}", float(distances[pair]))
            matches.setdefault(ids.iloc[rows[first[pair]]], match)
        return matches


def add_exclusions(workspace: Workspace, file: Path) -> int:
    """Add the hashes of a file to the exclusions of a workspace.

    Args:
        workspace: The workspace; its `excluded-hashes.txt` is extended.
        file: A text file as `Exclusions` reads it.

    Returns:
        Number of hashes that the workspace did not have before.

    Raises:
        UserError: If the file cannot be read or holds no hash.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --exclude-hashes {file}: {error}") from error
    if not Exclusions(lines, str(file)):
        raise UserError(
            f"--exclude-hashes {file} contains no hash; `authface hashes` writes such a file"
        )

    old = _read_excluded_lines(workspace)
    known = set(old)
    new = [line for line in dict.fromkeys(lines) if line.strip() and line not in known]
    if new:
        workspace.write_bytes(EXCLUDED_FILE, ("\n".join([*old, *new]) + "\n").encode())
    return sum(not line.lstrip().startswith("#") for line in new)


def _read_excluded_lines(workspace: Workspace) -> list[str]:
    if not workspace.exists(EXCLUDED_FILE):
        return []
    return workspace.read_bytes(EXCLUDED_FILE).decode().splitlines()


def hash_pictures(files: Iterable[tuple[Path, str]], skipped: list[str]) -> list[str]:
    """Hash pictures for an exclusion file.

    Args:
        files: Picture files: path and name. The name is written next to the hashes.
        skipped: Receives a message for each file that cannot be decoded.

    Returns:
        Two lines per picture: its perceptual hash and the hash of its pixels.
    """
    lines = []
    for path, raw_name in files:
        photo = Photo(partial(read_file, path))
        try:
            hashes = [perceptual_hash(photo.pixels()), hash_pixels(photo.pixels())]
        except PICTURE_ERRORS as error:
            skipped.append(f"{path}: {error}")
            continue
        # File names may be invalid UTF-8, and `#` begins a comment.
        name = os.fsencode(raw_name).decode("utf-8", "replace").replace("#", "_")
        one_line = " ".join(name.split())
        lines += [f"{digest} {one_line}" for digest in hashes]
    return lines
