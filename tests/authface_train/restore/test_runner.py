"""Which inputs are aligned faces, where their results go, and which exist already."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_restorer
from PIL import Image

from authface_data.faces.align import align_photo
from authface_data.faces.finder import FaceFinder
from authface_data.images.open import Photo
from authface_train.commands.input_images import expand_inputs
from authface_train.restore.earlier_results import EarlierResults
from authface_train.restore.output_folder import OutputTarget
from authface_train.restore.pipeline import Restorer
from authface_train.restore.runner import RestoreOptions, RestoreRunner
from authface_train.restore.sampling import Sampling
from manifests.support.errors import UserError
from manifests.support.options import MAX_SEED

SIZE_PX = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_restorer.save_tiny_restorer(tmp_path_factory.mktemp("model"), SIZE_PX)


@pytest.fixture(scope="module")
def restorer(model):
    return Restorer(str(model), Sampling(steps=1))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photos, weights):
    """Folder with `crop.png`, an aligned face, and `square.png`, a photograph of 512 x 512 px."""
    folder = tmp_path_factory.mktemp("pictures")
    shutil.copy(photos["astronaut-nasa.png"], folder / "square.png")
    photo = Photo((folder / "square.png").read_bytes)
    (face,) = FaceFinder("retinaface-mobile", None).find(photo)
    Image.fromarray(align_photo(photo, face.quad, 256).pixels).save(folder / "crop.png")
    return folder


@pytest.fixture
def restore(restorer, model):
    def run(inputs, output, *, earlier=False, **options):
        """Restore what is missing (`earlier`), or everything; returns the runner."""
        restore_options = RestoreOptions(**options)
        target = OutputTarget.parse(output)
        names = target.rename(expand_inputs([str(path) for path in inputs]))
        target.check(names)
        if earlier:
            results = EarlierResults(target, restore_options.known_aligned).find(names)
            names = {path: name for path, name in names.items() if path not in results}
        runner = RestoreRunner(
            restorer=restorer,
            target=target,
            options=restore_options,
            model=str(model),
            weights_dir=None,
        )
        runner.restore(names)
        return runner

    return run


def size_of(path):
    with Image.open(path) as image:
        return image.format, image.size


def test_square_photograph_is_no_aligned_face(restore, pictures, tmp_path):
    runner = restore([pictures], tmp_path / "out")
    assert runner.failures == []
    summary = runner.summarise()
    assert (summary.faces, summary.aligned, summary.photographs) == (2, 1, 1)
    assert size_of(tmp_path / "out/square.png") == ("PNG", (512, 512))
    assert size_of(tmp_path / "out/crop.png") == ("PNG", (SIZE_PX, SIZE_PX))
    rows = pd.read_parquet(tmp_path / "out/restored.parquet").set_index("output")
    assert rows["aligned"].to_dict() == {"crop.png": True, "square.png": False}
    assert rows.loc["square.png", "box_px"] is not None


def test_options_decide_what_landmarks_would(restore, pictures, tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "oblong.png")
    runner = restore([pictures, tmp_path / "oblong.png"], tmp_path / "out", aligned=True)
    assert runner.failures == [
        "oblong.png is 80 x 60 px, not square; --aligned takes aligned faces only"
    ]
    assert size_of(tmp_path / "out/square.png") == ("PNG", (SIZE_PX, SIZE_PX))
    assert runner.summarise().aligned == 2
    assert "finder" not in vars(runner), "no detector is needed"

    assert restore([pictures], tmp_path / "all", faces="all").summarise().photographs == 2
    assert size_of(tmp_path / "all/crop.png") == ("PNG", (256, 256))


def test_square_picture_without_face_is_reported(restore, weights, tmp_path):
    """Small ones may be heavily degraded crops; larger ones are photographs."""
    Image.new("RGB", (48, 48)).save(tmp_path / "small.png")
    Image.new("RGB", (1200, 1200)).save(tmp_path / "large.png")
    runner = restore([tmp_path / "small.png", tmp_path / "large.png"], tmp_path / "out")
    assert runner.undetected == ["small.png"]
    assert runner.failures == ["large.png: no face found; --aligned restores it as an aligned face"]
    assert runner.summarise().aligned == 1


def test_record_of_earlier_version_gets_the_column(restore, pictures, tmp_path):
    out = tmp_path / "out"
    restore([pictures], out)
    record = pd.read_parquet(out / "restored.parquet")
    record.drop(columns="aligned").to_parquet(out / "restored.parquet")
    restore([pictures / "crop.png"], out, aligned=True)
    rows = pd.read_parquet(out / "restored.parquet").set_index("output")
    assert rows["aligned"].to_dict() == {"square.png": False, "crop.png": True}


def test_names_that_differ_in_their_suffix_alone_have_separate_results(restore, pictures, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    with Image.open(pictures / "crop.png") as crop, Image.open(pictures / "square.png") as square:
        crop.save(folder / "a.jpg")
        crop.save(folder / "a.png")
        crop.save(folder / "b.jpg")
        square.convert("RGB").save(folder / "c.jpg")
        square.save(folder / "c.png")
    runner = restore([folder], out)
    assert runner.failures == []
    results = {"a.jpg.png", "a.png.png", "b.png", "c.jpg", "c.png"}
    assert {path.name for path in out.iterdir()} == results | {"restored.parquet", "strip.jpg"}
    assert set(pd.read_parquet(out / "restored.parquet")["output"]) == results

    again = restore([folder], out, earlier=True)
    assert again.rows == []
    assert "finder" not in vars(again), "existing results are found without a detector"
    (out / "a.jpg.png").unlink()
    again = restore([folder], out, earlier=True)
    assert [row["output"] for row in again.rows] == ["a.jpg.png"]


def test_result_of_another_input_of_the_name_is_not_taken_for_existing(restore, pictures, tmp_path):
    """`a.png` is the result of an aligned `a.jpg` until there is an `a.png`."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    with Image.open(pictures / "crop.png") as crop:
        crop.save(folder / "a.jpg")
        assert [row["output"] for row in restore([folder], out, earlier=True).rows] == ["a.png"]
        crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "a.png")
    rows = restore([folder], out, earlier=True).rows
    assert {Path(row["input"]).name: row["output"] for row in rows} == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
    }
    assert restore([folder], out, earlier=True).rows == []


