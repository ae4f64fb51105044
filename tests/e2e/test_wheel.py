"""The wheel, in an environment of its own with the light base only, used from another directory."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def run(*words, cwd=None):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_alone(tmp_path):
    source = tmp_path / "source"  # a copy: a build leaves folders behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, source)
    for name in ("manifests", "authface_data", "authface_train"):
        shutil.copytree(ROOT / name, source / name)
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path / "dist",
        source,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in (
        "cli.py", "manifests/presets/embedded.toml", "authface_train/presets/paper.toml",
        "authface_data/captions/vocabulary.toml", "authface_data/report/page.html.jinja",
        "authface_train/reproduce/small_split.csv",
        "authface_data/credits.html.jinja",
    ):  # fmt: skip
        assert file in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    run(sys.executable, "-m", "venv", tmp_path / "env")
    run(
        tmp_path / "env/bin/pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
        wheel,
    )
    authface = tmp_path / "env/bin/authface"
    installed = run(tmp_path / "env/bin/pip", "list")
    assert "torch" not in installed
    assert "train-restore" in run(authface, "--help", cwd=tmp_path)
    run(authface, "init", "ws", "--preset", "paper", cwd=tmp_path)
    assert "photos" in run(authface, "status", "-w", "ws", cwd=tmp_path)
    assert "Report:" in run(authface, "report", "-w", "ws", cwd=tmp_path)
    assert "licence basis" in run(authface, "licences", "-w", "ws", cwd=tmp_path)
    forget = subprocess.run(
        [authface, "forget", "-w", "ws", "us_nobody"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (forget.returncode, "Traceback" in forget.stderr) == (2, False), forget.stderr
