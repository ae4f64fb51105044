"""Tensors that are made once and looked up by key: parts of many records each, memory-mapped, never changed.

A part is one safetensors file whose metadata list its keys. It is committed whole, so that a killed run goes on with what is
missing; processes write parts of their own. A key that stands in two parts (two runs at once) is the same record twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from manifests.support.errors import AuthfaceError
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

Record = dict[str, torch.Tensor]
ProgressFunction = Callable[[int, int], None]

PART_RECORDS = 256


class Cache:
    """The records in a folder of the workspace, by key. Their tensors are read from the files: not to be written to."""

    def __init__(self, workspace: Workspace, folder: str):
        self.workspace, self.folder = workspace, folder
        self._where: dict[str, tuple[str, int]] = {}
        self._open: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Take up parts that have come since."""
        from safetensors import safe_open

        for name in self.workspace.list(self.folder):
            if name in self._open or not name.endswith(".safetensors"):
                continue
            part = safe_open(self.workspace.local(f"{self.folder}/{name}"), framework="pt")
            self._open[name] = part
            for row, key in enumerate(json.loads(part.metadata()["keys"])):
                self._where.setdefault(key, (name, row))

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __getitem__(self, key: str) -> Record:
        """A record's tensors by name."""
        name, row = self._where[key]
        part = self._open[name]
        return {tensor: part.get_slice(tensor)[row] for tensor in part.offset_keys()}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The different ones that are not there, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._where]

    def write(self, records: dict[str, Record]) -> None:
        """Commit a part. records: the same tensors of the same shapes for each key."""
        from safetensors.torch import save

        keys = list(records)
        tensors = {
            name: torch.stack([records[key][name] for key in keys]) for name in records[keys[0]]
        }
        data = save(tensors, metadata={"keys": json.dumps(keys)})
        self.workspace.write_bytes(
            f"{self.folder}/{short_hash(' '.join(keys), 16)}.safetensors", data
        )
        self.look()


class CachedSequence(Sequence[Any]):
    """Records in a row of keys, looked up as they are asked for: a subclass says what of them."""

    def __init__(self, cache: Any, keys: list[str]):
        self.cache, self.keys = cache, keys

    def part(self, first: int, end: int | None = None) -> Self:
        """Those of some keys after one another."""
        return type(self)(self.cache, self.keys[first:end])

    def __len__(self) -> int:
        return len(self.keys)


def fill(
    cache: Cache,
    keys: Sequence[str],
    make: Callable[[list[str]], Iterable[Record]],
    accelerator: Accelerator,
    report: ProgressFunction,
) -> None:
    """Make what is missing, each process its share, and wait for all. make: the records of keys, one after the other.

    What one process could not make stops them all: the first AuthfaceError is raised in each.
    """
    missing = cache.missing(keys)
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    refusal: list[AuthfaceError | None] = [None]
    made: dict[str, Record] = {}
    try:
        for number, (key, record) in enumerate(zip(mine, make(mine), strict=True), 1):
            made[key] = record
            if len(made) == PART_RECORDS:
                cache.write(made)
                made = {}
            report(min(number * accelerator.num_processes, len(missing)), len(missing))
    except AuthfaceError as error:
        refusal = [error]
    finally:  # interrupted, it keeps what it has
        if made:
            cache.write(made)
    for refused in gather_object(refusal):
        if refused is not None:
            raise refused
    cache.look()
