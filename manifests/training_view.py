"""Joined rows: the training view, and the split that training and evaluation rest on."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

import pandas as pd

from manifests.hamming import pairs_within_radius, to_bits
from manifests.schema import CAPTIONS, DECISIONS, PHOTOS
from manifests.settings import Splits
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import TAG_ID_PREFIX, TagDecision, kept_faces, tag_decisions
from manifests.workspace import Workspace

FAMILIES = ("semantic_tags", "photographic_tags")
PERSON = "person"  # stands for the captioner where nobody but a reviewer gave tags
TagChoice = Literal["none", "semantic", "photographic", "both"]


def training_view(
    workspace: Workspace, tags: TagChoice = "both", allow_unknown_licence: bool = False
) -> pd.DataFrame:
    """One row per kept face: the columns of `faces`, the photo's provenance, `captioner`, `tags`, `caption` and `split`.

    tags: which families make the caption. `tags` are a caption's own, in its order; `caption` is them with commas between. A
    captioner's are within the 77 tokens that SDXL's text encoders see; a person's may be longer. Sorted by face_id. Raises
    UserError where a kept face has no licence basis, unless those are allowed.
    """
    workspace.check_nothing_half_forgotten()
    faces = kept_faces(workspace)
    photos = Store(workspace, PHOTOS).read_pandas(
        ["photo_id", "source", "sha256", "phash", "person", "photographer_name", "photographer_url", "source_url", "licence",
         "licence_basis"]
    )  # fmt: skip
    view = faces.merge(photos, on="photo_id", how="left", validate="many_to_one")
    unknown = view["licence_basis"].fillna("").str.strip() == ""
    if unknown.any() and not allow_unknown_licence:
        raise UserError(
            f"{int(unknown.sum())} kept faces have no licence basis (first: {view.loc[unknown, 'face_id'].iloc[0]}): "
            "collect them again with --licence-basis, or pass --allow-unknown-licence"
        )
    view = view.merge(_captions(workspace, tags), on="face_id", how="left", validate="one_to_one")
    view["split"] = (
        splits(photos, workspace.settings.splits, workspace.settings.filter.duplicate_radius)
        .reindex(view["photo_id"])
        .to_numpy()
    )
    return view.sort_values("face_id").reset_index(drop=True)


def used_captions(workspace: Workspace) -> dict[str, tuple[list[str], list[str]]]:
    """face_id -> its semantic and its photographic tags: the first captioner's in `captions.use`, as people left them."""
    return {
        str(row.Index): (row.semantic_tags, row.photographic_tags)
        for row in _tagged(workspace).itertuples()
    }


def _captions(workspace: Workspace, choice: TagChoice) -> pd.DataFrame:
    """face_id, captioner, tags, caption: of each face the first captioner in `captions.use`, tags as people left them."""
    frame = _tagged(workspace)
    tags = [_chosen(row, choice) for row in frame.itertuples()]
    captions = [", ".join(own) for own in tags]
    return pd.DataFrame(
        {
            "face_id": frame.index,
            "captioner": frame["captioner"].to_numpy(),
            "tags": tags,
            "caption": captions,
        }
    )


def _tagged(workspace: Workspace) -> pd.DataFrame:
    """Rows of `captions` by face_id, one each, with people's tags in place of the captioner's."""
    frame = Store(workspace, CAPTIONS).read_pandas(["face_id", "captioner", *FAMILIES])
    order = {name: rank for rank, name in enumerate(workspace.settings.captions.use)}
    frame = frame[frame["captioner"].isin(list(order))]
    frame = frame.assign(rank=frame["captioner"].map(order)).sort_values(["face_id", "rank"])
    frame = frame.drop_duplicates("face_id").set_index("face_id")
    edits = Store(workspace, DECISIONS).read_pandas().sort_values("decided_at", kind="stable")
    edits = edits[~edits["id"].str.startswith(TAG_ID_PREFIX)]
    tagged = edits.loc[
        edits["semantic_tags"].notna() | edits["photographic_tags"].notna(), "id"
    ].unique()
    # Tags that a person gave to a face without a caption are its caption.
    frame = frame.reindex([*frame.index, *(one for one in tagged if one not in frame.index)])
    frame["captioner"] = frame["captioner"].fillna(PERSON)
    decided = tag_decisions(workspace)
    for family in FAMILIES:
        edited = (
            edits.dropna(subset=[family])
            .drop_duplicates("id", keep="last")
            .set_index("id")[[family, "decided_at"]]
        )
        times, said = edited["decided_at"].to_dict(), edited[family].to_dict()
        own = [said.get(face_id, tags) for face_id, tags in frame[family].items()]
        now = [
            _decided(_list(tags), decided, times.get(face_id))
            for face_id, tags in zip(frame.index, own, strict=True)
        ]
        frame[family] = pd.Series(now, index=frame.index, dtype=object)
    # A renamed or edited tag may stand in the other family already.
    pairs = zip(frame["semantic_tags"], frame["photographic_tags"], strict=True)
    alone = [[tag for tag in other if tag not in semantic] for semantic, other in pairs]
    frame["photographic_tags"] = pd.Series(alone, index=frame.index, dtype=object)
    return frame


