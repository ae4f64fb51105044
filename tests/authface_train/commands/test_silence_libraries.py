"""What the libraries say on import is not for our users."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
IMPORTS = "import authface_train.reproduce.small_runs, diffusers; diffusers.StableDiffusionXLControlNetPipeline"


def test_nothing_is_said_on_import_once_quiet():
    said = [
        subprocess.run(
            [sys.executable, "-c", before + IMPORTS], capture_output=True, text=True, check=True
        )
        for before in ("", "from authface_train.commands.silence_libraries import quiet; quiet(); ")
    ]
    if not said[0].stderr:
        pytest.skip("these versions of the libraries say nothing")
    assert said[1].stdout + said[1].stderr == ""
