"""A workspace that collects from the tests' own Unsplash server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from unsplash_server import ENDLESS_WINDOW_S, KEY, UnsplashServer

ENV = {"UNSPLASH_ACCESS_KEY": KEY}
SETTINGS = """
[collect]
allowed_hosts = ["127.0.0.1"]
read_timeout_s = 5
total_timeout_s = 3
per_host = 4
max_megabytes = 1
{more}
[collect.unsplash]
base_url = "{url}"
window_s = {window_s}

"""


def make_workspace(
    root: Path,
    authface: Callable[..., subprocess.CompletedProcess],
    server: UnsplashServer,
    more: str = "",
    window_s: float = ENDLESS_WINDOW_S,
) -> Path:
    """Create a workspace whose section `collect` points to the server.

    Args:
        root: Its directory.
        authface: Fixture that runs the command.
        server: The server.
        more: Further lines of the section.
        window_s: Length of the API's window, in seconds.

    Returns:
        `root`.
    """
    assert authface("init", root, "--preset", "embedded").returncode == 0
    settings = root / "authface.toml"
    _, filter_section = settings.read_text().split("[filter]")
    collect_section = SETTINGS.format(url=server.url, more=more, window_s=window_s)
    settings.write_text(f"{collect_section}[filter]{filter_section}")
    return root


def read_manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def verdicts_by_id(root: Path) -> dict[str, str]:
    """`gate|verdict|reason` by the id of the photograph."""
    verdicts = read_manifest(root, "verdicts")
    texts = verdicts["gate"] + "|" + verdicts["verdict"] + "|" + verdicts["reason"]
    return dict(zip(verdicts["id"], texts, strict=True))