def _decided(tags: list[str], decided: list[TagDecision], since: datetime | None) -> list[str]:
    """Tags as decisions about tags leave them; since: when a person last edited these, which earlier decisions do not touch."""
    for one in decided:
        if one.tag in map(str.lower, tags) and (since is None or one.decided_at > since):
            new = [one.renamed_to if tag.lower() == one.tag else tag for tag in tags]
            tags = list(dict.fromkeys(tag for tag in new if tag is not None))
    return tags


def _chosen(row, choice: TagChoice) -> list[str]:
    semantic = row.semantic_tags if choice in ("semantic", "both") else []
    return [*semantic, *(row.photographic_tags if choice in ("photographic", "both") else [])]


def _list(value) -> list[str]:
    return [] if value is None or isinstance(value, float) else [str(tag) for tag in value]


def splits(photos: pd.DataFrame, settings: Splits, radius: int = 0) -> pd.Series:
    """train, val or test for every photo, index photo_id.

    Photos that share their pixels, a photographer or a known person form one group, as do those whose perceptual hashes differ
    in at most `radius` bits, and a group is never divided. The split is a hash of the group's smallest photo_id and the seed:
    the order of rows does not matter. A person pinned in `splits.people` brings the whole group along. Raises UserError where
    people of one group are pinned to different splits.
    """
    ids = photos["photo_id"].tolist()
    parent = {photo_id: photo_id for photo_id in ids}

    def root(photo_id: str) -> str:
        while parent[photo_id] != photo_id:
            parent[photo_id] = parent[parent[photo_id]]
            photo_id = parent[photo_id]
        return photo_id

    for column in ("sha256", "phash", "photographer_name", "person"):
        first: dict[str, str] = {}
        for photo_id, value in zip(ids, photos[column], strict=True):
            if not isinstance(value, str) or not value:
                continue
            a, b = root(photo_id), root(first.setdefault(value, photo_id))
            parent[max(a, b)] = min(a, b)
    hashes = {
        text: photo_id
        for photo_id, text in zip(ids, photos["phash"], strict=True)
        if _is_hash(text)
    }
    first_of_hash, bits = list(hashes.values()), to_bits(list(hashes))
    for one, other, _ in zip(*pairs_within_radius(bits, bits, radius), strict=True):
        a, b = root(first_of_hash[one]), root(first_of_hash[other])
        parent[max(a, b)] = min(a, b)
    pinned: dict[str, tuple[str, str]] = {}
    for photo_id, person in zip(ids, photos["person"], strict=True):
        if person in settings.people:
            other, split = pinned.setdefault(root(photo_id), (person, settings.people[person]))
            if split != settings.people[person]:
                raise UserError(
                    f"splits.people pins {other} to {split} and {person} to {settings.people[person]}, but photographs, a "
                    f"photographer or near-duplicates join them (at {photo_id}): pin them to one split"
                )
    split_of = {group: split for group, (_, split) in pinned.items()}
    return pd.Series(
        [split_of.get(root(one)) or _split_of(root(one), settings) for one in ids],
        index=ids,
        dtype=object,
    )


def _is_hash(text: object) -> bool:
    return (
        isinstance(text, str)
        and len(text) == 16
        and all(digit in "0123456789abcdef" for digit in text)
    )


def _split_of(group: str, settings: Splits) -> str:
    digest = hashlib.sha256(f"{settings.seed}:{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < settings.val:
        return "val"
    return "test" if share < settings.val + settings.test else "train"
