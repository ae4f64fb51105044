"""The documentation: generated pages, links, navigation, and every command line that it shows."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import command_pages
import pytest
import write
import yaml
from documented_commands import check_authface, command_group, read_blocks

from manifests.support.console import UsageError, leaf_commands

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
GROUP = command_group()
FENCE = re.compile(r"^ *```([a-z]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|&& |; |--no[_-]python |\$ )(?:[A-Z_]+=\S+ )*authface (?=[a-z-])")
GLOSSARY_TERM = re.compile(r"^\| \*\*(.+?)\*\*", re.MULTILINE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    return write.generated_pages()


def test_generated_pages_are_the_committed_ones(generated):
    """To repair it: python docs/generator/write.py"""
    stale = [relative(path) for path, text in generated.items() if path.read_text() != text]
    assert stale == []
    assert set((DOCS / "commands").glob("*.md")) <= set(generated)


def test_every_option_and_setting_has_a_description(generated):
    for path, text in generated.items():
        for table in re.findall(r"(?<=meaning \|\n)(?:\|.*\|\n)+", text):
            cells = [re.split(r"(?<!\\)\|", row)[-2] for row in table.splitlines()[1:]]
            assert all(len(cell) > 4 for cell in cells), f"{relative(path)}: {cells}"


def test_settings_page_has_types_ranges_and_the_values_of_the_paper(generated):
    text = generated[DOCS / "configuration.md"]
    assert "| `duplicate_radius` | whole number, from 0 to 16 | `6` |" in text
    assert "| `learning_rate` | number, above 0 | `5e-07` | `2e-05` | paper |" in text
    assert "| `facial.m` | number | `-0.5` | paper |" in text


def test_page_of_a_command_has_choices_defaults_and_ranges(generated):
    text = generated[DOCS / "commands/restore.md"]
    assert "| `--steps N` | `50` | Denoising steps. From 1 to 1000. |" in text
    assert "| `--preset NAME` | `ours` |" in text
    assert "One of `ddpm`, `ddim`" in text
    assert all(name in GROUP.commands for name in command_pages.PARTIAL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = FENCE.sub("", path.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)|<[^>]*>", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", [*PAGES, *ROOT_PAGES], ids=relative)
def test_links_lead_to_files_and_headings(path):
    broken = []
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        is_anchor = not anchor or (target.suffix == ".md" and anchor in anchors(target))
        if not target.exists() or not is_anchor:
            broken.append(link)
    assert broken == []


def nav_pages(entries: list) -> Iterator[str]:
    """The files of a navigation tree."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, str):
            yield value
        else:
            yield from nav_pages(value)


def test_navigation_has_every_page_once():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = [str(path.relative_to(DOCS)) for path in PAGES]
    assert sorted(nav_pages(nav)) == sorted([*pages, "changelog.md", "contributing.md"])


def test_glossary_is_sorted():
    terms = GLOSSARY_TERM.findall((DOCS / "glossary.md").read_text())
    keys = [re.sub(r"[^a-z0-9 ]", "", term.lower()) for term in terms]
    assert keys == sorted(set(keys))


def fenced_commands(path: Path) -> Iterator[list[str]]:
    """The arguments of every authface command in the code blocks of a page."""
    for block in read_blocks(path):
        if block.language in ("text", "toml", "json", "yaml", "python"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            for start in COMMAND.finditer(line):
                line_end = shlex.split(line[start.end() :], comments=True)
                ends = [
                    line_end.index(end) for end in ("|", "&&", "&", ";", ">") if end in line_end
                ]
                yield line_end[: min(ends, default=len(line_end))]


@pytest.mark.parametrize("path", [*PAGES, *ROOT_PAGES], ids=relative)
def test_command_lines_parse(path):
    wrong = []
    for arguments in fenced_commands(path):
        try:
            check_authface(arguments)
        except (UsageError, AssertionError) as error:
            wrong.append(f"authface {shlex.join(arguments)}: {error}")
    assert wrong == []


@pytest.mark.parametrize("path", [*DOCS.glob("*.md"), ROOT / "README.md"], ids=relative)
def test_workspaces_of_examples_are_created_on_the_page(path):
    text = path.read_text()
    created = set(re.findall(r"authface\s+init\s+([^\s`]+)", text))
    unknown = []
    for arguments in fenced_commands(path):
        for option, name in itertools.pairwise(arguments):
            if option in ("-w", "--workspace") and name[0] != "$" and not name.isupper():
                unknown += [] if name in created else [name]
    assert unknown == [], "show `authface init NAME` before -w NAME"


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=relative
)
def test_commands_and_options_in_sentences_exist(path):
    commands = dict(leaf_commands(GROUP))
    wrong = []
    for text in re.findall(r"`authface ([a-z][^`]+)`", FENCE.sub("", path.read_text())):
        parts = re.sub(r"\\?\|", " ", " ".join(text.split())).split()
        name = " ".join(parts[:2]) if " ".join(parts[:2]) in commands else parts[0]
        if name not in commands and name not in GROUP.commands:
            wrong.append(text)
            continue
        known = {
            option
            for full_name, command in commands.items()
            if full_name == name or full_name.startswith(f"{name} ")
            for param in command.params
            for option in (*param.opts, *param.secondary_opts)
        }
        wrong += [
            f"{text}: {part}" for part in parts if part.startswith("--") and part not in known
        ]
    assert wrong == []


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    index = (tmp_path / "index.html").read_text()
    assert 'href="commands/index.html"' in index
    assert "fonts.googleapis.com" not in index
    changelog = (tmp_path / "changelog.html").read_text()
    assert 'href="installation.html"' in changelog
