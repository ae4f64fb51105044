"""Rules of the code: who may import whom, what starting a command costs, and style figures."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

import code_figures
import pytest

ROOT = Path(__file__).parents[2]
HEAVY_LIBRARIES = {
    "PIL",
    "cv2",
    "datasets",
    "diffusers",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyiqa",
    "torch",
    "transformers",
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether imported at module level) of every import except those for type checking."""
    found = []

    def visit(node: ast.AST, at_module_level: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, at_module_level) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.append((child.module or "", at_module_level))
                found.extend(
                    (f"{child.module}.{alias.name}", at_module_level) for alias in child.names
                )
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            visit(child, at_module_level and not is_function)

    visit(ast.parse(path.read_text("utf-8")), True)
    return found


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def packages_imported(path: Path) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(path)}


@pytest.mark.parametrize("path", modules("manifests"), ids=relative)
def test_manifests_import_neither_half_nor_torch(path):
    forbidden = {"authface_data", "authface_train", "cli", "torch", "transformers", "diffusers"}
    assert not packages_imported(path) & forbidden


@pytest.mark.parametrize("path", modules("authface_data"), ids=relative)
def test_data_half_does_not_import_the_training_half(path):
    assert not packages_imported(path) & {"authface_train", "cli"}


@pytest.mark.parametrize("path", modules("authface_train"), ids=relative)
def test_training_half_imports_only_four_packages_of_the_data_half(path):
    names = [name for name, _ in imports(path)]
    used = {name.split(".")[1] for name in names if name.startswith("authface_data.")}
    assert used <= {"faces", "quality", "images", "engine"}
    assert "cli" not in names


def test_modules_import_each_other_without_a_cycle():
    module_paths = {
        relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in code_figures.source_files()
    }
    graph = {
        module: {
            name
            for name, at_module_level in imports(path)
            if at_module_level and name in module_paths and name != module
        }
        for module, path in module_paths.items()
    }
    # A module that imports a submodule of its package does not depend on the package's __init__.
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "cli.py",
        ROOT / "manifests/support/console.py",
        *modules("authface_data/commands"),
        *modules("authface_train/commands"),
    ],
    ids=relative,
)
def test_commands_import_nothing_heavy_at_module_level(path):
    at_module_level = {name.split(".")[0] for name, top in imports(path) if top}
    assert not at_module_level & HEAVY_LIBRARIES


def test_help_imports_nothing_heavy():
    script = (
        "import sys, json\n"
        "sys.argv = ['authface', '--help']\n"
        "import cli\n"
        "try:\n"
        "    cli.app()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('LOADED', json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.split("LOADED ")[1])}
    assert "typer" in loaded
    assert not HEAVY_LIBRARIES & loaded
    for command in ("collect", "filter", "caption", "train-prior", "restore", "status", "demo"):
        assert command in done.stdout


def test_tests_are_not_a_package():
    """Some dependencies install a package `tests`, which would hide ours or be hidden by it."""
    assert not (ROOT / "tests" / "__init__.py").exists()


def places(findings: list[code_figures.Finding]) -> str:
    return "\n".join(f"{item.place}: {item.rule}: {item.detail}" for item in findings)


def test_lines_fit_into_100_columns():
    findings = code_figures.long_lines()
    num_lines = sum(len(path.read_text().splitlines()) for path in code_figures.all_files())
    assert len(findings) < 0.005 * num_lines, places(findings)


def test_public_code_is_documented():
    findings = code_figures.undocumented()
    assert not findings, places(findings)


def test_only_commands_print():
    findings = code_figures.printing()
    assert not findings, places(findings)


def test_one_module_opens_pictures():
    """Pillow's own `Image.open` runs any decoder, also those that execute what they read."""
    opening = re.compile(r"\bImage\.open\b|\bImageFile\.Parser\b|\bimread\b")
    sources = [*modules("authface_data"), *modules("authface_train"), *modules("manifests")]
    users = {relative(path) for path in sources if opening.search(path.read_text("utf-8"))}
    assert users == {"authface_data/images/open.py"}


def test_dialect_stays_away():
    findings = code_figures.dialect()
    assert not findings, places(findings)


def test_any_is_rare():
    num_any, num_lines = code_figures.any_count()
    assert num_any < 0.009 * num_lines


def test_file_names_of_runs_are_written_once():
    """`manifests/run_folder.py` has them as constants."""
    names = ("model_index.json", "run.json", "metrics.csv", "lineage.parquet", "audit.csv")
    for path in code_figures.source_files():
        if relative(path) == "manifests/run_folder.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                pytest.fail(f"{relative(path)}:{node.lineno} has {node.value!r} as a literal")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_paths_in_the_documentation_exist(page):
    text = (ROOT / page).read_text("utf-8")
    paths = re.findall(
        r"`((?:manifests|authface_data|authface_train|tests|benchmarks|docs)/[^`\s*]*)`", text
    )
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", text)
    if page == "CONTRIBUTING.md":
        assert paths
    for path in [*paths, *links]:
        assert (ROOT / path).exists(), path
