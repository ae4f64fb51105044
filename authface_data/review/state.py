"""What a review of a face rests on: its picture, its tags, and when they were shown. It travels with the row.

Another reviewer's decision is no change: two people may review the same faces, each from a table of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from manifests.support.fingerprint import short_hash

FORM = re.compile(r"c([0-9a-f]{8})-t([0-9a-f]{8})-([0-9a-f]{1,16})")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class State:
    """crop, tags: 8 hex digits each, of the crop's hash and of the tags; shown_at: when both were given out."""

    crop: str
    tags: str
    shown_at: datetime

    @classmethod
    def of(
        cls, crop_sha256: str, semantic: Sequence[str], photographic: Sequence[str], now: datetime
    ) -> State:
        return cls(short_hash(crop_sha256), tags_mark(semantic, photographic), now)

    @classmethod
    def parse(cls, text: str) -> State | None:
        """None for what is not one, an emptied cell say."""
        match = FORM.fullmatch(text)
        try:
            return match and cls(
                match[1], match[2], EPOCH + timedelta(microseconds=int(match[3], 16))
            )
        except OverflowError:
            return None

    @property
    def table(self) -> str:
        """Which table it is of, by the time that was written."""
        return f"{(self.shown_at - EPOCH) // timedelta(microseconds=1):016x}"

    def __str__(self) -> str:
        return f"c{self.crop}-t{self.tags}-{(self.shown_at - EPOCH) // timedelta(microseconds=1):x}"


def tags_mark(semantic: Sequence[str], photographic: Sequence[str]) -> str:
    """8 hex digits of the tags, as a table has them."""
    return short_hash(
        "\n".join([*split_tags(", ".join(semantic)), "", *split_tags(", ".join(photographic))])
    )


def split_tags(cell: str) -> list[str]:
    """Tags with commas between, each once, spaces tidied."""
    return list(dict.fromkeys(tag for part in cell.split(",") if (tag := " ".join(part.split()))))
