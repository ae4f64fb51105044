"""The pages docs/commands/*.md, generated from the command line that typer builds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import typer.main
from typer.core import TyperGroup

import cli
from manifests.support.console import leaf_commands
from manifests.support.options import MAX_SEED
from manifests.support.value_names import VALUE_NAMES, value_type

NOTICE = "<!-- Generated from the command line: run `python docs/generator/write.py`. -->"
COMMON_OPTIONS = ("verbose", "quiet", "help")
CODE_WORDS = re.compile(
    r"(?<![\w`/.-])(--[a-z][a-z-]+|(?:collect|filter|captions)(?:\.[a-z_]+)+"
    r"|[\w-]+\.(?:toml|parquet|txt|html|csv|png)|[A-Z]+_[A-Z_]+)(?![\w`])"
)
"""Options, keys of authface.toml, file names and environment variables in a help text."""

GUIDES = {
    "init": ["tutorial.md"],
    "collect": ["collect.md", "licences-and-consent.md"],
    "filter": ["filter.md", "scale.md"],
    "review": ["review.md", "photographer.md"],
    "serve": ["review.md", "photographer.md"],
    "caption": ["captions.md"],
    "tags": ["captions.md"],
    "export-captions": ["captions.md"],
    "push": ["licences-and-consent.md"],
    "train-prior": ["train-prior.md", "running.md", "many-machines.md"],
    "train-restore": ["train-restore.md", "running.md", "many-machines.md"],
    "degrade": ["train-restore.md", "evaluate.md"],
    "restore": ["restore.md"],
    "evaluate": ["evaluate.md"],
    "export": ["train-prior.md"],
    "study": ["evaluate.md"],
    "reproduce": ["reproduce.md"],
    "status": ["manifests.md"],
    "explain": ["filter.md"],
    "report": ["filter.md"],
    "licences": ["licences-and-consent.md"],
    "forget": ["licences-and-consent.md"],
    "doctor": ["installation.md", "troubleshooting.md"],
    "hashes": ["collect.md"],
    "clean": ["running.md"],
    "migrate": ["manifests.md"],
    "demo": ["tutorial.md"],
}
"""Command -> the guides that show it in use."""

PARTIAL = {
    "collect": "Photographs could not be collected, linked originals are missing, or the requests "
    "of the hour are spent. The next run continues, and `--retry failed` tries failed rows again.",
    "filter": "Rows failed. `authface status` lists the reasons, `--retry failed` tries them again.",
    "caption": "Rows failed, or the caption server cannot be reached. `--retry failed` tries failed "
    "rows again.",
    "train-prior": "The run does not fit (`--dry-run`), a loss was not finite or too high, or "
    "another process of the run ended. `--resume` continues from the last checkpoint.",
    "train-restore": "The run does not fit (`--dry-run`), a loss was not finite or too high, or "
    "another process of the run ended. `--resume` continues from the last checkpoint.",
    "degrade": "Some pictures could not be read; a line names each.",
    "restore": "Some pictures could not be read or written; a line names each.",
    "evaluate": "A picture was not measured, or the weights of a metric are missing (0 with "
    "`--allow-missing`).",
    "reproduce": "A training run does not fit on this machine.",
    "forget": "Files that name a forgotten photograph could not be cleaned; the message lists them.",
    "doctor": "The workspace has problems; each is listed with the command that repairs it.",
}
"""Command -> what exit code 4 means."""

EXIT_CODES = """\
| code | meaning |
|---|---|
| 0 | Done. Dropped rows are normal. |
| 1 | A bug: a traceback is printed. |
| 2 | A mistake in the command line or the settings, a lock that another command holds, or a licence that does not allow it. |
| 3 | Something that is needed is missing: weights, a key or an extra. The message names it, its source and where to put it. |
| 4 | Done in part. The page of each command says what that means. |
| 130 | Interrupted by Ctrl-C. Finished work is saved. |
| 143 | Terminated by a signal. Finished work is saved. |"""


@dataclass(frozen=True)
class Option:
    """A parameter of a command, as the page shows it.

    Attributes:
        names: Its names, such as ["-w", "--workspace"], or the name of an argument.
        value: Placeholder of the value; empty for flags.
        default: Default, in Markdown.
        meaning: Help text, in Markdown, with the choices.
        panel: Heading under which the help shows it; empty for the first panel.
    """

    names: list[str]
    value: str
    default: str
    meaning: str
    panel: str


def command_pages() -> dict[str, str]:
    """Every page about the commands.

    Returns:
        File name -> content.
    """
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    pages = {"index.md": _index(group)}
    for name, command in group.commands.items():
        pages[f"{name}.md"] = _page(name, command)
    return pages


def _index(group: TyperGroup) -> str:
    """The page that lists all commands."""
    panels: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        panel = str(getattr(command, "rich_help_panel", ""))
        panels.setdefault(panel, []).append(f"| [`{name}`]({name}.md) | {_summary(command)} |")
    tables = [
        f"## {panel}\n\n| command | purpose |\n|---|---|\n" + "\n".join(lines)
        for panel, lines in panels.items()
    ]
    common = next(command for _, command in leaf_commands(group)).params
    options = [_option(param, bool) for param in common if param.name in COMMON_OPTIONS]
    return (
        "\n\n".join(
            [
                NOTICE,
                "# Commands",
                "`authface COMMAND --help` prints the same in a terminal.",
                *tables,
                "## Options of every command",
                _option_table(options, "option"),
                "`authface --version` prints the version. Completion of commands, options and values "
                "in the shell is installed by `authface --install-completion`.",
                "## The workspace",
                "Commands that read or write a workspace take it from `-w/--workspace`, else from the "
                "environment variable `AUTHFACE_WORKSPACE`, else from the nearest parent folder with "
                "an `authface.toml`.",
                "## Exit codes",
                EXIT_CODES,
            ]
        )
        + "\n"
    )


def _page(name: str, command: Any) -> str:
    """The page of a command, with the commands of its group."""
    blocks = [NOTICE, f"# `authface {name}`"]
    if isinstance(command, TyperGroup):
        if command.invoke_without_command:
            blocks += _sections(name, command, level=2)
        else:
            blocks.append(_prose(command.help))
        for child_name, child in command.commands.items():
            blocks.append(f"## `authface {name} {child_name}`")
            blocks += _sections(f"{name} {child_name}", child, level=3)
    else:
        blocks += _sections(name, command, level=2)

    blocks.append("## Exit codes")
    if name in PARTIAL:
        blocks.append(f"4: {PARTIAL[name]}")
        blocks.append("The others are [those of every command](index.md#exit-codes).")
    else:
        blocks.append("[Those of every command](index.md#exit-codes).")
    guides = [f"[{guide}](../{guide})" for guide in GUIDES[name]]
    blocks.append(f"See also: {', '.join(guides)}.")
    return "\n\n".join(blocks) + "\n"


def _sections(full_name: str, command: Any, level: int) -> Iterator[str]:
    """Text, usage, examples, arguments and options of a command."""
    types = get_type_hints(command.callback)
    params = [param for param in command.params if param.name not in COMMON_OPTIONS]
    arguments = [p for p in params if p.param_type_name == "argument"]
    options = [p for p in params if p.param_type_name == "option"]
    shown_arguments = [_option(param, types[param.name]) for param in arguments]
    shown_options = [_option(param, types[param.name]) for param in options]
    heading = "#" * level

    yield _prose(command.help)
    required = [
        f" {option.names[-1]} {option.value}"
        for param, option in zip(options, shown_options, strict=True)
        if param.required
    ]
    usage = f"authface {full_name}{''.join(required)} [OPTIONS]"
    for param, argument in zip(arguments, shown_arguments, strict=True):
        usage += f" {argument.names[0]}" if param.required else f" [{argument.names[0]}]"
    yield f"```text\n{usage}\n```"
    yield f"{heading} Examples"
    yield f"```\n{_examples(command.help)}\n```"
    if shown_arguments:
        yield f"{heading} Arguments"
        yield _option_table(shown_arguments, "argument")
    panels = dict.fromkeys(option.panel for option in shown_options)
    for panel in sorted(panels, key=bool):  # the panel without a name first
        yield f"{heading}# {panel}" if panel else f"{heading} Options"
        yield _option_table([option for option in shown_options if option.panel == panel], "option")


def _option(param: Any, annotation: Any) -> Option:
    """A parameter of typer, with its type, as the page shows it."""
    kind, choices, is_repeatable = value_type(annotation)
    is_flag = bool(getattr(param, "is_flag", False))
    is_argument = param.param_type_name == "argument"

    value = ""
    if not is_flag:
        value = param.metavar or ("" if choices else VALUE_NAMES.get(kind, "VALUE"))
    names = [value or str(param.name).upper()] if is_argument else _sorted_names(param)
    if is_argument and is_repeatable and not names[0].endswith(("…", "...")):
        names[0] += "..."

    meaning, default = _split_default(str(param.help or ""))
    if param.required:
        default = "required"
    elif is_flag and not default:
        default = "off"
    elif param.default is not None and not is_flag:
        default = f"`{param.default}`"
    meaning = _code(meaning)
    if choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        value = value or "NAME"
    # A number or a choice; other defaults of help texts are sentences.
    is_literal = default in choices or default.isdecimal()
    return Option(
        names=names,
        value=value,
        default=f"`{default}`" if is_literal else _code(default) or "none",
        meaning=f"{meaning}{_limits(param)}",
        panel=str(getattr(param, "rich_help_panel", None) or ""),
    )


def _sorted_names(param: Any) -> list[str]:
    """The names of an option, short ones first, with those that switch it off."""
    return [*sorted(param.opts, key=len), *param.secondary_opts]


def _split_default(text: str) -> tuple[str, str]:
    """Split the sentence "Default: ..." from the end of a help text."""
    text = " ".join(text.split())
    match = re.fullmatch(r"(.*?)\s*Default: (.*?)\.?", text)
    return (match[1], match[2]) if match else (text, "")


def _limits(param: Any) -> str:
    """The range of a number, as a sentence."""
    lowest, highest = getattr(param, "min", None), getattr(param, "max", None)
    if lowest is None:
        return ""
    if highest is None or highest == MAX_SEED:
        return f" At least {lowest:g}."
    return f" From {lowest:g} to {highest:g}."


def _option_table(options: Sequence[Option], kind: str) -> str:
    """A table of options or arguments."""
    lines = [f"| {kind} | default | meaning |", "|---|---|---|"]
    for option in options:
        value = f" {option.value}" if option.value and kind == "option" else ""
        names = ", ".join(f"`{name}`" for name in option.names[:-1])
        label = f"{names + ', ' if names else ''}`{option.names[-1]}{value}`"
        cells = (label, option.default, option.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _prose(text: str | None) -> str:
    """The paragraphs of a help text, without its examples."""
    paragraphs = re.sub(r"```.*?```", "", text or "", flags=re.DOTALL).strip().split("\n\n")
    return "\n\n".join(_code(" ".join(paragraph.split())) for paragraph in paragraphs)


def _examples(text: str | None) -> str:
    """The examples of a help text, one a line."""
    found = re.search(r"```\n(.*?)\n```", text or "", re.DOTALL)
    assert found is not None, f"a command has no examples: {text}"
    return found[1]


def _summary(command: Any) -> str:
    """The first sentence of a help text."""
    return _prose(command.help).split("\n\n")[0]


def _code(text: str) -> str:
    """Set options, keys of authface.toml and file names of a help text as code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [CODE_WORDS.sub(r"`\1`", part) for part in parts[::2]]
    return "".join(parts)
