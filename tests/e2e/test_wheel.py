"""The wheel, installed with the light base in a new environment and used from another folder."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA_FILES = (
    "cli.py",
    "manifests/presets/embedded.toml",
    "authface_train/presets/paper.toml",
    "authface_data/captions/vocabulary.toml",
    "authface_data/report/page.html.jinja",
    "authface_train/reproduce/small_split.csv",
    "authface_data/rights/credits.html.jinja",
    "authface_data/serve/server_storage.js",
    "manifests/support/html_page.css",
)


def run(*arguments, cwd=None):
    completed = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=600,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def build_wheel(folder):
    """Build the wheel from a copy of the sources, because a build leaves folders behind."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, source)
    for name in ("manifests", "authface_data", "authface_train"):
        shutil.copytree(ROOT / name, source / name)
    output = folder / "dist"
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, source)
    (wheel,) = output.glob("*.whl")
    return wheel


def test_wheel_works_without_the_sources(tmp_path):
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert set(DATA_FILES) <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]

    environment = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python")
    # Compiling all files of the packages would take longer than what the commands below import.
    constraint = ("--constraint", ROOT / "constraints.txt")
    run(*pip, "install", "--quiet", "--no-compile", *constraint, wheel)
    assert "torch" not in run(*pip, "list")

    authface = environment / "bin/authface"
    assert "train-restore" in run(authface, "--help", cwd=tmp_path)
    run(authface, "init", "ws", "--preset", "paper", cwd=tmp_path)
    assert "photos" in run(authface, "status", "-w", "ws", cwd=tmp_path)
    assert "Report:" in run(authface, "report", "-w", "ws", cwd=tmp_path)
    assert "licence basis" in run(authface, "licences", "-w", "ws", cwd=tmp_path)
    forget = subprocess.run(
        [authface, "forget", "-w", "ws", "us_nobody"], capture_output=True, text=True, cwd=tmp_path
    )
    assert forget.returncode == 2, forget.stderr
    assert "Traceback" not in forget.stderr
