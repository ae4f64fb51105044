"""The comparison of measured tags with labels, which benchmarks/curation.py prints."""

import numpy as np
import pandas as pd
import pytest
from tag_precision import FACE, TAG_LABELS, describe, wilson_interval


def test_wilson_interval():
    assert wilson_interval(19, 20) == pytest.approx((0.764, 0.991), abs=0.001)
    assert wilson_interval(5, 5) == pytest.approx((0.566, 1.0), abs=0.001)
    assert wilson_interval(0, 4)[0] == 0.0


def test_unclear_labels_count_neither_as_right_nor_as_wrong():
    is_given = np.array([True, True, True, True, False, False])
    label = np.array(["y", "y", "n", "?", "y", "n"])
    assert describe(is_given, label) == "2 of 3 right (21% to 94%), 1 unclear, found 2 of 3"
    assert describe(label == "?", label) == "none given, found 0 of 3"


def test_every_label_is_of_a_labelled_face():
    labels = pd.read_csv(TAG_LABELS, keep_default_na=False, dtype=str)
    faces = pd.read_csv(TAG_LABELS.with_name("curation_labels.csv"), dtype=str)
    assert len(labels) == 176
    assert not labels.duplicated(FACE).any()
    assert len(labels.merge(faces, on=FACE)) == len(labels)
    assert set(np.unique(labels.drop(columns=FACE))) == {"y", "n", "?"}
