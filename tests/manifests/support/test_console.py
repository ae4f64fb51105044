"""Options and exit codes that all commands share."""

import logging

import pytest
import typer
from typer.testing import CliRunner

import cli
from manifests.support import console
from manifests.support.errors import MissingResourceError, PartialFailureError, UserError

logger = logging.getLogger("manifests.test")


def leaf_commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaf_commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL_COMMANDS = list(leaf_commands(typer.main.get_command(cli.app)))


@pytest.fixture
def restored_loggers():
    """Undo what -v and -q set."""
    packages = [
        logging.getLogger(name) for name in ("manifests", "authface_data", "authface_train")
    ]
    before = [
        (package, package.level, package.propagate, package.handlers[:]) for package in packages
    ]
    yield
    for package, level, propagate, handlers in before:
        package.setLevel(level)
        package.propagate = propagate
        package.handlers[:] = handlers


@pytest.fixture
def app(restored_loggers):
    """A small command line with a command and a sub-command that log at every level."""
    app = typer.Typer(cls=console.AuthfaceGroup)
    sub_app = typer.Typer()

    def log_messages() -> None:
        logger.debug("a debug line")
        logger.info("an info [line]")
        logger.warning("a warning line")
        console.console.print("the result")

    app.command(name="log")(log_messages)
    sub_app.command(name="log")(log_messages)
    sub_app.command(name="other")(log_messages)
    app.add_typer(sub_app, name="sub")
    return app


@pytest.mark.parametrize(
    ("path", "command"),
    ALL_COMMANDS,
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_has_verbose_and_quiet_once(path, command):
    flags = [flag for parameter in command.params for flag in parameter.opts]
    for flag in ("-v", "--verbose", "-q", "--quiet"):
        assert flags.count(flag) == 1


@pytest.mark.parametrize("command", [["log"], ["sub", "log"]])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["an info [line]", "Warning: a warning line"]),
        (["-v"], ["a debug line", "an info [line]", "Warning: a warning line"]),
        (["--quiet"], ["Warning: a warning line"]),
    ],
)
def test_level_is_set_and_lines_go_to_stderr(app, command, options, expected):
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == expected
    assert result.stdout == "the result\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError, 2), (MissingResourceError, 3), (PartialFailureError, 4)],
)
def test_errors_are_one_line_with_their_exit_code(app, error, code):
    @app.command()
    def fail() -> None:
        raise error("something is [wrong];\n do something else")

    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == code
    assert result.stderr == "authface: something is [wrong]; do something else\n"


def test_usage_error_points_to_the_help(app):
    result = CliRunner().invoke(app, ["log", "--nonsense"])
    assert result.exit_code == 2
    assert "--help`)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_retry_accepts_failed_only():
    assert console.parse_retry("failed")
    assert not console.parse_retry(None)
    with pytest.raises(typer.BadParameter, match="`failed`"):
        console.parse_retry("all")


def test_version_is_printed():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("authface ")
