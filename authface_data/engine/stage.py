"""What a stage is: it measures one thing, and knows nothing of progress, processes or retries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from manifests.schema import Manifest
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import Subject


@dataclass(frozen=True)
class LinkTo:
    """Instead of bytes to write: a file that is there already. hard: another name of it; else a symbolic link to it."""

    file: str
    hard: bool


WritePixels = Callable[[str, bytes | LinkTo], None]


@dataclass(frozen=True)
class Rows:
    """What a stage made of one input: rows of its manifest, perhaps none (a photo without a face is a result)."""

    rows: list[dict]


@dataclass(frozen=True)
class Dropped:
    """The stage's measured refusal of one input."""

    reason: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Failed:
    """Made by the engine of an exception; never by a stage."""

    message: str


Result = Rows | Dropped | Failed


@dataclass(frozen=True)
class Item:
    """One input: its row, its key, and the picture it shares with the other stages of a chain (decoded when looked at)."""

    key: str
    row: Mapping[str, Any]
    picture: Any


class Stage(Protocol):
    """Measures one thing.

    name: where several stages share a manifest, the value of its second key column in this stage's rows.
    version: raised when its results change; part of the fingerprint.
    subject: what its inputs are, in the ledger.
    gives: the manifest of its rows, whose source column holds the key of the input.
    input_mark: the column of its input rows that changes when the input does (a hash, say): part of the fingerprint.
    uses_gpu: whether `setup` takes a CUDA device where there is one.
    """

    name: str
    version: int
    subject: Subject
    gives: Manifest
    input_mark: str
    uses_gpu: bool
    batch_size: int

    def settings(self) -> dict[str, Any]:
        """What its results depend on, model revisions included: JSON values."""
        ...

    def setup(self, device: str) -> None:
        """Load models. Called once in each worker, before `process`. Raises MissingResourceError where weights are not there."""
        ...

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """One result per item, in order, each depending on its item alone.

        Pixels go through `write_pixels(path, data)`, which has them on the disk before the row is committed; `LinkTo` stands
        for data that need not be copied.
        """
        ...


def fingerprints(stage: Stage, inputs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Key -> the fingerprint of what a stage makes of that input (key, row) with its present settings."""
    settings = fingerprint(stage=stage.name, version=stage.version, settings=stage.settings())
    return {
        key: fingerprint(settings=settings, input=row.get(stage.input_mark)) for key, row in inputs
    }


def ledger_gate(stage: Stage) -> str:
    """The gate under which a stage's refusals and failures stand in the ledger: `faces`, `scores:niqe`."""
    return stage.name if len(stage.gives.key) == 1 else f"{stage.gives.name}:{stage.name}"


@dataclass(frozen=True)
class Chain:
    """Stages that share a picture: one worker takes an input through all of them.

    open_picture: makes the shared, lazily decoded picture of an input row.
    """

    stages: Sequence[Stage]
    open_picture: Callable[[Mapping[str, Any]], Any]
