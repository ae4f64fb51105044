"""The policy about licence bases, the same for reports, credits and training.

The licence basis of a photograph says why it may be used for training: `own`, `public-domain`,
`other:TEXT`, or a text that names a permission. An empty basis is unknown. A photograph without a
basis may be collected, filtered and captioned, but training refuses it unless the user allows it.
"""

from __future__ import annotations

import re

import pandas as pd

from manifests.support.errors import UserError

PUBLISHABLE_BASES = ("own", "public-domain")
CREATIVE_COMMONS = re.compile(r"\bcc[ -]?(by|0)\b|creative ?commons|attribution|cc0", re.IGNORECASE)
NO_DERIVATIVES = re.compile(r"\bnd\b|no ?deriv", re.IGNORECASE)
NO_BASIS = "no licence basis"
"""Shown for a photograph whose licence basis is unknown."""
NO_PHOTOGRAPHER = "photographer not stated"
"""Shown for a photograph whose photographer is unknown."""


def has_basis(basis: object) -> bool:
    """Whether a cell of the column `licence_basis` states a basis; None, NaN and blanks do not."""
    return isinstance(basis, str) and bool(basis.strip())


def basis_label(basis: object) -> str:
    """A licence basis for people: the basis without surrounding blanks, or `NO_BASIS`."""
    return basis.strip() if isinstance(basis, str) and basis.strip() else NO_BASIS


def photographer_label(name: object) -> str:
    """A photographer's name for people, on one line, or `NO_PHOTOGRAPHER`."""
    return (" ".join(name.split()) if isinstance(name, str) else "") or NO_PHOTOGRAPHER


def may_publish(basis: object, licence: object) -> bool:
    """Whether crops of a photograph may be given to others.

    That is certain for own photographs, those in the public domain, and those under a Creative
    Commons licence that permits changed versions. The terms of Unsplash and of its data set do not
    permit collections of their photographs.

    Args:
        basis: The licence basis of the photograph.
        licence: Its licence.
    """
    if basis_label(basis) in PUBLISHABLE_BASES:
        return True
    names = (
        f"{basis if isinstance(basis, str) else ''} {licence if isinstance(licence, str) else ''}"
    )
    return bool(CREATIVE_COMMONS.search(names)) and not NO_DERIVATIVES.search(names)


def require_publishable(faces: pd.DataFrame) -> None:
    """Refuse faces whose photograph may not be published.

    Args:
        faces: Rows of faces with the columns face_id, licence_basis and licence.

    Raises:
        UserError: If there are such faces.
    """
    pairs = zip(faces["licence_basis"], faces["licence"], strict=True)
    refused = faces[[not may_publish(basis, licence) for basis, licence in pairs]]
    if len(refused):
        bases = sorted({basis_label(basis) for basis in refused["licence_basis"]})
        raise UserError(
            f"the licence of {len(refused)} of {len(faces)} kept faces does not allow publishing "
            f"them ({'; '.join(bases[:3])}; first: {refused['face_id'].iloc[0]}); only own, "
            "public-domain and Creative Commons photographs (without ND) are pushed. Drop the "
            "others in a review, or push from a workspace without them"
        )


def require_basis(faces: pd.DataFrame) -> None:
    """Refuse faces without a licence basis.

    Args:
        faces: Rows of faces with the columns face_id and licence_basis.

    Raises:
        UserError: If a face has no licence basis.
    """
    bases = faces["licence_basis"]
    known_bases = [basis for basis in bases.unique() if has_basis(basis)]
    unknown = faces[~bases.isin(known_bases)]
    if len(unknown):
        raise UserError(
            f"{len(unknown)} kept faces have no licence basis (first: {unknown['face_id'].iloc[0]})"
            "; collect them again with --licence-basis, or pass --allow-unknown-licence"
        )
