"""Table 3 at small scale: losses and tag recall, paired by person."""

import json

import pandas as pd
import pytest

from authface_train.reproduce import small_table3
from manifests.support.errors import UserError

TAGS = [["soft light", "black and white"], ["hard light"], ["warm colours", "hard light"]]


def write_result(folder, variant, own_loss, found):
    """Write the result of a variant: three people, one picture each."""
    people = ["a", "b", "c"]
    losses = [
        {"face_id": f"face-{person}", "person": person, "own": own_loss, "other": 0.2, "empty": 0.3}
        for person in people
    ]
    drawn = [
        {"person": person, "wanted": wanted, "found": tags}
        for person, wanted, tags in zip(people, TAGS, found, strict=True)
    ]
    record = {
        "row": variant,
        "seed": 0,
        "losses": losses,
        "drawn": drawn,
        "real": TAGS,
        "informative": ["soft light", "black and white", "hard light", "warm colours"],
        "faces": {"train": 10},
        "people": {"train": 5},
        "scale": {"prior": 7},
        "machine": "a test",
        "commit": "abc",
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{variant}-0.json").write_text(json.dumps(record))


def test_report_compares_losses_and_recall(tmp_path):
    write_result(tmp_path, "none", 0.3, [None, ["soft light"], ["soft light"]])
    write_result(tmp_path, "photographic", 0.1, TAGS)
    report = small_table3.report(tmp_path)
    assert "| no captions | 1 | 0.3000 | 0.2000 | 0.3000 | 67% | 0.000 |" in report
    assert "| photographic tags | 1 | 0.1000 | 0.2000 | 0.3000 | 100% | 1.000 |" in report
    assert "| loss: photographic tags - no captions | -0.2000 |" in report
    assert "| the photographs themselves at 64 px | | | | | 100% | 1.000 |" in report
    with pytest.raises(UserError, match="no results"):
        small_table3.report(tmp_path / "none")


def test_tags_of_nearly_all_or_no_faces_say_little():
    tags = pd.Series([["close-up", "soft light"], *[["close-up"]] * 9, *[["close-up", "rare"]]])
    many = pd.concat([tags] * 3, ignore_index=True)
    assert small_table3.informative_tags(many) == ["rare", "soft light"]
    assert small_table3.METADATA_TAG.search("f/1.8")
    assert small_table3.METADATA_TAG.search("85mm lens")
    assert not small_table3.METADATA_TAG.search("soft light")


def test_labelled_tags_name_visible_properties_only():
    labels = pd.read_csv(small_table3.SEMANTIC_FILE)
    assert not labels.duplicated(["file", "place"]).any()
    tags = {tag for text in labels["tags"] for tag in text.split(", ")}
    assert {"glasses", "beard", "dark hair", "short hair"} < tags
    assert len(tags) < 25
