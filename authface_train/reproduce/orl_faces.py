"""People and splits of the ORL database's pictures; `authface demo --public-faces` fetches them."""

from __future__ import annotations

import re

FILE_NAME = re.compile(r"orl-s(\d\d)-\d\d\.png")
TEST_PEOPLE = frozenset(range(1, 41, 4))
TUNING_PEOPLE = frozenset((2, 22))


def orl_person(file_name: str) -> tuple[str, str] | None:
    """The person and the split of an ORL picture.

    Args:
        file_name: Name of a file.

    Returns:
        The person's name and "train", "val" or "test"; None for other files.
    """
    match = FILE_NAME.fullmatch(file_name)
    if match is None:
        return None
    person = f"orl-s{match[1]}"
    if int(match[1]) in TEST_PEOPLE:
        return person, "test"
    return person, "val" if int(match[1]) in TUNING_PEOPLE else "train"
