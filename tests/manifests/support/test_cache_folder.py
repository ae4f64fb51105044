"""The folder of this machine for downloads and caches."""

from pathlib import Path

import pytest

from manifests.support import cache_folder
from manifests.support.cache_folder import cache_dir


def test_cache_dir_follows_the_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


@pytest.mark.parametrize("holds_files", [True, False])
def test_cache_dir_keeps_the_former_default_if_it_holds_files(monkeypatch, tmp_path, holds_files):
    monkeypatch.delenv("AUTHFACE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        cache_folder.platformdirs, "user_cache_path", lambda *_, **__: Path("/platform/authface")
    )
    if holds_files:
        (tmp_path / "authface" / "weights").mkdir(parents=True)
    expected = tmp_path / "authface" if holds_files else Path("/platform/authface")
    assert cache_dir() == expected
