"""Python run inside a workspace imports the package `manifests`, not the workspace's folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = "from manifests.settings import preset_names; print(*preset_names())"


def run_python(folder, *arguments):
    completed = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.mark.parametrize("way", ["command line", "script"])
def test_package_manifests_is_imported_inside_workspace(workspace, way):
    script = workspace.local_path("script.py")
    script.write_text(CODE)
    arguments = ["-c", CODE] if way == "command line" else [str(script)]
    assert run_python(workspace.root, *arguments).split() == ["embedded", "paper"]


def test_module_cli_runs_inside_workspace(workspace):
    output = run_python(workspace.root, "-m", "cli", "status", "--json")
    assert json.loads(output)["workspace"] == str(workspace.root)
