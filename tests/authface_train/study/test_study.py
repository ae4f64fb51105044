"""The user study: its page in a real browser, and the tally of the answers."""

import json

import numpy as np
import pandas as pd
import pytest
from browser import open_browser
from PIL import Image

from authface_train.study.create import Method, draw_pairs, render_page
from authface_train.study.tally import format_report, read_answers, tally_answers
from manifests.support.errors import UserError

COUNT = 6


@pytest.fixture
def methods(tmp_path):
    """Two methods over six pictures: those of A are dark, those of B are bright."""
    for folder, level in (("a", 40), ("b", 200)):
        (tmp_path / folder).mkdir()
        for number in range(COUNT):
            noise = np.random.default_rng(number).integers(0, 30, (16, 16, 3))
            picture = Image.fromarray((level + noise).astype(np.uint8))
            picture.save(tmp_path / folder / f"face-{number}.png")
    return Method("ours", tmp_path / "a"), Method("theirs, </script>", tmp_path / "b")


def draw(methods, *, degraded=None, seed=1, count=None):
    return draw_pairs(*methods, degraded=degraded, seed=seed, count=count)


def test_pairs_depend_on_seed(methods):
    pairs = draw(methods)
    sides = [(pair.name, pair.a_left) for pair in pairs]
    assert sides == [(pair.name, pair.a_left) for pair in draw(methods)]
    assert sum(pair.a_left for pair in pairs) == COUNT // 2
    orders = set()
    for seed in range(5):
        orders.add(tuple(pair.name for pair in draw(methods, seed=seed)))
    assert len(orders) == 5
    assert len(draw(methods, count=4)) == 4


def test_impossible_studies_are_refused(methods, tmp_path):
    with pytest.raises(UserError, match="--count 7 is more than the 6 pairs"):
        draw(methods, count=7)
    degraded = tmp_path / "degraded"
    degraded.mkdir()
    Image.new("RGB", (8, 8)).save(degraded / "other.png")
    with pytest.raises(UserError, match="has no picture named"):
        draw(methods, degraded=degraded)
    Image.new("RGB", (8, 8)).save(methods[0].folder / "face-0.png")
    with pytest.raises(UserError, match="face-0 differs in size"):
        draw(methods)


def test_degraded_pictures_are_matched_by_name(methods, tmp_path):
    (tmp_path / "degraded" / "sub").mkdir(parents=True)
    for path in methods[0].folder.iterdir():
        Image.new("RGB", (8, 8), "red").save(tmp_path / "degraded" / "sub" / path.name)
    pairs = draw(methods, degraded=tmp_path / "degraded")
    assert all(tuple(pair.degraded[0, 0]) == (255, 0, 0) for pair in pairs)


BRIGHTNESS = """(() => {
  const context = document.createElement('canvas').getContext('2d');
  context.drawImage(document.getElementById('%s'), 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
})()"""
IMAGES_LOADED = (
    "document.getElementById('left').complete && document.getElementById('right').complete"
)
POSITION = "document.getElementById('position').textContent"


def wait_for_download(chromium, downloads):
    for _ in range(200):
        files = list(downloads.glob("*.csv"))
        if files:
            return files
        chromium.evaluate("new Promise((done) => setTimeout(done, 25))")
    return []


