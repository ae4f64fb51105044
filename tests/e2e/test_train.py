"""Both trainers as commands: what they write, what they refuse, and how they stop."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from commands import set_options
from PIL import Image
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"

TRAIN_PRIOR = ["train-prior", "--preset", "tiny"]
TRAIN_RESTORE = ["train-restore", "--preset", "tiny"]


@pytest.fixture(scope="module")
def trained(filled, tmp_path_factory, authface_here):
    """A workspace with one run of each stage."""
    root = tmp_path_factory.mktemp("trained") / "workspace"
    shutil.copytree(filled, root)
    callbacks = set_options(
        "facial.discriminator_only_steps=1", "validation.every=4", "ledger_every=4"
    )
    for command in (TRAIN_PRIOR, [*TRAIN_RESTORE, *callbacks]):
        completed = authface_here(*command, "--steps", 4, "-w", root)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert "Untrained base" in completed.stdout
        assert "Next: " in completed.stdout
    return root


@pytest.mark.parametrize(
    ("run", "pipeline_class"),
    [
        ("prior-tiny", "StableDiffusionXLPipeline"),
        ("restorer-tiny", "StableDiffusionXLControlNetPipeline"),
    ],
)
def test_diffusers_loads_and_runs_the_model(trained, run, pipeline_class):
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(trained / "runs" / run)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline).__name__ == pipeline_class
    options = {"num_inference_steps": 2, "height": 128, "width": 128}
    if run == "restorer-tiny":
        options["image"] = Image.new("RGB", (128, 128))
    assert pipeline("a face", **options).images[0].size == (128, 128)
    token_ids = pipeline.tokenizer("a photo of a cat").input_ids
    assert token_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_restorer_holds_the_priors_unet_and_the_prior_has_moved(trained):
    from authface_train.models.sdxl import tiny_sdxl

    prior = load_file(trained / "runs/prior-tiny" / UNET_FILE)
    restorer = load_file(trained / "runs/restorer-tiny" / UNET_FILE)
    assert all(torch.equal(value, restorer[name]) for name, value in prior.items())
    base = tiny_sdxl(0).unet.state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in prior.items())


def test_exported_checkpoint_of_a_restorer_is_its_model(trained, tmp_path, authface_here):
    run = trained / "runs/restorer-tiny"
    completed = authface_here("export", run, "--checkpoint", 4)
    assert completed.returncode == 2
    assert "--format folder" in completed.stderr
    output = tmp_path / "model"
    options = ["--checkpoint", 4, "--format", "folder", "--output", output]
    completed = authface_here("export", run, *options)
    assert completed.returncode == 0, completed.stderr
    for file in (UNET_FILE, UNET_FILE.replace("unet", "controlnet")):
        exported = load_file(output / file)
        for name, value in load_file(run / file).items():
            assert torch.equal(value, exported[name]), (file, name)


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("prior", ["loss"]),
        ("restorer", ["loss", "noise_loss", "facial_loss", "discriminator_eyes"]),
    ],
)
def test_losses_are_in_tensorboard_and_csv(trained, stage, names):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained / "runs" / f"{stage}-tiny"
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["step"].tolist() == [1, 2, 3, 4]
    for name in names:
        logged = [event.value for event in events.Scalars(f"{stage}/{name}")]
        assert np.allclose(logged, metrics[name].dropna())


def test_model_card_and_lineage_name_the_photographs(trained):
    photos = pd.read_parquet(trained / "manifests/photos").set_index("photo_id")
    prior_lineage = pd.read_parquet(trained / "runs/prior-tiny/lineage.parquet")
    restorer_lineage = pd.read_parquet(trained / "runs/restorer-tiny/lineage.parquet")
    restorer_card = (trained / "runs/restorer-tiny/README.md").read_text()
    assert set(restorer_lineage["stage"]) == {"prior", "restorer"}
    for row in prior_lineage.itertuples():
        assert row.sha256 == photos.loc[row.photo_id, "sha256"]
        assert row.licence_basis == "own"
        assert row.photo_id in restorer_card

    card = (trained / "runs/prior-tiny/README.md").read_text()
    assert "**Untrained.**" in card
    assert '"learning_rate": 0.0001' in card
    notes = json.loads((trained / "runs/restorer-tiny/authface.json").read_text())
    assert notes["untrained"] is True
    assert notes["time_ids"] == [128, 128, 0, 0, 128, 128]


def test_stage_two_writes_validation_and_gradient_ledger(trained):
    """Both run before the first step and after the last."""
    run = trained / "runs/restorer-tiny"
    scores = pd.read_csv(run / "validation/validation.csv")
    assert scores["step"].tolist() == [0, 4]
    assert scores[["psnr", "ssim"]].notna().all(axis=None)
    with Image.open(run / "validation/step-00000004.png") as strip:
        assert strip.height == 3 * (256 + 18)  # degraded, restored, clean

    ledger = pd.read_csv(run / "ledger.csv")
    bins_by_step = ledger.groupby("step")["band"].apply(list).to_dict()
    assert bins_by_step == {0: list(range(10)), 4: list(range(10))}
    assert (ledger[["noise", "style"]] > 0).all(axis=None)

    metrics = pd.read_csv(run / "metrics.csv")
    for region in ("eyes", "mouth"):
        columns = [f"{name}_{region}" for name in ("adversarial", "discriminator", "accuracy")]
        assert metrics[columns].notna().any().all()


def test_calibrate_suggests_lambdas_and_writes_nothing(trained, tmp_path, authface_here):
    options = ["--calibrate", "--output", tmp_path / "run", *set_options("facial.lambda_s=1e6")]
    completed = authface_here(*TRAIN_RESTORE, "-w", trained, *options)
    assert completed.returncode == 0, completed.stderr
    assert "900 to 999" in completed.stdout
    assert "the facial loss dominates training" in completed.stdout
    assert "--set facial.lambda_d=" in completed.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "continue it with --resume"),
        (
            ["--resume", "--set", "learning_rate=0.1"],
            "learning_rate was 0.0001 and is 0.1 now",
        ),
        (["--resume", "--tags", "photographic"], "tags was both and is photographic now"),
    ],
)
def test_run_is_neither_overwritten_nor_resumed_with_other_settings(
    trained, authface_here, options, message
):
    completed = authface_here(*TRAIN_PRIOR, "--steps", 4, "-w", trained, *options)
    assert completed.returncode == 2
    assert message in completed.stderr


def test_resuming_with_changed_data_is_refused(trained, tmp_path, authface_here):
    root = tmp_path / "workspace"
    shutil.copytree(trained, root)
    settings = (root / "authface.toml").read_text()
    (root / "authface.toml").write_text(settings.replace("threshold = 224", "threshold = 430"))
    authface_here("filter", "--regate", "-w", root)
    completed = authface_here(*TRAIN_PRIOR, "--steps", 6, "-w", root, "--resume")
    assert completed.returncode == 2
    assert "kept faces or captions have changed" in completed.stderr


def test_resuming_keeps_the_runs_own_prior(trained, tmp_path, authface_here):
    prior = tmp_path / "prior"
    shutil.copytree(trained / "runs/prior-tiny", prior)
    command = [*TRAIN_RESTORE, "--output", tmp_path / "restorer", "-w", trained]
    other_spelling = tmp_path / "missing/../prior"

    assert authface_here(*command, "--prior", prior, "--steps", 2).returncode == 0
    resume = [*command, "--resume"]
    assert authface_here(*resume, "--prior", other_spelling, "--steps", 3).returncode == 2
    (tmp_path / "missing").mkdir()
    completed = authface_here(*resume, "--prior", other_spelling, "--steps", 3)
    assert completed.returncode == 0, completed.stderr

    # Without --prior the run's own prior is taken, not the newest of the workspace.
    assert authface_here(*resume, "--steps", 3).returncode == 0
    assert "has done 3 steps" in authface_here(*resume, "--steps", 2).stderr

    weights = load_file(prior / UNET_FILE)
    weights["conv_in.bias"] += 1
    save_file(weights, prior / UNET_FILE)
    completed = authface_here(*resume, "--steps", 4)
    assert completed.returncode == 2
    assert "the base model has changed" in completed.stderr


def read_tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_without_a_run_is_left_alone(trained, tmp_path, authface_here):
    base = tmp_path / "base"
    shutil.copytree(trained / "runs/prior-tiny", base)
    for name in ("run.json", "metrics.csv"):
        (base / name).unlink()
    before = read_tree(base)
    completed = authface_here(*TRAIN_PRIOR, "--base", base, "--output", base, "-w", trained)
    assert completed.returncode == 2
    assert "is not empty and holds no run" in completed.stderr
    assert read_tree(base) == before


def test_run_on_an_untrained_run_is_untrained_and_keeps_its_credits(
    trained, tmp_path, authface_here
):
    run = tmp_path / "run"
    base = trained / "runs/prior-tiny"
    options = ["--base", base, "--steps", 1, "--output", run, "-w", trained]
    completed = authface_here(*TRAIN_PRIOR, *options)
    assert completed.returncode == 0, completed.stderr
    assert "Untrained base" in completed.stdout
    assert json.loads((run / "authface.json").read_text())["untrained"] is True
    base_lineage = pd.read_parquet(base / "lineage.parquet")
    assert len(pd.read_parquet(run / "lineage.parquet")) == 2 * len(base_lineage)


def test_base_may_be_a_folder_with_a_numeric_name(trained, tmp_path, authface_here, monkeypatch):
    """The values of command-line options are not parsed as TOML: "2026" stays a text."""
    shutil.copytree(trained / "runs/prior-tiny", tmp_path / "2026")
    monkeypatch.chdir(tmp_path)
    options = ["--base", "2026", "--steps", 1, "--output", tmp_path / "run", "-w", trained]
    completed = authface_here(*TRAIN_PRIOR, *options)
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train-prior", "--set", "micro_batch=3"], "micro_batch"),
        (["train-prior", "--base", "/nope/here"], "/nope/here"),
        (["train-prior", "--tags", "semantic"], "no caption of semantic tags"),
        (["train-restore", "--prior", "x", "--base", "y"], "use one of them"),
        (["train-restore", "--source", "ffhq"], "no kept face comes from FFHQ"),
        (
            ["train-restore", "--calibrate", "--facial-weight", "off"],
            "which facial.weight=off disables",
        ),
    ],
)
def test_impossible_run_is_refused_and_leaves_nothing(
    trained, tmp_path, authface_here, command, message
):
    options = ["--preset", "tiny", "--output", tmp_path / "run", "-w", trained]
    completed = authface_here(*command, *options)
    assert completed.returncode == 2, completed.stdout + completed.stderr
    assert message in completed.stderr
    assert not (tmp_path / "run").exists()


def test_faces_without_a_licence_basis_are_refused_unless_allowed(trained, tmp_path, authface_here):
    from manifests.schema import PHOTOS
    from manifests.store import Store
    from manifests.workspace import Workspace

    root = tmp_path / "workspace"
    shutil.copytree(trained, root)
    store = Store(Workspace(root), PHOTOS)
    store.append([{**row, "licence_basis": None} for row in store.read().to_pylist()])
    store.compact()
    command = [*TRAIN_PRIOR, "--steps", 1, "-w", root, "--output", tmp_path / "run"]
    completed = authface_here(*command)
    assert completed.returncode == 2
    assert "--allow-unknown-licence" in completed.stderr
    completed = authface_here(*command, "--allow-unknown-licence")
    assert completed.returncode == 0, completed.stderr


def test_degrade_is_repeatable_and_never_overwrites_its_input(filled, tmp_path, authface_here):
    faces = tmp_path / "faces"
    degraded = tmp_path / "degraded"
    copy_faces(filled, faces)
    command = ["degrade", "--input", faces, "--seed", 3, "--output"]
    completed = authface_here(*command, degraded)
    assert completed.returncode == 0, completed.stderr
    assert len(pd.read_parquet(degraded / "draws.parquet")) == 2
    first = {path.name: path.read_bytes() for path in degraded.glob("*.png")}
    authface_here(*command, degraded)
    assert {path.name: path.read_bytes() for path in degraded.glob("*.png")} == first
    assert authface_here(*command, faces).returncode == 2


def copy_faces(workspace, folder, count=2):
    folder.mkdir()
    for path in sorted((workspace / "faces").iterdir())[:count]:
        shutil.copy(path, folder)


def test_restore_records_unusable_files_and_continues(trained, filled, tmp_path, authface_here):
    faces = tmp_path / "faces"
    restored = tmp_path / "restored"
    copy_faces(filled, faces)
    names = {path.name for path in faces.iterdir()}
    Image.new("RGB", (100, 60)).save(faces / "oblong.png")
    (faces / "broken.png").write_bytes(b"no picture")

    def restore(source, output, run="restorer-tiny"):
        model = trained / "runs" / run
        options = ["--input", source, "--output", output, "--steps", 2]
        return authface_here("restore", "--model", model, *options)

    completed = restore(faces, restored)
    assert completed.returncode == 4
    assert "oblong.png: no face found" in completed.stderr
    assert "broken.png cannot be decoded" in completed.stderr
    assert {path.name for path in restored.glob("*.png")} == names
    with Image.open(restored / "strip.jpg") as strip:
        assert strip.size == (512, 512)

    (faces / "oblong.png").unlink()
    (faces / "broken.png").unlink()
    completed = restore(faces, restored)
    assert completed.returncode == 0
    assert "2 of 2 results exist" in completed.stdout

    # A face restored alone equals the face restored in a batch.
    name = max(names)
    restore(faces / name, tmp_path / "single")
    in_batch = np.asarray(Image.open(restored / name)).astype(int)
    alone = np.asarray(Image.open(tmp_path / "single" / name)).astype(int)
    assert np.abs(in_batch - alone).max() <= 2

    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "empty", tmp_path / "other").returncode == 2
    completed = restore(faces, tmp_path / "other", run="prior-tiny")
    assert completed.returncode == 2
    assert "is not a restorer" in completed.stderr


def test_lora_layers_are_saved_apart_and_merged_into_the_model(trained, tmp_path, authface_here):
    from authface_train.models.sdxl import tiny_sdxl

    run = tmp_path / "run"
    options = set_options("lora_rank=4", "learning_rate=0.01", "audit=false")
    completed = authface_here(*TRAIN_PRIOR, *options, "--steps", 3, "--output", run, "-w", trained)
    assert completed.returncode == 0, completed.stderr

    saved = load_file(run / UNET_FILE)
    base = tiny_sdxl(0)
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    assert saved.keys() == before.keys()
    changed = [name for name in saved if not torch.equal(saved[name], before[name])]
    assert changed
    assert all("attn" in name for name in changed)

    base.load_lora_weights(run / "lora")
    base.fuse_lora()
    base.unload_lora_weights()
    fused = base.unet.state_dict()
    assert all(torch.allclose(saved[name], fused[name], atol=1e-6) for name in saved)

    # The frozen weights are the base's, so the checkpoint leaves them out.
    checkpoint = load_file(run / "checkpoints/step-00000003/unet.safetensors")
    assert all("lora" in name for name in checkpoint)
