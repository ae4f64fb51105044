"""Counts which facets the captions in use cover, and which tags contradict the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from authface_data.captions.vocabulary import UNKNOWN, load_vocabulary
from manifests.captions import Captions, current_captions
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
        tags: Each tag of the facet with its number of captions, the most frequent first, those
            with equal numbers in alphabetical order.
    """

    facet: str
    family: str
    faces: int
    of: int
    tags: list[tuple[str, int]]

    @property
    def title(self) -> str:
        """The facet as tables show it: both families have unknown tags."""
        return f"{UNKNOWN}, {self.family}" if self.facet == UNKNOWN else self.facet


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


def count_facets(workspace: Workspace, face_ids: Iterable[str] | None = None) -> list[FacetCount]:
    """Count the tags of the captions in use by facet.

    Args:
        workspace: The workspace.
        face_ids: Count the captions of these faces only. Default: all faces.

    Returns:
        One count per facet in the order of a caption, then the unknown tags of each family.
    """
    return count_facets_of(current_captions(workspace, face_ids))


def count_facets_of(captions: Captions) -> list[FacetCount]:
    """Count the tags of some captions by facet.

    Args:
        captions: The captions.

    Returns:
        One count per facet in the order of a caption, then the unknown tags of each family.
    """
    vocabulary = load_vocabulary()
    keys = [(facet.name, str(facet.family)) for facet in vocabulary.facets]
    keys += [(UNKNOWN, "semantic"), (UNKNOWN, "photographic")]

    tag_counts: list[Counter[str]] = [Counter() for _ in keys]
    has_facet = np.zeros((len(captions), len(keys)), bool)
    for family, lists in (
        ("semantic", captions.semantic),
        ("photographic", captions.photographic),
    ):
        key_of_tag = np.zeros(len(lists.tags), np.int64)
        for code, tag in enumerate(lists.tags):
            facet = vocabulary.find_facet(tag)
            name = (UNKNOWN, family) if facet is None else (facet.name, str(facet.family))
            key_of_tag[code] = keys.index(name)
        has_facet[lists.rows, key_of_tag[lists.codes]] = True
        counts = np.bincount(lists.codes, minlength=len(lists.tags))
        for code in np.flatnonzero(counts).tolist():
            tag_counts[key_of_tag[code]][lists.tags[code]] += int(counts[code])
    face_counts = has_facet.sum(axis=0).tolist()

    return [
        FacetCount(
            facet=name,
            family=family,
            faces=num_faces,
            of=len(captions),
            tags=sorted(tags_of_facet.items(), key=lambda item: (-item[1], item[0])),
        )
        for (name, family), tags_of_facet, num_faces in zip(
            keys, tag_counts, face_counts, strict=True
        )
    ]


def count_contradictions(workspace: Workspace) -> list[ContradictionCount]:
    """Count the contradictions of all captioners, the most frequent first."""
    captions = Store(workspace, CAPTIONS).read(["captioner", "contradictions"])
    has_any = pc.greater(pc.list_value_length(captions["contradictions"]), 0)
    rows = captions.filter(has_any).to_pylist()
    counter: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for contradiction in row["contradictions"]:
            counter[row["captioner"], contradiction["tag"], contradiction["against"]] += 1
    return [
        ContradictionCount(captioner, tag, against, count)
        for (captioner, tag, against), count in counter.most_common()
    ]
