"""The training view: one row per kept face, joined from the manifests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import pandas as pd
import pyarrow.compute as pc

from manifests.captions import caption_text, current_captions
from manifests.licence_policy import require_basis
from manifests.missing_files import require_photo_rows
from manifests.schema import FACES, PHOTOS, POINTS
from manifests.splits import GROUP_COLUMNS, assign_splits
from manifests.store import RowFilter, Store, text_array
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
    source: str | None = None,
    face_columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Join kept faces with their photographs, captions and splits.

    Args:
        workspace: The workspace to read.
        tags: The families of tags that captions are made of.
        allow_unknown_licence: Include faces of photographs without a licence basis.
        source: Only include faces of photographs from this source.
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
    if source is not None:
        view = view[view["source"] == source]
    if not allow_unknown_licence:
        require_basis(view)

    captions = _captions(workspace, tags)
    view = view.merge(captions, on="face_id", how="left", validate="one_to_one")

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


def _captions(workspace: Workspace, choice: TagChoice) -> pd.DataFrame:
    """The captions in use with the columns face_id, captioner, tags and caption."""
    captions = current_captions(workspace)
    families = zip(captions["semantic_tags"], captions["photographic_tags"], strict=True)
    tags = [_choose_tags(semantic, photographic, choice) for semantic, photographic in families]
    return pd.DataFrame(
        {
            "face_id": captions.index,
            "captioner": captions["captioner"].to_numpy(),
            "tags": tags,
            "caption": [caption_text(face_tags) for face_tags in tags],
        }
    )


def _choose_tags(semantic: list[str], photographic: list[str], choice: TagChoice) -> list[str]:
    chosen = []
    if choice in ("semantic", "both"):
        chosen += semantic
    if choice in ("photographic", "both"):
        chosen += photographic
    return chosen
