"""The split of photographs into train, val and test, which keeps related photographs together."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.hamming import pairs_within_radius, parse_hash_column
from manifests.settings import Splits
from manifests.store import text_array
from manifests.support.components import connected_labels
from manifests.support.errors import UserError
from manifests.support.text import did_you_mean, normal_name

GROUP_COLUMNS = ("sha256", "phash", "photographer_name", "person")
"""Photographs that share a value of one of these columns belong to one group."""

_PERCEPTUAL_HASH = "^[0-9a-f]{16}$"


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
    names = groups.cat.categories
    pinned_splits = _pinned_splits(photos, groups, settings)
    split_of_group = [pinned_splits.get(name) or _split_of_group(name, settings) for name in names]
    splits = np.array(split_of_group, object)[groups.cat.codes]
    assigned = pd.DataFrame(
        {"split": splits, "group": groups.to_numpy(object)},
        index=photos["photo_id"].tolist(),
        dtype=object,
    )

    used = assigned
    if used_photo_ids is not None:
        used_ids = pa.array(list(used_photo_ids), pa.string())
        used = assigned[pc.is_in(text_array(photos["photo_id"]), used_ids).to_numpy(False)]
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


def _group_photos(photos: pd.DataFrame, radius: int) -> pd.Series:
    """Name the group of every row by the smallest photo_id of the group, as a categorical."""
    ids = text_array(photos["photo_id"])
    # Sorted, so that the smallest node index of a component is the smallest photo_id.
    sorted_ids = ids.unique().sort()
    nodes = pc.index_in(ids, sorted_ids).to_numpy()

    edges = []
    for column in GROUP_COLUMNS:
        edges.append(_edges_of_equals(nodes, photos[column]))
        # Arrow keeps the memory of a million distinct values.
        pa.default_memory_pool().release_unused()
    edges.append(_edges_of_similar(nodes, photos["phash"], radius))
    labels = connected_labels(len(sorted_ids), np.concatenate(edges))
    roots, codes = np.unique(labels[nodes], return_inverse=True)
    names = sorted_ids.take(pa.array(roots)).to_pylist()
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype=object)))


def _edges_of_equals(nodes: np.ndarray, column: pd.Series) -> np.ndarray:
    """(m, 2) int: pairs that connect all nodes with an equal, known and not empty value."""
    values = text_array(column)
    is_known = pc.fill_null(pc.not_equal(values, ""), False).to_numpy(False)
    codes = values.filter(is_known).dictionary_encode().indices.to_numpy(False)
    known_nodes = nodes[is_known]
    first_node = np.zeros(len(known_nodes), np.int64)
    first_node[codes[::-1]] = known_nodes[::-1]  # of equal indices the last one counts
    return np.column_stack([first_node[codes], known_nodes])


def _edges_of_similar(nodes: np.ndarray, phashes: pd.Series, radius: int) -> np.ndarray:
    """(m, 2) int: pairs of nodes with perceptual hashes within the radius, one per hash."""
    hashes = text_array(phashes)
    is_hash = pc.fill_null(pc.match_substring_regex(hashes, _PERCEPTUAL_HASH), False)
    _, bits = parse_hash_column(hashes.filter(is_hash))
    unique, rows = np.unique(bits, return_index=True)
    hash_nodes = nodes[is_hash.to_numpy(False)][rows]
    pairs = pairs_within_radius(unique, unique, radius)
    return np.column_stack([hash_nodes[pairs.first], hash_nodes[pairs.second]])


def _pinned_splits(photos: pd.DataFrame, groups: pd.Series, settings: Splits) -> dict[str, str]:
    """Group -> the split that its people are pinned to."""
    split_of_person = _match_people(photos["person"], settings)
    is_pinned = photos["person"].isin(split_of_person).to_numpy()
    pinned = photos[is_pinned]
    pinned_person: dict[str, str] = {}
    for photo_id, person, group in zip(
        pinned["photo_id"], pinned["person"], groups[is_pinned], strict=True
    ):
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
