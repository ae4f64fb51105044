"""Sources of training faces."""

import pandas as pd
import pytest

from manifests.sources import select_source

PORTRAITS = ["fs_1", "up_2"]
FFHQ = ["ffhq_00001", "ffhq_00002"]


@pytest.mark.parametrize(
    ("photo_ids", "source", "selected"),
    [
        (PORTRAITS + FFHQ, "portraits", PORTRAITS),
        (PORTRAITS + FFHQ, "ffhq", FFHQ),
        (PORTRAITS + FFHQ, "workspace", PORTRAITS + FFHQ),
        (PORTRAITS + FFHQ, None, PORTRAITS),
        (PORTRAITS, None, PORTRAITS),
        (FFHQ, None, FFHQ),
        (PORTRAITS, "ffhq", []),
        ([], None, []),
    ],
)
def test_faces_of_a_source(photo_ids, source, selected):
    faces = pd.DataFrame({"photo_id": pd.Series(photo_ids, dtype=str)})
    assert select_source(faces, source)["photo_id"].tolist() == selected
