"""Shared fixtures: real photographs, embedded weights, workspaces and the command line."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
import typer.testing
from filelock import FileLock

ROOT = Path(__file__).parents[1]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))
# No test uses the internet or the models of this user: the libraries read only files of the tests.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=str(Path(os.environ["AUTHFACE_CACHE"]) / "huggingface"),
    TRANSFORMERS_OFFLINE="1",
    NO_ALBUMENTATIONS_UPDATE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)
os.environ["COLUMNS"] = "200"
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores, so that further threads would only slow each other down.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("AUTHFACE_WORKSPACE", None)
# New processes and the other workers use the bytecode that the first process writes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The runner would build the tree of all commands for each command, which takes 0.1 s.
typer.testing._get_command = functools.cache(typer.main.get_command)

from commands import collect_folder, init_workspace  # noqa: E402

from authface_data.sources import demo_photos  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.support.logs import PACKAGES  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

LONG_FILES = (
    "tests/e2e/test_kill.py",
    "tests/e2e/test_processes.py",
    "tests/authface_train/memory/test_estimator.py",
    "tests/e2e/test_train_storm.py",
    "tests/authface_data/quality/test_artefacts.py",
    "tests/e2e/test_train.py",
    "tests/authface_data/sources/unsplash/test_api_source.py",
    "tests/e2e/test_storm.py",
    "tests/e2e/test_resume.py",
    "tests/e2e/test_demo.py",
    "tests/e2e/test_walk.py",
    "tests/authface_data/engine/test_ray.py",
    "tests/manifests/test_object_store.py",
    "tests/e2e/test_reproduce.py",
    "tests/authface_data/rights/test_forget.py",
    "tests/e2e/test_run_folder.py",
    "tests/e2e/test_wheel.py",
    "tests/authface_data/faces/test_detectors.py",
    "tests/authface_data/review/test_sheet.py",
    "tests/authface_train/stages/test_prior.py",
    "tests/e2e/test_restore.py",
    "tests/authface_train/restore/test_pipeline.py",
    "tests/authface_data/faces/test_align.py",
    "tests/authface_data/captions/test_measured.py",
    "tests/e2e/test_decisions.py",
    "tests/e2e/test_evaluate.py",
    "tests/authface_train/stages/test_restorer.py",
    "tests/e2e/test_captions.py",
    "tests/authface_train/runs/test_export.py",
    "tests/manifests/test_store.py",
    "tests/authface_train/models/test_bases.py",
    "tests/authface_data/captions/test_llava.py",
    "tests/authface_train/training/test_sample_loader.py",
    "tests/e2e/test_missing.py",
    "tests/authface_train/commands/test_silence_libraries.py",
)
"""Files that take more than 20 s, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the filled workspace as slow, and put long files first.

    Filling the workspace takes 30 s. A long file that starts last keeps one process busy while the
    others have nothing left to do.
    """
    for item in items:
        uses_filled = "filled" in getattr(item, "fixturenames", ())
        if uses_filled and item.get_closest_marker("slow") is None:
            item.add_marker("slow")
    ranks = {ROOT / file: rank for rank, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def require_asset(path: Path) -> Path:
    """Check for a file that `authface demo --fetch` downloads.

    Args:
        path: The file.

    Returns:
        The same path. Without the file the test is skipped; with AUTHFACE_NEED_ASSETS in the
        environment, as in `make test`, it fails.
    """
    if not path.exists():
        reason = f"{path.name} is missing; run `authface demo --fetch` first (`make test` does)"
        if os.environ.get("AUTHFACE_NEED_ASSETS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """The photographs of the demo by file name."""
    return {photo.file: require_asset(photo.path) for photo in demo_photos.PHOTOS}


@pytest.fixture(scope="session")
def weights(photos: dict[str, Path]) -> Path:
    """The folder of embedded weights."""
    folder = Path(os.environ["AUTHFACE_CACHE"]) / "weights"
    for name in (
        "retinaface_mobilenet025.onnx",
        "shape_predictor_68_face_landmarks.dat",
        "niqe_pris_params.npz",
        "mediapipe_face_landmark.tflite",
        "mediapipe_iris_landmark.tflite",
        "mediapipe_selfie_segmentation.tflite",
    ):
        require_asset(folder / name)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace of the preset `embedded`."""
    return Workspace.create(tmp_path / "ws", preset_text("embedded"))


@pytest.fixture(autouse=True)
def _propagate_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog see the packages' records even after a command has configured logging."""
    for name in PACKAGES:
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


Command = Callable[..., subprocess.CompletedProcess]


def run_command(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Run `authface` in a new process.

    Args:
        arguments: The arguments of the command.
        env: Environment variables to add.
        cwd: The working directory; the present one by default.

    Returns:
        The ended process, with both streams as text.
    """
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=600,
    )


def run_command_here(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Run `authface` in the process of the tests, which has the libraries loaded already.

    Arguments and result are those of `run_command`.
    """
    import huggingface_hub
    from accelerate.state import AcceleratorState

    import cli

    AcceleratorState._reset_state(reset_partial_state=True)
    signal_handler = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(cwd or "."):
            result = typer.testing.CliRunner(env=env).invoke(cli.app, list(map(str, arguments)))
    finally:
        signal.signal(signal.SIGTERM, signal_handler)
        AcceleratorState._reset_state(reset_partial_state=True)
        # urllib and the hub's client keep the proxies of their first request for the whole process.
        urllib.request.install_opener(urllib.request.build_opener())
        huggingface_hub.close_session()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def authface_here() -> Command:
    """Runs `authface` in the process of the tests: faster, for most tests."""
    return run_command_here


@pytest.fixture(scope="session")
def authface() -> Command:
    """Runs `authface` in a new process."""
    return run_command


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path], weights: Path
) -> Path:
    """A workspace with the photographs of the demo, collected, filtered and captioned.

    Tests only read it; a test that changes the workspace copies it first. The workers of pytest-xdist
    have copies of the one that the first of them makes.
    """
    root = tmp_path_factory.mktemp("filled") / "ws"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        fill_workspace(root, photos, tmp_path_factory.mktemp("photos"))
        return root

    shared = tmp_path_factory.getbasetemp().parent / "filled"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            unfinished = shared.with_name("unfinished")
            fill_workspace(unfinished, photos, shared.with_name("photos"))
            unfinished.rename(shared)
    shutil.copytree(shared, root)
    return root


def fill_workspace(root: Path, photos: dict[str, Path], folder: Path) -> None:
    """Make the workspace of `filled`.

    Args:
        root: The new workspace.
        photos: The photographs by file name.
        folder: A folder for links to them.
    """
    folder.mkdir(exist_ok=True)
    for name, path in photos.items():
        (folder / name).symlink_to(path)
    (folder / "broken.jpg").write_bytes(b"not a picture")

    for command in (
        init_workspace(root),
        collect_folder(root, folder),
        ["filter", "-w", root],
        ["caption", "-w", root],
    ):
        completed = run_command_here(*command)
        assert completed.returncode == 0, completed.stdout + completed.stderr
