"""The paper's arrangement end to end with tiny weights: Stage I on portraits, Stage II on FFHQ.

`authface reproduce --scale paper` plans and runs the tables; one workspace holds both sets.
"""

import csv
import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_restorer
import torch
from caption_server import CaptionServer
from commands import CommandRunner, collect_files, set_options
from PIL import Image
from public_faces import detected_faces

from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.reproduce import paper_runs, timestep
from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import Sampling

pytestmark = pytest.mark.slow

TINY_RUN = ("--scale", "paper", "--base", "tiny", "--preset", "tiny", "--steps", 1)
TINY_RUN += ("--set", "resolution_px=64")
RESULTS = "out/paper/tiny-1-steps"
FFHQ_PHOTO = "sample5.jpg"
"""Photograph whose first face stands in for FFHQ."""


@pytest.fixture(scope="module")
def inputs(filled, tmp_path_factory, authface_here):
    """A workspace of portraits with semantic tags too and of FFHQ without captions, and a test set.

    The test set has two faces, clean and degraded.
    """
    root = tmp_path_factory.mktemp("paper")
    shutil.copytree(filled, root / "ws")
    (root / "ffhq").mkdir()
    (face,) = (face for face in detected_faces() if (face.photo, face.index) == (FFHQ_PHOTO, 0))
    Image.fromarray(face.crop).save(root / "ffhq" / "00000.png")
    for command in (
        collect_files("ffhq", root / "ws", root / "ffhq"),
        ["filter", "-w", root / "ws"],
    ):
        result = authface_here(*command)
        assert result.returncode == 0, result.stderr
    with CaptionServer() as server:
        options = ("--captioner", "server", "--base-url", server.url, "-w", root / "ws")
        result = authface_here("caption", *options)
        assert result.returncode == 0, result.stderr

    for name in ("clean", "degraded"):
        (root / name).mkdir()
    for number, path in enumerate(sorted((filled / "faces").iterdir())[:2]):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((64, 64))
        small.save(root / f"clean/{number}.png")
        small.resize((16, 16)).resize((64, 64)).save(root / f"degraded/{number}.png")
    return root


@pytest.fixture(scope="module")
def plans():
    """The plan of each stage once it has been made."""
    return {}


@pytest.fixture
def reproduce(inputs, authface_here, monkeypatch, plans):
    """Runs `authface reproduce`; returns its result and the names of the commands it has run."""
    run_command = CommandRunner(authface_here)

    def dry_run(command, request):
        """One dry run per stage; those of a stage differ in nothing that a plan shows."""
        stage = command.arguments[0]
        if stage not in plans:
            arguments = list(command.arguments)
            if "--prior" in arguments:
                index = arguments.index("--prior")
                arguments[index : index + 2] = ["--base", "tiny"]
            result = authface_here(*arguments, "--dry-run", "--json")
            plans[stage] = json.loads(result.stdout)
        return plans[stage]

    monkeypatch.setattr(paper_runs, "run_command", run_command)
    monkeypatch.setattr(paper_runs, "_dry_run", dry_run)

    def reproduce(table, *options):
        run_command.names.clear()
        folders = ("--reference", inputs / "clean", "--output", inputs / "out", "-w", inputs / "ws")
        result = authface_here("reproduce", table, *TINY_RUN, *folders, *options)
        return result, list(run_command.names)

    return reproduce


def folder_of_test_set(results):
    """The only folder of a test set in a folder of results."""
    prefixes = ("celeba-test-", "test-")
    (folder,) = (path for path in results.iterdir() if path.name.startswith(prefixes))
    return folder


def check_sources(models):
    """Check that Stage I has learned from the portraits only, and Stage II from FFHQ only."""
    for name, source in (("prior-both", "portraits"), ("restorer-d", "ffhq")):
        assert json.loads((models / name / "run.json").read_text())["settings"]["source"] == source
    lineage = pd.read_parquet(models / "restorer-d" / "lineage.parquet")
    of_prior, of_restorer = (lineage[lineage["stage"] == stage] for stage in ("prior", "restorer"))
    assert set(of_prior["source"]) == {"folder"}
    assert len(of_prior) == 4
    assert set(of_restorer["source"]) == {"ffhq"}
    card = (models / "restorer-d" / "README.md").read_text()
    assert (
        "- Face prior (AuthFace Stage I): 4 faces from 4 photographs, collected from folder" in card
    )
    assert "Stage II): 1 face from 1 photograph, collected from ffhq" in card


