"""A ranking of several methods by people: its page in a real browser, and the tally."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from browser import open_browser
from PIL import Image

from authface_train.study.create import Method
from authface_train.study.create_ranking import draw_items, render_ranking
from authface_train.study.ranking_tally import format_report, read_rankings, tally_rankings
from manifests.support.errors import UserError

COUNT = 6
LEVELS = {"none": 30, "semantic tags": 120, "both, </script>": 220}
"""Brightness of each method's pictures."""


@pytest.fixture
def methods(tmp_path):
    methods = []
    for number, (name, level) in enumerate(LEVELS.items()):
        folder = tmp_path / f"method-{number}"
        folder.mkdir()
        for picture in range(COUNT):
            noise = np.random.default_rng(picture).integers(0, 30, (16, 16, 3))
            pixels = (level + noise).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{picture:05d}.png")
        methods.append(Method(name, folder))
    return methods


PROMPTS = {f"{number:05d}": f"a face & prompt {number // 2}" for number in range(COUNT)}
"""Two pictures per prompt."""


def test_one_picture_per_prompt_and_places_are_balanced(methods):
    items = draw_items(methods, prompts=PROMPTS, seed=0, count=None)
    assert sorted(item.prompt for item in items) == sorted(set(PROMPTS.values()))
    assert all(PROMPTS[item.name] == item.prompt for item in items)
    assert len(draw_items(methods, prompts=PROMPTS, seed=0, count=2)) == 2

    items = draw_items(methods, prompts=None, seed=1, count=None)
    assert len(items) == COUNT
    for place in range(3):
        assert set(Counter(item.order[place] for item in items).values()) == {2}
    for item in items:
        levels = [list(LEVELS.values())[index] for index in item.order]
        assert [int(picture.min()) // 30 for picture in item.pictures] == [
            level // 30 for level in levels
        ]
    assert len({draw_items(methods, prompts=None, seed=n, count=1)[0].name for n in range(9)}) > 2


def test_impossible_rankings_are_refused(methods, tmp_path, authface_here):
    with pytest.raises(UserError, match="2 to 9 methods; got 1"):
        draw_items(methods[:1], prompts=None, seed=0, count=None)
    with pytest.raises(UserError, match="prompts name none of the 6 pictures"):
        draw_items(methods, prompts={"x": "a"}, seed=0, count=None)
    Image.new("RGB", (8, 8)).save(methods[1].folder / "00003.png")
    with pytest.raises(UserError, match="00003 differs in size"):
        draw_items(methods, prompts=None, seed=0, count=None)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "other" / "x.png")
    with pytest.raises(UserError, match="no name of a picture is in all of"):
        draw_items([*methods, Method("other", tmp_path / "other")], prompts=None, seed=0, count=1)
    folder = methods[0].folder
    completed = authface_here(
        "study", "create-ranking", "--method", f"a={folder}", "--method", f"a={folder}"
    )
    assert completed.returncode == 2
    assert "two methods are named a" in completed.stderr


LEVELS_SHOWN = """Promise.all([...document.images].map((image) => image.decode())).then(() =>
  [...document.images].map((image) => {
    const context = document.createElement('canvas').getContext('2d');
    context.drawImage(image, 0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data[0];
  }))"""
RANKS = "[...document.querySelectorAll('.rank')].map((rank) => rank.textContent)"
POSITION = "document.getElementById('position').textContent"
NEXT_DISABLED = "document.getElementById('next').disabled"


