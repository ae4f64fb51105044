"""Lists of tags of many faces in few arrays: a million captions have a few hundred distinct tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS_PER_BATCH = 50_000
"""Number of lists that are joined to texts at once."""


@dataclass(frozen=True)
class TagLists:
    """One list of tags per face, of n faces. Every distinct tag is stored once.

    Attributes:
        tags: Distinct tags; some may be unused.
        codes: (m,) int32: the tags of all lists, one list after the other, as indices into `tags`.
        offsets: (n + 1,) int64: where the list of each face begins in `codes`, and the end.
    """

    tags: Sequence[str]
    codes: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> TagLists:
        """Convert a column.

        Args:
            column: (n,) list of strings; null becomes an empty list.
        """
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        values = pc.list_flatten(column).dictionary_encode().combine_chunks()
        return cls(
            values.dictionary.to_pylist(), values.indices.to_numpy(False), _offsets_of(lengths)
        )

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[str]]) -> TagLists:
        """Convert lists of Python.

        Args:
            lists: n lists of tags.
        """
        return cls.from_column(pa.chunked_array([lists], pa.list_(pa.string())))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> list[str]:
        return [self.tags[code] for code in self.codes[self.offsets[row] : self.offsets[row + 1]]]

    def __iter__(self) -> Iterator[list[str]]:
        names = np.array(self.tags, object)[self.codes].tolist()
        stops = self.offsets.tolist()
        for row in range(len(self)):
            yield names[stops[row] : stops[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Number of tags of each face.

        Returns:
            (n,) int64.
        """
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """The face of each tag in `codes`.

        Returns:
            (m,) int64.
        """
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: np.ndarray) -> TagLists:
        """Select lists.

        Args:
            rows: (k,) int: their rows; -1 gives an empty list.

        Returns:
            k lists.
        """
        starts = self.offsets[rows]
        lengths = np.where(rows < 0, 0, self.offsets[rows + 1] - starts)
        offsets = _offsets_of(lengths)
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return TagLists(self.tags, self.codes[positions], offsets)

    def select(self, is_kept: np.ndarray) -> TagLists:
        """Remove tags from the lists.

        Args:
            is_kept: (m,) bool: the tags of `codes` that stay.
        """
        lengths = np.bincount(self.rows[is_kept], minlength=len(self))
        return TagLists(self.tags, self.codes[is_kept], _offsets_of(lengths))

    def append(self, other: TagLists) -> TagLists:
        """The lists of these faces, then those of other faces.

        Args:
            other: The lists of the other faces.
        """
        tags, codes = self._translate(other)
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return TagLists(tags, np.concatenate([self.codes, codes]), offsets)

    def join(self, other: TagLists) -> TagLists:
        """For each face its tags, then its tags of another family.

        Args:
            other: The other family, of the same n faces.
        """
        tags, other_codes = self._translate(other)
        codes = np.empty(len(self.codes) + len(other_codes), np.int32)
        codes[np.arange(len(self.codes)) + np.repeat(other.offsets[:-1], self.lengths)] = self.codes
        later = np.arange(len(other_codes)) + np.repeat(self.offsets[1:], other.lengths)
        codes[later] = other_codes
        return TagLists(tags, codes, self.offsets + other.offsets)

    def without(self, other: TagLists) -> TagLists:
        """Remove from each list the tags that the face also has in another family.

        Args:
            other: The other family, of the same n faces.
        """
        tags, other_codes = self._translate(other)
        shared = np.intersect1d(np.unique(self.codes), np.unique(other_codes))
        if not len(shared):
            return self
        rows = self.rows
        candidates = np.flatnonzero(np.isin(self.codes, shared))
        is_shared = np.isin(other_codes, shared)
        keys = rows[candidates] * len(tags) + self.codes[candidates]
        other_keys = other.rows[is_shared] * len(tags) + other_codes[is_shared]
        is_kept = np.ones(len(self.codes), bool)
        is_kept[candidates[np.isin(keys, other_keys)]] = False
        return self.select(is_kept)

    def replace(self, lists: Mapping[int, Sequence[str]]) -> TagLists:
        """Replace the lists of some faces.

        Args:
            lists: Row -> its new list.
        """
        if not lists:
            return self
        rows = np.arange(len(self))
        rows[list(lists)] = len(self) + np.arange(len(lists))
        return self.append(TagLists.from_lists(list(lists.values()))).take(rows)

    def rename(self, new_names: Mapping[str, str | None]) -> TagLists:
        """Rename or remove tags. A list with such a tag has no tag twice afterwards.

        Args:
            new_names: Tag -> its new name, or None to remove it.
        """
        is_named = np.array([tag in new_names for tag in self.tags], bool)[self.codes]
        if not is_named.any():
            return self
        names = [new_names.get(tag, tag) for tag in self.tags]
        tags = list(dict.fromkeys(name for name in names if name is not None))
        code_of = {tag: code for code, tag in enumerate(tags)}
        new_codes = np.array([-1 if name is None else code_of[name] for name in names], np.int32)

        rows = self.rows
        has_named = np.zeros(len(self), bool)
        has_named[rows[is_named]] = True
        renamed = TagLists(tags, new_codes[self.codes], self.offsets)
        is_kept = renamed.codes >= 0
        places = np.flatnonzero(has_named[rows] & is_kept)
        _, first = np.unique(rows[places] * len(tags) + renamed.codes[places], return_index=True)
        is_kept[places] = False
        is_kept[places[first]] = True
        return renamed.select(is_kept)

    def texts(self, separator: str) -> pa.ChunkedArray:
        """Join the tags of each list.

        Args:
            separator: Text between two tags.

        Returns:
            (n,) string; "" for an empty list.
        """
        tags = pa.array(self.tags, pa.string())
        texts = []
        for start in range(0, len(self), ROWS_PER_BATCH):
            offsets = self.offsets[start : start + ROWS_PER_BATCH + 1]
            codes = pa.array(self.codes[offsets[0] : offsets[-1]])
            places = pa.array((offsets - offsets[0]).astype(np.int32))
            lists = pa.ListArray.from_arrays(places, tags.take(codes))
            texts.append(pc.binary_join(lists, separator))
        return pa.chunked_array(texts, pa.string())

    def _translate(self, other: TagLists) -> tuple[list[str], np.ndarray]:
        """The tags of both objects, these first, and the codes of the other one in them."""
        code_of = {tag: code for code, tag in enumerate(self.tags)}
        new_codes = [code_of.setdefault(tag, len(code_of)) for tag in other.tags]
        return list(code_of), np.array(new_codes, np.int32)[other.codes]


def _offsets_of(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where lists of some lengths begin, and the end."""
    return np.append(0, np.cumsum(lengths, dtype=np.int64))
