"""`authface restore` on whole photographs, with a tiny model: what is judged is everything but the faces it makes."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_restorer
from PIL import Image
from public_faces import photographs

pytestmark = pytest.mark.slow
PX = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory, weights):
    return tiny_restorer.save(tmp_path_factory.mktemp("model"), PX)


@pytest.fixture
def restore(model, authface_here):
    def run(input, output, *words):
        return authface_here(
            "restore", "--model", model, "--input", input, "--output", output, "--steps", 1, *words
        )

    return run


@pytest.fixture(scope="module")
def three_faces(tmp_path_factory):
    """A photograph of three people as PNG, small enough for a quick detector."""
    path = tmp_path_factory.mktemp("three") / "three.png"
    with Image.open(photographs()["sample1.jpg"]) as image:
        exif = Image.Exif()
        exif[0x010F] = "A maker"
        image.convert("RGB").resize((960, 640), Image.Resampling.LANCZOS).save(path, exif=exif)
    return path


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_three_faces_are_restored_and_the_rest_stays_to_the_bit(restore, three_faces, tmp_path):
    done = restore(three_faces, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 faces of 1 pictures restored" in done.stdout
    assert "Untrained model" in done.stdout
    rows = pd.read_parquet(tmp_path / "out/restored.parquet")
    assert rows["face"].tolist() == [0, 1, 2]
    assert rows["output"].unique().tolist() == ["three.png"]
    assert (rows["steps"] == 1).all()
    assert not rows["trained"].any()
    before, after = read(three_faces), read(tmp_path / "out/three.png")
    changed = (before != after).any(axis=2)
    allowed = np.zeros_like(changed)
    for quad in rows["quad_px"]:
        corners = np.array(quad).reshape(4, 2)
        inside = np.linalg.inv(np.stack([corners[3] - corners[0], corners[1] - corners[0]], axis=1))
        y, x = np.mgrid[: changed.shape[0], : changed.shape[1]]
        share = np.einsum("ij,jhw->ihw", inside, np.stack([x - corners[0, 0], y - corners[0, 1]]))
        within = ((share > 0) & (share < 1)).all(axis=0)
        allowed |= within
        assert changed[within].mean() > 0.6
    assert not changed[~allowed].any()
    assert 0.03 < changed.mean() < 0.3
    with Image.open(tmp_path / "out/three.png") as image:
        assert image.getexif()[0x010F] == "A maker"
    with Image.open(tmp_path / "out/strip.jpg") as strip:
        assert strip.size == (3 * 256, 512)


def test_the_largest_face_alone_and_a_larger_photograph(restore, three_faces, tmp_path):
    done = restore(three_faces, tmp_path / "out", "--faces", "largest", "--upscale", 2)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "out/restored.parquet")
    assert len(rows) == 1
    with Image.open(three_faces) as image:
        enlarged = np.asarray(image.resize((1920, 1280), Image.Resampling.LANCZOS)).astype(int)
    after = read(tmp_path / "out/three.png")
    changed = (after != enlarged).any(axis=2)
    corners = np.array(rows["quad_px"][0]).reshape(4, 2) * 2
    ys, xs = np.nonzero(changed)
    assert corners[:, 0].min() - 2 < xs.min() < xs.max() < corners[:, 0].max() + 2
    assert corners[:, 1].min() - 2 < ys.min() < ys.max() < corners[:, 1].max() + 2


def test_certainty_is_measured_and_drawn(restore, three_faces, tmp_path):
    done = restore(three_faces, tmp_path / "out", "--certainty", 3)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "out/restored.parquet")
    assert (rows["disagreement"] > 1).all()  # noise, of an untrained model
    assert rows["consistency_db"].between(3, 60).all()
    assert {"identity_drift", "identity_spread"} <= set(rows.columns)
    for place in range(3):
        with Image.open(tmp_path / f"out/certainty/three-{place}.png") as image:
            assert image.size == (3 * PX, PX)
    once = restore(three_faces, tmp_path / "once")
    assert once.returncode == 0
    assert np.array_equal(
        read(tmp_path / "out/three.png"), read(tmp_path / "once/three.png")
    )  # the first seed's face is taken


def test_patterns_what_is_there_and_what_is_asked_again(restore, filled, tmp_path):
    folder, out = tmp_path / "faces", tmp_path / "out"
    folder.mkdir()
    for path in sorted((filled / "faces").iterdir())[:3]:
        shutil.copy(path, folder)
    first, *others = sorted(path.name for path in folder.iterdir())
    assert restore(folder / first, out).returncode == 0
    before = (out / first).read_bytes()
    done = restore(f"{folder}/*.png", out, "--seed", 5, "--batch", 2)
    assert done.returncode == 0, done.stderr
    assert "1 are there already" in done.stdout
    rows = pd.read_parquet(out / "restored.parquet").set_index("output")
    assert rows["seed"].to_dict() == {first: 123, **dict.fromkeys(others, 5)}
    assert (out / first).read_bytes() == before
    with Image.open(out / others[0]) as image:
        assert image.size == (PX, PX)
    assert restore(folder, out, "--seed", 5, "--overwrite").returncode == 0
    assert (out / first).read_bytes() != before
    assert pd.read_parquet(out / "restored.parquet")["seed"].tolist() == [5, 5, 5]


def test_sub_folders_that_a_pattern_leaves_open_are_kept(restore, filled, tmp_path):
    faces = sorted((filled / "faces").iterdir())[:2]
    for folder, face in zip(("one", "two"), faces, strict=True):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(face, tmp_path / "in" / folder / "same.png")
    done = restore(f"{tmp_path}/in/**/*.png", tmp_path / "out", "--certainty", 2)
    assert done.returncode == 0, done.stderr
    made = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")
    }
    assert made == {
        "one/same.png",
        "two/same.png",
        "certainty/one/same-0.png",
        "certainty/two/same-0.png",
    }
    assert sorted(pd.read_parquet(tmp_path / "out/restored.parquet")["output"]) == [
        "one/same.png",
        "two/same.png",
    ]
    assert "2 are there already" in restore(f"{tmp_path}/in/**/*.png", tmp_path / "out").stdout
    done = restore(f"{tmp_path}/in/**/*.png", tmp_path / "in")
    assert done.returncode == 2
    assert "would overwrite" in done.stderr


def test_what_cannot_be_restored_gets_a_line_and_stops_nothing(restore, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (100, 60)).save(folder / "nobody.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    shutil.copy(photos["obama.jpg"], folder)
    done = restore(folder, tmp_path / "out")
    assert done.returncode == 4
    for words in ("deep.png has 16 bits", "nobody.png: no face", "broken.jpg cannot be decoded"):
        assert words in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "obama.jpg",
        "restored.parquet",
        "strip.jpg",
    }
    square = tmp_path / "square.png"
    Image.new("RGB", (64, 64)).save(square)
    done = restore(square, tmp_path / "out", "--upscale", 2)
    assert done.returncode == 4
    assert "square.png is an aligned face" in done.stderr


def test_the_authors_settings_by_name(restore, filled, tmp_path):
    face = min((filled / "faces").iterdir())
    done = restore(face, tmp_path / "out", "--preset", "authors", "--colour-fix", "adain")
    assert done.returncode == 0, done.stderr
    row = pd.read_parquet(tmp_path / "out/restored.parquet").iloc[0]
    assert (row["guidance"], row["steps"], row["colour_fix"]) == (8.0, 1, "adain")
    assert row["prompt"].startswith("hyper-realistic portrait")
    assert "oil painting" in row["negative_prompt"]