def test_every_result_has_its_row_after_a_run_that_is_killed(
    restore, pictures, tmp_path, monkeypatch
):
    def stop(*_):
        raise SystemExit

    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(RestoreRunner, "_write_photo", stop)
        with pytest.raises(SystemExit):
            restore([pictures], out, earlier=True, batch=1)
    assert {path.name for path in out.iterdir()} == {"crop.png", "restored.parquet"}
    assert len(restore([pictures], out, earlier=True).rows) == 1
    record = pd.read_parquet(out / "restored.parquet")
    assert record["output"].tolist() == ["crop.png", "square.png"]


def test_picture_that_cannot_be_written_has_no_row(restore, pictures, tmp_path):
    out = tmp_path / "out"
    (out / "square.png").mkdir(parents=True)
    runner = restore([pictures], out)
    assert len(runner.failures) == 1
    assert pd.read_parquet(out / "restored.parquet")["output"].tolist() == ["crop.png"]
    (out / "crop.png").unlink()
    runner = restore([pictures / "square.png"], out)
    assert len(runner.failures) == 1
    assert pd.read_parquet(out / "restored.parquet")["output"].tolist() == ["crop.png"]


def test_results_of_other_kinds_are_not_taken_for_existing(restore, pictures, tmp_path):
    """`a.png` in the output folder is the result of an aligned face, not of a photograph."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    with Image.open(pictures / "square.png") as square:
        square.convert("RGB").crop((0, 0, 512, 400)).save(folder / "a.jpg")
    out.mkdir()
    (out / "a.png").touch()
    assert len(restore([folder], out, earlier=True).rows) == 1
    (out / "a.jpg").unlink()
    names = expand_inputs([str(folder)])
    target = OutputTarget.parse(out)
    assert EarlierResults(target, known_aligned=True).find(names) == {
        folder / "a.jpg": Path("a.png")
    }
    assert EarlierResults(target, known_aligned=False).find(names) == {}


def test_two_inputs_of_one_name_are_refused(pictures, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures / "crop.png", other)
    with pytest.raises(UserError, match=r"would be the same file crop\.png; rename one"):
        expand_inputs([str(pictures), str(other)])
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        shutil.copy(pictures / "crop.png", other / name)
    with pytest.raises(UserError, match=r"the same file a\.jpg\.png"):
        expand_inputs([str(other)])


def test_one_picture_is_written_to_a_file(restore, pictures, photos, tmp_path):
    out = tmp_path / "new/result.webp"
    runner = restore([pictures / "crop.png"], out)
    assert (runner.summarise().aligned, size_of(out)) == (1, ("WEBP", (SIZE_PX, SIZE_PX)))
    assert [path.name for path in out.parent.iterdir()] == ["result.webp"]
    assert restore([pictures / "crop.png"], out, earlier=True).rows == []

    for suffix, image_format in ((".jpg", "JPEG"), (".tif", "TIFF"), (".png", "PNG")):
        out = tmp_path / f"square{suffix}"
        restore([pictures / "square.png"], out)
        assert size_of(out) == (image_format, (512, 512))
    before, after = (
        np.asarray(Image.open(path)).astype(int) for path in (pictures / "square.png", out)
    )
    assert 0 < (before != after).any(axis=2).mean() < 0.5
    with Image.open(tmp_path / "square.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - after).mean() < 3


def test_a_photograph_that_cannot_be_written_again_is_converted(restore, photos, tmp_path):
    with Image.open(photos["astronaut-nasa.png"]) as image:
        image.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert "is CMYK" in restore([tmp_path / "print.jpg"], tmp_path / "out").failures[0]
    runner = restore([tmp_path / "print.jpg"], tmp_path / "result.png")
    assert (runner.failures, runner.summarise().photographs) == ([], 1)


def test_output_that_is_no_folder_and_no_picture_is_refused(pictures, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder.png").mkdir()
    assert OutputTarget.parse(tmp_path / "folder.png").file is None
    assert OutputTarget.parse(tmp_path / "v1.5").file is None
    names = expand_inputs([str(pictures)])
    with pytest.raises(UserError, match="is a file; use a folder, or for one picture"):
        OutputTarget.parse(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"\.heic is not written; use one of \.jpg"):
        OutputTarget.parse(tmp_path / "a.heic")
    with pytest.raises(UserError, match="is one file, and --input names 2 pictures; use a folder"):
        OutputTarget.parse(tmp_path / "a.png").rename(names)
    target = OutputTarget.parse(pictures / "crop.png")
    with pytest.raises(UserError, match="is the input itself"):
        target.check(target.rename(expand_inputs([str(pictures / "crop.png")])))
    with pytest.raises(UserError, match="results would overwrite inputs"):
        OutputTarget.parse(pictures).check(names)


USAGE_ERRORS = (
    (("--aligned", "--faces", "all"), "--aligned and --faces exclude each other"),
    (("--aligned", "--upscale", 2), "--upscale enlarges photographs"),
    (("--seed", -1), "Invalid value for '--seed'"),
    (("--seed", 2**128 - 1), str(MAX_SEED)),
    (("--detector", "retinanet"), "did you mean retinaface?"),
    (("--output", "result.jpg", "--certainty", 2), "use a folder for --output"),
)


@pytest.mark.parametrize(("options", "message"), USAGE_ERRORS)
def test_usage_errors_are_one_line_before_the_model_is_loaded(
    authface_here, pictures, tmp_path, options, message
):
    inputs = ("--model", "no/model", "--input", pictures / "crop.png", "--output", tmp_path / "out")
    completed = authface_here("restore", *inputs, *options)
    assert completed.returncode == 2
    assert message in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_largest_seed_is_recorded(restore, restorer, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(restorer, "sampling", Sampling(steps=1, seed=MAX_SEED))
    restore([pictures / "crop.png"], tmp_path / "out", aligned=True)
    assert pd.read_parquet(tmp_path / "out/restored.parquet")["seed"].tolist() == [MAX_SEED]
    # `--certainty` counts upwards from the seed.
    assert len(restorer.restore([np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)], MAX_SEED + 9)) == 1
