"""The review page in Chromium: from opening it to importing the table that it saves."""

import dataclasses
import re
import shutil
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from browser import open_browser
from PIL import Image

from authface_data.review.faces import faces_to_review
from authface_data.review.import_table import read_review_table, record_reviews
from authface_data.review.sheet import render_page
from authface_data.review.table import to_csv
from manifests.schema import DECISIONS
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow

COUNT_KEPT = "Object.values(answers).filter((fields) => fields.decision === 'keep').length"
LARGE_PICTURE = "document.getElementById('large')"
ZOOM_PICTURE = "document.querySelector('#zoom img')"


def bounds_of(element: str) -> str:
    """JavaScript that returns [x, y, width, height] of an element on the screen."""
    return (
        f"(({{ x, y, width, height }}) => [x, y, width, height])({element}.getBoundingClientRect())"
    )


@pytest.fixture
def ws(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


@pytest.fixture
def opened(ws, tmp_path):
    """Chromium with the page open, the faces on it, its folder of downloads and its file."""
    faces = faces_to_review(ws)
    page_file = tmp_path / "review.html"
    downloads = tmp_path / "downloads"
    page_file.write_bytes(render_page(ws, faces))
    downloads.mkdir()
    with open_browser(downloads) as chromium:
        chromium.open(page_file)
        yield chromium, faces, downloads, page_file
        assert not chromium.exceptions


def save_table(chromium, downloads):
    """Save the table from the page and return the content of the file."""
    for earlier in downloads.glob("*.csv"):
        earlier.unlink()
    chromium.press("s")
    deadline = time.monotonic() + 30
    while not (files := list(downloads.glob("*.csv"))):
        assert time.monotonic() < deadline, "no table was saved"
        time.sleep(0.05)
    return files[0].read_bytes()


def test_page_loads_nothing_from_outside(ws):
    html = render_page(ws, faces_to_review(ws)).decode()
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)
    assert "http" not in re.sub(r"http-equiv", "", html.split("<script")[0])
    assert "default-src 'none'" in html


def test_page_without_answers_saves_the_exported_table(opened):
    chromium, faces, downloads, _ = opened
    assert save_table(chromium, downloads) == to_csv(faces)


def test_answers_survive_reopening_and_can_be_imported(opened, ws):
    chromium, faces, downloads, page_file = opened
    chromium.press("4", "p")  # first face: rated 4, keep
    chromium.press("x")  # second face: drop
    chromium.press("u")  # third face: unsure, then undone
    chromium.press("Backspace")
    chromium.press("n")
    assert chromium.evaluate("current") == 3
    chromium.press("ArrowLeft", "t")
    chromium.evaluate("document.activeElement.select()")
    chromium.insert_text("man, glasses")
    chromium.press("Escape")
    chromium.click("#note")
    chromium.insert_text('=SUM(A1) says "hello", twice; ünï')
    chromium.press("Escape")
    assert chromium.evaluate("document.getElementById('progress').textContent").startswith(
        "1 keep · 1 drop · 0 unsure"
    )

    chromium.press("s")  # the name of the reviewer is requested before the first table
    chromium.wait_for("document.getElementById('reviewer-dialog').open")
    chromium.insert_text("Anna Ö")
    chromium.click("#reviewer-save")
    chromium.wait_for("document.getElementById('saved').textContent === 'table saved'")
    assert chromium.evaluate("document.getElementById('reviewer-button').textContent") == "Anna Ö"

    chromium.open(page_file)  # answers are still there after reopening
    assert chromium.evaluate("document.getElementById('reviewer').value") == "Anna Ö"
    assert chromium.evaluate("fieldOf(faces[0], 'decision')") == "keep"

    # Another page of the same workspace keeps the answers about faces that it does not show.
    page_file.write_bytes(render_page(ws, faces_to_review(ws, near_threshold=4)))
    chromium.open(page_file)
    page_file.write_bytes(render_page(ws, faces_to_review(ws)))
    chromium.open(page_file)
    assert chromium.evaluate("fieldOf(faces[0], 'decision')") == "keep"
    table = read_review_table(ws, save_table(chromium, downloads), "")
    reviews = {review.face_id: review for review in table.new}
    first, second, third = (reviews[face.face_id] for face in faces[:3])
    assert (first.decision, first.rating, first.reviewer) == ("keep", 4, "Anna Ö")
    assert second.decision == "drop"
    assert (third.decision, third.semantic_tags) == (None, ["man", "glasses"])
    assert third.note == '=SUM(A1) says "hello", twice; ünï'
    assert len(reviews) == 3
    record_reviews(ws, table.new, datetime.now(UTC))
    assert Store(ws, DECISIONS).read().num_rows == 3


def test_keyboard_selection_help_filters_and_undo(opened):
    chromium, faces, *_ = opened
    chromium.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert chromium.evaluate("current") == 1
    chromium.press("ArrowDown", "ArrowUp")
    assert chromium.evaluate("current") == 1
    chromium.press("?")
    assert chromium.evaluate("document.getElementById('help').open")
    chromium.press("Escape")
    chromium.wait_for("!document.getElementById('help').open")
    chromium.click("[data-show=kept]")
    shown = chromium.evaluate("cards.filter((card) => !card.hidden).length")
    assert shown == sum(face.is_kept for face in faces)
    chromium.press("p", "z", ctrl=False)
    assert chromium.evaluate(COUNT_KEPT) == 1
    chromium.press("z", ctrl=True)
    assert chromium.evaluate(COUNT_KEPT) == 0


