"""What a reviewer saw: a snapshot of a face that travels with its row of the review table.

An import compares it with the face as it is then. Another reviewer's decision does not change a
snapshot: two people may review the same faces, each in a separate table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from manifests.captions import TAG_SEPARATOR
from manifests.support.fingerprint import short_hash
from manifests.tag_lists import TagLists

SNAPSHOT_PATTERN = re.compile(r"c([0-9a-f]{8})-t([0-9a-f]{8})-([0-9a-f]{1,16})")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Snapshot:
    """The state of a face when it was exported for review.

    `str()` gives the text that is stored in the column `state` of the review table.
    """

    crop_hash: str
    """8 hex digits, of the SHA-256 of the crop."""
    tags_hash: str
    """8 hex digits, see `hash_tags`."""
    exported_at: datetime
    """When the table was written, in UTC, to the microsecond."""

    @classmethod
    def take(
        cls,
        crop_sha256: str,
        semantic: Sequence[str],
        photographic: Sequence[str],
        exported_at: datetime,
    ) -> Snapshot:
        """Take a snapshot of a face.

        Args:
            crop_sha256: SHA-256 of the crop file.
            semantic: The face's semantic tags.
            photographic: The face's photographic tags.
            exported_at: The time that identifies the table.
        """
        return cls(short_hash(crop_sha256), hash_tags(semantic, photographic), exported_at)

    @classmethod
    def take_texts(
        cls,
        crop_sha256: Sequence[str],
        semantic: TagLists,
        photographic: TagLists,
        exported_at: datetime,
    ) -> list[str]:
        """Take the snapshots of many faces as texts.

        Args:
            crop_sha256: SHA-256 of each crop file.
            semantic: The semantic tags of each face, as `split_lists` gives them.
            photographic: The photographic tags of each face, as `split_lists` gives them.
            exported_at: The time that identifies the table.

        Returns:
            One text per face, equal to that of the snapshot that `take` gives.
        """
        table = cls("", "", exported_at)._microseconds
        first_lines = semantic.texts("\n").to_pylist()
        last_lines = photographic.texts("\n").to_pylist()
        texts = []
        for sha256, first, last in zip(crop_sha256, first_lines, last_lines, strict=True):
            tags_hash = short_hash((first and f"{first}\n") + (last and f"\n{last}"))
            texts.append(f"c{short_hash(sha256)}-t{tags_hash}-{table:x}")
        return texts

    @classmethod
    def parse(cls, text: str) -> Snapshot | None:
        """Parse the text of a snapshot; None if it is not one, for example an emptied cell."""
        match = SNAPSHOT_PATTERN.fullmatch(text)
        if match is None:
            return None
        try:
            exported_at = EPOCH + timedelta(microseconds=int(match[3], 16))
        except OverflowError:
            return None
        return cls(match[1], match[2], exported_at)

    @property
    def content_id(self) -> str:
        """Identifies the crop and the tags; equal in every table that shows them unchanged."""
        return f"c{self.crop_hash}-t{self.tags_hash}"

    @property
    def table_id(self) -> str:
        """Identifies the table by the time of its export, 16 hex digits."""
        return f"{self._microseconds:016x}"

    @property
    def _microseconds(self) -> int:
        return (self.exported_at - EPOCH) // timedelta(microseconds=1)

    def __str__(self) -> str:
        return f"{self.content_id}-{self._microseconds:x}"


def hash_tags(semantic: Sequence[str], photographic: Sequence[str]) -> str:
    """Hash of a face's tags as they are after a round trip through a table, 8 hex digits.

    Args:
        semantic: The semantic tags.
        photographic: The photographic tags.
    """
    families = [split_tags(TAG_SEPARATOR.join(tags)) for tags in (semantic, photographic)]
    return short_hash("\n".join([*families[0], "", *families[1]]))


def split_lists(lists: TagLists) -> TagLists:
    """Lists of tags as they are after a round trip through a table."""
    used = np.unique(lists.codes).tolist()
    changed = [code for code in used if split_tags(lists.tags[code]) != [lists.tags[code]]]
    is_changed = np.isin(lists.codes, changed)
    rows = lists.rows
    keys = np.sort(rows * len(lists.tags) + lists.codes)
    repeated = keys[1:][keys[1:] == keys[:-1]] // max(len(lists.tags), 1)
    changed_rows = np.union1d(rows[is_changed], repeated).tolist()
    return lists.replace({row: split_tags(TAG_SEPARATOR.join(lists[row])) for row in changed_rows})


def split_tags(cell: str) -> list[str]:
    """Split comma-separated tags; blanks are normalised, empty and repeated tags left out."""
    tags = (" ".join(part.split()) for part in cell.split(","))
    return list(dict.fromkeys(tag for tag in tags if tag))
