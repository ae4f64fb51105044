"""The caption of a face: which captioner's tags are used, as people edited them, and their text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.decisions import TagDecision, linked_decisions, tag_decisions
from manifests.schema import CAPTIONS
from manifests.store import RowFilter, Store
from manifests.support.clip_tokens import MAX_TOKENS
from manifests.tag_lists import TagLists
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


@dataclass(frozen=True)
class Captions:
    """The captions in use of n faces.

    Attributes:
        face_ids: (n,) string, the captioned faces.
        captioners: (n,) string: whose tags are used.
        semantic: Tags of n faces.
        photographic: Tags of n faces; a tag that is in both families is in `semantic` only.
    """

    face_ids: pa.Array
    captioners: pa.Array
    semantic: TagLists
    photographic: TagLists

    def __len__(self) -> int:
        return len(self.face_ids)

    def find(self, face_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Find the captions of faces.

        Args:
            face_ids: (k,) string, distinct.

        Returns:
            (k,) int: row of each face, -1 for a face without a caption.
        """
        if len(face_ids) > len(self):
            return pc.fill_null(pc.index_in(face_ids, self.face_ids), -1).to_numpy(False)
        # A table of the fewer ids is faster.
        ids = face_ids.combine_chunks() if isinstance(face_ids, pa.ChunkedArray) else face_ids
        places = pc.index_in(self.face_ids, ids)
        is_wanted = places.is_valid().to_numpy(False)
        rows = np.full(len(ids), -1)
        rows[places.drop_null().to_numpy()] = np.flatnonzero(is_wanted)
        return rows

    def take(self, rows: np.ndarray) -> Captions:
        """Select captions by their rows, (k,) int."""
        index = pa.array(rows)
        return Captions(
            self.face_ids.take(index),
            self.captioners.take(index),
            self.semantic.take(rows),
            self.photographic.take(rows),
        )


def current_tags(
    workspace: Workspace, face_ids: Iterable[str] | None = None
) -> dict[str, FaceTags]:
    """Read the tags in use.

    Args:
        workspace: The workspace.
        face_ids: Read the tags of these faces only. Default: all.

    Returns:
        face_id -> its tags, as `current_captions` describes them.
    """
    captions = current_captions(workspace, face_ids)
    families = zip(
        captions.face_ids.to_pylist(), captions.semantic, captions.photographic, strict=True
    )
    return {face_id: FaceTags(*tags) for face_id, *tags in families}


def current_captions(workspace: Workspace, face_ids: Iterable[str] | None = None) -> Captions:
    """Read the captions in use, one per face.

    The first captioner in the setting `captions.use` that has captioned a face is used. Tags edited
    by a person replace the captioner's, see `tag_edits`, and decisions about tags are applied. A
    face that has edited tags only is included with the captioner `PERSON`.

    Args:
        workspace: The workspace.
        face_ids: Read the captions of these faces only. Default: all.

    Returns:
        The captions, sorted by face_id; faces with edited tags only come last.
    """
    wanted = None if face_ids is None else pa.array(face_ids, pa.string()).unique()
    captions = _read_preferred(workspace, wanted)
    edits = tag_edits(workspace)
    edited_ids = pa.array(
        {face_id: None for rows in edits.values() for face_id in rows.index}, pa.string()
    )
    if wanted is not None:
        edited_ids = edited_ids.filter(pc.is_in(edited_ids, wanted))
    uncaptioned_ids = edited_ids.filter(pa.array(captions.find(edited_ids) < 0))
    no_tags = TagLists.from_lists([[]] * len(uncaptioned_ids))
    all_ids = pa.concat_arrays([captions.face_ids, uncaptioned_ids])
    edited_rows = np.flatnonzero(pc.is_in(all_ids, edited_ids).to_numpy(False))
    row_of_edited = dict(
        zip(all_ids.take(pa.array(edited_rows)).to_pylist(), edited_rows.tolist(), strict=True)
    )

    decisions = tag_decisions(workspace)
    semantic, photographic = (
        _edited_tags(
            lists.append(no_tags), family, row_of_edited, edits=edits[family], decisions=decisions
        )
        for family, lists in zip(
            TAG_FAMILIES, (captions.semantic, captions.photographic), strict=True
        )
    )
    return Captions(
        face_ids=all_ids,
        captioners=pa.concat_arrays([captions.captioners, pa.repeat(PERSON, len(uncaptioned_ids))]),
        semantic=semantic,
        # Renaming or editing can put a tag into both families.
        photographic=photographic.without(semantic),
    )


def _read_preferred(workspace: Workspace, face_ids: pa.Array | None) -> Captions:
    """The tags of the preferred captioner of each face, as they are stored, sorted by face_id."""
    no_ids = pa.array([], pa.string())
    captions = Captions(no_ids, no_ids, TagLists.from_lists([]), TagLists.from_lists([]))
    for captioner in workspace.settings.captions.use:
        if face_ids is not None and len(captions) == len(face_ids):
            break
        of_captioner = RowFilter.equal("captioner", captioner)
        table = Store(workspace, CAPTIONS).read(["face_id", *TAG_FAMILIES], of_captioner)
        if face_ids is not None:
            table = table.filter(pc.is_in(table["face_id"], face_ids))
        if len(captions):
            table = table.filter(pc.invert(pc.is_in(table["face_id"], captions.face_ids)))
        semantic, photographic = (TagLists.from_column(table[family]) for family in TAG_FAMILIES)
        captions = Captions(
            pa.concat_arrays([captions.face_ids, table["face_id"].combine_chunks()]),
            pa.concat_arrays([captions.captioners, pa.repeat(captioner, table.num_rows)]),
            captions.semantic.append(semantic),
            captions.photographic.append(photographic),
        )
    if pc.all(pc.less(captions.face_ids[:-1], captions.face_ids[1:])).as_py():
        return captions
    return captions.take(pc.sort_indices(captions.face_ids).to_numpy())


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
    lists: TagLists,
    family: str,
    row_of_edited: Mapping[str, int],
    *,
    edits: pd.DataFrame,
    decisions: Sequence[TagDecision],
) -> TagLists:
    """Apply people's edits and decisions to one family's tags.

    Args:
        lists: Tags of captioners.
        family: Name of the family.
        row_of_edited: face_id of each face with edited tags -> its row.
        edits: The edits in force of the family, as `tag_edits` gives them.
        decisions: Decisions about tags, oldest first.
    """
    decided = {decision.tag for decision in decisions}
    new_names = {
        tag: next(iter(_apply_decisions([tag], decisions, None)), None)
        for tag in lists.tags
        if tag.lower() in decided
    }

    edited = {
        row_of_edited[face_id]: _apply_decisions(_as_list(tags), decisions, edited_at)
        for face_id, tags, edited_at in zip(
            edits.index, edits[family], edits["decided_at"], strict=True
        )
        if face_id in row_of_edited
    }
    return lists.rename(new_names).replace(edited)


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
