"""Results of long computations of the tests, which all test processes and later runs share."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
CODE = ("authface_data", "manifests", "tests/support")
FOLDER = "test-results"


def keep_result(function: Callable[[], Result]) -> Callable[[], Result]:
    """Keep the result of a function in AUTHFACE_CACHE until code or weights change.

    Args:
        function: A function of the photographs and weights in AUTHFACE_CACHE.

    Returns:
        A function that computes the result once, and reads it after that.
    """

    @functools.cache
    @functools.wraps(function)
    def read_or_compute() -> Result:
        folder = Path(os.environ["AUTHFACE_CACHE"]) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{function.__name__}-{_version()}.pickle"
        with FileLock(folder / f"{function.__name__}.lock"):
            if path.exists():
                result: Result = pickle.loads(path.read_bytes())
                return result
            result = function()
            for outdated in folder.glob(f"{function.__name__}-*"):
                outdated.unlink()
            unfinished = folder / f"unfinished-{function.__name__}"
            unfinished.write_bytes(pickle.dumps(result))
            unfinished.rename(path)
        return result

    return read_or_compute


@functools.cache
def _version() -> str:
    """Digest of the code, and of the names, sizes and times of the weights."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for path in sorted((Path(os.environ["AUTHFACE_CACHE"]) / "weights").glob("*")):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
