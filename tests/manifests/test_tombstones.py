"""Tombstones recognise what was forgotten, and refuse to work without their key."""

import pytest

from manifests.support.errors import UserError
from manifests.tombstones import KEY_FILE, Tombstones, add_tombstones


@pytest.fixture
def forgotten(workspace):
    """A workspace in which the photograph fs_a was forgotten."""
    add_tombstones(workspace, [("id", "fs_a")], why=None)
    return workspace


def test_only_what_was_forgotten_is_recognised(forgotten):
    tombstones = Tombstones(forgotten)
    assert tombstones.contains("fs_a")
    assert not tombstones.contains("fs_b")


@pytest.mark.parametrize("key", [None, b"", b"0123", b"\xff" * 64])
def test_missing_or_damaged_key_is_an_error(forgotten, key):
    """Otherwise photographs that were forgotten would be collected again."""
    forgotten.remove(KEY_FILE)
    if key is not None:
        forgotten.write_bytes(KEY_FILE, key)
    for act in (
        lambda: Tombstones(forgotten),
        lambda: add_tombstones(forgotten, [("id", "fs_b")], why=None),
    ):
        with pytest.raises(UserError, match=r"tombstone-key is missing or damaged; restore it"):
            act()