def test_zoom_shows_the_pixels_of_the_crop_under_the_pointer(opened, ws, tmp_path):
    chromium, faces, *_ = opened
    chromium.wait_for(f"{LARGE_PICTURE}.complete && {LARGE_PICTURE}.naturalWidth")
    left, top, side, _ = chromium.evaluate(bounds_of(LARGE_PICTURE))
    chromium.move(left + 0.5 * side, top + 0.5 * side)
    chromium.key_down("z")
    chromium.wait_for(f"{ZOOM_PICTURE}.complete && !document.getElementById('zoom').hidden")
    time.sleep(0.3)
    box = chromium.evaluate(bounds_of(ZOOM_PICTURE))
    chromium.screenshot(tmp_path / "zoom.png")
    chromium.key_up("z")
    assert chromium.evaluate("document.getElementById('zoom').hidden")
    with Image.open(tmp_path / "zoom.png") as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    with ws.open(faces[0].crop_path) as file, Image.open(file) as image:
        crop = np.asarray(image.convert("RGB")).astype(int)
    x, y = (round(value) for value in box[:2])
    part = shown[y + 200 : y + 300, x + 200 : x + 300]
    assert part.shape == (100, 100, 3)
    assert np.abs(part - crop[200:300, 200:300]).mean() < 6  # the page contains the crop as JPEG


def test_pictures_of_many_faces_load_when_scrolled_to(ws, tmp_path):
    faces = faces_to_review(ws)
    many = [
        dataclasses.replace(faces[number % len(faces)], face_id=f"{number:04d}")
        for number in range(60)
    ]
    page_file = tmp_path / "many.html"
    page_file.write_bytes(render_page(ws, many))
    with open_browser(tmp_path) as chromium:
        chromium.open(page_file)
        assert chromium.evaluate("cards.length") == 60
        assert not chromium.evaluate("cards[59].querySelector('img').src")
        chromium.evaluate("document.getElementById('grid').scrollTop = 1e9")
        chromium.wait_for("cards[59].querySelector('img').naturalWidth > 0")
        chromium.evaluate("select(59)")
        chromium.press("p")
        assert chromium.evaluate("fieldOf(faces[59], 'decision')") == "keep"
        assert not chromium.exceptions


OVERLAP = """(() => {
  const [grid, panel] = ["grid", "panel"].map((id) => document.getElementById(id))
    .map((element) => element.getBoundingClientRect());
  return Math.min(grid.right, panel.right) - Math.max(grid.left, panel.left) > 1
    && Math.min(grid.bottom, panel.bottom) - Math.max(grid.top, panel.top) > 1;
})()"""
PAGE_WIDTH = "document.documentElement.scrollWidth"


def test_page_on_a_telephone_is_reviewed_by_touch(opened):
    chromium, *_ = opened
    chromium.resize(390, 844, touch=True)
    chromium.wait_for(f"{LARGE_PICTURE}.complete")
    assert chromium.evaluate(PAGE_WIDTH) == 390
    assert not chromium.evaluate(OVERLAP)
    chromium.swipe("#large", -150)
    chromium.wait_for("current === 1")
    chromium.swipe("#large", 150)
    chromium.wait_for("current === 0")
    chromium.tap("[data-decision=drop]")
    chromium.wait_for("fieldOf(faces[0], 'decision') === 'drop'")
    mark = "document.querySelector('#tile-0 .mark').textContent"
    assert chromium.evaluate(mark) == "✕ drop"  # visible without colour

    chromium.tap("#large")
    chromium.wait_for("!document.getElementById('zoom').hidden")
    chromium.tap("#zoom")
    chromium.wait_for("document.getElementById('zoom').hidden")


def test_page_on_a_desktop_uses_its_width_in_both_colour_schemes(opened):
    chromium, *_ = opened
    chromium.resize(1280, 800)
    toolbar = "document.querySelector('.toolbar')"
    height = chromium.evaluate(f"{toolbar}.getBoundingClientRect().height")
    assert height < 50  # one line
    assert not chromium.evaluate(OVERLAP)
    backgrounds = set()
    for scheme in ("light", "dark"):
        chromium.prefer_colour_scheme(scheme)
        backgrounds.add(chromium.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
    chromium.send("Emulation.setEmulatedMedia", media="print")
    assert chromium.evaluate("getComputedStyle($('panel')).display") == "none"
    chromium.send("Emulation.setEmulatedMedia", media="screen")
    free = "grid.clientWidth - 24 - cards[0].offsetWidth * columns - 12 * (columns - 1)"
    columns = "getComputedStyle(grid).gridTemplateColumns.split(' ').length"
    measured = chromium.evaluate(
        f"(() => {{ const grid = document.getElementById('grid'); const columns = {columns};"
        f" return {free}; }})()"
    )
    assert measured < 3


def test_reasons_are_words_with_the_rule_in_a_tooltip(opened):
    chromium, faces, *_ = opened
    index = next(index for index, face in enumerate(faces) if "qsize_px <" in face.drop_rules)
    chromium.evaluate(f"select({index})")
    item = "document.querySelector('#why .drop')"
    assert "face too small: " in chromium.evaluate("document.getElementById('why').textContent")
    assert " < " in chromium.evaluate(f"{item}.title")
    label = chromium.evaluate(f"cards[{index}].getAttribute('aria-label')")
    assert "undecided" in label
