"""The README and the tutorial, followed command by command, and the messages of other pages."""

import ast
import re
import shlex
import shutil

import code_figures
import pandas as pd
import pytest
from documented_commands import (
    OMISSION,
    ROOT,
    Walk,
    check_authface,
    check_installer,
    read_blocks,
)


def find_dropped_face(folder):
    """The id of a face that is too small."""
    verdicts = pd.read_parquet(folder / "manifests/verdicts")
    too_small = verdicts[(verdicts["gate"] == "face_size") & (verdicts["verdict"] == "dropped")]
    return too_small["id"].iloc[0]


def find_photograph(folder):
    """The id of a photograph that the models have seen."""
    photos = pd.read_parquet(folder / "manifests/photos")
    return photos[photos["description"] == "obama.jpg"]["photo_id"].item()


def keep_dropped_face(folder):
    """What a reviewer does in a spreadsheet."""
    table = pd.read_csv(folder / "review.csv", dtype=str)
    table.loc[table["id"] == find_dropped_face(folder), "decision"] = "keep"
    table.to_csv(folder / "review.csv", index=False)


@pytest.fixture
def start_walk(tmp_path, photos, weights, authface_here, monkeypatch):
    """Function that returns the walk of a reader with some photographs in ~/portraits."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def start(*names):
        portraits = tmp_path / "portraits"
        portraits.mkdir()
        for name in names or photos:
            shutil.copy(photos[name], portraits / name)
        return Walk(
            authface_here,
            tmp_path,
            by_hand={"review import": keep_dropped_face},
            placeholders={
                "FACE_ID": find_dropped_face,
                "PHOTO_ID": find_photograph,
                "~/portraits/PHOTO": lambda _: str(portraits / "obama.jpg"),
            },
        )

    return start


@pytest.mark.slow
def test_tutorial(start_walk):
    start_walk().follow(ROOT / "docs/tutorial.md")


@pytest.mark.slow
def test_readme(start_walk):
    walk = start_walk("obama.jpg", "obama2.jpg")
    walk.follow(ROOT / "README.md")
    assert (walk.folder / "reports/report.html").is_file()
    assert sorted(path.name for path in (walk.folder / "restored").glob("*.jpg")) == [
        "obama.jpg",
        "obama2.jpg",
        "strip.jpg",
    ]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


def test_extras_and_targets_of_make_exist():
    """tests/e2e/test_docs.py checks the commands of authface."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for block in read_blocks(page):
            if block.language in ("", "bash", "sh"):
                for line in block.text.splitlines():
                    if line.startswith(("make ", "pip ")):
                        check_installer(shlex.split(line, comments=True))


def code_texts():
    """All texts of the code; the values in them are `…`."""
    texts = []
    for path in code_figures.source_files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else OMISSION
                    for part in node.values
                ]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_messages_of_troubleshooting_are_those_of_the_code():
    """Each clause of a message, up to a value, stands in a text of the code or of make."""
    texts = [*code_texts(), (ROOT / "Makefile").read_text("utf-8").replace("\\\n\t", "")]
    messages = [
        line
        for block in read_blocks(ROOT / "docs/troubleshooting.md")
        if block.language == "text"
        for line in block.text.splitlines()
    ]
    assert len(messages) > 30
    unknown = [
        piece
        for message in messages
        for piece in re.split(rf"{OMISSION}|[;:)\]] ", message)
        if len(piece) > 2 and not any(piece.strip() in text for text in texts)
    ]
    assert not unknown


def test_wrong_command_is_found():
    with pytest.raises(Exception, match="--licence-bases"):
        check_authface(["collect", "--licence-bases", "own"])
    with pytest.raises(AssertionError, match="no target demos"):
        check_installer(["make", "demos"])
    with pytest.raises(AssertionError, match="trian"):
        check_installer(["pip", "install", "./authface[data,trian]"])


def test_walk_finds_wrong_output_and_failed_commands(tmp_path, authface_here):
    page = tmp_path / "page.md"
    right = "```bash\nauthface --version  # prints it\n```\n\n```text\nauthface …\n```\n"
    page.write_text(right)
    Walk(authface_here, tmp_path).follow(page)
    for wrong in ("```bash\nauthface status\n```\n", right.replace("authface …", "authfate …")):
        page.write_text(wrong)
        with pytest.raises(AssertionError, match=re.escape("status") + "|not printed"):
            Walk(authface_here, tmp_path).follow(page)