@pytest.mark.slow
def test_page_in_browser_saves_the_rankings(methods, tmp_path):
    items = draw_items(methods, prompts=PROMPTS, seed=3, count=None)
    html = tmp_path / "study.html"
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    html.write_text(render_ranking(methods, items, 3))
    with open_browser(downloads) as chromium:
        chromium.open(html)
        shown = chromium.evaluate(LEVELS_SHOWN)
        assert np.argsort(np.argsort(shown)).tolist() == list(items[0].order)
        text = chromium.evaluate("document.body.innerText")
        assert items[0].prompt in text
        assert "semantic" not in text

        # The first by keyboard: the last picture gets its rank by itself; a rank is taken back.
        assert chromium.evaluate(NEXT_DISABLED) is True
        chromium.press("3")
        assert chromium.evaluate(RANKS) == ["key 1", "key 2", "Best"]
        chromium.press("ArrowRight")
        assert chromium.evaluate(POSITION) == "1 of 3", "an incomplete ranking stays"
        chromium.press("1")
        assert chromium.evaluate(RANKS) == ["2nd", "3rd", "Best"]
        chromium.screenshot(tmp_path / "page.png")
        chromium.press("3")
        assert chromium.evaluate(RANKS) == ["Best", "key 2", "key 3"]
        chromium.press("Backspace", "2", "1", "ArrowRight")
        assert chromium.evaluate(POSITION) == "2 of 3"

        # The second by mouse; answers survive closing and opening the page.
        chromium.click("[data-place='0']")
        chromium.click("[data-place='2']")
        chromium.open(html)
        assert chromium.evaluate(POSITION) == "3 of 3"
        chromium.press("ArrowUp")
        assert chromium.evaluate(RANKS) == ["Best", "3rd", "2nd"]
        chromium.press("ArrowRight", "1", "2", "ArrowRight")
        assert chromium.evaluate("document.getElementById('done').hidden") is False

        chromium.resize(390, 844, touch=True)
        assert chromium.evaluate("document.documentElement.scrollWidth") == 390
        chromium.resize(1280, 800)
        chromium.click("#save")
        assert not list(downloads.iterdir()), "without a name nothing is saved"
        chromium.click("#rater")
        chromium.insert_text('Ann "A", M. 3')
        chromium.click("#save")
        for _ in range(200):
            files = list(downloads.glob("*.csv"))
            if files:
                break
            chromium.evaluate("new Promise((done) => setTimeout(done, 25))")
        assert not chromium.exceptions

    rows = read_rankings(files)
    assert set(rows["rater"]) == {'Ann "A", M. 3'}
    for item, places in zip(items, ([1, 0, 2], [0, 2, 1], [0, 1, 2]), strict=True):
        ranking = rows[rows["item"] == item.name].sort_values("rank")
        names = [methods[item.order[place]].name for place in places]
        assert ranking["method"].tolist() == names
        assert (ranking["place"] - 1).tolist() == places


def write_rankings(path, rater, orders, study="s"):
    """Write a CSV file as the page saves it; an order lists the methods from best to worst."""
    rows = [
        {
            "study": study,
            "rater": rater,
            "item": f"{number:05d}",
            "method": method,
            "place": "abc".index(method) + 1,
            "rank": rank,
            "answered_at": "2026-01-01T00:00:00Z",
        }
        for number, order in enumerate(orders)
        for rank, method in enumerate(order, start=1)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_mean_ranks_and_intervals(tmp_path, authface_here):
    """20 raters and 10 prompts, as in the paper: c is best in 8 prompts, a in 2."""
    orders = ["cba"] * 8 + ["abc"] * 2
    files = [
        write_rankings(tmp_path / f"{number}.csv", f"rater {number}", orders)
        for number in range(20)
    ]
    tally = tally_rankings(read_rankings(files))
    assert list(tally.methods) == ["c", "b", "a"]
    assert (tally.raters, tally.items, tally.rankings) == (20, 10, 200)
    best = tally.methods["c"]
    assert best.mean == pytest.approx(1.4)
    assert best.first_share == pytest.approx(0.8)
    # All raters agree, but ten prompts are few.
    assert 1.0 <= best.low < 1.3
    assert 1.6 < best.high < 2.2
    assert tally.methods["b"].low == tally.methods["b"].high == 2
    assert tally.left_rank == pytest.approx(2.6)
    assert tally.p_friedman == pytest.approx(0.0273, abs=0.001)
    assert "| c | 1.40 | " in format_report(tally)

    printed = authface_here("study", "tally", *files)
    assert printed.returncode == 0, printed.stderr
    assert "200 rankings of 20 raters" in printed.stdout
    as_json = json.loads(authface_here("study", "tally", *files, "--json").stdout)
    assert as_json["methods"]["c"]["mean"] == pytest.approx(1.4)
    reproduced = authface_here(
        "reproduce", "table3", "--answers", files[0], "--output", tmp_path / "out"
    )
    assert reproduced.returncode == 0, reproduced.stderr
    assert "| c | 1.40 |" in (tmp_path / "out" / "table3-ranking.md").read_text()


def test_invalid_rankings_are_refused(tmp_path, authface_here):
    first = write_rankings(tmp_path / "1.csv", "ann", ["abc", "cab"])
    again = write_rankings(tmp_path / "2.csv", "ann", ["abc"])
    other = write_rankings(tmp_path / "3.csv", "bob", ["abc"], study="t")
    incomplete = write_rankings(tmp_path / "4.csv", "bob", ["ab"])
    for file, message in (
        (again, "ann has ranked 00000 twice (in 1.csv and 2.csv)"),
        (other, "answers of 2 studies"),
        (incomplete, "4.csv: the ranking of 00000 by bob is incomplete"),
    ):
        completed = authface_here("study", "tally", first, file)
        assert completed.returncode == 2
        assert message in completed.stderr
