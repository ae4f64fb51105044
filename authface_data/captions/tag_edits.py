"""Decisions about a tag in all captions: rename it, remove it, or restore it.

A decision is a row of the manifest `decisions`. The rows of captioners stay unchanged: decisions
are applied when captions are read, so they also apply to future captions.
"""

from __future__ import annotations

from typing import Literal

from manifests.captions import current_tags
from manifests.decisions import TAG_ID_PREFIX, record_decisions, tag_decisions
from manifests.support.errors import UserError
from manifests.support.text import did_you_mean, to_utf8
from manifests.workspace import Workspace

DEFAULT_REVIEWER = "owner"


def rename_tag(
    workspace: Workspace, tag: str, new_tag: str, *, reviewer: str, note: str | None = None
) -> int:
    """Rename a tag in all captions.

    Args:
        workspace: The workspace; the caller has locked it.
        tag: The tag as captions contain it; upper and lower case are not distinguished.
        new_tag: The new tag.
        reviewer: Who decides.
        note: The reason.

    Returns:
        The number of captions with the tag.

    Raises:
        UserError: If a tag is invalid, both are equal, or no caption has the tag.
    """
    tag = clean_tag(tag).lower()
    new_tag = clean_tag(new_tag)
    if new_tag == tag:
        raise UserError(f"the new name is equal to the present one, {tag!r}; choose another")
    count = _count_existing(workspace, tag)
    _record(workspace, tag, "drop", renamed_to=new_tag, reviewer=reviewer, note=note)
    return count


def remove_tag(workspace: Workspace, tag: str, *, reviewer: str, note: str | None = None) -> int:
    """Remove a tag from all captions.

    Args:
        workspace: The workspace; the caller has locked it.
        tag: The tag as captions contain it; upper and lower case are not distinguished.
        reviewer: Who decides.
        note: The reason.

    Returns:
        The number of captions with the tag.

    Raises:
        UserError: If the tag is invalid, or no caption has it.
    """
    tag = clean_tag(tag).lower()
    count = _count_existing(workspace, tag)
    _record(workspace, tag, "drop", renamed_to=None, reviewer=reviewer, note=note)
    return count


def restore_tag(workspace: Workspace, tag: str, *, reviewer: str, note: str | None = None) -> int:
    """Withdraw the decision about a tag.

    Args:
        workspace: The workspace; the caller has locked it.
        tag: The tag of the decision; upper and lower case are not distinguished.
        reviewer: Who decides.
        note: The reason.

    Returns:
        The number of captions that have the tag again.

    Raises:
        UserError: If the tag is invalid, or nothing has been decided about it.
    """
    tag = clean_tag(tag).lower()
    decided = {decision.tag for decision in tag_decisions(workspace)}
    if tag not in decided:
        hint = did_you_mean(tag, decided) or "; `authface tags` lists the decisions"
        raise UserError(f"no decision about the tag {tag!r}{hint}")
    _record(workspace, tag, "keep", renamed_to=None, reviewer=reviewer, note=note)
    return count_captions_with(workspace, tag)


def clean_tag(text: str) -> str:
    """Normalise the spaces of a tag that a user entered.

    Raises:
        UserError: If the text is empty or contains a comma.
    """
    tag = " ".join(to_utf8(text).split())
    if not tag or "," in tag:
        raise UserError(f"{text!r} is not a tag; a tag is one or more words without a comma")
    return tag


def count_captions_with(workspace: Workspace, tag: str) -> int:
    """Count the captions in use that contain a tag.

    Args:
        workspace: The workspace.
        tag: The tag in lower case.

    Returns:
        The number of captions.
    """
    count = 0
    for tags in current_tags(workspace).values():
        all_tags = [*tags.semantic, *tags.photographic]
        count += tag in {caption_tag.lower() for caption_tag in all_tags}
    return count


def _count_existing(workspace: Workspace, tag: str) -> int:
    count = count_captions_with(workspace, tag)
    if not count:
        families = current_tags(workspace).values()
        used = {item for tags in families for item in (*tags.semantic, *tags.photographic)}
        hint = did_you_mean(tag, used) or "; `authface tags` lists the tags"
        raise UserError(f"no caption in use has the tag {tag!r}{hint}")
    return count


def _record(
    workspace: Workspace,
    tag: str,
    decision: Literal["drop", "keep"],
    *,
    renamed_to: str | None,
    reviewer: str,
    note: str | None,
) -> None:
    row = {
        "id": f"{TAG_ID_PREFIX}{tag}",
        "reviewer": to_utf8(reviewer) or DEFAULT_REVIEWER,
        "decision": decision,
        "renamed_to": renamed_to,
        "note": to_utf8(note) if note else None,
        "fingerprint": "",
    }
    record_decisions(workspace, [row])
