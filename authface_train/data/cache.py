"""Caches of encoded tensors: computed once, then looked up by key and memory-mapped.

A cache is a folder of immutable part files. A part is one safetensors file with up to
`PART_RECORDS` records and about `PART_BYTES`, whose metadata lists the keys of the records. Parts
are committed whole, so that an interrupted run continues with the records that are missing, and
every process writes its own parts. If two runs write at once, a key may be in two parts; both hold
the same record.

The existing formats each lack something that is needed here: `datasets` and WebDataset lookup by
key, LMDB several processes that write without waiting for each other.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from authface_train.training.processes import raise_on_all, wait_for_shared_disk
from manifests.support.errors import AuthfaceError, UserError
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

Record = dict[str, torch.Tensor]
ProgressFunction = Callable[[int, int], None]
"""Receives the number of records that are done and the number in all."""
Item = TypeVar("Item")

PART_RECORDS = 256
PART_BYTES = 2**26


class Cache:
    """Records in a folder of the workspace, by key.

    The tensors are mapped from the files and must not be written to. A pickled copy has no open
    file and opens the parts that it reads.

    Args:
        workspace: The workspace. The cache of one in an object store is on the local disk.
        folder: Folder of the cache, relative to the workspace.
    """

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self.workspace = workspace.local_cache
        self.folder = folder
        # Any: safetensors has no types for its open files.
        self._parts: dict[str, Any] = {}
        self._locations: dict[str, tuple[str, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Open the parts that were written since the last call, by any process."""
        from safetensors import SafetensorError

        for name in self.workspace.list_names(self.folder):
            if name in self._parts or not name.endswith(".safetensors"):
                continue
            try:
                part = self._open(name)
                keys = json.loads(part.metadata()["keys"])
            except FileNotFoundError:
                continue  # another process found it damaged and removed it
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                path = f"{self.folder}/{name}"
                logger.warning("%s is damaged (%s); its records are made again", path, error)
                self.workspace.remove(path)
                continue
            self._parts[name] = part
            for row, key in enumerate(keys):
                self._locations.setdefault(key, (name, row))

    # Any: safetensors has no types for its open files.
    def _open(self, name: str) -> Any:
        from safetensors import safe_open

        return safe_open(self.workspace.local_path(f"{self.folder}/{name}"), framework="pt")

    def __contains__(self, key: str) -> bool:
        return key in self._locations

    def __getitem__(self, key: str) -> Record:
        """The tensors of a record by name."""
        name, row = self._locations[key]
        if name not in self._parts:
            self._parts[name] = self._open(name)
        part = self._parts[name]
        return {tensor: part.get_slice(tensor)[row] for tensor in part.offset_keys()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": {}}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The distinct keys that have no record, in order of first appearance."""
        return [key for key in dict.fromkeys(keys) if key not in self._locations]

    def write(self, records: Mapping[str, Record]) -> None:
        """Commit a part.

        Args:
            records: Records by key, with the same tensor names and shapes in each.
        """
        from safetensors.torch import save

        keys = list(records)
        tensor_names = records[keys[0]].keys()
        tensors = {name: torch.stack([records[key][name] for key in keys]) for name in tensor_names}
        content = save(tensors, metadata={"keys": json.dumps(keys)})
        part_name = short_hash(" ".join(keys), 16)
        self.workspace.write_bytes(f"{self.folder}/{part_name}.safetensors", content)
        self.refresh()


class CachedSequence(Sequence[Item]):
    """A sequence whose items are read from a cache when they are used.

    Subclasses define `__getitem__`, which turns a record into an item.

    Args:
        cache: The cache.
        keys: Key of each item.
    """

    def __init__(self, cache: Cache, keys: Sequence[str]) -> None:
        self.cache = cache
        self.keys = keys

    def subset(self, start: int, end: int | None = None) -> Self:
        """Select consecutive items.

        Args:
            start: Index of the first item.
            end: Index after the last item; negative values count from the end. Default: all.

        Returns:
            A sequence of the same class.
        """
        return type(self)(self.cache, self.keys[start:end])

    def __len__(self) -> int:
        return len(self.keys)


def fill_cache(
    cache: Cache,
    keys: Sequence[str],
    compute: Callable[[list[str]], Iterable[Record]],
    accelerator: Accelerator,
    report: ProgressFunction,
) -> None:
    """Compute the missing records of a cache, divided among the processes.

    All processes must call it together; it returns when every record exists.

    Args:
        cache: The cache to fill.
        keys: Keys that must be in the cache.
        compute: Computes the records of keys, one record per key in their order.
        accelerator: The run's accelerator.
        report: Is called after every record.

    Raises:
        AuthfaceError: If any process raised one, or if a machine does not see the records that
            others have written; every process raises the first of them.
    """
    # The list of the main process: a process that starts later finds some of the others' records,
    # and would divide a shorter list.
    (missing,) = broadcast_object_list([cache.missing(keys)])
    local_keys = missing[accelerator.process_index :: accelerator.num_processes]
    local_error: AuthfaceError | None = None
    pending: dict[str, Record] = {}
    pending_bytes = 0
    try:
        records = zip(local_keys, compute(local_keys), strict=True)
        for count, (key, record) in enumerate(records, start=1):
            pending[key] = record
            pending_bytes += sum(tensor.nbytes for tensor in record.values())
            if len(pending) == PART_RECORDS or pending_bytes >= PART_BYTES:
                cache.write(pending)
                pending = {}
                pending_bytes = 0
            report(min(count * accelerator.num_processes, len(missing)), len(missing))
    except AuthfaceError as error:
        local_error = error
    finally:
        # An interrupted run keeps the records it has computed.
        if pending:
            cache.write(pending)

    raise_on_all(local_error)

    def is_complete() -> bool:
        cache.refresh()
        return not cache.missing(missing)

    unseen: UserError | None = None
    if not wait_for_shared_disk(is_complete):
        unseen = UserError(
            f"{socket.gethostname()} does not see the records that other machines have written to "
            f"{cache.workspace.root}/{cache.folder}; it must be on a disk that all machines share"
        )
    raise_on_all(unseen)
