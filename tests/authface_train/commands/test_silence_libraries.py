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


def test_imports_print_nothing_after_silence_libraries():
    completed = subprocess.run(
        [sys.executable, "-c", SILENCE + IMPORTS], capture_output=True, text=True, check=True
    )
    assert completed.stdout + completed.stderr == ""
