"""The composition of the data set by groups, before and after the gates.

It shows which groups are under-represented, so that photographs of them can be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from authface_data.captions.coverage import count_facets_of
from authface_data.measurements import Measurements, read_measurements
from manifests.captions import Captions, current_captions
from manifests.verdicts import find_kept
from manifests.workspace import Workspace

MIN_SHARE = 0.05
"""A group with a smaller share of the kept faces is under-represented."""
MAX_TAGS = 12
"""Number of tags of a facet that are listed."""


@dataclass(frozen=True)
class Share:
    """One group of a facet. The fields are keys of the JSON output.

    Attributes:
        label: Name of the group.
        found: Number of all faces in the group.
        kept: Number of kept faces in the group.
    """

    label: str
    found: int
    kept: int


@dataclass(frozen=True)
class Facet:
    """A property that divides faces into groups. The fields are keys of the JSON output.

    Attributes:
        name: Name of the property.
        note: How it is measured.
        found: Number of all faces whose group is known.
        kept: Number of kept faces whose group is known.
        shares: The groups.
        ask: Whether under-represented groups are reported. It is false for tags.
    """

    name: str
    note: str
    found: int
    kept: int
    shares: list[Share]
    ask: bool


@dataclass(frozen=True)
class UnderrepresentedGroup:
    """A group with less than `MIN_SHARE` of the kept faces.

    Attributes:
        group: Facet and group, such as "skin tone: dark".
        kept: Number of kept faces in the group.
        total: Number of kept faces whose group is known.
    """

    group: str
    kept: int
    total: int

    def __str__(self) -> str:
        return f"{self.group} ({self.kept} of {self.total} kept faces)"


class _MeasuredFacet(NamedTuple):
    metric: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...]
    note: str


MEASURED_FACETS = {
    "Skin tone": _MeasuredFacet(
        metric="skin_tone",
        bounds=(-30, 10, 28, 41, 55),
        labels=("dark", "brown", "tan", "intermediate", "light", "very light"),
        note="ITA angle of the skin in the picture, bounds -30, 10, 28, 41 and 55 degrees; "
        "lighting and make-up change it by tens of degrees",
    ),
    "View": _MeasuredFacet(
        metric="yaw_deg",
        bounds=(-60, -20, 20, 60),
        labels=(
            "profile left",
            "three-quarter left",
            "front",
            "three-quarter right",
            "profile right",
        ),
        note="yaw from landmarks, bounds 20 and 60 degrees; the error is about 3 degrees up to 45",
    ),
    "Tilt": _MeasuredFacet(
        metric="pitch_deg",
        bounds=(-15, 15),
        labels=("looking down", "level", "looking up"),
        note="pitch from landmarks, bounds 15 degrees",
    ),
    "Light from": _MeasuredFacet(
        metric="light",
        bounds=(-0.26, 0.26),
        labels=("left", "even", "right"),
        note="one cheek is at least 1.3 times as bright as the other",
    ),
    "Lightness": _MeasuredFacet(
        metric="lightness",
        bounds=(0.25, 0.7),
        labels=("dark", "medium", "bright"),
        note="median brightness of the skin, bounds 0.25 and 0.7",
    ),
}


def measure_balance(workspace: Workspace) -> list[Facet]:
    """Count the faces of a workspace by group, see `count_groups`."""
    measurements = read_measurements(workspace)
    is_kept = find_kept(workspace, pa.chunked_array([measurements.face_ids]))
    return count_groups(measurements, is_kept, current_captions(workspace))


def count_groups(
    measurements: Measurements, is_kept: np.ndarray, captions: Captions
) -> list[Facet]:
    """Count faces by group.

    Args:
        measurements: The measurements of n faces.
        is_kept: (n,) bool.
        captions: The captions in use.

    Returns:
        The measured facets, then the facets of the captions; facets without any known face are
        left out.
    """
    facets = [
        _count_measured(name, facet, measurements, is_kept)
        for name, facet in MEASURED_FACETS.items()
    ]
    rows = captions.find(measurements.face_ids)
    has_caption = rows >= 0
    facets += _count_tags(
        captions.take(rows[has_caption]), captions.take(rows[has_caption & is_kept])
    )
    return [facet for facet in facets if facet.found]


def _count_measured(
    name: str, facet: _MeasuredFacet, measurements: Measurements, is_kept: np.ndarray
) -> Facet:
    values = measurements.values_of(facet.metric)
    is_known = np.isfinite(values)
    group = np.digitize(values[is_known], facet.bounds)
    kept_group = group[is_kept[is_known]]
    found_counts = np.bincount(group, minlength=len(facet.labels))
    kept_counts = np.bincount(kept_group, minlength=len(facet.labels))
    shares = [
        Share(label, int(found), int(kept))
        for label, found, kept in zip(facet.labels, found_counts, kept_counts, strict=True)
    ]
    return Facet(name, facet.note, len(group), len(kept_group), shares, ask=True)


def _count_tags(captions: Captions, kept_captions: Captions) -> list[Facet]:
    """The facets of captions, with the most frequent tags of each."""
    facets = []
    for found, kept in zip(count_facets_of(captions), count_facets_of(kept_captions), strict=True):
        kept_counts = dict(kept.tags)
        shares = [
            Share(tag, count, kept_counts.get(tag, 0)) for tag, count in found.tags[:MAX_TAGS]
        ]
        note = f"{found.family} tags of the captions in use"
        if len(found.tags) > MAX_TAGS:
            note += f", the {MAX_TAGS} most frequent of {len(found.tags)} tags"
        facets.append(
            Facet(f"Tags: {found.facet}", note, found.faces, kept.faces, shares, ask=False)
        )
    return facets


def list_underrepresented(facets: Sequence[Facet]) -> list[UnderrepresentedGroup]:
    """List the groups of measured facets with less than `MIN_SHARE` of the kept faces."""
    groups = []
    for facet in facets:
        if not facet.ask:
            continue
        for share in facet.shares:
            if share.kept < MIN_SHARE * facet.kept:
                group = f"{facet.name.lower()}: {share.label}"
                groups.append(UnderrepresentedGroup(group, share.kept, facet.kept))
    return groups
