"""Counts by licence basis and source, and credits that stay harmless whatever they contain."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from authface_data.rights import licences
from manifests.schema import FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.verdicts import ALL_GATES, verdict_row

PHOTO = {"sha256": "0" * 64, "fingerprint": "f"}


@pytest.fixture
def credited(workspace):
    rows = [
        {
            "photo_id": "us_1",
            "source": "unsplash",
            "source_url": "https://unsplash.com/photos/a-1?x=1",
            "photographer_name": "Zoë Doe",
            "photographer_url": "https://unsplash.com/@zoe",
            "licence": "Unsplash License",
            "licence_basis": "unsplash-api+permission:w",
            "description": "a face",
        },
        {
            "photo_id": "us_2",
            "source": "unsplash-dataset",
            "source_url": "https://unsplash.com/photos/b",
            "licence_basis": "unsplash-lite-1.4.0",
        },
        {
            "photo_id": "fs_3",
            "source": "folder",
            "photographer_name": "<script>alert(1)</script> [x](javascript:y)",
            "photographer_url": "javascript:alert(1)",
            "licence_basis": "own",
            "description": "*bold* | `code`\n# title",
        },
        {
            "photo_id": "fs_4",
            "source": "folder",
            "photographer_name": "Ann",
            "licence_basis": " ",
            "description": "x",
        },
        {
            "photo_id": "fs_5",
            "source": "folder",
            "photographer_name": "Dropped",
            "licence_basis": "own",
            "description": "x",
        },
    ]
    Store(workspace, PHOTOS).append([{**PHOTO, **row} for row in rows])
    faces = [
        {"face_id": f"{row['photo_id']}_{n}", "photo_id": row["photo_id"], "fingerprint": "f"}
        for row in rows
        for n in (0, 1)
    ]
    Store(workspace, FACES).append(faces)
    kept = [face["face_id"] for face in faces if face["photo_id"] != "fs_5"]
    Store(workspace, VERDICTS).append(
        [verdict_row("face", face_id, ALL_GATES, "kept", fingerprint="f") for face_id in kept]
    )
    return workspace


def test_counts_by_basis_and_source(credited):
    counts = {
        (count.licence_basis, count.source): (count.photos, count.faces)
        for count in licences.count_licences(credited)
    }
    assert counts == {
        ("unsplash-api+permission:w", "unsplash"): (1, 2),
        ("unsplash-lite-1.4.0", "unsplash-dataset"): (1, 2),
        ("own", "folder"): (1, 2),
        ("no licence basis", "folder"): (1, 2),
    }
    with pytest.raises(UserError, match="2 kept faces have no licence basis"):
        training_view(credited)
    assert len(training_view(credited, allow_unknown_licence=True)) == 8


def test_links_to_unsplash_have_utm_parameters(credited):
    text = licences.credits_markdown(licences.list_credits(credited))
    assert "https://unsplash.com/photos/a-1?x=1&utm_source=authface&utm_medium=referral" in text
    assert "[Zoë Doe](<https://unsplash.com/@zoe?utm_source=authface&utm_medium=referral>)" in text
    assert "[Unsplash](<https://unsplash.com/?utm_source=authface&utm_medium=referral>)" in text
    assert "Dropped" not in text
    assert text.count("\n- ") == 4


def test_hostile_text_does_not_become_markup(credited):
    credits = licences.list_credits(credited)
    text = licences.credits_markdown(credits)
    assert "javascript:alert" not in text
    assert not re.search(r"(?<!\\)<script", text)
    assert "\n# title" not in text

    tags: set[str] = set()
    links: set[str] = set()

    class TagCollector(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)
            links.update(value for name, value in attrs if name == "href")

    TagCollector().feed(licences.credits_html(credits))
    assert "script" not in tags
    assert links
    assert all(link.startswith("https://unsplash.com/") for link in links)


@pytest.mark.slow
def test_command_prints_counts_and_writes_credits(filled, tmp_path, authface):
    counts = json.loads(authface("licences", "-w", filled, "--json").stdout)
    assert counts == [{"licence_basis": "own", "source": "folder", "photos": 4, "faces": 4}]
    done = authface("licences", "-w", filled, "--credits", tmp_path / "out" / "credits.md")
    assert done.returncode == 0, done.stderr
    photos = pd.read_parquet(filled / "manifests/photos")
    for suffix in (".md", ".html"):
        text = (Path(tmp_path) / "out" / f"credits{suffix}").read_text()
        assert text.count("photo by") == 4
    assert "photographer not stated" in text
    assert len(photos) == 6