@pytest.mark.slow
def test_page_in_browser_saves_the_answers(methods, tmp_path):
    pairs = draw(methods, degraded=methods[0].folder)
    html = tmp_path / "study.html"
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    html.write_text(render_page(*methods, pairs, 1))
    assert 'src="http' not in html.read_text()
    with open_browser(downloads) as chromium:
        chromium.open(html)
        chromium.wait_for(IMAGES_LOADED)
        chromium.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        left, right = (chromium.evaluate(BRIGHTNESS % side) for side in ("left", "right"))
        assert (left < right) == pairs[0].a_left
        chromium.screenshot(tmp_path / "page.png")
        # Nothing on the page names the methods.
        assert "ours" not in chromium.evaluate("document.body.innerText")

        # Both pictures are enlarged around the same point.
        chromium.click("#left")
        origins = chromium.evaluate(
            "['left', 'right'].map((id) => document.getElementById(id))"
            ".map((image) => `${image.style.transform} ${image.style.transformOrigin}`)"
        )
        assert origins[0] == origins[1]
        assert origins[0].startswith("scale(2) ")
        chromium.press("z")
        assert chromium.evaluate("document.getElementById('left').style.transform") == ""

        # The page fits a telephone, and shows no keys there.
        chromium.resize(390, 844, touch=True)
        assert chromium.evaluate("document.documentElement.scrollWidth") == 390
        assert "key" not in chromium.evaluate("document.body.innerText")
        chromium.resize(1280, 800)

        # The third answer is changed after going back.
        chromium.press("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft")
        assert chromium.evaluate(POSITION) == "Pair 4 of 6"
        # Answers survive closing and opening the page.
        chromium.open(html)
        assert chromium.evaluate(POSITION) == "Pair 4 of 6"
        chromium.click("#answer-equal")
        chromium.press("ArrowRight", "ArrowRight")
        assert chromium.evaluate("document.getElementById('done').hidden") is False

        # Without a name, nothing is saved.
        chromium.click("#save")
        assert not list(downloads.iterdir())
        chromium.click("#rater")
        chromium.insert_text('Ann "A", M.')
        chromium.click("#save")
        files = wait_for_download(chromium, downloads)
        assert not chromium.exceptions

    answers = read_answers(files)
    assert answers["pair"].tolist() == [pair.name for pair in pairs]
    assert set(answers["rater"]) == {'Ann "A", M.'}
    assert set(answers["b"]) == {"theirs, </script>"}
    choices = ["left", "right", "left", "equal", "right", "right"]
    methods_by_side = {
        True: {"left": "a", "right": "b", "equal": "equal"},
        False: {"left": "b", "right": "a", "equal": "equal"},
    }
    expected = [
        methods_by_side[pair.a_left][choice] for pair, choice in zip(pairs, choices, strict=True)
    ]
    assert answers["answer"].tolist() == expected


def write_answers(path, rater, answers, study="s"):
    """Write a CSV file as the page saves it."""
    rows = [
        {
            "study": study,
            "rater": rater,
            "pair": f"face-{number}",
            "a": "ours",
            "b": "theirs",
            "left": "a" if number % 2 else "b",
            "answer": answer,
            "answered_at": "2026-01-01T00:00:00Z",
        }
        for number, answer in enumerate(answers)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_shares_intervals_and_sign_test(tmp_path):
    answers = ["a"] * 7 + ["b"] * 2 + ["equal"]
    files = [
        write_answers(tmp_path / f"{number}.csv", f"rater {number}", answers) for number in range(4)
    ]
    tally = tally_answers(read_answers(files))
    assert (tally.raters, tally.pairs, tally.answers) == (4, 10, 40)
    assert [tally.shares[answer][0] for answer in ("a", "equal", "b")] == [0.7, 0.1, 0.2]
    share, low, high = tally.shares["a"]
    assert low < share < high
    # All raters agree on each of the ten pairs: 40 answers are not 40 independent opinions.
    assert high - low > 0.3
    # 28 of 36 answers, and 7 of 9 pairs.
    assert tally.p_answers == pytest.approx(0.00119, rel=0.01)
    assert tally.p_pairs == pytest.approx(0.1797, rel=0.01)
    assert "| ours is better | 70.0% |" in format_report(tally)


def test_invalid_answer_files_are_refused(tmp_path, authface_here):
    first = write_answers(tmp_path / "1.csv", "ann", ["a", "b"])
    duplicate = write_answers(tmp_path / "2.csv", "ann", ["b"])
    other_study = write_answers(tmp_path / "3.csv", "bob", ["a"], study="t")
    unknown_answer = write_answers(tmp_path / "4.csv", "bob", ["c"])
    for file, message in (
        (duplicate, "ann has answered face-0 twice"),
        (other_study, "answers of 2 studies"),
        (unknown_answer, "has the unknown answer 'c'"),
    ):
        completed = authface_here("study", "tally", first, file)
        assert completed.returncode == 2
        assert message in completed.stderr
    (tmp_path / "5.csv").write_text("x,y\n1,2\n")
    completed = authface_here("study", "tally", tmp_path / "5.csv")
    assert "was not saved by the page of a study" in completed.stderr

    tally = json.loads(authface_here("study", "tally", first, "--json").stdout)
    assert tally["shares"]["a"][0] == 0.5


def test_create_command_writes_page_and_refuses_equal_names(methods, tmp_path, authface_here):
    a, b = (method.folder for method in methods)
    output = tmp_path / "out"
    completed = authface_here(
        "study", "create", "--a", a, "--b", f"theirs={b}", "--output", output, "--count", 3
    )
    assert completed.returncode == 0, completed.stderr
    assert "3 pairs" in completed.stdout
    assert (output / "study.html").stat().st_size > 1000
    completed = authface_here("study", "create", "--a", a, "--b", f"a={b}")
    assert "both methods are named a" in completed.stderr
