"""Which of several copies of one picture is the best: the one that the set keeps.

Copies are compared in this order:

1. A copy that passes the gates is better than one that does not, unless it was made from the other
   without reducing it: an enlargement, a part or a mirror image of a dropped picture is dropped.
2. True resolution: the larger face is better, unless it was enlarged. Resizing weakens the highest
   frequencies. If the larger copy is softer than the smaller one there, it was made from it.
3. The frame, if it differs: the face with less padding, then the photograph with fewer faces (a
   collage loses), then the larger frame (a part of a picture loses).
4. Compression: the copy with more coefficients that the JPEG encoder has not set to zero. Without
   this measurement, the copy with more bytes per pixel.
5. Bytes: the larger file. One that is much larger with the same detail was saved again, and loses.
6. The date: the earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import groupby

import numpy as np

from authface_data.images.detail_spectrum import BAND_EDGES
from manifests.schema import PHOTOS
from manifests.store import RowFilter, Store
from manifests.workspace import Workspace

SIZE_TOLERANCE = 1.05
"""Copies are resized if their faces differ by more than this factor."""
FRAME_TOLERANCE = 1.02
"""One copy is a part of the other if their frames, measured by the face, differ by more."""
FACE_TOLERANCE = 1.08
"""By which factor the sizes of the faces of copies differ because their landmarks do."""
PAD_TOLERANCE = 0.03
"""Difference of padding that counts."""
COEFFICIENT_TOLERANCE = 1.01
"""Relative difference of compression that counts."""
SAVED_AGAIN_FACTOR = 1.15
"""A file with this many times the bytes for the same detail was saved again, for example as PNG."""
MAX_COMPARED_COPIES = 100
"""In larger groups, not every copy is compared with every other one."""
TOP_FREQUENCY = 0.7
"""Resized copies are compared from this share of the smaller one's Nyquist frequency up."""
FLOOR_LEVELS = 0.03
"""Added to spectra, in levels: about the rounding noise of 8 bits in a band."""

_LOG_CENTRES = np.log2(np.sqrt(BAND_EDGES[1:] * BAND_EDGES[:-1]))
_IS_TOP = np.exp2(_LOG_CENTRES) >= TOP_FREQUENCY


@dataclass(frozen=True)
class Copy:
    """A photograph, or a face in one, that has copies.

    Attributes:
        id: The photo_id or face_id.
        passes: Whether it, or a face in it, is in the set as far as other gates decide.
        face_px: Side of the quad of the face, or of the photograph's largest face; None if there is
            none.
        size_px: Width and height of the photograph, or None.
        num_bytes: Size of the photograph's file, or None.
        taken_at: When the photograph was taken, or None.
        spectrum: Column `photos.detail_spectrum`, or None.
        coefficient_share: Column `photos.coefficient_share`, or None.
        num_faces: Number of faces in the photograph, or None.
        pad_fraction: Share of the face's crop outside the photograph, or None.
        photo_id: The photograph, or None.
        is_decided: Whether it does not pass because a person dropped a face in it. Such a decision
            holds for faces, not for all faces of copies of the photograph.
    """

    id: str
    passes: bool
    face_px: float | None
    size_px: tuple[int, int] | None
    num_bytes: int | None = None
    taken_at: str | None = None
    spectrum: np.ndarray | None = None
    coefficient_share: float | None = None
    num_faces: int | None = None
    pad_fraction: float | None = None
    photo_id: str | None = None
    is_decided: bool = False

    @property
    def frame_px(self) -> float | None:
        """Square root of the photograph's area."""
        if self.size_px is None:
            return None
        return math.sqrt(self.size_px[0] * self.size_px[1]) or None


def read_copies(
    workspace: Workspace,
    photo_ids: Sequence[str],
    *,
    ids: Sequence[str],
    passes: np.ndarray,
    face_px: np.ndarray,
    num_faces: np.ndarray,
    pad_fractions: np.ndarray | None = None,
    is_decided: np.ndarray | None = None,
) -> list[Copy]:
    """Read what the comparison of n copies needs.

    Args:
        workspace: The workspace.
        photo_ids: The photograph of each copy.
        ids: See `Copy.id`.
        passes: (n,) bool, see `Copy.passes`.
        face_px: (n,) float, see `Copy.face_px`; NaN if unknown.
        num_faces: (n,) int or float, see `Copy.num_faces`.
        pad_fractions: (n,) float, see `Copy.pad_fraction`; NaN if unknown.
        is_decided: (n,) bool, see `Copy.is_decided`.
    """
    columns = ["width", "height", "bytes", "taken_at", "detail_spectrum", "coefficient_share"]
    rows = Store(workspace, PHOTOS).read(
        ["photo_id", *columns], RowFilter.is_in("photo_id", set(photo_ids))
    )
    photo_of_id = {row["photo_id"]: row for row in rows.to_pylist()}

    copies = []
    for number, photo_id in enumerate(photo_ids):
        photo = photo_of_id.get(photo_id, {})
        width, height = photo.get("width"), photo.get("height")
        spectrum = photo.get("detail_spectrum")
        copies.append(
            Copy(
                id=ids[number],
                passes=bool(passes[number]),
                face_px=float(face_px[number]) if face_px[number] > 0 else None,
                size_px=(width, height) if width and height else None,
                num_bytes=photo.get("bytes"),
                taken_at=photo.get("taken_at"),
                spectrum=np.asarray(spectrum) if spectrum else None,
                coefficient_share=photo.get("coefficient_share"),
                num_faces=int(num_faces[number]),
                pad_fraction=None if pad_fractions is None else float(pad_fractions[number]),
                photo_id=photo_id,
                is_decided=is_decided is not None and bool(is_decided[number]),
            )
        )
    return copies


