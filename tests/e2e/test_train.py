"""Both trainers as commands: what they leave loads, names its data, and goes on only as it was begun."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow


LOOKED_ON = (
    "train-restore", "--set", "facial.discriminator_only_steps=1", "--set", "validation.every=4", "--set", "ledger_every=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(filled, tmp_path_factory, authface_here):
    root = tmp_path_factory.mktemp("trained") / "ws"
    shutil.copytree(filled, root)
    for words in (("train-prior",), LOOKED_ON):
        done = authface_here(*words, "--preset", "tiny", "--steps", 4, "-w", root)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Untrained" in done.stdout
        assert "Next: " in done.stdout
    return root


def test_diffusers_loads_both(trained):
    from diffusers import DiffusionPipeline

    for run, kind in (
        ("prior-tiny", "StableDiffusionXLPipeline"),
        ("restorer-tiny", "StableDiffusionXLControlNetPipeline"),
    ):
        pipeline = DiffusionPipeline.from_pretrained(trained / "runs" / run)
        assert type(pipeline).__name__ == kind
        image = np.zeros((128, 128, 3), np.uint8)
        options = {"image": Image.fromarray(image)} if "ControlNet" in kind else {}
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline("a face", num_inference_steps=2, height=128, width=128, **options).images[0]
        assert made.size == (128, 128)
        assert pipeline.tokenizer("a photo of a cat").input_ids == [
            49406,
            320,
            1125,
            539,
            320,
            2368,
            49407,
        ]


def test_the_restorer_holds_the_priors_unet_untouched_and_the_prior_moved(trained):
    from safetensors.torch import load_file

    from authface_train.models.sdxl import tiny_sdxl

    prior, restorer = (
        load_file(trained / "runs" / run / "unet/diffusion_pytorch_model.safetensors")
        for run in ("prior-tiny", "restorer-tiny")
    )
    assert all(torch.equal(value, restorer[name]) for name, value in prior.items())
    start = tiny_sdxl(0).unet.state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in prior.items())


def test_losses_are_in_tensorboard_and_csv(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run, names in (
        ("prior-tiny", {"loss"}),
        ("restorer-tiny", {"loss", "noise_loss", "facial_loss", "discriminator_eyes"}),
    ):
        folder = trained / "runs" / run
        events = EventAccumulator(str(folder / "logs"))
        events.Reload()
        frame = pd.read_csv(folder / "metrics.csv")
        assert frame["step"].tolist() == [1, 2, 3, 4]
        stage = run.split("-")[0]
        for name in names:
            logged = [event.value for event in events.Scalars(f"{stage}/{name}")]
            assert np.allclose(logged, frame[name].dropna())


def test_the_model_card_and_lineage_name_the_photographs(trained):
    photos = pd.read_parquet(trained / "manifests/photos").set_index("photo_id")
    prior = pd.read_parquet(trained / "runs/prior-tiny/lineage.parquet")
    both = pd.read_parquet(trained / "runs/restorer-tiny/lineage.parquet")
    assert set(both["stage"]) == {"prior", "restorer"}
    for row in prior.itertuples():
        assert row.sha256 == photos.loc[row.photo_id, "sha256"]
        assert row.licence_basis == "own"
        assert row.photo_id in (trained / "runs/restorer-tiny/README.md").read_text()
    card = (trained / "runs/prior-tiny/README.md").read_text()
    assert "**Untrained.**" in card
    assert '"learning_rate": 0.0001' in card
    notes = json.loads((trained / "runs/restorer-tiny/authface.json").read_text())
    assert notes["untrained"] is True
    assert notes["time_ids"] == [128, 128, 0, 0, 128, 128]


def test_stage_two_is_looked_on(trained):
    """Strips with metrics before the first step and after the last, and the pulls of every band of timesteps."""
    import pandas as pd
    from PIL import Image

    run = trained / "runs/restorer-tiny"
    scores = pd.read_csv(run / "validation/validation.csv")
    assert scores["step"].tolist() == [0, 4]
    assert scores[["psnr", "ssim"]].notna().all(axis=None)
    with Image.open(run / "validation/step-00000004.png") as strip:
        assert strip.height == 3 * (256 + 18)  # degraded, restored, clean
    ledger = pd.read_csv(run / "ledger.csv")
    assert ledger.groupby("step")["band"].apply(list).to_dict() == {
        0: list(range(10)),
        4: list(range(10)),
    }
    assert (ledger[["noise", "style"]] > 0).all(axis=None)
    losses = pd.read_csv(run / "metrics.csv")
    for region in ("eyes", "mouth"):
        assert (
            losses[[f"adversarial_{region}", f"discriminator_{region}", f"accuracy_{region}"]]
            .notna()
            .any()
            .all()
        )


def test_calibrating_says_which_lambdas_and_writes_nothing(trained, tmp_path, authface_here):
    done = authface_here(
        "train-restore", "--preset", "tiny", "--calibrate", "--output", tmp_path / "run", "-w", trained,
        "--set", "facial.lambda_s=1e6",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "900 to 999" in done.stdout
    assert "it governs what is learnt" in done.stdout
    assert "--set facial.lambda_d=" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "say"),
    [
        ((), "go on with --resume"),
        (("--resume", "--set", "learning_rate=0.1"), "learning_rate was 0.0001 and is 0.1 now"),
        (("--resume", "--tags", "photographic"), "tags was both and is photographic now"),
    ],
)
def test_a_run_is_neither_overwritten_nor_resumed_otherwise(trained, authface_here, words, say):
    done = authface_here("train-prior", "--preset", "tiny", "--steps", 4, "-w", trained, *words)
    assert done.returncode == 2
    assert say in done.stderr


def test_changed_data_is_refused(trained, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(trained, root)
    settings = (root / "authface.toml").read_text()
    (root / "authface.toml").write_text(settings.replace("threshold = 224", "threshold = 430"))
    authface_here("filter", "--regate", "-w", root)
    done = authface_here("train-prior", "--preset", "tiny", "--steps", 6, "-w", root, "--resume")
    assert done.returncode == 2
    assert "kept faces or captions have changed" in done.stderr


def test_a_changed_prior_is_refused_and_another_spelling_is_not(
    trained, tmp_path, authface_here, monkeypatch
):
    prior, run = tmp_path / "prior", tmp_path / "restorer"
    shutil.copytree(trained / "runs/prior-tiny", prior)
    words = ("train-restore", "--preset", "tiny", "--output", run, "-w", trained)
    assert authface_here(*words, "--prior", prior, "--steps", 2).returncode == 0
    assert (
        authface_here(
            *words, "--prior", tmp_path / "x/../prior", "--steps", 3, "--resume"
        ).returncode
        == 2
    )  # no such folder x
    (tmp_path / "x").mkdir()
    done = authface_here(*words, "--prior", tmp_path / "x/../prior", "--steps", 3, "--resume")
    assert done.returncode == 0, done.stderr
    assert (
        authface_here(*words, "--steps", 3, "--resume").returncode == 0
    )  # the run's own prior, not the newest
    assert "has done 3 steps" in authface_here(*words, "--steps", 2, "--resume").stderr
    shutil.copytree(trained / "runs/prior-tiny/vae", prior / "other")
    from safetensors.torch import load_file, save_file

    file = prior / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"] += 1
    save_file(weights, file)
    done = authface_here(*words, "--steps", 4, "--resume")
    assert done.returncode == 2
    assert "the model to begin from has changed" in done.stderr


def test_a_folder_that_is_no_run_is_left_alone(trained, tmp_path, authface_here):
    base = tmp_path / "base"
    shutil.copytree(trained / "runs/prior-tiny", base)
    for name in ("run.json", "metrics.csv"):
        (base / name).unlink()
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    done = authface_here(
        "train-prior", "--preset", "tiny", "--base", base, "--output", base, "-w", trained
    )
    assert done.returncode == 2
    assert "holds something that is no run" in done.stderr
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


def test_training_on_an_untrained_run_stays_untrained_and_keeps_its_credits(
    trained, tmp_path, authface_here
):
    run = tmp_path / "again"
    words = (
        "train-prior",
        "--preset",
        "tiny",
        "--base",
        trained / "runs/prior-tiny",
        "--steps",
        1,
        "--output",
        run,
        "-w",
        trained,
    )
    done = authface_here(*words)
    assert done.returncode == 0, done.stderr
    assert "Untrained" in done.stdout
    assert json.loads((run / "authface.json").read_text())["untrained"] is True
    own = pd.read_parquet(trained / "runs/prior-tiny/lineage.parquet")
    assert len(pd.read_parquet(run / "lineage.parquet")) == 2 * len(own)


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (("train-prior", "--set", "micro_batch=3"), "micro_batch"),
        (("train-prior", "--base", "/nope/here"), "/nope/here is not there"),
        (("train-prior", "--tags", "semantic"), "no caption of semantic tags"),
        (("train-restore", "--prior", "x", "--base", "y"), "give one"),
        (("train-restore", "--source", "ffhq"), "no kept face is FFHQ's"),
        (("train-restore", "--calibrate", "--facial-weight", "off"), "facial.weight=off has none"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(trained, tmp_path, authface_here, words, say):
    done = authface_here(*words, "--preset", "tiny", "--output", tmp_path / "run", "-w", trained)
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr
    assert not (tmp_path / "run").exists()


def test_no_licence_basis_no_training(trained, tmp_path, authface_here):
    from manifests.schema import PHOTOS
    from manifests.store import Store
    from manifests.workspace import Workspace

    root = tmp_path / "ws"
    shutil.copytree(trained, root)
    store = Store(Workspace(root), PHOTOS)
    rows = [{**row, "licence_basis": None} for row in store.read().to_pylist()]
    store.append(rows)
    store.compact()
    output = ("--output", tmp_path / "run")
    done = authface_here("train-prior", "--preset", "tiny", "--steps", 1, "-w", root, *output)
    assert done.returncode == 2
    assert "--allow-unknown-licence" in done.stderr
    done = authface_here(
        "train-prior",
        "--preset",
        "tiny",
        "--steps",
        1,
        "-w",
        root,
        *output,
        "--allow-unknown-licence",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends_with_its_code(trained, tmp_path, authface_here, number, code):
    words = [
        "train-prior",
        "--preset",
        "tiny",
        "--steps",
        "100000",
        "--output",
        str(tmp_path / "run"),
        "-w",
        str(trained),
    ]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run/metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (
        not metrics.is_file() or len(metrics.read_text().splitlines()) < 4
    ):
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    steps = pd.read_csv(metrics)["step"].max()
    assert (tmp_path / f"run/checkpoints/step-{steps:08d}").is_dir()


def test_restore_degrade_and_refusals(trained, tmp_path, authface_here, filled):
    faces, degraded, restored = tmp_path / "faces", tmp_path / "lq", tmp_path / "out"
    faces.mkdir()
    for path in sorted((filled / "faces").iterdir())[:2]:
        shutil.copy(path, faces)
    done = authface_here("degrade", "--input", faces, "--output", degraded, "--seed", 3)
    assert done.returncode == 0, done.stderr
    draws = pd.read_parquet(degraded / "draws.parquet")
    assert len(draws) == 2
    first = {path.name: path.read_bytes() for path in degraded.glob("*.png")}
    authface_here("degrade", "--input", faces, "--output", degraded, "--seed", 3)
    assert authface_here("degrade", "--input", faces, "--output", faces).returncode == 2
    assert {path.name: path.read_bytes() for path in degraded.glob("*.png")} == first

    Image.new("RGB", (100, 60)).save(degraded / "oblong.png")
    (degraded / "broken.png").write_bytes(b"no picture")
    words = (
        "restore",
        "--model",
        trained / "runs/restorer-tiny",
        "--input",
        degraded,
        "--output",
        restored,
        "--steps",
        2,
    )
    done = authface_here(*words)
    assert done.returncode == 4
    assert "oblong.png: no face was found in it" in done.stderr
    assert "broken.png cannot be decoded" in done.stderr
    assert {path.name for path in restored.glob("*.png")} == set(first)
    assert Image.open(restored / "strip.jpg").size == (512, 512)

    (degraded / "oblong.png").unlink()
    (degraded / "broken.png").unlink()
    again = authface_here(*words)
    assert again.returncode == 0
    assert "2 are there already" in again.stdout
    alone = tmp_path / "alone"
    name = sorted(first)[1]
    authface_here(
        "restore",
        "--model",
        trained / "runs/restorer-tiny",
        "--input",
        degraded / name,
        "--output",
        alone,
        "--steps",
        2,
    )
    a, b = (np.asarray(Image.open(folder / name)).astype(int) for folder in (restored, alone))
    assert np.abs(a - b).max() <= 2  # its batch does not matter
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (
        authface_here(
            "restore",
            "--model",
            trained / "runs/restorer-tiny",
            "--input",
            empty,
            "--output",
            alone,
        ).returncode
        == 2
    )
    done = authface_here(
        "restore", "--model", trained / "runs/prior-tiny", "--input", degraded, "--output", alone
    )
    assert done.returncode == 2
    assert "is no restorer" in done.stderr


def test_lora_layers_are_a_file_of_their_own_and_part_of_the_model(
    trained, tmp_path, authface_here
):
    from safetensors.torch import load_file

    from authface_train.models.sdxl import tiny_sdxl

    run = tmp_path / "run"
    words = (
        "--set",
        "lora_rank=4",
        "--set",
        "learning_rate=0.01",
        "--set",
        "audit=false",
        "--steps",
        3,
    )
    done = authface_here("train-prior", "--preset", "tiny", *words, "--output", run, "-w", trained)
    assert done.returncode == 0, done.stderr
    saved = load_file(run / "unet/diffusion_pytorch_model.safetensors")
    base = tiny_sdxl(0)
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    assert saved.keys() == before.keys()
    base.load_lora_weights(run / "lora")
    base.fuse_lora()
    base.unload_lora_weights()
    fused = base.unet.state_dict()
    changed = [name for name in saved if not torch.equal(saved[name], before[name])]
    assert changed
    assert all("attn" in name for name in changed)
    assert all(torch.allclose(saved[name], fused[name], atol=1e-6) for name in saved)
    checkpoint = load_file(run / "checkpoints/step-00000003/unet.safetensors")
    assert all(
        "lora" in name for name in checkpoint
    )  # the frozen weights are the base's, and need not be kept again
