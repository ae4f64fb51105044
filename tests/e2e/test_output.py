"""Output in every terminal: small character sets, and escape codes in data and file names."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import code_figures
import numpy as np
import pytest
from typer.testing import CliRunner

import cli
from authface_data import gates
from authface_data.images.encode import encode_image, encode_lossless
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, SCORES
from manifests.settings import Gate
from manifests.store import Store
from manifests.workspace import Workspace

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\r[bold][/x]Zoë → “x”"
"""Colours, the title of a window and a cleared screen, in text that also looks like markup."""
INVALID_NAME = os.fsdecode(b"caf\xe9 \x1b[2J.jpg")
"""A file name with an escape code that is not valid UTF-8."""


def hostile_workspace(root) -> Workspace:
    """One face whose texts from outside all contain `ESCAPES`."""
    workspace = Workspace(root)
    workspace.settings.gates[:] = [Gate(name="size", metric="qsize_px", op=">=", threshold=200)]
    photo = {
        "photo_id": "fs_0",
        "source": "folder",
        "path": "photos/fs_0.jpg",
        "sha256": "0" * 64,
        "pixel_hash": "0" * 64,
        "phash": "0" * 16,
        "fingerprint": "f",
        "width": 100,
        "height": 100,
        "licence_basis": f"other:{ESCAPES}",
    }
    texts = ("description", "photographer_name", "photographer_url", "source_url", "licence")
    cameras = ("camera_make", "camera_model", "lens")
    Store(workspace, PHOTOS).append([{**photo, **dict.fromkeys((*texts, *cameras), ESCAPES)}])
    face = {
        "face_id": "fs_0_a",
        "photo_id": "fs_0",
        "detector": "retinaface",
        "landmark_backend": "dlib",
        "fingerprint": "f",
        "crop_path": "faces/fs_0_a.png",
        "crop_sha256": "0" * 64,
        "crop_size_px": 512,
        "qsize_px": 300.0,
        "box_px": [0.0, 0.0, 9.0, 9.0],
        "quad_px": [[0.0, 0.0], [0.0, 9.0], [9.0, 9.0], [9.0, 0.0]],
        "landmarks5_px": [[1.0, 1.0]] * 5,
        "landmarks_crop_px": [[1.0, 1.0]] * 5,
    }
    boxes = ("left_eye_box_crop_px", "right_eye_box_crop_px", "mouth_box_crop_px")
    angles = ("yaw_deg", "pitch_deg", "roll_deg")
    face = {**face, **dict.fromkeys(boxes, face["box_px"]), **dict.fromkeys(angles, 0.0)}
    crop = encode_lossless(np.zeros((512, 512, 3), np.uint8), "png")
    workspace.write_bytes("faces/fs_0_a.png", crop)
    workspace.write_bytes("photos/fs_0.jpg", encode_image(np.zeros((100, 100, 3), np.uint8)))
    Store(workspace, FACES).append([face])
    Store(workspace, SCORES).append(
        [
            {
                "face_id": "fs_0_a",
                "metric": "niqe",
                "value": 5.0,
                "metric_version": ESCAPES,
                "fingerprint": "f",
            }
        ]
    )
    caption = {
        "semantic_tags": [ESCAPES],
        "photographic_tags": [f"soft light {ESCAPES}"],
        "measured_tags": [],
        "caption": ESCAPES,
    }
    Store(workspace, CAPTIONS).append(
        [{"face_id": "fs_0_a", "captioner": "llava", "fingerprint": "f", **caption}]
    )
    decision = {"reviewer": ESCAPES, "reason": ESCAPES, "note": ESCAPES, "decision": "keep"}
    Store(workspace, DECISIONS).append(
        [{"id": "fs_0_a", "decided_at": datetime.now(UTC), "fingerprint": "", **decision}]
    )
    gates.apply_gates(workspace, workspace.settings.gates)
    return workspace


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Root of a workspace that tests only read."""
    root = tmp_path_factory.mktemp("hostile") / "ws"
    assert CliRunner().invoke(cli.app, ["init", str(root), "--preset", "embedded"]).exit_code == 0
    return hostile_workspace(root).root


READING_COMMANDS = [
    ["status"],
    ["explain", "fs_0"],
    ["explain", "fs_0", "--json"],
    ["licences"],
    ["licences", "--json"],
    ["tags"],
    ["report"],
    ["review", "agreement"],
    ["forget", "fs_0"],
    ["filter", "--what-if", "niqe<1"],
    ["tags", "remove", ESCAPES],
    ["explain", ESCAPES],
    ["filter", "--regate"],
    ["review", "import", INVALID_NAME],
    [f"no-such-command-{ESCAPES}"],
]


@pytest.mark.parametrize("charset", ["ascii", "utf-8"])
@pytest.mark.parametrize("command", READING_COMMANDS, ids=lambda command: command[0][:8])
def test_no_command_fails_for_characters_or_prints_escape_codes(
    hostile, tmp_path, charset, command
):
    root = tmp_path / "ws"
    shutil.copytree(hostile, root)
    result = CliRunner(charset=charset, env={"AUTHFACE_WORKSPACE": str(root)}).invoke(
        cli.app, command
    )
    assert result.exit_code in (0, 2), result.exception
    output = result.stdout_bytes + result.stderr_bytes
    assert output
    for character in (b"\x1b", b"\x07", b"\r", b"\xc2\x9b"):
        assert character not in output
    output.decode(charset)


def test_data_is_shown_with_visible_escapes(hostile):
    result = CliRunner().invoke(cli.app, ["explain", "fs_0", "-w", str(hostile)])
    assert "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\r[bold][/x]Zoë → “x”" in result.stdout
    ascii_result = CliRunner(charset="ascii").invoke(
        cli.app, ["explain", "fs_0", "-w", str(hostile)]
    )
    assert "Zo\\xeb \\u2192 \\u201cx\\u201d" in ascii_result.stdout


@pytest.mark.parametrize("options", [["--help"], ["review", "export", "--help"], ["--nonsense"]])
def test_help_and_usage_errors_in_ascii(options):
    result = CliRunner(charset="ascii").invoke(cli.app, options)
    assert result.exit_code in (0, 2)
    assert (result.stdout_bytes + result.stderr_bytes).isascii()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: "-".join(environment.values()),
)
def test_process_in_a_terminal_with_a_small_character_set(hostile, environment):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "explain", "fs_0", "-w", hostile],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\x1b[31mred" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


def test_progress_bar_and_log_lines_in_a_terminal_with_a_small_character_set():
    script = (
        "import logging, sys\n"
        "from manifests.support import console, logs\n"
        "console.accept_any_text()\n"
        "console.error_console._force_terminal = True\n"
        "from manifests.support.progress import ProgressBar\n"
        "logs.configure_logging()\n"
        "with ProgressBar('faces', 2, 'photos') as bar:\n"
        "    logging.getLogger('manifests.test').warning('%s', '\\x1b[2J → caf\\udce9')\n"
        "    logging.getLogger('some_library').warning('%s', '\\x1b[3J')\n"
        "    bar.advance(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "TERM": "xterm"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.isascii()
    assert b"\\x1b[2J \\u2192 caf\\udce9" in done.stderr
    assert b"\\x1b[3J" in done.stderr
    assert b"\x1b[2J" not in done.stderr
    assert b"\x1b[3J" not in done.stderr
    assert b"2/2" in done.stderr


def test_files_are_read_in_utf8_in_every_locale():
    """Without an encoding, Python reads a file in the character set of the terminal."""
    for path in code_figures.source_files():
        assert ".read_text()" not in path.read_text("utf-8"), path
