"""`authface restore` on whole photographs with a tiny untrained model.

Everything is tested except the quality of the restored faces.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_restorer
from PIL import Image
from public_faces import photographs

pytestmark = pytest.mark.slow
SIZE_PX = 64
MAKER = 0x010F


@pytest.fixture(scope="module")
def model(tmp_path_factory, weights):
    return tiny_restorer.save_tiny_restorer(tmp_path_factory.mktemp("model"), SIZE_PX)


@pytest.fixture
def restore(model, authface_here):
    def run(input, output, *options):
        required = ("--model", model, "--input", input, "--output", output, "--steps", 1)
        return authface_here("restore", *required, *options)

    return run


@pytest.fixture(scope="module")
def three_faces(tmp_path_factory):
    """A PNG photograph of three people, small enough for a quick detection."""
    path = tmp_path_factory.mktemp("three") / "three.png"
    with Image.open(photographs()["sample1.jpg"]) as image:
        exif = Image.Exif()
        exif[MAKER] = "A maker"
        image.convert("RGB").resize((960, 640), Image.Resampling.LANCZOS).save(path, exif=exif)
    return path


def read(path):
    """Read a picture as (height, width, 3) int, so that differences do not wrap around."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def quad_mask(quad_px, shape):
    """(height, width) bool: pixels inside a quad."""
    north_west, south_west, _, north_east = np.array(quad_px).reshape(4, 2)
    axes = np.stack([north_east - north_west, south_west - north_west], axis=1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    offsets = np.stack([x - north_west[0], y - north_west[1]])
    coordinates = np.einsum("ij,jhw->ihw", np.linalg.inv(axes), offsets)
    return ((coordinates > 0) & (coordinates < 1)).all(axis=0)


def test_three_faces_are_restored_and_rest_is_unchanged(restore, three_faces, tmp_path):
    completed = restore(three_faces, tmp_path / "out")
    assert completed.returncode == 0, completed.stderr
    assert "Restored 3 faces to " in completed.stdout
    assert "Inputs: 1 photograph\n" in completed.stdout
    assert "Untrained model" in completed.stdout
    rows = pd.read_parquet(tmp_path / "out/restored.parquet")
    assert rows["face"].tolist() == [0, 1, 2]
    assert rows["output"].unique().tolist() == ["three.png"]
    assert (rows["steps"] == 1).all()
    assert not rows["trained"].any()

    before = read(three_faces)
    after = read(tmp_path / "out/three.png")
    changed = (before != after).any(axis=2)
    inside_any = np.zeros_like(changed)
    for quad_px in rows["quad_px"]:
        inside = quad_mask(quad_px, changed.shape)
        inside_any |= inside
        assert changed[inside].mean() > 0.6
    assert not changed[~inside_any].any()
    assert 0.03 < changed.mean() < 0.3
    with Image.open(tmp_path / "out/three.png") as image:
        assert image.getexif()[MAKER] == "A maker"
    with Image.open(tmp_path / "out/strip.jpg") as strip:
        assert strip.size == (3 * 256, 512)


def test_largest_face_of_enlarged_photograph(restore, three_faces, tmp_path):
    completed = restore(three_faces, tmp_path / "out", "--faces", "largest", "--upscale", 2)
    assert completed.returncode == 0, completed.stderr
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


def test_uncertainty_is_measured_and_drawn(restore, three_faces, tmp_path):
    completed = restore(three_faces, tmp_path / "out", "--certainty", 3)
    assert completed.returncode == 0, completed.stderr
    rows = pd.read_parquet(tmp_path / "out/restored.parquet")
    # An untrained model restores noise, which differs between seeds.
    assert (rows["disagreement"] > 1).all()
    assert rows["consistency_db"].between(3, 60).all()
    assert {"identity_drift", "identity_spread"} <= set(rows.columns)
    for index in range(3):
        with Image.open(tmp_path / f"out/certainty/three-{index}.png") as image:
            assert image.size == (3 * SIZE_PX, SIZE_PX)

    # The result is the face of the first seed.
    assert restore(three_faces, tmp_path / "once").returncode == 0
    assert np.array_equal(read(tmp_path / "out/three.png"), read(tmp_path / "once/three.png"))


def test_existing_results_are_skipped_unless_overwritten(restore, filled, tmp_path):
    folder = tmp_path / "faces"
    out = tmp_path / "out"
    folder.mkdir()
    for path in sorted((filled / "faces").iterdir())[:3]:
        shutil.copy(path, folder)
    first, *remaining = sorted(path.name for path in folder.iterdir())
    assert restore(folder / first, out).returncode == 0
    before = (out / first).read_bytes()

    other = restore(folder, out, "--seed", 5)
    assert other.returncode == 2
    assert "holds 1 result of another run (seed is 123 there and 5 now)" in other.stderr
    completed = restore(f"{folder}/*.png", out, "--batch", 2)
    assert completed.returncode == 0, completed.stderr
    assert "1 of 3 results exist" in completed.stdout
    rows = pd.read_parquet(out / "restored.parquet").set_index("output")
    assert rows["seed"].to_dict() == dict.fromkeys([first, *remaining], 123)
    assert (out / first).read_bytes() == before
    with Image.open(out / remaining[0]) as image:
        assert image.size == (SIZE_PX, SIZE_PX)

    assert restore(folder, out, "--seed", 5, "--overwrite").returncode == 0
    assert (out / first).read_bytes() != before
    assert pd.read_parquet(out / "restored.parquet")["seed"].tolist() == [5, 5, 5]


def test_sub_folders_of_pattern_are_kept(restore, filled, tmp_path):
    faces = sorted((filled / "faces").iterdir())[:2]
    for folder, face in zip(("one", "two"), faces, strict=True):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(face, tmp_path / "in" / folder / "same.png")
    pattern = f"{tmp_path}/in/**/*.png"
    out = tmp_path / "out"
    completed = restore(pattern, out, "--certainty", 2)
    assert completed.returncode == 0, completed.stderr
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {
        "one/same.png",
        "two/same.png",
        "certainty/one/same-0.png",
        "certainty/two/same-0.png",
    }
    outputs = pd.read_parquet(out / "restored.parquet")["output"]
    assert sorted(outputs) == ["one/same.png", "two/same.png"]
    assert "2 of 2 results exist" in restore(pattern, out).stdout

    completed = restore(pattern, tmp_path / "in")
    assert completed.returncode == 2
    assert "would overwrite" in completed.stderr


def test_files_that_cannot_be_restored_do_not_stop_others(restore, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (100, 60)).save(folder / "empty.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    shutil.copy(photos["obama.jpg"], folder)
    completed = restore(folder, tmp_path / "out")
    assert completed.returncode == 4
    for message in (
        "deep.png has 16 bits",
        "empty.png: no face found",
        "broken.jpg cannot be decoded",
    ):
        assert f"\n{message}" in f"\n{completed.stderr}"
    assert completed.stderr.rstrip().endswith("3 of 4 pictures not restored")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "obama.jpg",
        "restored.parquet",
        "strip.jpg",
    }

    square = tmp_path / "square.png"
    Image.new("RGB", (64, 64)).save(square)
    completed = restore(square, tmp_path / "out", "--upscale", 2)
    assert completed.returncode == 4
    assert "square.png is an aligned face" in completed.stderr


def test_authors_preset_with_changed_setting(restore, filled, tmp_path):
    face = min((filled / "faces").iterdir())
    completed = restore(face, tmp_path / "out", "--preset", "authors", "--colour-fix", "adain")
    assert completed.returncode == 0, completed.stderr
    row = pd.read_parquet(tmp_path / "out/restored.parquet").iloc[0]
    assert (row["guidance"], row["steps"], row["colour_fix"]) == (8.0, 1, "adain")
    assert row["prompt"].startswith("hyper-realistic portrait")
    assert "oil painting" in row["negative_prompt"]
