"""Makes docs/demo.jpg, the picture of the README, and docs/demo.json, the facts that it shows.

    python benchmarks/demo_picture.py WORKSPACE

WORKSPACE is that of `authface demo`. A test compares the facts with those of a new demo.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from authface_data.report.anatomy import find_largest_face, list_facts  # noqa: E402
from authface_data.report.cards import read_shown_faces  # noqa: E402
from manifests.support.files import write_json  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

LICENCE_BASIS = "public-domain"


def read_facts(workspace: Workspace) -> list[str]:
    """The facts and the scores of the face in the picture, as texts.

    Args:
        workspace: The workspace of a demo.
    """
    face_id = find_largest_face(workspace, LICENCE_BASIS)
    assert face_id is not None, "the demo has no face of a photograph in the public domain"
    shown = read_shown_faces(workspace, [face_id])[face_id]
    scores = [f"{score.metric} {score.value}" for score in shown.card.scores]
    return [fact.removeprefix("- ") for fact in list_facts(shown)] + scores


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path, help="Workspace of `authface demo`.")
    options = parser.parse_args()
    docs = ROOT / "docs"
    shutil.copy(options.workspace / "reports" / "anatomy.jpg", docs / "demo.jpg")
    write_json(docs / "demo.json", {"facts": read_facts(Workspace(options.workspace))})
    print(f"demo.jpg and demo.json are in {docs}")


if __name__ == "__main__":
    main()
