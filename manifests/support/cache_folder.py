"""The folder of this machine for files that can be downloaded or computed again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Return the folder for downloaded weights and photographs, and for local caches.

    The environment variable AUTHFACE_CACHE names it. Without it, the folder is `authface` in the
    user's cache folder, or the former default `~/.cache/authface` if that holds files.
    """
    configured = os.environ.get("AUTHFACE_CACHE")
    if configured:
        return Path(configured)

    former_default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authface"
    if former_default.is_dir() and any(former_default.iterdir()):
        return former_default
    return platformdirs.user_cache_path("authface", appauthor=False)
