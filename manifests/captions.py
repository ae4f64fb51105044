"""The caption of a face: which captioner's tags are used, as people edited them, and their text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import pandas as pd

from manifests.decisions import TagDecision, linked_decisions, tag_decisions
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.support.clip_tokens import MAX_TOKENS
from manifests.workspace import Workspace

TAG_SEPARATOR = ", "
TAG_FAMILIES = ("semantic_tags", "photographic_tags")
PERSON = "person"
"""Captioner of a face that has tags from a reviewer only."""


class FaceTags(NamedTuple):
    """The tags of one face by family."""

    semantic: list[str]
    photographic: list[str]


def caption_text(tags: Iterable[str]) -> str:
    """Join tags into the text of a caption."""
    return TAG_SEPARATOR.join(tags)


def truncate_tags(
    tags: Sequence[str],
    count_tokens: Callable[[str], int],
    choose_index: Callable[[list[str]], int] = lambda tags: len(tags) - 1,
) -> tuple[list[str], list[str]]:
    """Leave out tags until the caption fits the text encoders.

    Args:
        tags: The tags in the order of the caption.
        count_tokens: Counts the tokens of a caption, the start and the end token included.
        choose_index: Chooses the index of the tag to leave out next. Default: the last tag.

    Returns:
        The remaining tags, whose caption has at most `MAX_TOKENS` tokens, and the tags left out in
        the order of removal.
    """
    remaining = list(tags)
    removed = []
    while remaining and count_tokens(caption_text(remaining)) > MAX_TOKENS:
        removed.append(remaining.pop(choose_index(remaining)))
    return remaining, removed


def current_tags(workspace: Workspace) -> dict[str, FaceTags]:
    """Read the tags in use: face_id -> its tags, as `current_captions` describes them."""
    return {
        str(row.Index): FaceTags(row.semantic_tags, row.photographic_tags)
        for row in current_captions(workspace).itertuples()
    }


def current_captions(workspace: Workspace) -> pd.DataFrame:
    """Read the captions in use, one per face.

    The first captioner in the setting `captions.use` that has captioned a face is used. Tags edited
    by a person replace the captioner's, see `tag_edits`, and decisions about tags are applied. A
    face that has edited tags only is included with the captioner `PERSON`.

    Returns:
        The columns captioner, semantic_tags and photographic_tags, indexed by face_id. A tag that
        is in both families stays in the semantic one only.
    """
    captions = Store(workspace, CAPTIONS).read_pandas(["face_id", "captioner", *TAG_FAMILIES])
    rank_of = {name: rank for rank, name in enumerate(workspace.settings.captions.use)}
    captions = captions[captions["captioner"].isin(list(rank_of))]
    captions = captions.assign(rank=captions["captioner"].map(rank_of))
    captions = captions.sort_values(["face_id", "rank"]).drop_duplicates("face_id")
    captions = captions.set_index("face_id")[["captioner", *TAG_FAMILIES]]

    edits = tag_edits(workspace)
    edited_ids = dict.fromkeys(face_id for rows in edits.values() for face_id in rows.index)
    uncaptioned_ids = [face_id for face_id in edited_ids if face_id not in captions.index]
    captions = captions.reindex([*captions.index, *uncaptioned_ids])
    captions["captioner"] = captions["captioner"].fillna(PERSON)

    decisions = tag_decisions(workspace)
    for family in TAG_FAMILIES:
        captions[family] = _edited_tags(captions[family], edits[family], decisions)

    # Renaming or editing can put a tag into both families.
    families = zip(captions["semantic_tags"], captions["photographic_tags"], strict=True)
    photographic_only = [
        [tag for tag in photographic if tag not in semantic] for semantic, photographic in families
    ]
    captions["photographic_tags"] = pd.Series(photographic_only, index=captions.index, dtype=object)
    return captions


def tag_edits(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """Read the edits of tags that are in force.

    The newest edit of a face counts. A face that nobody has edited has the newest edit of a face
    that shows the same picture. A mirror image has none, because tags may name a side.

    Returns:
        Family -> rows of `decisions.linked_decisions`, indexed by face_id.
    """
    rows = linked_decisions(workspace)
    rows = rows[rows["relation"] != "mirrored_crop"]
    rows = rows.sort_values(["is_own", "decided_at"], kind="stable")
    edits = {}
    for family in TAG_FAMILIES:
        edited = rows[rows[family].notna()].drop_duplicates("face_id", keep="last")
        edits[family] = edited.set_index("face_id")
    return edits


def _edited_tags(
    tags: pd.Series, edits: pd.DataFrame, decisions: Sequence[TagDecision]
) -> pd.Series:
    """Apply people's edits and decisions to one family's tags.

    Args:
        tags: Tags of a family by face_id; the name of the series is the family's column.
        edits: The edits in force of the family, as `tag_edits` gives them.
        decisions: Decisions about tags, oldest first.
    """
    edited_tags = edits[tags.name].to_dict()
    edited_at = edits["decided_at"].to_dict()

    result = []
    for face_id, captioner_tags in tags.items():
        face_tags = _as_list(edited_tags.get(face_id, captioner_tags))
        result.append(_apply_decisions(face_tags, decisions, edited_at.get(face_id)))
    return pd.Series(result, index=tags.index, dtype=object)


def _apply_decisions(
    tags: list[str], decisions: Sequence[TagDecision], edited_at: datetime | None
) -> list[str]:
    """Rename and remove tags; decisions older than the last edit of the tags do not apply."""
    for decision in decisions:
        is_newer = edited_at is None or decision.decided_at > edited_at
        if not is_newer or decision.tag not in map(str.lower, tags):
            continue
        replaced = [decision.renamed_to if tag.lower() == decision.tag else tag for tag in tags]
        tags = list(dict.fromkeys(tag for tag in replaced if tag is not None))
    return tags


def _as_list(tags: object) -> list[str]:
    """A list cell of a pandas frame as a list; a missing value (None or NaN) is an empty list."""
    if tags is None or isinstance(tags, float):
        return []
    return [str(tag) for tag in tags]  # type: ignore[attr-defined]
