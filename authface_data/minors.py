"""Possible minors: faces that a person should look at before they are used. Words flag them; no model decides.

Nothing is measured in the picture. What photographers, sources and captioners wrote is searched for words of childhood: a flag
may be wrong (adults are called girls and boys), and a face without a flag may still be a child's.
"""

from __future__ import annotations

import re

import pyarrow.compute as pc

from authface_data.measurements import Measurements
from manifests.schema import CAPTIONS, PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

WORDS = (
    "adolescent", "adolescents", "babies", "baby", "boy", "boys", "child", "childhood", "children", "daughter", "daughters",
    "girl", "girls", "grandchild", "grandchildren", "grandson", "granddaughter", "infant", "infants", "juvenile", "juveniles",
    "kid", "kids", "kindergarten", "minor", "minors", "newborn", "newborns", "preschooler", "preschoolers", "pupil", "pupils",
    "schoolboy", "schoolboys", "schoolchild", "schoolchildren", "schoolgirl", "schoolgirls", "son", "sons", "teen", "teenage",
    "teenager", "teenagers", "teens", "toddler", "toddlers", "youngster", "youngsters",
)  # fmt: skip
NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen",
)  # fmt: skip
# Names of files join words by underscores, which a word boundary does not see.
_WORD = re.compile(rf"(?<![A-Za-z])({'|'.join(WORDS)})(?![A-Za-z])", re.IGNORECASE)
_NUMBER = rf"(\d{{1,2}}|{'|'.join(NUMBERS)})"
_AGE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_NUMBER}[\s_-]*(years?|yrs?|y|months?|mo)\b\.?[\s_-]*(?:olds?|o\b)?"
    rf"|{_NUMBER}[\s_-]*(y)[/.]?\s?o\b|aged?[\s_:]*{_NUMBER}(?![0-9]))",
    re.IGNORECASE,
)
ADULT = 18


def word_of_childhood(text: str | None) -> str | None:
    """The first word or age in a text that a child may be meant by."""
    if not text:
        return None
    if found := _WORD.search(text):
        return found[0].lower()
    for found in _AGE.finditer(text):
        number = (found[1] or found[3] or found[5]).lower()
        age = int(number) if number.isdigit() else NUMBERS.index(number) + 1
        if (found[2] or "").lower().startswith("mo") or age < ADULT:
            return found[0].lower().strip()
    return None


def possible_minors(workspace: Workspace, measured: Measurements) -> dict[str, str]:
    """face_id -> why it should be looked at."""
    photos = Store(workspace, PHOTOS).read(["photo_id", "description", "note", "source_tags"])
    said = pc.or_(
        pc.or_(pc.is_valid(photos["description"]), pc.is_valid(photos["note"])),
        pc.is_valid(photos["source_tags"]),
    )
    of_photos = {}
    for row in photos.filter(said).to_pylist():
        for place in ("description", "note", "source_tags"):
            texts = row[place] if place == "source_tags" else [row[place]]
            if word := next(
                (word for text in texts or [] if (word := word_of_childhood(text))), None
            ):
                of_photos[row["photo_id"]] = (
                    f"look: {word!r} in the photograph's {place.replace('_', ' ')}"
                )
                break
    captions = (
        Store(workspace, CAPTIONS)
        .read(["face_id", "captioner", "semantic_tags", "raw_answers"])
        .to_pylist()
    )
    if not of_photos and not captions:
        return {}
    photo_of = dict(zip(measured.face_ids.to_pylist(), measured.photo_ids.to_pylist(), strict=True))
    flags = {face: of_photos[photo] for face, photo in photo_of.items() if photo in of_photos}
    for row in captions:
        # The answer itself too: captions may be set to say nothing of age.
        said = [*(row["semantic_tags"] or []), *(row["raw_answers"] or [])[:1]]
        word = next((word for text in said if (word := word_of_childhood(text))), None)
        if word and row["face_id"] in photo_of:
            flags.setdefault(row["face_id"], f"look: {word!r} in the caption by {row['captioner']}")
    return flags