def rank_copies(copies: Sequence[Copy], groups: np.ndarray) -> np.ndarray:
    """Order copies, the best of each group first.

    Args:
        copies: The copies.
        groups: (len(copies),) int: copies with equal numbers are compared.

    Returns:
        (len(copies),) int: indices of the copies, group by group.
    """
    by_group = sorted(range(len(copies)), key=lambda index: (groups[index], copies[index].id))

    def compare(first: int, second: int) -> int:
        return compare_copies(copies[first], copies[second])

    order: list[int] = []
    for _, members in groupby(by_group, key=lambda index: groups[index]):
        ranked = sorted(members, key=cmp_to_key(compare))
        # Because of the tolerances, three copies may beat each other in a circle. The copy that
        # beats the most others is the best.
        if 2 < len(ranked) <= MAX_COMPARED_COPIES:
            wins = {index: sum(compare(index, other) < 0 for other in ranked) for index in ranked}
            ranked.sort(key=lambda index: -wins[index])
        order += ranked
    return np.array(order, int)


def compare_copies(a: Copy, b: Copy) -> int:
    """Compare two copies of one picture.

    Args:
        a: A copy.
        b: Another copy.

    Returns:
        -1 if `a` is better, 1 if `b` is better, 0 if they are equal.
    """
    scale = _relative_scale(a, b)
    quality = _compare_quality(a, b, scale)
    if a.passes == b.passes:
        return quality

    passing_is_better = _sign(a.passes)
    # Faces of one photograph have the same quality.
    is_other_photo = a.photo_id is None or a.photo_id != b.photo_id
    is_reduced = (1 / scale if a.passes else scale) < 1 / SIZE_TOLERANCE
    may_follow = is_other_photo and not is_reduced and not (a.is_decided or b.is_decided)
    was_made_from_failing = may_follow and quality == -passing_is_better
    return -passing_is_better if was_made_from_failing else passing_is_better


def _compare_quality(a: Copy, b: Copy, scale: float) -> int:
    """Compare the pictures and their files; scale: see `_relative_scale`."""
    if scale > SIZE_TOLERANCE:  # b has the larger face
        return _sign(_is_softer(b, a, scale))
    if scale < 1 / SIZE_TOLERANCE:
        return _sign(not _is_softer(a, b, 1 / scale))

    if a.frame_px and b.frame_px:
        frame_ratio = b.frame_px / a.frame_px / scale
        if not 1 / FRAME_TOLERANCE <= frame_ratio <= FRAME_TOLERANCE:
            return _compare_frames(a, b) or _sign(frame_ratio < 1)
    compression = _coefficient_ratio(a, b)
    if not 1 / COEFFICIENT_TOLERANCE <= compression <= COEFFICIENT_TOLERANCE:
        return _sign(compression < 1)

    if a.num_bytes and b.num_bytes and a.num_bytes != b.num_bytes:
        bytes_ratio = b.num_bytes / a.num_bytes
        a_is_larger = bytes_ratio < 1
        is_saved_again = max(bytes_ratio, 1 / bytes_ratio) > SAVED_AGAIN_FACTOR
        return _sign(a_is_larger != is_saved_again)
    if a.taken_at != b.taken_at:
        return _sign(b.taken_at is None or (a.taken_at is not None and a.taken_at < b.taken_at))
    return 0


def _compare_frames(a: Copy, b: Copy) -> int:
    """Compare the padding of faces, then the number of faces in the photographs."""
    if a.pad_fraction is not None and b.pad_fraction is not None:
        more_padding = a.pad_fraction - b.pad_fraction
        if abs(more_padding) > PAD_TOLERANCE:
            return _sign(more_padding < 0)
    if a.num_faces is None or b.num_faces is None or a.num_faces == b.num_faces:
        return 0
    return _sign(a.num_faces < b.num_faces)


def _sign(is_first_better: bool) -> int:
    return -1 if is_first_better else 1


def _relative_scale(a: Copy, b: Copy) -> float:
    """By which factor the face of `b` is larger than that of `a`; 1 if it is unknown."""
    frames = b.frame_px / a.frame_px if a.frame_px and b.frame_px else None
    if a.face_px is None or b.face_px is None:
        return frames or 1.0
    faces = b.face_px / a.face_px
    # The sizes of faces are not exact. Nearly always one copy is the other at another size, or a
    # part of it at the same size.
    likely = min((frames or 1.0, 1.0), key=lambda scale: abs(math.log(faces / scale)))
    is_likely = 1 / FACE_TOLERANCE <= faces / likely <= FACE_TOLERANCE
    return likely if is_likely else faces


def _is_softer(larger: Copy, smaller: Copy, scale: float) -> bool:
    """Whether the larger copy is softer than the smaller one, at the frequencies of the latter."""
    if larger.spectrum is None or smaller.spectrum is None:
        return False
    # Bands that are narrower than the frequencies of a small picture are empty.
    filled = larger.spectrum > 0
    larger_levels = np.interp(
        _LOG_CENTRES - math.log2(scale), _LOG_CENTRES[filled], larger.spectrum[filled]
    )
    compared = _IS_TOP & (smaller.spectrum > 0)
    ratios = np.log(larger_levels + FLOOR_LEVELS) - np.log(smaller.spectrum + FLOOR_LEVELS)
    return bool(ratios[compared].mean() < 0) if compared.any() else False


def _coefficient_ratio(a: Copy, b: Copy) -> float:
    """How much more detail the file of `b` stores than that of `a`; 1 if it is unknown."""
    if a.coefficient_share and b.coefficient_share:
        return b.coefficient_share / a.coefficient_share
    if a.num_bytes and b.num_bytes and a.frame_px and b.frame_px:
        return (b.num_bytes / b.frame_px**2) / (a.num_bytes / a.frame_px**2)
    return 1.0
