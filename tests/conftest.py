"""Shared fixtures: real photographs and embedded weights, workspaces, and the command itself."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))
# No test reaches the internet: the libraries are told so, and find what is on the disk or nothing.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    NO_ALBUMENTATIONS_UPDATE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)
os.environ["COLUMNS"] = "200"
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # workers share the cores: threads of theirs would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("AUTHFACE_WORKSPACE", None)

from authface_data.sources import demo_photos  # noqa: E402
from manifests.settings import preset_text  # noqa: E402
from manifests.support.logs import PACKAGES  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever looks at the filled workspace is slow: the commands that fill it take half a minute."""
    for item in items:
        if (
            "filled" in getattr(item, "fixturenames", ())
            and item.get_closest_marker("slow") is None
        ):
            item.add_marker("slow")


def _need(path: Path) -> Path:
    """An asset that `authface demo --fetch` brings. Without it the test is skipped; under `make test` it fails."""
    if not path.exists():
        reason = f"{path.name} is not here: run `authface demo --fetch` first (`make test` does)"
        if os.environ.get("AUTHFACE_NEED_ASSETS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """The demo's photographs, by file name."""
    return {photo.file: _need(photo.path) for photo in demo_photos.PHOTOS}


@pytest.fixture(scope="session")
def weights(photos: dict[str, Path]) -> Path:
    """The folder of embedded weights."""
    folder = Path(os.environ["AUTHFACE_CACHE"]) / "weights"
    for name in (
        "retinaface_mobilenet025.onnx",
        "shape_predictor_68_face_landmarks.dat",
        "niqe_pris_params.npz",
    ):
        _need(folder / name)
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
    *words: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """The real command in a process of its own, its output captured as text."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=600,
    )


def run_here(
    *words: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """The same within the test's own process, where the libraries are loaded already: a command starts in no time."""
    from accelerate.state import AcceleratorState
    from typer.testing import CliRunner

    import cli

    AcceleratorState._reset_state(reset_partial_state=True)
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(cwd or "."):
            done = CliRunner(env=env).invoke(cli.app, [str(word) for word in words])
    finally:
        signal.signal(signal.SIGTERM, terminated)
        AcceleratorState._reset_state(reset_partial_state=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def authface_here() -> Command:
    """Runs the command in the test's own process and returns what came of it: for what needs no process of its own."""

    return run_here


@pytest.fixture(scope="session")
def authface() -> Command:
    """Runs the command and returns what came of it."""
    return run_command


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path], weights: Path
) -> Path:
    """A workspace with the demo's photographs collected, filtered and captioned, by the commands. Not to be written to."""
    root = tmp_path_factory.mktemp("filled") / "ws"
    folder = tmp_path_factory.mktemp("photos")
    for name, path in photos.items():
        (folder / name).symlink_to(path)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    for words in (
        ("init", root, "--preset", "embedded"),
        ("collect", "-w", root, "--source", "folder", "--path", folder, "--licence-basis", "own"),
        ("filter", "-w", root),
        ("caption", "-w", root),
    ):
        done = run_here(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    return root
