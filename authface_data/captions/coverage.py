"""Counts which facets the captions in use cover, and which tags contradict the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from authface_data.captions.vocabulary import UNKNOWN, load_vocabulary
from manifests.captions import current_tags
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.workspace import Workspace


@dataclass(frozen=True)
class FacetCount:
    """How many captions have a tag of a facet. The fields are keys of the JSON output.

    Attributes:
        facet: Name of the facet, or "unknown".
        family: "semantic" or "photographic".
        faces: Number of captions with at least one tag of the facet.
        of: Number of all captions.
        tags: Each tag of the facet with its number of captions, the most frequent first.
    """

    facet: str
    family: str
    faces: int
    of: int
    tags: list[tuple[str, int]]


@dataclass(frozen=True)
class ContradictionCount:
    """How many captions have a tag that another tag excludes. The fields are JSON keys.

    Attributes:
        captioner: Name of the captioner.
        tag: The contradicting tag.
        against: The tag that excludes it: a measured one, or an earlier one of the same caption.
        count: Number of captions.
    """

    captioner: str
    tag: str
    against: str
    count: int


def count_facets(workspace: Workspace, face_ids: Collection[str] | None = None) -> list[FacetCount]:
    """Count the tags of the captions in use by facet.

    Args:
        workspace: The workspace.
        face_ids: Count the captions of these faces only. Default: all faces.

    Returns:
        One count per facet in the order of a caption, then the unknown tags of each family.
    """
    vocabulary = load_vocabulary()
    captions = [
        tags
        for face_id, tags in current_tags(workspace).items()
        if face_ids is None or face_id in face_ids
    ]

    tag_counts: dict[tuple[str, str], Counter[str]] = {}
    face_counts: Counter[tuple[str, str]] = Counter()
    for caption in captions:
        caption_facets = set()
        for family, tags in (
            ("semantic", caption.semantic),
            ("photographic", caption.photographic),
        ):
            for tag in tags:
                facet = vocabulary.find_facet(tag)
                key = (UNKNOWN, family) if facet is None else (facet.name, str(facet.family))
                tag_counts.setdefault(key, Counter())[tag] += 1
                caption_facets.add(key)
        face_counts.update(caption_facets)

    keys = [(facet.name, str(facet.family)) for facet in vocabulary.facets]
    keys += [(UNKNOWN, "semantic"), (UNKNOWN, "photographic")]
    counts = []
    for name, family in keys:
        tags_of_facet = tag_counts.get((name, family), Counter())
        counts.append(
            FacetCount(
                facet=name,
                family=family,
                faces=face_counts[name, family],
                of=len(captions),
                tags=tags_of_facet.most_common(),
            )
        )
    return counts


def count_contradictions(workspace: Workspace) -> list[ContradictionCount]:
    """Count the contradictions of all captioners, the most frequent first."""
    rows = Store(workspace, CAPTIONS).read(["captioner", "contradictions"]).to_pylist()
    counter: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for contradiction in row["contradictions"] or []:
            counter[row["captioner"], contradiction["tag"], contradiction["against"]] += 1
    return [
        ContradictionCount(captioner, tag, against, count)
        for (captioner, tag, against), count in counter.most_common()
    ]
