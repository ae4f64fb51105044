"""Figures of the source code that the tests hold: long lines, docstrings, `Any`, printing, imports.

    python benchmarks/code_figures.py

tests/e2e/test_code_rules.py fails where a figure passes its limit.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("manifests", "authface_data", "authface_train")
MAX_COLUMNS = 100

# Identifiers that were verbs of speech or fillers, and phrases of the former dialect. A hit is a
# place to rewrite: name the thing, say who does what.
_IDENTIFIERS = """
said says told tells asked asks made turned words look looks whence onlooker onlookers hither
settle bury judged usual whose ours theirs mine affair
"""
DIALECT_IDENTIFIERS = frozenset(_IDENTIFIERS.split())
DIALECT_PHRASES = re.compile(
    r"\b(whence|hither|in vain|by heart|so many of|hardly any|onlookers?|is told|are told|told to"
    r"|is asked|are asked|asked for|what is said|to be looked at|of its own|as it stands"
    r"|means nothing|(?-i:is none|are none)|own affair|that is there|go on with|goes on where"
    r"|learnt by|is held to)\b",
    re.IGNORECASE,
)
# Identifiers that are right where they stand: words of a text, and a key of `--json` output.
ALLOWED_IDENTIFIERS = {
    ("normalise_tags.py", "words"),
    ("vocabulary.py", "words"),
    ("what_if.py", "asked"),
}
ARRAY_TYPES = re.compile(r"ndarray|Tensor|Image\.Image")


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule.

    Attributes:
        rule: Name of the rule.
        place: "path:line".
        detail: What was found.
    """

    rule: str
    place: str
    detail: str


def source_files() -> list[Path]:
    """Every Python file of the packages, and cli.py."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ROOT / "cli.py", *files]


def all_files() -> list[Path]:
    """Every Python file of the project, tests and benchmarks included."""
    extra = [
        path for name in ("tests", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))
    ]
    return [*source_files(), *extra]


def long_lines() -> list[Finding]:
    """Lines of more than MAX_COLUMNS columns, in all files."""
    return [
        Finding("long line", f"{path.relative_to(ROOT)}:{number}", f"{len(line)} columns")
        for path in all_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > MAX_COLUMNS
    ]


def undocumented() -> list[Finding]:
    """Public classes and functions without a docstring, or without the sections they need.

    A function below the commands needs `Args:` if it takes more than one argument, and `Returns:`
    if it returns an array. A method of a class that names its parameters in a protocol elsewhere is
    exempt from the sections if its docstring is one line and the protocol documents it.
    """
    protocol_methods = _protocol_methods()
    findings = []
    for path in source_files():
        is_command = "commands" in path.parts
        for node, owner in _public_definitions(ast.parse(path.read_text("utf-8"))):
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            docstring = ast.get_docstring(node)
            if not docstring:
                findings.append(Finding("no docstring", place, node.name))
                continue
            if isinstance(node, ast.ClassDef) or is_command:
                continue
            if owner is not None and node.name in protocol_methods:
                continue
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [item for item in parameters if item.arg not in ("self", "cls")]
            if len(named) > 1 and "Args:" not in docstring:
                findings.append(Finding("no Args:", place, node.name))
            returns = ast.unparse(node.returns) if node.returns else ""
            if ARRAY_TYPES.search(returns) and not re.search("Returns:|Yields:", docstring):
                findings.append(Finding("no Returns:", place, node.name))
    return findings


def _protocol_methods() -> set[str]:
    """Names of the methods that protocols declare and document."""
    names = set()
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
            ):
                names.update(item.name for item in node.body if isinstance(item, ast.FunctionDef))
    return names


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public_definitions(
    node: ast.Module | ast.ClassDef, owner: ast.ClassDef | None = None
) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    """Public classes, functions and methods, each with the class it belongs to."""
    for child in node.body:
        if not isinstance(child, Definition) or child.name.startswith("_"):
            continue
        yield child, owner
        if isinstance(child, ast.ClassDef):
            yield from _public_definitions(child, child)


def any_count() -> tuple[int, int]:
    """Uses of `Any` and lines, over the packages."""
    texts = [path.read_text("utf-8") for path in source_files()]
    return (
        sum(len(re.findall(r"\bAny\b", text)) for text in texts),
        sum(len(text.splitlines()) for text in texts),
    )


def printing() -> list[Finding]:
    """Calls of print, or of a rich console's print, outside the commands."""
    findings = []
    for path in source_files():
        relative = path.relative_to(ROOT)
        if "commands" in path.parts or relative.parts[:2] == ("manifests", "support"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "console.print"):
                findings.append(
                    Finding("prints", f"{relative}:{node.lineno}", ast.unparse(node)[:60])
                )
    return findings


def dialect() -> list[Finding]:
    """Identifiers and phrases of the former dialect, in all files but this one."""
    findings = []
    for path in all_files():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text("utf-8")
        relative = path.relative_to(ROOT)
        for number, line in enumerate(text.splitlines(), 1):
            match = DIALECT_PHRASES.search(line)
            if match:
                findings.append(Finding("phrase", f"{relative}:{number}", match.group(0)))
        for node in ast.walk(ast.parse(text)):
            name = _bound_name(node)
            if name is None or (path.name, name) in ALLOWED_IDENTIFIERS:
                continue
            if name.strip("_").lower() in DIALECT_IDENTIFIERS:
                findings.append(Finding("identifier", f"{relative}:{node.lineno}", name))
    return findings


def _bound_name(node: ast.AST) -> str | None:
    """The name that a node binds, or None."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, Definition):
        return node.name
    return None


def main() -> None:
    """Print each figure, and the places behind it."""
    files = all_files()
    num_lines = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    num_any, num_source_lines = any_count()
    for title, findings in (
        (f"lines over {MAX_COLUMNS} columns", long_lines()),
        ("missing docstrings and sections", undocumented()),
        ("printing outside commands", printing()),
        ("dialect", dialect()),
    ):
        print(f"{title}: {len(findings)}")
        for finding in findings:
            print(f"  {finding.place}: {finding.rule}: {finding.detail}")
    print(f"{num_lines} lines in {len(files)} files")
    rate = 1000 * num_any / num_source_lines
    print(f"Any: {num_any} in {num_source_lines} lines, {rate:.1f} per 1,000")


if __name__ == "__main__":
    main()
