"""What the set is made of, before and after gating: so that a studio can be asked for what is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_data.captions.coverage import count_facets
from authface_data.measurements import read_measurements
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace


@dataclass(frozen=True)
class Share:
    """One part of a facet: how many of all faces, and of those kept, are of it."""

    label: str
    found: int
    kept: int


@dataclass(frozen=True)
class Facet:
    """found, kept: faces of which the facet is known; note: what to know of how it was measured; ask: whether a part that few
    kept faces are of is worth asking for."""

    name: str
    note: str
    found: int
    kept: int
    shares: list[Share]
    ask: bool


# Facet -> measurement, bounds between its parts, their labels, note.
MEASURED: dict[str, tuple[str, tuple[float, ...], tuple[str, ...], str]] = {
    "Skin tone": (
        "skin_tone", (-30, 10, 28, 41, 55), ("dark", "brown", "tan", "intermediate", "light", "very light"),
        "ITA angle of the skin in the picture, bounds -30, 10, 28, 41, 55 degrees; light and make-up move it by tens of them",
    ),
    "View": (
        "yaw_deg", (-60, -20, 20, 60), ("profile left", "three-quarter left", "front", "three-quarter right", "profile right"),
        "yaw by landmarks, bounds 20 and 60 degrees; about 3 degrees off up to 45",
    ),
    "Tilt": ("pitch_deg", (-15, 15), ("looking down", "level", "looking up"), "pitch by landmarks, bounds 15 degrees"),
    "Light from": (
        "light", (-0.26, 0.26), ("left", "even", "right"), "brightness of the cheeks, one at least 1.3 times the other",
    ),
    "Lightness": ("lightness", (0.25, 0.7), ("dark", "medium", "bright"), "median brightness of the skin, bounds .25 and .7"),
}  # fmt: skip
FEW, MOST_TAGS = 0.05, 12


def balance(workspace: Workspace) -> list[Facet]:
    """The measured facets, then those of the captions, each where anything is known of it."""
    measured, kept_ids = read_measurements(workspace), set(kept_faces(workspace, [])["face_id"])
    ids = measured.face_ids.to_pylist()
    kept = np.array([one in kept_ids for one in ids], bool)
    facets = []
    for name, (metric, bounds, labels, note) in MEASURED.items():
        values = measured.values_of(metric)
        known = np.isfinite(values)
        part = np.digitize(values[known], bounds)
        found, left = (
            np.bincount(part, minlength=len(labels)),
            np.bincount(part[kept[known]], minlength=len(labels)),
        )
        shares = [
            Share(label, int(a), int(b)) for label, a, b in zip(labels, found, left, strict=True)
        ]
        facets.append(Facet(name, note, int(known.sum()), int((known & kept).sum()), shares, True))
    facets += _of_captions(workspace, set(ids), kept_ids)
    return [facet for facet in facets if facet.found]


def _of_captions(workspace: Workspace, found: set[str], kept: set[str]) -> list[Facet]:
    """The facets of the captions in use, the commonest tags of each."""
    facets = []
    for of_found, of_kept in zip(
        count_facets(workspace, found), count_facets(workspace, kept), strict=True
    ):
        kept_tags = dict(of_kept.tags)
        shares = [
            Share(tag, count, kept_tags.get(tag, 0)) for tag, count in of_found.tags[:MOST_TAGS]
        ]
        some = (
            f", the {MOST_TAGS} commonest of {len(of_found.tags)} tags"
            if len(of_found.tags) > MOST_TAGS
            else ""
        )
        note = f"{of_found.family} tags of the captions in use{some}"
        facets.append(
            Facet(f"Tags: {of_found.facet}", note, of_found.faces, of_kept.faces, shares, False)
        )
    return facets


def missing(facets: list[Facet]) -> list[str]:
    """What to ask for: parts of a measured facet that fewer than 5 % of the kept faces are of."""
    return [
        f"{facet.name.lower()}: {share.label} ({share.kept} of {facet.kept} kept faces)"
        for facet in facets
        if facet.ask and facet.kept
        for share in facet.shares
        if share.kept < FEW * facet.kept
    ]
