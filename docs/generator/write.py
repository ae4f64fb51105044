"""Writes the generated pages of the documentation: the commands and the tables of settings.

    python docs/generator/write.py

tests/e2e/test_docs.py fails while a page differs from what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1]
sys.path.insert(0, str(DOCS.parent))


def generated_pages() -> dict[Path, str]:
    """Every generated page: path and content."""
    from command_pages import command_pages
    from settings_tables import update

    pages = {DOCS / "commands" / name: text for name, text in command_pages().items()}
    configuration = DOCS / "configuration.md"
    pages[configuration] = update(configuration.read_text("utf-8"))
    return pages


if __name__ == "__main__":
    pages = generated_pages()
    for path in (DOCS / "commands").glob("*.md"):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
