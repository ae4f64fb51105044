"""The split of photographs into train, val and test, which keeps related photographs together."""

from __future__ import annotations

import hashlib
import re

import pandas as pd

from manifests.hamming import pairs_within_radius, parse_hashes
from manifests.settings import Splits
from manifests.support.components import connected_labels
from manifests.support.errors import UserError

GROUP_COLUMNS = ("sha256", "phash", "photographer_name", "person")
"""Photographs that share a value of one of these columns belong to one group."""

_PERCEPTUAL_HASH = re.compile(r"[0-9a-f]{16}")


def hash_share(key: str) -> float:
    """Map a key to a share by its SHA-256 hash.

    A key always gets the same share, and different keys are spread evenly, so a threshold on the
    share divides keys at random without state.

    Returns:
        A number in [0, 1).
    """
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(photos: pd.DataFrame, settings: Splits, radius: int = 0) -> pd.Series:
    """Assign every photograph to a split.

    Photographs with the same file, photographer or person, or with similar perceptual hashes, form
    a group, and a group is never divided. The split depends on the seed and on the smallest
    photo_id of the group only, not on the order of the rows. A person pinned in `splits.people`
    determines the split of the whole group.

    Args:
        photos: Rows of `photos` with the columns photo_id, sha256, phash, photographer_name and
            person.
        settings: Shares, seed and pinned people.
        radius: Perceptual hashes that differ in at most this many of 64 bits are similar.

    Returns:
        "train", "val" or "test", indexed by photo_id.

    Raises:
        UserError: If people of one group are pinned to different splits.
    """
    groups = _group_photos(photos, radius)
    pinned_splits = _pinned_splits(photos, groups, settings)
    splits = [pinned_splits.get(group) or _split_of_group(group, settings) for group in groups]
    return pd.Series(splits, index=photos["photo_id"].tolist(), dtype=object)


def _group_photos(photos: pd.DataFrame, radius: int) -> list[str]:
    """Name the group of every row by the smallest photo_id of the group."""
    # Sorted, so that the smallest node index of a component is the smallest photo_id.
    sorted_ids = sorted(set(photos["photo_id"]))
    node_of = {photo_id: node for node, photo_id in enumerate(sorted_ids)}
    nodes = [node_of[photo_id] for photo_id in photos["photo_id"]]

    edges = []
    for column in GROUP_COLUMNS:
        first_node: dict[str, int] = {}
        for node, value in zip(nodes, photos[column], strict=True):
            if isinstance(value, str) and value:
                edges.append((first_node.setdefault(value, node), node))
    edges += _similar_nodes(nodes, photos["phash"], radius)

    labels = connected_labels(len(sorted_ids), edges)
    return [sorted_ids[labels[node]] for node in nodes]


def _similar_nodes(nodes: list[int], phashes: pd.Series, radius: int) -> list[tuple[int, int]]:
    """Pairs of nodes with perceptual hashes within the radius; equal hashes give one node."""
    node_of_hash = {
        phash: node
        for node, phash in zip(nodes, phashes, strict=True)
        if isinstance(phash, str) and _PERCEPTUAL_HASH.fullmatch(phash)
    }
    hash_nodes = list(node_of_hash.values())
    bits = parse_hashes(list(node_of_hash))
    pairs = pairs_within_radius(bits, bits, radius)
    return [
        (hash_nodes[first], hash_nodes[second])
        for first, second in zip(pairs.first, pairs.second, strict=True)
    ]


def _pinned_splits(photos: pd.DataFrame, groups: list[str], settings: Splits) -> dict[str, str]:
    """Group -> the split that its people are pinned to."""
    pinned_person: dict[str, str] = {}
    for photo_id, person, group in zip(photos["photo_id"], photos["person"], groups, strict=True):
        if person not in settings.people:
            continue
        first_person = pinned_person.setdefault(group, person)
        first_split = settings.people[first_person]
        if first_split != settings.people[person]:
            raise UserError(
                f"splits.people pins {first_person} to {first_split} and {person} to "
                f"{settings.people[person]}, but shared photographs, a photographer or "
                f"near-duplicates connect them (at {photo_id}); pin both to the same split"
            )
    return {group: settings.people[person] for group, person in pinned_person.items()}


def _split_of_group(group: str, settings: Splits) -> str:
    share = hash_share(f"{settings.seed}:{group}")
    if share < settings.val:
        return "val"
    if share < settings.val + settings.test:
        return "test"
    return "train"
