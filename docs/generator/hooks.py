"""Hooks of mkdocs: files and links outside of docs/, and anchors as GitHub makes them."""

from __future__ import annotations

import html
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository's root that become pages of the site."""
CODE_WITH_BARS = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that they have on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root."""
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        files.append(File.generated(config, page, content=_rewrite_links(text, "", "docs/")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links out of docs/ into links to pages or into text, and show `a|b` in tables."""
    to_root = "../" * (page.file.src_uri.count("/") + 1)
    return CODE_WITH_BARS.sub(_code_with_bars, _rewrite_links(markdown, to_root, ""))


def _code_with_bars(match: re.Match[str]) -> str:
    """Code in a table with escaped bars: GitHub removes the backslashes, Python-Markdown does not."""
    return f"<code>{html.escape(match[1])}</code>".replace("\\|", "&#124;")


def _rewrite_links(markdown: str, to_root: str, to_docs: str) -> str:
    """Rewrite the links of a page that leave docs/.

    Args:
        markdown: The page.
        to_root: How links of the page start that are relative to the repository's root.
        to_docs: How links of the page start that are relative to docs/.
    """

    def rewrite(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        if to_docs and target.startswith(to_docs):
            return f"[{text}]({target.removeprefix(to_docs)})"
        if to_root and not target.startswith(to_root):
            return match[0]
        name, hash_sign, anchor = target.removeprefix(to_root).partition("#")
        if name in ROOT_PAGES:
            return f"[{text}]({ROOT_PAGES[name]}{hash_sign}{anchor})"
        if to_root and (ROOT / "docs" / name).is_file():
            return match[0]  # from a page in a folder of docs/ to one in docs/
        return text

    return LINK.sub(rewrite, markdown)
