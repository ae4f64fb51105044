"""`silence_libraries` turns off the messages that libraries print when they are imported."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

IMPORTS = (
    "import authface_train.reproduce.small_runs, diffusers; "
    "diffusers.StableDiffusionXLControlNetPipeline"
)
SILENCE = (
    "from authface_train.commands.silence_libraries import silence_libraries; silence_libraries(); "
)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_imports_print_nothing_after_silence_libraries():
    if not run_python(IMPORTS).stderr:
        pytest.skip("these versions of the libraries print nothing on import")
    completed = run_python(SILENCE + IMPORTS)
    assert completed.stdout + completed.stderr == ""
