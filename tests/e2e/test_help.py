"""The help of every command: types, defaults, choices, examples and completion."""

import re
import shlex
from collections.abc import Iterator
from typing import get_args

import pytest
import typer.main
from typer.core import TyperGroup

import cli
from authface_data.faces.detectors import DETECTORS as DETECTOR_CLASSES
from authface_train.data.degradation import PRESETS as DEGRADATIONS
from authface_train.evaluation.metrics import METRICS
from authface_train.presets import preset_names
from manifests import names
from manifests.settings import preset_names as workspace_preset_names
from manifests.support import options

GROUP = typer.main.get_command(cli.app)
EXAMPLE = re.compile(r"^(?:\w+=\S+ )?authface .+$", re.MULTILINE)


def leaf_commands(group, path=()) -> Iterator[tuple[str, object]]:
    """Every command that does something, with its full name."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaf_commands(command, (*path, name))
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            yield " ".join((*path, name)), command


COMMANDS = dict(leaf_commands(GROUP))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_parse(name):
    examples = [shlex.split(line)[1:] for line in EXAMPLE.findall(COMMANDS[name].help)]
    assert 1 <= len(examples) <= 4
    assert any(example[: len(name.split())] == name.split() for example in examples)
    for arguments in examples:
        command, parent = GROUP, None
        while isinstance(command, TyperGroup) and arguments and arguments[0] in command.commands:
            parent = command.make_context("authface", [], parent, resilient_parsing=True)
            command = command.commands[arguments[0]]
            arguments = arguments[1:]
        command.make_context("example", arguments, parent)  # refuses unknown options and values


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_shows_its_default(name):
    for option in COMMANDS[name].params:
        if option.param_type_name == "argument" or option.required or option.is_flag:
            continue
        shown = option.default is not None and option.show_default
        described = re.search(r"Default|Required|Repeatable|Only|Process", option.help or "")
        assert shown or described, f"{name} {option.opts[0]}"


@pytest.mark.parametrize("command", ["train-prior", "restore", "study create", "forget"])
def test_help_shows_no_types_of_python(authface_here, command):
    shown = authface_here(*command.split(), "--help").stdout
    assert not re.search(r"<(list|str|int|float|path)\b", shown)
    assert re.search(r"--\S+ +(-\w +)?(N|PATH|TEXT|DIR) ", shown)
    assert str(options.MAX_SEED)[:6] not in shown


@pytest.mark.parametrize("command", ["", "review", "study"])
def test_group_without_a_command_prints_its_help(authface_here, command):
    result = authface_here(*command.split())
    assert result.returncode == 0
    assert "Usage: " in result.stdout
    assert "bool" not in result.stdout
    assert not result.stderr


def test_version_and_short_help(authface_here):
    assert re.fullmatch(r"authface \d+\.\d+\.\d+\n", authface_here("--version").stdout)
    result = authface_here("status", "-h")
    assert result.returncode == 0
    assert "bool" not in result.stdout


def completions(monkeypatch, capsys, *arguments: str) -> list[str]:
    """What the shell offers for the last word."""
    monkeypatch.setenv("_AUTHFACE_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", shlex.join(("authface", *arguments)))
    with pytest.raises(SystemExit):
        GROUP.main([], prog_name="authface")
    return re.findall(r'(?<!:)"([^"]+)"', capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "offered"),
    [
        (("train-prior", "--preset", "1x"), ["1x24gb", "1x80gb"]),
        (("filter", "--detector", "ret"), ["retinaface", "retinaface-mobile"]),
        (("filter", "--metrics", "piqe,musiq-s"), ["piqe,musiq-spaq"]),
        (("evaluate", "--metrics", "psnr,lan"), ["psnr,landmarks"]),
        (("degrade", "--preset", "codeformer-l"), ["codeformer-large"]),
        (("doc",), ["doctor"]),
    ],
)
def test_completion(monkeypatch, capsys, arguments, offered):
    assert completions(monkeypatch, capsys, *arguments) == offered


def test_choices_are_those_of_the_code():
    assert set(get_args(options.WorkspacePreset)) == set(workspace_preset_names())
    assert get_args(options.DetectorName) == names.DETECTORS
    assert set(names.DETECTORS) == set(DETECTOR_CLASSES)
    assert get_args(options.LandmarksName) == names.LANDMARKS
    assert get_args(options.CaptionerName) == names.CAPTIONERS
    assert sorted(get_args(options.TrainPreset)) == preset_names()
    assert get_args(options.DegradationPreset) == tuple(DEGRADATIONS)
    assert tuple(METRICS) == options.EVALUATION_METRICS