def test_table1_is_planned_and_every_command_runs_once(reproduce, inputs):
    degraded = ("--degraded", inputs / "degraded")
    result, commands = reproduce("table1", *degraded, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "hours and" in result.stdout
    assert "4 portraits" in result.stdout
    assert "1 ffhq" in result.stdout
    assert commands == []

    result, commands = reproduce("table1", *degraded)
    assert result.returncode == 0, result.stderr
    assert commands == ["train-prior", "train-restore", "restore", "evaluate"]
    assert "AuthFace, as printed" in result.stdout
    table1 = folder_of_test_set(inputs / RESULTS) / "table1"
    summary = json.loads((table1 / "summary.json").read_text())
    assert set(summary["methods"]) == {"degraded", "row d"}
    check_sources(inputs / RESULTS / "models")
    assert summary["set"] == "celeba-test"
    assert summary["paper"]["psnr"] == 25.57

    result, commands = reproduce("table1", *degraded)
    assert commands == []
    assert result.stdout.count("done") == 4

    other = inputs / "other"
    shutil.copytree(inputs / "degraded", other, dirs_exist_ok=True)
    result, _ = reproduce("table1", "--degraded", other, "--dry-run", "--json")
    is_done = [command["done"] for command in json.loads(result.stdout)]
    assert is_done == [True, True, False, False], "another test set shares the models only"

    result, commands = reproduce("timestep", *degraded)
    assert result.returncode == 0, result.stderr
    assert commands == ["restore"], "the test set has no name here; the restorer is Table 1's"
    assert "the paper's does at t = 0.32" in result.stdout


def test_ablations_train_and_evaluate_every_row(reproduce, inputs):
    """Tables 2 and 4 share row d with Table 1, and Table 5 shares rows b and d with Table 2."""
    degraded = ("--degraded", inputs / "degraded")
    for table, rows in (("table2", "abcd"), ("table4", ("d", "m=0", "m=0.5", "s=0.5"))):
        result, commands = reproduce(table, *degraded)
        assert result.returncode == 0, result.stderr
        assert commands.count("train-restore") in (len(rows), len(rows) - 1)
        assert all(f"| row {row} |" in result.stdout for row in rows)

    result, commands = reproduce("table5", *degraded)
    assert result.returncode == 0, result.stderr
    # The test set has no name in Table 5; the models are those of Table 2.
    assert set(commands[:-1]) <= {"restore"}
    assert commands[-1] == "study"
    assert len(list((inputs / RESULTS).glob("*/table5/study.html"))) == 1


def test_table3_generates_images_and_compares_them(reproduce, inputs):
    # FID is measured against the real faces even if degraded ones are given.
    result, commands = reproduce("table3", "--degraded", inputs / "degraded")
    assert result.returncode == 0, result.stderr
    # Table 1 may have trained the prior of both tags before.
    assert 1 <= commands.count("train-prior") <= 2
    assert commands.count("reproduce") == 3
    assert commands.count("evaluate") == 3
    assert commands[-1] == "study"
    assert "51.09 / .2903" in result.stdout
    assert "| captions | FID | HPSv2 | NIQE |" in result.stdout
    (page,) = (inputs / RESULTS).glob("*/table3/ranking/study.html")
    assert '"methods": ["none", "semantic", "both"]' in page.read_text()

    samples = inputs / RESULTS / "drawn/both"
    with (samples / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert (samples / rows[0]["file"]).is_file()


def test_plans_of_the_other_tables(inputs):
    request = paper_runs.PaperRequest(
        workspace=inputs / "ws",
        base="sdxl",
        preset="paper",
        output=inputs / "x",
        degraded=inputs / "degraded",
        clean=None,
        fid_reference=None,
        test_set="lfw-test",
        steps=None,
        changes=("prior.lora_rank=4", "restorer.source=workspace", "seed=3"),
        allow_unknown_licence=True,
    )

    def plan(table):
        return [" ".join(step.arguments) for step in paper_runs.plan_commands(table, request)]

    table2 = plan("table2")
    names = [line.split()[0] for line in table2]
    assert names == ["train-prior", *["train-restore", "restore"] * 4, "evaluate"]
    assert "--set lfw-test" in table2[-1]
    assert "--set source=portraits --set lora_rank=4 --set seed=3 --allow" in table2[0]
    assert "--set source=ffhq --set source=workspace --set seed=3 --allow" in table2[1]
    generic, off, constant, aware = (line for line in table2 if line.startswith("train-restore"))
    assert "--base sdxl" in generic
    assert "--prior" not in generic
    for line, weight in (
        (generic, "off"),
        (off, "off"),
        (constant, "constant"),
        (aware, "time-aware"),
    ):
        assert f"--facial-weight {weight} --set facial.m=-0.5" in line
        assert "--steps" not in line, "the preset decides the steps"

    table4 = [line for line in plan("table4") if line.startswith("train-restore")]
    assert ["facial.m=0.0" in line for line in table4] == [False, True, False, False]
    assert "facial.s=0.5" in table4[3]

    study = plan("table5")[-1]
    assert study.startswith("study create ")
    assert "--count 2 " in study, "no more than there are degraded faces"

    request = dataclasses.replace(request, degraded=None, clean=inputs / "clean", test_set=None)
    table3 = plan("table3")
    scores = [line for line in table3 if line.startswith("evaluate")]
    assert len(scores) == 3
    for line in scores:
        assert f"--fid-reference {inputs / 'clean'} --metrics fid,hpsv2,niqe" in line
    assert table3[-1].startswith("study create-ranking --method none=")
    assert "--count 10" in table3[-1]
    request = dataclasses.replace(request, fid_reference=inputs / "ffhq")
    assert f"--fid-reference {inputs / 'ffhq'} " in plan("table3")[1]


def test_sources_of_the_trainers(reproduce, inputs, authface_here):
    """What each command reports, and what is refused."""
    restorer = ("train-restore", "--preset", "tiny", "--base", "tiny", "-w", inputs / "ws")
    restorer += ("--source", "ffhq", *set_options("resolution_px=64"))
    plan = authface_here(*restorer, "--dry-run")
    assert "1 face, source ffhq" in plan.stdout
    calibrated = authface_here(
        *restorer, "--calibrate", *set_options("facial.discriminator_only_steps=0")
    )
    assert calibrated.returncode == 0, calibrated.stderr
    assert "1 training face, source ffhq" in calibrated.stdout

    prior = ("train-prior", "--preset", "tiny", "-w", inputs / "ws", *set_options("steps=1"))
    plan = json.loads(authface_here(*prior, "--dry-run", "--json").stdout)
    assert (plan["faces"], plan["source"]) == (4, "portraits")
    status = authface_here("status", "-w", inputs / "ws")
    assert "Next: authface train-prior" in status.stdout, "FFHQ needs no captions"


def test_missing_sources_are_named(filled, authface_here):
    for stage, source, message in (
        ("train-restore", "ffhq", "no kept face comes from FFHQ; run `authface collect"),
        ("train-prior", "ffhq", "or use --source workspace"),
    ):
        options = ("--preset", "tiny", "--source", source, "-w", filled)
        base = ("--base", "tiny") if stage == "train-restore" else ()
        result = authface_here(stage, *options, *base)
        assert result.returncode == 2
        assert message in result.stderr


def test_trainers_start_one_process_per_gpu_of_the_preset():
    assert paper_runs.trainer_launcher("paper")[1:] == ["-P", "-m", "cli"]
    launcher = paper_runs.trainer_launcher("4x48gb")
    assert launcher[1:] == ["-m", "torch.distributed.run", "--nproc_per_node", "4", "-m", "cli"]


def test_missing_test_sets_are_reported_first(authface_here, inputs):
    paper_scale = ("--scale", "paper", "-w", inputs / "ws")
    table1 = ("reproduce", "table1", *paper_scale)
    assert "--degraded DIR" in authface_here(*table1).stderr
    missing = ("--degraded", inputs / "nothing")
    assert "is not a folder" in authface_here(*table1, *missing).stderr
    assert "--reference DIR" in authface_here("reproduce", "table3", *paper_scale).stderr


def test_face_is_seen_where_a_perfect_restorer_predicts_it(filled, tmp_path, weights, monkeypatch):
    """The oracle knows z_0 below timestep 500: images decoded there are clean, later ones grey."""
    for name in ("clean", "degraded"):
        (tmp_path / name).mkdir()
        shutil.copy(min((filled / "faces").iterdir()), tmp_path / name / "a.png")
    restorer = Restorer(str(tiny_restorer.save_tiny_restorer(tmp_path / "model", 256)), Sampling())
    restorer.pipeline.vae = PixelUnshuffle()
    with Image.open(tmp_path / "clean/a.png") as image:
        clean = restorer.encode(np.asarray(image.convert("RGB")))
    alphas_cumprod = restorer.pipeline.scheduler.alphas_cumprod

    def predict_noise(noisy, timestep, degraded):
        known = clean if timestep < 500 else torch.zeros_like(clean)
        signal = alphas_cumprod[timestep].sqrt()
        return (noisy - signal * known) / (1 - alphas_cumprod[timestep]).sqrt()

    monkeypatch.setattr(restorer, "predict_noise", predict_noise)
    table = timestep.measure_confidence(
        restorer, tmp_path / "degraded", tmp_path / "clean", "retinaface-mobile", None
    )
    seen = table["t_step"] < 500
    assert (table["confidence"][seen] > 0.9).all()
    assert (table["confidence"][~seen] < 0.1).all()
    crossing = timestep.find_crossing(table["t"].tolist(), table["confidence"].tolist())
    assert table["t"][seen].max() < crossing < table["t"][~seen].min()
    assert timestep.plot_confidence(table).width > 300


def test_crossing_is_interpolated():
    assert timestep.find_crossing([0.1, 0.2, 0.3], [0.9, 0.6, 0.4]) == pytest.approx(0.25)
    assert timestep.find_crossing([0.1, 0.2], [0.4, 0.3]) is None


def test_dry_run_without_sdxl_plans_and_names_the_weights(inputs, authface_here, monkeypatch):
    """Exit code 3, and no report of torchrun although the preset is for four GPUs."""

    def run(line, **options):
        assert line[:4] == paper_runs.ONE_PROCESS
        return authface_here(*line[4:])

    monkeypatch.setattr(paper_runs.subprocess, "run", run)
    options = ("--degraded", inputs / "degraded", "--preset", "4x48gb", "-w", inputs / "ws")
    paper_scale = ("--scale", "paper", "--output", inputs / "plan", "--allow-unknown-licence")
    result = authface_here("reproduce", "table1", *paper_scale, *options, "--dry-run")
    assert result.returncode == 3, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("authface: ")]
    assert "stabilityai/stable-diffusion-xl-base-1.0 are not on this machine" in line
    assert "train-prior" in result.stdout
    assert "of 44.2" in result.stdout  # GB of the preset's cards

    typo = authface_here(
        "reproduce", "table1", *paper_scale, *options, "--dry-run", "--set", "batsh=4"
    )
    assert typo.returncode == 2
    assert "unknown setting batsh; did you mean batch?" in typo.stderr


def test_failed_dry_run_shows_the_line_of_the_trainer_only():
    command = paper_runs.PlannedCommand(("train-prior",), Path("models/a"), Path("done"))
    stderr = (
        "authface: there is no kept face to train on; run `authface filter`\n"
        "Traceback (most recent call last):\ntorch.distributed.elastic ... ChildFailedError:\n"
        "  exitcode  : 2 (pid: 7)\n"
    )
    error = paper_runs._dry_run_error(command, subprocess.CompletedProcess([], 1, "", stderr))
    assert error.exit_code == 2
    assert str(error).endswith("failed: there is no kept face to train on; run `authface filter`")
