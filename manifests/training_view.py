"""The training view: one row per kept face, joined from the manifests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.captions import TAG_SEPARATOR, Captions, current_captions
from manifests.licence_policy import require_basis
from manifests.missing_files import require_photo_rows
from manifests.schema import FACES, PHOTOS, POINTS
from manifests.sources import select_source
from manifests.splits import GROUP_COLUMNS, assign_splits
from manifests.store import RowFilter, Store, text_array
from manifests.support.options import TrainingSource
from manifests.tag_lists import TagLists
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

TagChoice = Literal["none", "semantic", "photographic", "both"]


LIGHT_COLUMNS = tuple(
    field.name for field in FACES.schema if field.type != POINTS and field.name != "box_px"
)
"""Columns of `faces` without landmarks and places in the photograph. As Python objects these take
ten times the memory of the others."""

PHOTO_COLUMNS = (
    "photo_id",
    "source",
    "sha256",
    "phash",
    "person",
    "photographer_name",
    "photographer_url",
    "source_url",
    "licence",
    "licence_basis",
)
"""Columns of `photos` that the view includes."""
SPLIT_COLUMNS = ["photo_id", *GROUP_COLUMNS]


def training_view(
    workspace: Workspace,
    tags: TagChoice = "both",
    allow_unknown_licence: bool = False,
    source: TrainingSource | None = "workspace",
    face_columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Join kept faces with their photographs, captions and splits.

    Args:
        workspace: The workspace to read.
        tags: The families of tags that captions are made of.
        allow_unknown_licence: Include faces of photographs without a licence basis.
        source: Only include faces of this source, see `select_source`.
        face_columns: Columns of `faces`, with face_id and photo_id. Default: all.

    Returns:
        One row per kept face, sorted by face_id: the columns of `faces`, `PHOTO_COLUMNS`,
        `captioner`, `tags` (list of str), `caption` (tags as text), `split` and `split_group` (the
        smallest photo_id of the photographs that must stay in one split). A face without a caption
        has missing values in the three caption columns. Captions by a captioner fit CLIP's 77
        tokens; captions edited by a person may be longer. The split `train` has faces unless all
        are pinned to other splits.

    Raises:
        UserError: If the photograph of a kept face has no row, or no licence basis and these are
            not allowed, or if `splits.people` does not match the photographs.
    """
    workspace.check_no_interrupted_forget()
    faces = kept_faces(workspace, face_columns)
    face_photo_ids = text_array(faces["photo_id"])
    of_faces = RowFilter("photo_id", partial(pc.is_in, value_set=face_photo_ids.unique()))
    photos = Store(workspace, PHOTOS).read(PHOTO_COLUMNS, of_faces)
    photo_rows = pc.index_in(face_photo_ids, photos["photo_id"].combine_chunks())
    require_photo_rows(face_photo_ids.filter(photo_rows.is_null()).to_pylist(), ())
    photos = photos.drop_columns("photo_id").take(photo_rows)
    view = pd.concat([faces, photos.to_pandas().set_axis(faces.index)], axis=1)
    del faces, photos
    view = select_source(view, source).reset_index(drop=True)
    if not allow_unknown_licence:
        require_basis(view)

    view = view.assign(**_caption_columns(workspace, text_array(view["face_id"]), tags))

    settings = workspace.settings
    splits = assign_splits(
        Store(workspace, PHOTOS).read_pandas(SPLIT_COLUMNS),
        settings.splits,
        settings.filter.duplicate_radius,
        set(view["photo_id"]),
    )
    splits_of_faces = splits.reindex(view["photo_id"])
    view["split"] = splits_of_faces["split"].to_numpy()
    view["split_group"] = splits_of_faces["group"].to_numpy()
    return view.sort_values("face_id").reset_index(drop=True)


def _caption_columns(
    workspace: Workspace, face_ids: pa.Array, choice: TagChoice
) -> dict[str, pd.Series]:
    """The columns captioner, tags and caption of faces."""
    captions = current_captions(workspace, face_ids)
    rows = captions.find(face_ids)
    tags = _choose_tags(captions, choice).take(rows)
    has_caption = rows >= 0
    lists = np.empty(len(rows), object)
    lists[:] = list(tags)
    lists[~has_caption] = np.nan
    index = pa.array(rows, mask=~has_caption)
    return {
        "captioner": captions.captioners.take(index).to_pandas(),
        "tags": pd.Series(lists),
        "caption": pc.if_else(pa.array(has_caption), tags.texts(TAG_SEPARATOR), None).to_pandas(),
    }


def _choose_tags(captions: Captions, choice: TagChoice) -> TagLists:
    if choice == "semantic":
        return captions.semantic
    if choice == "photographic":
        return captions.photographic
    if choice == "both":
        return captions.semantic.join(captions.photographic)
    return TagLists.from_lists([[]] * len(captions))
