"""The page, in a real Chromium: a reviewer's whole path, from opening it to the imported table."""

import dataclasses
import re
import shutil
import time

import numpy as np
import pytest
from browser import browser
from PIL import Image

from authface_data.review import import_table as importing
from authface_data.review.faces import faces_to_review
from authface_data.review.sheet import page
from authface_data.review.table import to_csv
from manifests.schema import DECISIONS
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def ws(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


@pytest.fixture
def opened(ws, tmp_path):
    """(Chromium with the page, the faces on it, where it saves to, the page)"""
    faces, where, downloads = faces_to_review(ws), tmp_path / "review.html", tmp_path / "downloads"
    where.write_bytes(page(ws, faces))
    downloads.mkdir()
    with browser(downloads) as chromium:
        chromium.open(where)
        yield chromium, faces, downloads, where
        assert not chromium.failures


def saved(chromium, downloads):
    before = set(downloads.glob("*.csv"))
    chromium.press("s")
    end = time.monotonic() + 30
    while not (new := set(downloads.glob("*.csv")) - before):
        assert time.monotonic() < end, "no table was saved"
        time.sleep(0.05)
    return new.pop().read_bytes()


def test_the_page_needs_nothing_but_itself(ws):
    html = page(ws, faces_to_review(ws)).decode()
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)
    assert "http" not in re.sub(r"http-equiv", "", html.split("<script")[0])
    assert "default-src 'none'" in html


def test_an_untouched_page_saves_the_exported_table(opened):
    chromium, faces, downloads, _ = opened
    assert saved(chromium, downloads) == to_csv(faces)


def test_a_reviewers_whole_path(opened, ws):
    chromium, faces, downloads, where = opened
    chromium.click("#reviewer")
    chromium.write("Anna Ö")
    chromium.press("Escape")
    chromium.press("4", "p")  # the first: four of five, keep
    chromium.press("x")  # the second: drop
    chromium.press("u")  # the third: unsure, and taken back
    chromium.press("Backspace")
    chromium.press("n")
    assert chromium.run("here") == 3
    chromium.press("ArrowLeft", "t")
    chromium.run("document.activeElement.select()")
    chromium.write("man, glasses")
    chromium.press("Escape")
    chromium.click("#note")
    chromium.write('=SUM(A1) says "hello", twice; ünï')
    chromium.press("Escape")
    assert chromium.run("document.getElementById('progress').textContent").startswith(
        "1 keep · 1 drop · 0 unsure"
    )

    chromium.open(where)  # closed and opened again: everything is still there
    assert chromium.run("document.getElementById('reviewer').value") == "Anna Ö"
    assert chromium.run("fieldOf(faces[0], 'decision')") == "keep"
    where.write_bytes(
        page(ws, faces_to_review(ws, near_threshold=4))
    )  # another page of the same workspace, and back again
    chromium.open(where)
    where.write_bytes(page(ws, faces_to_review(ws)))
    chromium.open(where)
    assert chromium.run("fieldOf(faces[0], 'decision')") == "keep"
    table = saved(chromium, downloads)
    reading = importing.read_table(ws, table, "")
    said = {one.id: one for one in reading.said}
    first, second, third = (said[face.id] for face in faces[:3])
    assert (first.decision, first.rating, first.reviewer) == ("keep", 4, "Anna Ö")
    assert second.decision == "drop"
    assert (third.decision, third.semantic_tags) == (None, ["man", "glasses"])
    assert third.note == '=SUM(A1) says "hello", twice; ünï'
    assert len(said) == 3
    from datetime import UTC, datetime

    importing.record(ws, reading.said, datetime.now(UTC))
    assert Store(ws, DECISIONS).read().num_rows == 3


def test_keys_move_filter_and_explain_themselves(opened):
    chromium, faces, *_ = opened
    chromium.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert chromium.run("here") == 1
    chromium.press("ArrowDown", "ArrowUp")
    assert chromium.run("here") == 1
    chromium.press("?")
    assert chromium.run("document.getElementById('help').open")
    chromium.press("Escape")
    chromium.until("!document.getElementById('help').open")
    chromium.click("[data-show=kept]")
    shown = chromium.run("cards.filter((card) => !card.hidden).length")
    assert shown == sum(face.kept for face in faces)
    chromium.press("p", "z", ctrl=False)
    assert chromium.run("Object.values(said).filter((own) => own.decision === 'keep').length") == 1
    chromium.press("z", ctrl=True)
    assert chromium.run("Object.values(said).filter((own) => own.decision === 'keep').length") == 0


def test_z_shows_the_crop_at_one_to_one_under_the_pointer(opened, ws, tmp_path):
    """What the zoom shows is the crop itself, pixel by pixel, around the point that the mouse is on."""
    chromium, faces, *_ = opened
    chromium.until(
        "document.getElementById('large').complete && document.getElementById('large').naturalWidth"
    )
    left, top, side = chromium.run(
        "(() => { const b = document.getElementById('large').getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    )
    chromium.move(left + 0.5 * side, top + 0.5 * side)
    chromium.hold("z")
    chromium.until(
        "document.querySelector('#zoom img').complete && !document.getElementById('zoom').hidden"
    )
    time.sleep(0.3)
    box = chromium.run(
        "(() => { const b = document.querySelector('#zoom img').getBoundingClientRect(); return [b.x, b.y]; })()"
    )
    chromium.screenshot(tmp_path / "zoom.png")
    chromium.release("z")
    assert chromium.run("document.getElementById('zoom').hidden")
    with Image.open(tmp_path / "zoom.png") as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    with ws.open(faces[0].crop_path) as file, Image.open(file) as image:
        crop = np.asarray(image.convert("RGB")).astype(int)
    x, y = (round(value) for value in box)
    part = shown[y + 200 : y + 300, x + 200 : x + 300]
    assert part.shape == (100, 100, 3)
    assert np.abs(part - crop[200:300, 200:300]).mean() < 6  # a JPEG lies between


def test_many_faces(ws, tmp_path):
    """All of them are there, and the pictures of those that are scrolled to appear (benchmarks/review.py says how fast)."""
    faces = faces_to_review(ws)
    many = [dataclasses.replace(faces[n % len(faces)], id=f"{n:04d}") for n in range(600)]
    where = tmp_path / "many.html"
    where.write_bytes(page(ws, many))
    with browser(tmp_path) as chromium:
        chromium.open(where)
        assert chromium.run("cards.length") == 600
        assert not chromium.run("cards[599].querySelector('img').src")
        chromium.run("document.getElementById('grid').scrollTop = 1e9")
        chromium.until("cards[599].querySelector('img').naturalWidth > 0")
        chromium.run("go(599)")
        chromium.press("p")
        assert chromium.run("fieldOf(faces[599], 'decision')") == "keep"
        assert not chromium.failures
