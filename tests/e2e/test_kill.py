"""Commands killed with SIGKILL and run again give the rows of an undisturbed run, none twice."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import collect_folder, init_workspace, set_options
from killable import count_operations, run_killable
from PIL import Image
from public_faces import photographs
from workspace_state import count_doubled, read_state

from manifests.run_folder import METRICS_FILE

pytestmark = pytest.mark.slow

NUM_KILLS = {"collect": 6, "filter": 8, "caption": 6}
LAST_CHECKPOINT = Path("checkpoints/step-00000009")
LONG_SIDE_PX = 800
PORTRAITS = ("0-f1-su-ph.jpg", "15-f13-anc-ph.jpg")


def stage_command(name: str, root: Path, folder: Path) -> list[object]:
    if name == "collect":
        return collect_folder(root, folder)
    if name == "filter":
        # Our own measures of artefacts are enough; IQA metrics would only make the test longer.
        return ["filter", "--metrics", "", "-w", root]
    return ["caption", "-w", root]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> Path:
    """Eight small photographs (those of the demo and two portraits) and a broken file."""
    folder = tmp_path_factory.mktemp("many")
    portraits = [photographs()[name] for name in PORTRAITS]
    for path in [*photos.values(), *portraits]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
        image.save(folder / f"{path.stem}.jpg", quality=95)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, folder):
    """Per command: the workspace before it, the state after it, its operations and seconds."""
    base = tmp_path_factory.mktemp("undisturbed")
    root = base / "ws"
    assert run_killable(init_workspace(root)).returncode == 0
    stages = {}
    for name in NUM_KILLS:
        before = base / f"before-{name}"
        shutil.copytree(root, before)
        started = time.monotonic()
        num_operations = count_operations(run_killable(stage_command(name, root, folder)))
        stages[name] = {
            "before": before,
            "num_operations": num_operations,
            "seconds": time.monotonic() - started,
            "after": read_state(root),
        }
    return stages


def random_kills() -> list[tuple[str, str, float]]:
    """Twenty seeded kills: (command, "operation" or "clock", position as a share of the run).

    Most kill before an operation of the workspace, every fourth after a time.
    """
    rng = random.Random(20261124)
    kills = []
    for name, count in NUM_KILLS.items():
        for number in range(count):
            kind = "clock" if number % 4 == 3 else "operation"
            kills.append((name, kind, rng.uniform(0.05, 0.98)))
    return kills


@pytest.mark.parametrize(("name", "kind", "share"), random_kills())
def test_killed_command_run_again_gives_undisturbed_state(
    undisturbed, folder, tmp_path, name, kind, share
):
    stage = undisturbed[name]
    root = tmp_path / "ws"
    command = stage_command(name, root, folder)
    # If the machine was slower during the undisturbed run, the command can end before a kill by the
    # clock. Then it is killed sooner.
    for factor in (1.0, 0.6, 0.3, 0.1):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(stage["before"], root)
        if kind == "operation":
            killed = run_killable(command, kill_at=1 + int(share * stage["num_operations"]))
        else:
            kill_after_s = share * factor * 0.9 * stage["seconds"]
            killed = run_killable(command, kill_after_s=kill_after_s)
        if killed.returncode == -signal.SIGKILL:
            break
    assert killed.returncode == -signal.SIGKILL, killed.stdout

    completed = run_killable(command)
    assert completed.returncode == 0, completed.stdout
    assert not any(count_doubled(root).values())
    assert read_state(root) == stage["after"]


def test_commands_have_several_commits_to_kill_between(undisturbed):
    assert len(random_kills()) == 20
    assert all(stage["num_operations"] > 7 for stage in undisturbed.values())
    faces = undisturbed["filter"]["after"]["faces"]
    assert len(faces) >= 8
    assert set(faces[0]) > {"face_id", "score"}
    assert len(undisturbed["caption"]["after"]["captions"]) >= 4


def train_command(stage: str, root: Path, prior: Path, *options: object) -> list[object]:
    common = ["--preset", "tiny", "--steps", 9, "-w", root, *options]
    common += set_options("checkpoint_every=2")
    if stage == "restorer":
        return ["train-restore", *common, "--prior", prior]
    changes = ("audit=false", "draw.every=4", "draw.steps=2", "ema_decay=0.9")
    return ["train-prior", *common, *set_options(*changes)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, filled):
    """Both stages trained without a kill: the workspace, and the operations of each stage."""
    root = tmp_path_factory.mktemp("trained") / "ws"
    shutil.copytree(filled, root, symlinks=True)
    prior = root / "runs" / "prior-tiny"
    num_operations = {
        stage: count_operations(run_killable(train_command(stage, root, prior)))
        for stage in ("prior", "restorer")
    }
    return root, num_operations


@pytest.mark.parametrize(("stage", "share"), [("prior", 0.06), ("prior", 0.7), ("restorer", 0.7)])
def test_killed_and_resumed_training_gives_the_same_bits(
    trained, filled, tmp_path, authface_here, stage, share
):
    reference_root, num_operations = trained
    root = tmp_path / "ws"
    shutil.copytree(filled, root, symlinks=True)
    rng = random.Random(f"{stage} {share}")
    kill_at = max(1, int((share + rng.uniform(-0.05, 0.05)) * num_operations[stage]))
    prior = reference_root / "runs" / "prior-tiny"

    killed = run_killable(train_command(stage, root, prior), kill_at=kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    resumed = authface_here(*train_command(stage, root, prior, "--resume"))
    assert resumed.returncode == 0, resumed.stderr

    run = root / "runs" / f"{stage}-tiny"
    reference = reference_root / "runs" / f"{stage}-tiny"
    weight_files = [path.relative_to(reference) for path in reference.rglob("*.safetensors")]
    assert any(file.is_relative_to(LAST_CHECKPOINT) for file in weight_files)
    for file in weight_files:
        assert (run / file).read_bytes() == (reference / file).read_bytes(), file
    assert (run / METRICS_FILE).read_text() == (reference / METRICS_FILE).read_text()
    for name in ["unet"] if stage == "prior" else ["controlnet", "discriminators"]:
        assert_same_optimizer_state(run, reference, f"{name}.optimiser.pt")


def assert_same_optimizer_state(run: Path, reference: Path, file_name: str) -> None:
    state = torch.load(run / LAST_CHECKPOINT / file_name, weights_only=True)["state"]
    expected = torch.load(reference / LAST_CHECKPOINT / file_name, weights_only=True)["state"]
    for parameter, moments in state.items():
        for name, value in moments.items():
            assert torch.equal(value, expected[parameter][name]), (file_name, parameter, name)
