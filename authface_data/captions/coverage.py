"""What the captions in use say, by facet, and what they said that is not true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from authface_data.captions.vocabulary import UNKNOWN, load_vocabulary
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.captions import current_tags
from manifests.workspace import Workspace


@dataclass(frozen=True)
class FacetCount:
    """Of the faces with a caption: how many have a tag of the facet; and each tag with how many have it, commonest first."""

    facet: str
    family: str
    faces: int
    of: int
    tags: list[tuple[str, int]]


@dataclass(frozen=True)
class ContradictionCount:
    """How often a captioner said a tag that a measurement, or another tag of its own, excludes."""

    captioner: str
    tag: str
    against: str
    count: int


def count_facets(workspace: Workspace, faces: Collection[str] | None = None) -> list[FacetCount]:
    """In the order of a caption. faces: only of these."""
    words = load_vocabulary()
    used = [
        own
        for face_id, own in current_tags(workspace).items()
        if faces is None or face_id in faces
    ]
    said, having = dict[tuple[str, str], Counter[str]](), Counter[tuple[str, str]]()
    for families in used:
        facets = set()
        for family, tags in zip(("semantic", "photographic"), families, strict=True):
            for tag in tags:
                facet = words.facet_of(tag)
                place = (UNKNOWN, family) if facet is None else (facet.name, facet.family)
                said.setdefault(place, Counter())[tag] += 1
                facets.add(place)
        having.update(facets)
    places: list[tuple[str, str]] = [(facet.name, facet.family) for facet in words.facets]
    places += [(UNKNOWN, "semantic"), (UNKNOWN, "photographic")]
    return [
        FacetCount(*place, having[place], len(used), said.get(place, Counter()).most_common())
        for place in places
    ]


def count_contradictions(workspace: Workspace) -> list[ContradictionCount]:
    """Most often said first."""
    found = Counter(
        (row["captioner"], one["tag"], one["against"])
        for row in Store(workspace, CAPTIONS).read(["captioner", "contradictions"]).to_pylist()
        for one in row["contradictions"] or []
    )
    return [ContradictionCount(*what, count) for what, count in found.most_common()]
