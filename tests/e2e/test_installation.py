"""The installation: the Makefile's choice of Python, and the pip command that messages name."""

import json
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from manifests.support import extras

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")


@pytest.fixture
def make(tmp_path):
    """Function that prints what `make demo` would do, where only some Pythons are installed."""
    if MAKE is None:
        pytest.skip("make is not installed")

    def run(*versions: str) -> subprocess.CompletedProcess:
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, tmp_path)
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "sh").symlink_to("/bin/sh")
        for version, ending in versions:
            path = programs / f"python{version}"
            path.write_text(f"#!/bin/sh\nexit {ending}\n")
            path.chmod(0o755)
        return subprocess.run(
            [MAKE, "demo", *(["-n"] if versions else [])],
            cwd=tmp_path,
            env={"PATH": str(programs)},
            capture_output=True,
            text=True,
        )

    return run


def test_make_takes_the_first_python_that_runs(make):
    """A shim of pyenv is found but does not run; a Python without venv is no use either."""
    planned = make(("3.11", 127), ("3.12", 1), ("3.13", 0), ("3.14", 0))
    assert planned.returncode == 0, planned.stderr
    assert "python3.13 -m venv .venv" in planned.stdout
    assert "about 8 GB" in planned.stdout
    assert "--quiet --constraint constraints.txt --editable" not in planned.stdout


def test_make_says_that_there_is_no_python(make):
    result = make()
    assert result.returncode == 2
    assert "no Python from 3.11 to 3.14 with venv was found" in result.stderr
    assert "make PYTHON=/path/to/python3" in result.stderr


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'authface[data]'"),
        (
            {"url": "file:///src/af", "dir_info": {"editable": True}},
            "pip install -e '/src/af[data]'",
        ),
        ({"url": "file:///src/af", "dir_info": {}}, "pip install '/src/af[data]'"),
        (
            {"url": "file:///src/af", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "pip install '/src/af[data]'",
        ),
        (
            {"url": "https://host/af", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "pip install 'authface[data] @ git+https://host/af'",
        ),
        (
            {"url": "https://host/af-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'authface[data] @ https://host/af-1-py3-none-any.whl'",
        ),
    ],
)
def test_install_command_names_where_authface_came_from(record, command, monkeypatch):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if record is None else json.dumps(record)

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert extras.install_command("data") == command


def test_versions_of_python_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [
        item.rpartition(" ")[2] for item in project["classifiers"] if "Python :: 3." in item
    ]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert f"for version in {' '.join(versions)}" in (ROOT / "Makefile").read_text()
    assert project["requires-python"] == f">={versions[0]}"
