"""`authface reproduce --scale paper`, end to end with tiny weights: a plan with what it takes, then its running."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny_restorer
import torch
from caption_server import CaptionServer
from PIL import Image

from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.reproduce import paper_runs, timestep
from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import Sampling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def given(filled, tmp_path_factory, authface_here):
    """A workspace whose captions have semantic tags too, and a test set of two faces with their degraded selves."""
    root = tmp_path_factory.mktemp("paper")
    shutil.copytree(filled, root / "ws")
    with CaptionServer() as server:
        done = authface_here(
            "caption", "--captioner", "server", "--base-url", server.url, "-w", root / "ws"
        )
        assert done.returncode == 0, done.stderr
    for name in ("clean", "degraded"):
        (root / name).mkdir()
    for number, path in enumerate(sorted((filled / "faces").iterdir())[:2]):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((64, 64))
            small.save(root / f"clean/{number}.png")
            small.resize((16, 16)).resize((64, 64)).save(root / f"degraded/{number}.png")
    return root


@pytest.fixture
def run(given, authface_here, monkeypatch):
    """Commands of the plan run in this process: each would be started anew otherwise, which takes longer than what it does."""
    ran = []

    def run_command(*words, launcher=()):
        ran.append(words[0])
        done = authface_here(*words)
        assert done.returncode == 0, (words, done.stderr)

    def dry_run(step, _given):
        words = step.words if "--prior" not in step.words else (*step.words[:5], "--base", "tiny")
        return json.loads(authface_here(*words, "--dry-run", "--json").stdout)

    monkeypatch.setattr(paper_runs, "run_command", run_command)
    monkeypatch.setattr(paper_runs, "_dry_run", dry_run)

    def reproduce(table, *more):
        ran.clear()
        words = (
            "--scale",
            "paper",
            "--base",
            "tiny",
            "--preset",
            "tiny",
            "--steps",
            1,
            "--set",
            "resolution_px=64",
        )
        folders = ("--reference", given / "clean", "--output", given / "out", "-w", given / "ws")
        done = authface_here("reproduce", table, *words, *folders, *more)
        return done, list(ran)

    return reproduce


ROOT = "out/paper/tiny-1-steps"


def only(folder):
    """What a run has left of its one test set."""
    (tested,) = (
        path for path in folder.iterdir() if path.name.startswith(("celeba-test-", "test-"))
    )
    return tested


def test_table1_is_planned_then_run_and_not_run_twice(run, given):
    degraded = ("--degraded", given / "degraded")
    done, ran = run("table1", *degraded, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "hours and" in done.stdout
    assert ran == []
    done, ran = run("table1", *degraded)
    assert done.returncode == 0, done.stderr
    assert ran == ["train-prior", "train-restore", "restore", "evaluate"]
    assert "AuthFace, as printed" in done.stdout
    said = json.loads((only(given / ROOT) / "table1/summary.json").read_text())
    assert set(said["methods"]) == {"degraded", "row d"}
    assert said["set"] == "celeba-test"
    assert said["paper"]["psnr"] == 25.57
    done, ran = run("table1", *degraded)
    assert ran == []
    assert done.stdout.count("is done") == 4
    other = given / "other"
    shutil.copytree(given / "degraded", other, dirs_exist_ok=True)
    done, ran = run("table1", "--degraded", other, "--dry-run", "--json")
    known = [one["done"] for one in json.loads(done.stdout)]
    assert known == [True, True, False, False]  # of another test set, only the models
    done, ran = run("timestep", *degraded)
    assert done.returncode == 0, done.stderr
    assert ran == ["restore"]  # of a set without a name, by the restorer of Table 1
    assert "the paper's at t = 0.32" in done.stdout


def test_table3_draws_and_compares(run, given):
    done, ran = run("table3")
    assert done.returncode == 0, done.stderr
    assert 1 <= ran.count("train-prior") <= 2  # that of both tags may be there, for Table 1
    assert ran.count("reproduce") == ran.count("evaluate") == 3
    with (given / ROOT / "drawn/both/captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert "51.09 / .2903" in done.stdout
    assert (given / ROOT / "drawn/both" / rows[0]["file"]).is_file()


def test_the_plans_of_the_other_tables(given):
    of = paper_runs.Given(
        given / "ws",
        "sdxl",
        "paper",
        given / "x",
        given / "degraded",
        None,
        None,
        "lfw-test",
        None,
        (),
    )
    steps = paper_runs.steps("table2", of)
    words = [" ".join(step.words) for step in steps]
    assert [line.split()[0] for line in words] == [
        "train-prior",
        *["train-restore", "restore"] * 4,
        "evaluate",
    ]
    generic, off, constant, aware = (line for line in words if line.startswith("train-restore"))
    assert "--base sdxl" in generic
    assert "--prior" not in generic
    for line, weight in (
        (generic, "off"),
        (off, "off"),
        (constant, "constant"),
        (aware, "time-aware"),
    ):
        assert f"--facial-weight {weight} --set facial.m=-0.5" in line
        assert "--steps" not in line  # the preset's own
    assert "--set lfw-test" in words[-1]
    four = [
        " ".join(step.words)
        for step in paper_runs.steps("table4", of)
        if step.words[0] == "train-restore"
    ]
    assert ["facial.m=0.0" in line for line in four] == [False, True, False, False]
    assert "facial.s=0.5" in four[3]
    assert paper_runs.steps("table5", of)[-1].words[:2] == ("study", "create")
    assert "--count 20" in " ".join(paper_runs.steps("table5", of)[-1].words)
    assert paper_runs.launcher(of)[1:] == ["-P", "-m", "cli"]
    four_cards = paper_runs.launcher(dataclasses.replace(of, preset="4x48gb"))
    assert four_cards[1:] == ["-m", "torch.distributed.run", "--nproc_per_node", "4", "-m", "cli"]


def test_what_is_missing_is_said_first(authface_here, given):
    words = ("reproduce", "table1", "--scale", "paper", "-w", given / "ws")
    assert "--degraded DIR" in authface_here(*words).stderr
    assert "is no folder" in authface_here(*words, "--degraded", given / "nothing").stderr
    assert (
        "--reference DIR"
        in authface_here("reproduce", "table3", "--scale", "paper", "-w", given / "ws").stderr
    )


def test_a_face_is_seen_in_what_a_perfect_restorer_predicts(filled, tmp_path, weights, monkeypatch):
    """An oracle that knows z_0 up to step 500 and nothing after: the picture decoded there is the clean one, then grey."""
    for name in ("clean", "degraded"):
        (tmp_path / name).mkdir()
        shutil.copy(min((filled / "faces").iterdir()), tmp_path / name / "a.png")
    restorer = Restorer(str(tiny_restorer.save_tiny_restorer(tmp_path / "model", 256)), Sampling())
    restorer.pipeline.vae = PixelUnshuffle()
    with Image.open(tmp_path / "clean/a.png") as image:
        clean = restorer.encode(np.asarray(image.convert("RGB")))
    abar = restorer.pipeline.scheduler.alphas_cumprod

    def oracle(noisy, t_step, degraded):
        known = clean if t_step < 500 else torch.zeros_like(clean)
        return (noisy - abar[t_step].sqrt() * known) / (1 - abar[t_step]).sqrt()

    monkeypatch.setattr(restorer, "predict_noise", oracle)
    table = timestep.measure(
        restorer, tmp_path / "degraded", tmp_path / "clean", "retinaface-mobile", None
    )
    seen = table["t_step"] < 500
    assert (table["confidence"][seen] > 0.9).all()
    assert (table["confidence"][~seen] < 0.1).all()
    at = timestep.crossing(table["t"].tolist(), table["confidence"].tolist())
    assert table["t"][seen].max() < at < table["t"][~seen].min()
    assert timestep.crossing([0.1, 0.2, 0.3], [0.9, 0.6, 0.4]) == pytest.approx(0.25)
    assert timestep.crossing([0.1, 0.2], [0.4, 0.3]) is None
    assert timestep.draw(table).width > 300
