"""The contract between stages and the engine: what a stage is, what it gets and what it returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from manifests.schema import Manifest
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import Subject


@dataclass(frozen=True)
class FileLink:
    """A link to an existing file, to commit instead of bytes.

    Attributes:
        file: Path of the existing file.
        hard: Make a hard link; otherwise make a symbolic link.
    """

    file: str
    hard: bool


WritePixels = Callable[[str, bytes | FileLink], None]
"""Commits a file under a path of the workspace. It is on the disk when the call returns."""


@dataclass(frozen=True)
class Rows:
    """Result of a stage for one input: rows of its manifest. The list may be empty."""

    rows: list[dict]


@dataclass(frozen=True)
class Dropped:
    """Result of a stage for one input that it refuses.

    Attributes:
        reason: Stored as the reason of the verdict.
        value: The measured value that decided.
        threshold: The threshold that the value was compared with.
    """

    reason: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Failed:
    """Result of one input whose processing raised an exception. Only the engine creates it.

    Attributes:
        message: Stored as the reason of the verdict.
        is_read_error: Whether the input's file could not be read, for example because its drive is
            away.
    """

    message: str
    is_read_error: bool = False


Result = Rows | Dropped | Failed


@dataclass(frozen=True)
class Item:
    """One input of a stage.

    Attributes:
        key: The photo_id or face_id.
        row: The input row.
        picture: The picture that the stages of a chain share, decoded on first use; its type is
            what the chain's `open_picture` returns.
    """

    key: str
    row: Mapping[str, Any]
    picture: Any


class Model(Protocol):
    """A network that a stage uses.

    On a machine with GPUs it runs in a model server, and the stages in the worker processes use a
    proxy with the same methods. Before it is loaded it can be pickled.

    Attributes:
        uses_gpu: Whether it runs on a CUDA device if one is available.
        device: The torch device on which it is loaded, such as "cpu" or "cuda:0".
        revision: Identifies the weights, if they are known by more than their name.
    """

    uses_gpu: bool
    device: str
    revision: str | None

    def load(self, device: str) -> None:
        """Load the network.

        Args:
            device: A torch device, "cpu" or "cuda:0".

        Raises:
            MissingResourceError: If weights are missing.
        """
        ...

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Compute the outputs of any number of inputs.

        Args:
            inputs: The inputs, for example pictures. Inputs and outputs can be pickled.

        Returns:
            One output per input, in the same order. It does not depend on the other inputs.
        """
        ...


class Stage(Protocol):
    """Measures one thing of each input. It knows nothing of progress, processes or retries.

    Attributes:
        name: Name of the stage. Where several stages share a manifest, it is the value of the
            second key column in this stage's rows.
        version: Increased when the stage's results change; part of the fingerprint.
        subject: What the inputs are, for the verdicts.
        manifest: The manifest of the stage's rows. Its input column holds the key of the input.
        input_hash_column: The column of the input rows that changes when the input does, such as
            the hash of a file; part of the fingerprint.
        model: The network that the stage uses, if any.
        batch_size: Number of items that `process` gets at once at most.
        libraries: Modules that `setup` and `process` import and that take long to import. The
            workers of a machine share them.
    """

    name: str
    version: int
    subject: Subject
    manifest: Manifest
    input_hash_column: str
    batch_size: int

    @property
    def model(self) -> Model | None:
        """See the attributes of the class."""
        ...

    @property
    def libraries(self) -> Sequence[str]:
        """See the attributes of the class."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything the results depend on, model revisions included, as JSON values."""
        ...

    def setup(self, device: str) -> None:
        """Load `model` and what else is needed. Every worker calls it once, before `process`.

        Args:
            device: A torch device, "cpu" or "cuda:0".

        Raises:
            MissingResourceError: If weights are missing.
        """
        ...

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Process a batch. The result of an item must not depend on the other items.

        Args:
            batch: The items.
            write_pixels: Commits a picture file. Call it before returning the row that names the
                file, so that every committed row has its file.

        Returns:
            One result per item, in the same order.
        """
        ...


@dataclass(frozen=True)
class Chain:
    """Stages that share a picture: one worker takes an input through all of them.

    Attributes:
        stages: The stages, in the order they run.
        open_picture: Returns the shared picture of an input row, decoded on first use.
    """

    stages: Sequence[Stage]
    open_picture: Callable[[Mapping[str, Any]], Any]

    def with_gpu_models(self, models: Sequence[Model]) -> Chain:
        """Copy the chain with other models in place of those that use a GPU.

        Args:
            models: One model for each of `gpu_models`; with none, the chain itself is returned.
        """
        if not models:
            return self
        remaining = list(models)
        stages = []
        for stage in self.stages:
            other = copy.copy(stage)
            if stage.model is not None and stage.model.uses_gpu:
                vars(other)["model"] = remaining.pop(0)
            stages.append(other)
        return Chain(stages, self.open_picture)


def gpu_models(chain: Chain) -> list[Model]:
    """The models of a chain that use a GPU, in the order of the stages."""
    models = [stage.model for stage in chain.stages if stage.model is not None]
    return [model for model in models if model.uses_gpu]


def expected_fingerprints(
    stage: Stage, inputs: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, str]:
    """Compute the fingerprints that results have when made with the present settings.

    Args:
        stage: The stage.
        inputs: Pairs of key and input row.

    Returns:
        Key -> fingerprint.
    """
    settings = fingerprint(stage=stage.name, version=stage.version, settings=stage.settings())
    return {
        key: fingerprint(settings=settings, input=row.get(stage.input_hash_column))
        for key, row in inputs
    }


def verdict_gate(stage: Stage) -> str:
    """Gate of a stage's refusals and failures in `verdicts`, such as `faces` or `scores:niqe`."""
    shares_manifest = len(stage.manifest.key) > 1
    return f"{stage.manifest.name}:{stage.name}" if shares_manifest else stage.name
