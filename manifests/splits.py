"""The split of photographs into train, val and test, which keeps related photographs together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

import pandas as pd

from manifests.hamming import pairs_within_radius, parse_hashes
from manifests.settings import Splits
from manifests.support.components import connected_labels
from manifests.support.errors import UserError
from manifests.support.text import did_you_mean, normal_name

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


def assign_splits(
    photos: pd.DataFrame,
    settings: Splits,
    radius: int = 0,
    used_photo_ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """Assign every photograph to a split.

    Photographs with the same file, photographer or person, or with similar perceptual hashes, form
    a group, and a group is never divided. The split depends on the seed and on the smallest
    photo_id of the group only, not on the order of the rows. A person pinned in `splits.people`
    determines the split of the whole group. If no used photograph is in train, the group that is
    nearest to the share of train is moved there.

    Args:
        photos: Rows of `photos` with the columns photo_id, sha256, phash, photographer_name and
            person.
        settings: Shares, seed and pinned people.
        radius: Perceptual hashes that differ in at most this many of 64 bits are similar.
        used_photo_ids: Photographs with faces to train on. Default: all.

    Returns:
        The columns `split` ("train", "val" or "test") and `group` (the group's smallest photo_id),
        indexed by photo_id.

    Raises:
        UserError: If people of one group are pinned to different splits, or if no photograph shows
            a pinned person.
    """
    groups = _group_photos(photos, radius)
    pinned_splits = _pinned_splits(photos, groups, settings)
    splits = [pinned_splits.get(group) or _split_of_group(group, settings) for group in groups]
    assigned = pd.DataFrame(
        {"split": splits, "group": groups}, index=photos["photo_id"].tolist(), dtype=object
    )

    used = assigned
    if used_photo_ids is not None:
        used = assigned[assigned.index.isin(list(used_photo_ids))]
    free_groups = set(used["group"]).difference(pinned_splits)
    if free_groups and not (used["split"] == "train").any():
        nearest = max(free_groups, key=lambda group: _share_of_group(group, settings))
        assigned.loc[assigned["group"] == nearest, "split"] = "train"
    return assigned


def explain_empty_val(view: pd.DataFrame, settings: Splits) -> str | None:
    """Explain why no face is held out for validation.

    Args:
        view: The training view.
        settings: Shares and seed.

    Returns:
        One sentence and what to do, or None if faces are held out or `splits.val` is 0.
    """
    if view.empty or not settings.val or (view["split"] == "val").any():
        return None
    start = "no face is held out for validation (the split val is empty): "
    num_groups = view["split_group"].nunique()
    if num_groups > 1:
        return (
            f"{start}with splits.val = {settings.val:g} and splits.seed = {settings.seed}, none of "
            f"the {num_groups} groups of photographs is in it; raise splits.val or use another "
            "splits.seed in authface.toml"
        )
    return (
        f"{start}all {len(view)} kept faces are in one group, {_describe_group(view)}, and a group "
        "is never divided; collect photographs of other photographers and people to hold some out"
    )


def _describe_group(view: pd.DataFrame) -> str:
    """What connects the photographs of the only group."""
    for column, description in (
        ("photographer_name", "photographs by"),
        ("person", "photographs of"),
    ):
        names = view[column].dropna().unique()
        if len(names) == 1 and view[column].notna().all():
            return f"{description} {names[0]}"
    if view["photo_id"].nunique() == 1:
        return "one photograph"
    return "connected by photographers, people or near-duplicates"


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
    split_of_person = _match_people(photos["person"], settings)
    pinned_person: dict[str, str] = {}
    for photo_id, person, group in zip(photos["photo_id"], photos["person"], groups, strict=True):
        if person not in split_of_person:
            continue
        first_person = pinned_person.setdefault(group, person)
        first_split = split_of_person[first_person]
        if first_split != split_of_person[person]:
            raise UserError(
                f"splits.people pins {first_person} to {first_split} and {person} to "
                f"{split_of_person[person]}, but shared photographs, a photographer or "
                f"near-duplicates connect them (at {photo_id}); pin both to the same split"
            )
    return {group: split_of_person[person] for group, person in pinned_person.items()}


def _match_people(people: pd.Series, settings: Splits) -> dict[str, str]:
    """Person, as photographs name them -> split. Unicode form and case need not match.

    Raises:
        UserError: If no photograph shows a pinned person.
    """
    if people.empty:
        return {}
    spellings: dict[str, list[str]] = {}
    for person in people.dropna().unique():
        spellings.setdefault(normal_name(person), []).append(person)
    split_of_person: dict[str, str] = {}
    for pinned, split in settings.people.items():
        matches = spellings.get(normal_name(pinned))
        if matches is None:
            known = [person for persons in spellings.values() for person in persons]
            hint = did_you_mean(pinned, known) or "; correct the name in authface.toml"
            raise UserError(
                f"splits.people pins {pinned!r}, but no photograph has this person{hint}"
            )
        split_of_person.update(dict.fromkeys(matches, split))
    return split_of_person


def _share_of_group(group: str, settings: Splits) -> float:
    return hash_share(f"{settings.seed}:{group}")


def _split_of_group(group: str, settings: Splits) -> str:
    share = _share_of_group(group, settings)
    if share < settings.val:
        return "val"
    if share < settings.val + settings.test:
        return "test"
    return "train"
