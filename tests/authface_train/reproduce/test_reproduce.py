"""The small experiment: its latents, its measures, and what its table says of results."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from authface_train.evaluation.intervals import bootstrap
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.models.sdxl import load_base, load_vae, tiny_sdxl
from authface_train.reproduce import small_models
from authface_train.reproduce.ablation import difference, report
from authface_train.reproduce.rows import ABLATIONS, METRICS, ROWS
from authface_train.reproduce.small_data import SPLIT, _joined, _pin


def test_pixels_side_by_side_lose_nothing_and_keep_their_length(tmp_path):
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = PixelUnshuffle(scaling_factor=2.0)
    posterior = made.encode(pictures).latent_dist
    assert posterior.mean.shape == (2, 48, 16, 16)
    assert float(posterior.std.max()) < 1e-6
    assert float(posterior.mean.norm()) == pytest.approx(float(pictures.norm()))
    assert torch.equal(made.decode(posterior.mean).sample, pictures)
    pipeline = tiny_sdxl(0)
    pipeline.vae = made
    pipeline.save_pretrained(tmp_path)
    for again in (load_base(str(tmp_path), None, 0).vae, load_vae(str(tmp_path), None, 0)):
        assert isinstance(again, PixelUnshuffle)
        assert again.config.scaling_factor == 2.0
        assert torch.equal(again.decode(posterior.mean).sample, pictures)


def images(row, seed, gain, people=6):
    """Pictures whose metrics stand `gain` above a person's own level."""
    level = np.random.default_rng(0).normal(20, 3, people)
    return [
        {"row": row, "seed": seed, "file": f"{person}.jpg", "person": str(person), "drawn": draw,
         **{metric: float(level[person] + draw + gain + 0.01 * person) for metric in METRICS}}
        for person in range(people)
        for draw in range(2)
    ]  # fmt: skip


def test_differences_are_paired_and_their_intervals_are_over_people():
    table = pd.DataFrame(
        images("b", 0, 0.0) + images("d", 0, 0.5) + images("b", 1, 0.0) + images("d", 1, 0.7)
    )
    found = difference(table, "d", "b", "psnr")
    assert found is not None
    assert found.mean == pytest.approx(0.6)
    assert found.low == pytest.approx(
        0.6
    )  # every person gains the same, however far apart they lie
    assert found.seeds == pytest.approx((0.5, 0.7))
    assert found.people == 6
    assert found.better is True
    worse = difference(table, "d", "b", "descriptor")
    assert worse is not None
    assert worse.better is False  # of a distance, more is worse


def test_an_interval_that_holds_nothing_resolves_nothing():
    rng = np.random.default_rng(3)
    low, high = bootstrap(rng.normal(0, 1, 12))
    assert low < 0 < high
    table = pd.DataFrame(images("b", 0, 0.0))
    other = table.assign(row="d", psnr=table["psnr"] + np.tile([0.3, 0.3, -0.3, -0.3], 3))
    found = difference(pd.concat([table, other], ignore_index=True), "d", "b", "psnr")
    assert found is not None
    assert found.better is None


def write(folder, row, seed, rows):
    record = {
        "row": row, "seed": seed, "split": "test", "latent": "unshuffle", "machine": "a test",
        "gate": {"reconstruction_db": 60.0, "degraded_db": 21.0},
        "scale": {"degradation": "codeformer-large", "drawn_per_face": 2, "restorer": 10},
        "images": [{name: value for name, value in one.items() if name not in ("row", "seed")} for one in rows],
    }  # fmt: skip
    (folder / f"{row}-{seed}.json").write_text(json.dumps(record))


def test_a_restorer_that_does_not_beat_its_input_is_told_so(tmp_path):
    write(tmp_path, "LQ", None, images("LQ", None, 0.0))
    write(tmp_path, "d", 0, images("d", 0, -1.0))
    write(tmp_path, "b", 0, images("b", 0, 1.0))
    words = report(tmp_path)
    assert "| d - LQ | PSNR dB | -1.000 | -1.000 to -1.000 | -1.000 | FAIL |" in words
    assert "| b - LQ | PSNR dB | +1.000 | +1.000 to +1.000 | +1.000 | PASS |" in words
    assert "| d - b | PSNR dB | -2.000 |" in words
    assert "not a VAE" in words


def test_the_table_is_printed_from_results_that_lie_there(authface_here, tmp_path):
    write(tmp_path, "LQ", None, images("LQ", None, 0.0))
    write(tmp_path, "d", 0, images("d", 0, 1.0))
    done = authface_here("reproduce", "table2", "--show", tmp_path)
    assert done.returncode == 0
    assert "| d | face prior, time-aware weight | 1 |" in done.stdout
    empty = authface_here("reproduce", "table2", "--show", tmp_path / "none")
    assert empty.returncode == 2
    assert "no results" in empty.stderr
    assert (
        authface_here("reproduce", "table2", "--row", "e", "--output", tmp_path / "x").returncode
        == 2
    )


def test_figure_14_is_drawn_by_a_command(authface_here, tmp_path):
    done = authface_here("reproduce", "figure14", "--output", tmp_path / "weights.png")
    assert done.returncode == 0
    assert (tmp_path / "weights.png").stat().st_size > 10_000


def test_the_committed_split_divides_no_person():
    split = pd.read_csv(SPLIT)
    assert split.groupby("person")["split"].nunique().max() == 1
    assert split.groupby("file")["split"].nunique().max() == 1
    assert split.groupby("split")["person"].nunique().to_dict() == {
        "test": 11,
        "train": 27,
        "val": 4,
    }


def test_a_strangers_photograph_joins_whom_it_shows():
    assert _joined(5, [(1, 0), (3, 1)]) == [0, 0, 2, 0, 4]
    rows = pd.DataFrame(
        {"group": ["a", "a", "b", "c", "c"], "split": ["train", None, None, "test", "train"]},
    )
    sides = _pin(rows)
    assert sides["a"] == "train"
    assert sides["c"] == "test"  # joined to both, it is kept from where it could teach
    assert sides["b"] in ("train", "val", "test")


def test_every_row_of_the_table_differs_by_its_loss_or_prior_alone():
    assert {row.weight for row in ROWS.values()} == {
        "off",
        "constant",
        "constant-matched",
        "time-aware",
    }
    assert [row.base for row in ROWS.values()] == ["generic", "prior", "prior", "prior", "prior"]
    assert set(ABLATIONS["table2"].compared) >= {("c'", "b"), ("d", "c'"), ("d", "b")}


def test_the_small_unet_begins_by_letting_noise_through(tmp_path):
    """At the last timestep what it is given is almost the noise: its loss begins where an untrained one would take long to."""
    small_models.make_base(tmp_path, PixelUnshuffle(scaling_factor=2.0))
    unet = load_base(str(tmp_path), None, 0).unet
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 48, 16, 16, generator=generator)
    added = {"text_embeds": torch.zeros(2, 32), "time_ids": torch.zeros(2, 6)}
    with torch.no_grad():
        made = unet(
            noise, torch.tensor([999, 500]), torch.zeros(2, 77, 64), added_cond_kwargs=added
        ).sample
    assert float((made - noise).square().mean()) < 0.01
