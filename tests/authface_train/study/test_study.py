"""A user study: what is asked, in a real browser, and what the answers say."""

import json

import numpy as np
import pandas as pd
import pytest
from browser import browser
from PIL import Image

from authface_train.study.create import Method, draw_pairs, page
from authface_train.study.tally import read, report, tally
from manifests.support.errors import UserError

COUNT = 6


@pytest.fixture
def folders(tmp_path):
    """Two methods over six pictures: what `a` made is dark, what `b` made is bright."""
    for method, level in (("a", 40), ("b", 200)):
        (tmp_path / method).mkdir()
        for number in range(COUNT):
            noise = np.random.default_rng(number).integers(0, 30, (16, 16, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(
                tmp_path / method / f"face-{number}.png"
            )
    return Method("ours", tmp_path / "a"), Method("theirs, </script>", tmp_path / "b")


def test_pairs_are_drawn_from_the_seed(folders):
    pairs = draw_pairs(*folders, None, seed=1, count=None)
    again = draw_pairs(*folders, None, seed=1, count=None)
    assert [(pair.name, pair.a_left) for pair in pairs] == [
        (pair.name, pair.a_left) for pair in again
    ]
    assert sum(pair.a_left for pair in pairs) == COUNT // 2
    orders = {
        tuple(pair.name for pair in draw_pairs(*folders, None, seed, None)) for seed in range(5)
    }
    assert len(orders) == 5
    assert len(draw_pairs(*folders, None, seed=1, count=4)) == 4
    for words, asked in (
        ("there are 6 pairs", {"count": 7, "given": None}),
        ("has no picture named", {"count": None, "given": folders[0].folder.parent / "c"}),
    ):
        (folders[0].folder.parent / "c").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folders[0].folder.parent / "c" / "other.png")
        with pytest.raises(UserError, match=words):
            draw_pairs(*folders, asked["given"], 0, asked["count"])
    Image.new("RGB", (8, 8)).save(folders[0].folder / "face-0.png")
    with pytest.raises(UserError, match="not of one size"):
        draw_pairs(*folders, None, 0, None)


BRIGHTNESS = """(() => {
  const context = document.createElement('canvas').getContext('2d');
  context.drawImage(document.getElementById('%s'), 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
})()"""


@pytest.mark.slow
def test_the_page_in_a_browser(folders, tmp_path):
    pairs = draw_pairs(*folders, folders[0].folder, seed=1, count=None)
    html, downloads = tmp_path / "study.html", tmp_path / "downloads"
    downloads.mkdir()
    html.write_text(page(*folders, pairs, 1))
    assert 'src="http' not in html.read_text()
    with browser(downloads) as chromium:
        chromium.open(html)
        chromium.until(
            "document.getElementById('left').complete && document.getElementById('right').complete"
        )
        chromium.run("Promise.all([...document.images].map((image) => image.decode()))")
        left, right = (chromium.run(BRIGHTNESS % side) for side in ("left", "right"))
        assert (left < right) == pairs[0].a_left
        chromium.screenshot(tmp_path / "page.png")
        assert "ours" not in chromium.run("document.body.innerText")  # nothing tells which is which
        chromium.press(
            "ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"
        )  # the third is said anew
        assert chromium.run("document.getElementById('where').textContent") == "Pair 4 of 6"
        chromium.open(html)  # closed and opened again: it goes on
        assert chromium.run("document.getElementById('where').textContent") == "Pair 4 of 6"
        chromium.click("#say-equal")
        chromium.press("ArrowRight", "ArrowRight")
        assert chromium.run("document.getElementById('done').hidden") is False
        chromium.click("#save")
        assert not list(downloads.iterdir())  # nobody has said who it was
        chromium.click("#rater")
        chromium.write('Ann "A", M.')
        chromium.click("#save")
        end = []
        for _ in range(200):
            end = list(downloads.glob("*.csv"))
            if end:
                break
            chromium.run("new Promise((done) => setTimeout(done, 25))")
        assert not chromium.failures
    answers = read(end)
    assert answers["pair"].tolist() == [pair.name for pair in pairs]
    assert set(answers["rater"]) == {'Ann "A", M.'}
    assert set(answers["b"]) == {"theirs, </script>"}
    said = ["left", "right", "left", "equal", "right", "right"]
    sides = {
        True: {"left": "a", "right": "b", "equal": "equal"},
        False: {"left": "b", "right": "a", "equal": "equal"},
    }
    assert answers["answer"].tolist() == [
        sides[pair.a_left][one] for pair, one in zip(pairs, said, strict=True)
    ]


def write(path, rater, answers, study="s"):
    rows = [
        {"study": study, "rater": rater, "pair": f"face-{number}", "a": "ours", "b": "theirs",
         "left": "a" if number % 2 else "b", "answer": answer, "answered_at": "2026-01-01T00:00:00Z"}
        for number, answer in enumerate(answers)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_shares_intervals_and_sign_test(tmp_path):
    files = [
        write(tmp_path / f"{number}.csv", f"rater {number}", ["a"] * 7 + ["b"] * 2 + ["equal"])
        for number in range(4)
    ]
    made = tally(read(files))
    assert (made.raters, made.pairs, made.answers) == (4, 10, 40)
    assert [made.shares[answer][0] for answer in ("a", "equal", "b")] == [0.7, 0.1, 0.2]
    share, low, high = made.shares["a"]
    assert low < share < high
    assert (
        high - low > 0.3
    )  # ten pairs of which all say the same: forty answers are not forty opinions
    assert made.p_answers == pytest.approx(0.00119, rel=0.01)  # 28 of 36
    assert made.p_pairs == pytest.approx(0.1797, rel=0.01)  # 7 of 9
    assert "| ours is better | 70.0% |" in report(made)


def test_what_does_not_belong_together_is_refused(tmp_path, authface_here):
    first = write(tmp_path / "1.csv", "ann", ["a", "b"])
    for other, words in (
        (write(tmp_path / "2.csv", "ann", ["b"]), "ann has answered face-0 twice"),
        (write(tmp_path / "3.csv", "bob", ["a"], study="t"), "answers of 2 studies"),
        (write(tmp_path / "4.csv", "bob", ["c"]), "has the answer 'c'"),
    ):
        done = authface_here("study", "tally", first, other)
        assert done.returncode == 2
        assert words in done.stderr
    (tmp_path / "5.csv").write_text("x,y\n1,2\n")
    assert (
        "is not what a study's page saves"
        in authface_here("study", "tally", tmp_path / "5.csv").stderr
    )
    said = json.loads(authface_here("study", "tally", first, "--json").stdout)
    assert said["shares"]["a"][0] == 0.5


def test_create_as_its_user_runs_it(folders, tmp_path, authface_here):
    a, b = folders
    done = authface_here(
        "study",
        "create",
        "--a",
        a.folder,
        "--b",
        f"theirs={b.folder}",
        "--output",
        tmp_path / "out",
        "--count",
        3,
    )
    assert done.returncode == 0, done.stderr
    assert "3 pairs" in done.stdout
    assert (tmp_path / "out/study.html").stat().st_size > 1000
    assert (
        "both methods are named a"
        in authface_here("study", "create", "--a", a.folder, "--b", f"a={b.folder}").stderr
    )
