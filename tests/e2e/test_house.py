"""The rules of the house: who may import whom, and what starting the command may cost."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "transformers",
    "diffusers",
    "pyiqa",
    "pandas",
    "pyarrow",
    "numpy",
    "datasets",
    "cv2",
    "PIL",
    "pydantic",
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top of the file) of every import that runs; type-checking imports are none."""
    tree = ast.parse(path.read_text())
    found = []

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.append((child.module or "", top))
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(tree, True)
    return found


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules("manifests"), ids=relative)
def test_the_contract_knows_neither_half_nor_torch(path):
    for name, _ in imports(path):
        assert name.split(".")[0] not in {
            "authface_data",
            "authface_train",
            "cli",
            "torch",
            "transformers",
            "diffusers",
        }


@pytest.mark.parametrize("path", modules("authface_data"), ids=relative)
def test_the_data_half_does_not_know_the_training_half(path):
    assert not [
        name for name, _ in imports(path) if name.split(".")[0] in {"authface_train", "cli"}
    ]


@pytest.mark.parametrize("path", modules("authface_train"), ids=relative)
def test_the_training_half_takes_only_faces_quality_and_engine(path):
    taken = {name.split(".")[1] for name, _ in imports(path) if name.startswith("authface_data.")}
    assert taken <= {"faces", "quality", "images", "engine"}
    assert not [name for name, _ in imports(path) if name == "cli"]


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
def test_commands_import_nothing_heavy_before_they_run(path):
    top = {name.split(".")[0] for name, at_top in imports(path) if at_top}
    assert not top & HEAVY


def test_help_imports_nothing_heavy():
    script = (
        "import sys, json\nsys.argv = ['authface', '--help']\nimport cli\ntry:\n    cli.app()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.split("LOADED ")[1])
    assert "typer" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    for command in (
        "collect",
        "filter",
        "caption",
        "train-prior",
        "train-restore",
        "restore",
        "status",
        "report",
        "demo",
        "init",
    ):
        assert command in done.stdout


def test_no_file_is_a_room_of_two_ideas():
    for folder in ("manifests", "authface_data", "authface_train"):
        for path in modules(folder):
            assert len(path.read_text().splitlines()) <= 300, path


def test_no_package_of_the_house_is_hidden_by_another():
    """Some dependencies put a `tests` into site-packages: ours is no package."""
    assert not (ROOT / "tests" / "__init__.py").exists()
