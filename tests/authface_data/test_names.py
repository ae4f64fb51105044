"""Names that users type in settings and options: each error gives the nearest known name."""

import subprocess
import sys

import pytest
from review_workspace import fill_review_workspace
from typer.testing import CliRunner

import cli
from authface_data.faces.detectors import DETECTORS
from authface_data.faces.landmarks import LANDMARKERS
from authface_data.quality import MEASURES
from manifests import names
from manifests.settings import preset_text
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace with faces, of which tests change the settings only."""
    path = tmp_path_factory.mktemp("names") / "ws"
    return fill_review_workspace(Workspace.create(path, preset_text("embedded"))).root


@pytest.fixture
def run(root):
    """Runs a command under settings; it must fail as a user's mistake. Returns its message."""

    def run_command(settings: str, *command: object) -> str:
        Workspace(root).write_bytes("authface.toml", settings.encode())
        result = CliRunner().invoke(cli.app, [*map(str, command), "-w", root])
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1
        return result.stderr

    return run_command


GATE = '[[gates]]\nname = "sharp"\nmetric = "{metric}"\nop = ">="\nthreshold = {threshold}\n'


def test_names_of_settings_are_those_of_the_classes():
    assert tuple(DETECTORS) == names.DETECTORS
    assert tuple(LANDMARKERS) == names.LANDMARKS
    assert tuple(MEASURES) == names.QUALITY_MEASURES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('[captions]\ncaptioner = "lava"', 'captioner: unknown captioner "lava"; did you mean lla'),
        ('[captions]\nuse = ["qwn"]', 'captions.use: unknown captioner "qwn"; did you mean qwen?'),
        ('[captions]\nuse = ["zz"]', 'captioner "zz"; choose from: llava, server, measured, qwen'),
        ('[filter]\ndetector = "retinaf"', 'detector "retinaf"; did you mean retinaface?'),
        ('[filter]\nlandmarks = "dlip"', 'unknown landmarks "dlip"; did you mean dlib?'),
        ('[filter]\nmetrics = ["musiq", "nqe"]', 'unknown metric "nqe"; did you mean niqe?'),
        ('[filter]\nmetrics = ["zzzz"]', "choose one of pyiqa's no-reference metrics"),
        (
            GATE.format(metric="sharpnes", threshold=1),
            'gate "sharp": metric: unknown measurement "sharpnes"; did you mean sharpness?',
        ),
        (GATE.format(metric="zzzz", threshold=1), 'measurement "zzzz"; choose from: pepper, noise'),
        (GATE.format(metric="skin", threshold='"x"'), 'gate "sharp": threshold: input should be'),
        (GATE.format(metric="skin", threshold=1) + "best = 3", 'gate "sharp": a gate needs either'),
        (GATE.format(metric="skin", threshold=1) + "bst = 3", 'gate "sharp": unknown setting bst;'),
        ('[[gates]]\nmetric = "skin"\nop = ">="\nbest = 1', "gate 1: name: field required"),
    ],
)
@pytest.mark.parametrize("command", ["status", "caption", "filter"])
def test_names_in_settings_are_checked_by_every_command(run, settings, message, command):
    assert message in run(settings, command)


def test_metric_that_is_not_measured(run):
    message = run(GATE.format(metric="musiq", threshold=1), "filter", "--regate")
    assert 'gate "sharp": musiq has not been measured; add it to filter.metrics' in message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["filter", "--metrics", "niqe,musik"], 'unknown metric "musik"; did you mean musiq?'),
        (["filter", "--metrics", "zzzz"], "choose one of pyiqa's no-reference metrics"),
        (["filter", "--detector", "retinafce"], "'--detector': 'retinafce' is not one of"),
        (["filter", "--landmarks", "dlb"], "'retinaface5'; did you mean dlib?"),
        (["filter", "--what-if", "skn>=1"], '--what-if: unknown measurement "skn"; did you mean'),
        (["filter", "--what-if", "musiq>=1"], "--what-if: musiq has not been measured; add it to"),
        (["caption", "--captioner", "sever"], "'measured'; did you mean server?"),
        (["tags", "remove", "soft ligt"], "tag 'soft ligt'; did you mean soft light?"),
        (["tags", "restore", "soft light"], "no decision about the tag 'soft light'; `auth"),
        (
            ["export-captions", "--output", "/nowhere", "--format", "koya"],
            "Invalid value for '--format': 'koya' is not one of 'kohya', 'simpletuner', "
            "'imagefolder', 'jsonl'; did you mean kohya?",
        ),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_nearest_name_of_options(run, command, message):
    assert message in run("", *command)


def test_names_of_metrics_are_not_checked_without_pyiqa(monkeypatch):
    monkeypatch.setattr(names, "iqa_metric_names", tuple)
    names.check_metric("musiq")
    names.check_measurement("musiq")


def test_metric_names_are_known_without_torch():
    script = (
        "import sys\n"
        "from manifests.names import iqa_metric_names\n"
        "print(' '.join(iqa_metric_names()), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    *listed, has_torch = done.stdout.split()
    assert has_torch == "False"
    assert listed == list(names.iqa_metric_names())
    assert {"musiq", "niqe", "piqe"} <= set(listed)
    assert "lpips" not in listed
