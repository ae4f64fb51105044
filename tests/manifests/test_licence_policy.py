"""The policy about licence bases."""

import pandas as pd
import pytest

from manifests.licence_policy import basis_label, has_basis, photographer_label, require_basis
from manifests.support.errors import UserError


@pytest.mark.parametrize("unknown", [None, float("nan"), "", "  "])
def test_missing_values_are_unknown(unknown):
    assert not has_basis(unknown)
    assert basis_label(unknown) == "no licence basis"
    assert photographer_label(unknown) == "photographer not stated"


def test_labels_are_stripped_texts():
    assert has_basis("own")
    assert basis_label(" own ") == "own"
    assert photographer_label("A.\n Smith ") == "A. Smith"


def test_require_basis_counts_and_names_faces_without_one():
    faces = pd.DataFrame({"face_id": ["a", "b", "c"], "licence_basis": ["own", None, " "]})
    with pytest.raises(UserError, match=r"2 kept faces have no licence basis \(first: b\)"):
        require_basis(faces)
    require_basis(faces[:1])
    require_basis(faces[:0])
