"""Possible minors: faces that a person should check before they are used.

Nothing is measured in the picture. What photographers, sources and captioners wrote is searched for
words and ages of childhood. A flag may be wrong, because adults are called girls and boys, and a
face without a flag may still be a child's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.measurements import Measurements
from manifests.schema import CAPTIONS, PHOTOS
from manifests.store import Store, match_encoded
from manifests.workspace import Workspace

CHILDHOOD_WORDS = (
    "adolescent", "adolescents", "babies", "baby", "boy", "boys", "child", "childhood",
    "children", "daughter", "daughters", "girl", "girls", "grandchild", "grandchildren",
    "grandson", "granddaughter", "infant", "infants", "juvenile", "juveniles", "kid", "kids",
    "kindergarten", "minor", "minors", "newborn", "newborns", "preschooler", "preschoolers",
    "pupil", "pupils", "schoolboy", "schoolboys", "schoolchild", "schoolchildren", "schoolgirl",
    "schoolgirls", "son", "sons", "teen", "teenage", "teenager", "teenagers", "teens", "toddler",
    "toddlers", "youngster", "youngsters",
)  # fmt: skip
NUMBER_WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
)  # fmt: skip
"""Ages below 18 in words: the first is 1, the last 17."""
ADULT_AGE = 18
PHOTO_TEXTS = ("description", "note", "source_tags")
"""Columns of `photos` that are searched, in this order."""

# File names join words by underscores, which \b does not treat as a boundary.
_WORD = re.compile(rf"(?<![A-Za-z])({'|'.join(CHILDHOOD_WORDS)})(?![A-Za-z])", re.IGNORECASE)
_NUMBER = rf"(\d{{1,2}}|{'|'.join(NUMBER_WORDS)})"
# "9 years old", "18 months", "9 y/o", "aged nine".
_AGE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_NUMBER}[\s_-]*(years?|yrs?|y|months?|mo)\b\.?[\s_-]*(?:olds?|o\b)?"
    rf"|{_NUMBER}[\s_-]*(y)[/.]?\s?o\b|aged?[\s_:]*{_NUMBER}(?![0-9]))",
    re.IGNORECASE,
)

# Matches wherever the two patterns do, and elsewhere. RE2 searches a column of texts at once, but
# knows no lookaround.
_ANY_WORD_OR_AGE = (
    rf"[0-9]|(?:^|[^A-Za-z])(?:{'|'.join(CHILDHOOD_WORDS)})(?:[^A-Za-z]|$)"
    rf"|(?:^|[^A-Za-z]|aged?)(?:{'|'.join(NUMBER_WORDS)})"
)
ROWS_PER_BATCH = 10_000
"""Number of rows that are converted to Python objects at once."""


@lru_cache(maxsize=10_000)  # captions repeat tags
def find_childhood_word(text: str | None) -> str | None:
    """The first word or age in a text that may refer to a child, in lower case, or None."""
    if not text:
        return None
    if word := _WORD.search(text):
        return word[0].lower()
    for match in _AGE.finditer(text):
        number = (match[1] or match[3] or match[5]).lower()
        unit = (match[2] or "").lower()
        age = int(number) if number.isdigit() else NUMBER_WORDS.index(number) + 1
        if unit.startswith("mo") or age < ADULT_AGE:
            return match[0].lower().strip()
    return None


def possible_minors(workspace: Workspace, measurements: Measurements) -> dict[str, str]:
    """Find the faces that may be of minors.

    Args:
        workspace: The workspace whose photographs and captions are searched.
        measurements: Names the faces and their photographs.

    Returns:
        face_id -> the reason, with the word that was found and the place of it.
    """
    reason_of_photo = _flag_photos(workspace)
    flagged = pc.is_in(measurements.photo_ids, pa.array(list(reason_of_photo), pa.string()))
    flags = {
        face_id: reason_of_photo[photo_id]
        for face_id, photo_id in zip(
            measurements.face_ids.filter(flagged).to_pylist(),
            measurements.photo_ids.filter(flagged).to_pylist(),
            strict=True,
        )
    }

    captions = _read_suspicious_captions(workspace, measurements.face_ids)
    for batch in captions.to_batches(ROWS_PER_BATCH):
        for caption in batch.to_pylist():
            # The model's answer is searched too: settings can strip ages from the tags.
            answers = (caption["raw_answers"] or [])[:1]
            word = _first_childhood_word([*(caption["semantic_tags"] or []), *answers])
            if word:
                reason = f"look: {word!r} in the caption by {caption['captioner']}"
                flags.setdefault(caption["face_id"], reason)
    return flags


def _read_suspicious_captions(workspace: Workspace, face_ids: pa.Array) -> pa.Table:
    """The captions of some faces without most of those that have no childhood word."""
    captions = Store(workspace, CAPTIONS).read(
        ["face_id", "captioner", "semantic_tags", "raw_answers"], where=_is_suspicious
    )
    return captions.filter(pc.is_in(captions["face_id"], face_ids))


def _is_suspicious(captions: pa.Table) -> np.ndarray:
    """(n,) bool: False only for captions in which there is no childhood word."""
    tags = pc.list_flatten(captions["semantic_tags"]).dictionary_encode()
    first_answers = pc.list_slice(captions["raw_answers"], 0, 1)
    answers = pc.list_flatten(first_answers)

    may_match = np.zeros(captions.num_rows, bool)
    tag_rows = pc.list_parent_indices(captions["semantic_tags"]).to_numpy()
    may_match[tag_rows[match_encoded(tags, _may_match)]] = True
    answer_rows = pc.list_parent_indices(first_answers)
    may_match[answer_rows.filter(_may_match(answers)).to_numpy()] = True
    return may_match


def _flag_photos(workspace: Workspace) -> dict[str, str]:
    """photo_id -> why its faces may be of minors, from the texts that came with the photograph."""
    photos = Store(workspace, PHOTOS).read(["photo_id", *PHOTO_TEXTS])
    may_match = pc.or_(_may_match(photos["description"]), _may_match(photos["note"]))
    may_match = pc.or_(may_match, pc.is_valid(photos["source_tags"]))

    reasons = {}
    for batch in photos.filter(may_match).to_batches(ROWS_PER_BATCH):
        for photo in batch.to_pylist():
            reason = _photo_reason(photo)
            if reason is not None:
                reasons[photo["photo_id"]] = reason
    return reasons


def _may_match(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """(n,) bool: False only for texts in which `find_childhood_word` finds nothing."""
    has_word = pc.match_substring_regex(texts, _ANY_WORD_OR_AGE, ignore_case=True)
    return pc.fill_null(pc.or_(has_word, pc.invert(pc.string_is_ascii(texts))), False)


def _photo_reason(photo: Mapping[str, str | list[str] | None]) -> str | None:
    """Why a photograph may show a minor, or None."""
    for column in PHOTO_TEXTS:
        value = photo[column]
        texts = value if isinstance(value, list) else [value]
        word = _first_childhood_word(texts)
        if word:
            return f"look: {word!r} in the photograph's {column.replace('_', ' ')}"
    return None


def _first_childhood_word(texts: Iterable[str | None]) -> str | None:
    for text in texts:
        word = find_childhood_word(text)
        if word:
            return word
    return None
