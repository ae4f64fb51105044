"""Tags renamed, removed and restored in all captions by decisions."""

from datetime import UTC, datetime

import captioned_workspace
import pytest
from captioned_workspace import captions_in_use, decide

from authface_data.captions.tag_edits import clean_tag
from manifests.schema import CAPTIONS, DECISIONS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view


@pytest.fixture
def captioned(workspace):
    captioned_workspace.fill(workspace)
    return workspace


def test_decisions_rename_remove_and_restore_tags(captioned):
    captions_before = Store(captioned, CAPTIONS).read()
    decide(captioned, "beard", renamed_to="full beard", minute=1)
    decide(captioned, "zebra", minute=2)
    assert captions_in_use(captioned)["b"] == "man, full beard, front view, black and white"
    assert captions_in_use(captioned)["c"] == "woman, full beard, smile"
    view = training_view(captioned)
    assert view["caption"].tolist()[1] == "man, full beard, front view, black and white"
    assert Store(captioned, CAPTIONS).read().equals(captions_before)

    decide(captioned, "full beard", renamed_to="whiskers", minute=3)
    assert captions_in_use(captioned)["c"] == "woman, whiskers, smile"
    decide(captioned, "beard", "keep", minute=4)
    assert captions_in_use(captioned)["c"] == "woman, beard, smile"


def test_later_edit_of_a_face_overrides_a_tag_decision(captioned):
    edit = {
        "id": "fs_c_1",
        "reviewer": "r",
        "semantic_tags": ["woman", "Beard"],
        "decided_at": datetime(2026, 11, 25, 12, 5, tzinfo=UTC),
    }
    Store(captioned, DECISIONS).append([edit])
    decide(captioned, "beard", minute=1)
    assert captions_in_use(captioned)["c"] == "woman, Beard, smile"
    decide(captioned, "beard", minute=9)
    assert captions_in_use(captioned)["c"] == "woman, smile"


def test_renaming_to_an_existing_tag_leaves_one(captioned):
    decide(captioned, "smile", renamed_to="beard")
    assert captions_in_use(captioned)["c"] == "woman, beard"


@pytest.mark.parametrize("text", ["", "  ", "a, b"])
def test_invalid_tag_is_refused(text):
    with pytest.raises(UserError, match="is not a tag"):
        clean_tag(text)
