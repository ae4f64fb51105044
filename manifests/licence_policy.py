"""The policy about licence bases, the same for reports, credits and training.

The licence basis of a photograph says why it may be used for training: `own`, `public-domain`,
`other:TEXT`, or a text that names a permission. An empty basis is unknown. A photograph without a
basis may be collected, filtered and captioned, but training refuses it unless the user allows it.
"""

from __future__ import annotations

import pandas as pd

from manifests.support.errors import UserError

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


def require_basis(faces: pd.DataFrame) -> None:
    """Refuse faces without a licence basis.

    Args:
        faces: Rows of faces with the columns face_id and licence_basis.

    Raises:
        UserError: If a face has no licence basis.
    """
    unknown = faces[~faces["licence_basis"].map(has_basis).astype(bool)]
    if len(unknown):
        raise UserError(
            f"{len(unknown)} kept faces have no licence basis (first: {unknown['face_id'].iloc[0]})"
            "; collect them again with --licence-basis, or pass --allow-unknown-licence"
        )
