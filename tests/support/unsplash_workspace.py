"""A workspace that collects from the tests' own Unsplash server."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from unsplash_server import KEY, NO_TURN_S, UnsplashServer

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
    root: Path, authface, server: UnsplashServer, more: str = "", window_s: float = NO_TURN_S
) -> Path:
    assert authface("init", root, "--preset", "embedded").returncode == 0
    file = root / "authface.toml"
    text = SETTINGS.format(url=server.url, more=more, window_s=window_s) + file.read_text().split(
        "[filter]"
    )[1].join(["[filter]", ""])
    file.write_text(text)
    return root


def manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def reasons(root: Path) -> dict[str, str]:
    verdicts = manifest(root, "verdicts")
    return dict(
        zip(
            verdicts["id"],
            verdicts["gate"] + "|" + verdicts["verdict"] + "|" + verdicts["reason"],
            strict=True,
        )
    )
