"""The contract of photograph sources: their options, the photographs they offer and their reports.

A source is a class that implements `Source`. To add one, write the class and its options model in
a new file, name it in registry.py and declare its new options in commands/collect.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator

from manifests.support.errors import AuthfaceError
from manifests.support.text import count_of, to_utf8
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from authface_data.engine.run import Engine

Text = Annotated[str, BeforeValidator(to_utf8)]
"""A text from the command line, which may contain bytes that are not UTF-8."""


class SourceOptions(BaseModel):
    """Base of the options models. A field `max_photos` is the option `--max-photos` of `collect`.

    The fields of a source's model define which options the source accepts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class LicensedOptions(SourceOptions):
    """Options of sources whose photographs take their licence basis from the user."""

    licence_basis: Text | None = None
    """Licence basis of photographs for which the source itself has none."""

    @field_validator("licence_basis")
    @classmethod
    def _check_licence_basis(cls, basis: str | None) -> str | None:
        if basis == "":
            raise ValueError("is empty; give own, public-domain or other:TEXT")
        return basis


@dataclass(frozen=True, kw_only=True)
class PhotoInput:
    """One photograph as its source describes it: the input of the collect stage.

    A source of files sets `file`. A source on the web sets `url`, `width` and `height`; the
    download then sets `file`, or one of `rejection` and `failure`.
    """

    photo_id: str
    columns: Mapping[str, object]
    """Columns of the photos manifest that the source knows."""
    name: str = ""
    """File name, for messages and as a description if the source has none."""
    fingerprint: str = ""
    """Changes with the file and the source's metadata; the photograph is then stale."""
    earlier_fingerprint: str = ""
    """What earlier versions of authface computed; a row that has it may be up to date too."""
    file: str | None = None
    """Path of the file on this machine."""
    is_temporary: bool = False
    """The file is a download of ours: it may be linked into the workspace instead of copied."""
    landmarks_side_px: float | None = None
    """Side of the square image that `columns["landmarks68_px"]` refers to."""
    url: str | None = None
    width: int = 0
    height: int = 0
    rejection: str | None = None
    """Why the photograph will never be available."""
    failure: str | None = None
    """Why the photograph is not available now."""

    def as_row(self) -> dict[str, object]:
        """The input row of the collect stage."""
        return {"photo": self, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class RejectedPhoto:
    """A photograph that is ruled out before its download, with the reason."""

    photo_id: str
    reason: str
    value: float | None = None
    threshold: float | None = None


class Flush:
    """The source is about to wait: photographs offered so far can be downloaded meanwhile."""


Offer = PhotoInput | RejectedPhoto | Flush


@dataclass(frozen=True)
class RunOptions:
    """How a collection is run, whatever the source."""

    retry_failed: bool = False
    """Try photographs again that failed in an earlier run."""
    engine: Engine | None = None
    """Where the stages run; None is this machine."""
    redo: bool = False
    """Process photographs again whose file or settings have changed."""


@dataclass
class CollectReport:
    """What became of the photographs of one collection."""

    collected: int = 0
    """Photographs added to the workspace."""
    already_present: int = 0
    rejected: int = 0
    """Photographs that cannot or must not be used; `authface status` shows the reasons."""
    failed: int = 0
    """Photographs that another run may collect."""
    forgotten: int = 0
    """Photographs skipped because they were removed with `authface forget`."""
    downloaded_bytes: int = 0
    seconds: float = 0.0
    """Duration of the downloads."""
    without_licence_basis: int = 0
    notes: list[str] = field(default_factory=list)
    """Further results of the source, one line each."""
    vanished: list[str] = field(default_factory=list)
    """Ids of photographs in the workspace that the source no longer has."""
    error: AuthfaceError | None = None
    """Why the collection ended early or in part; everything collected before is kept."""

    def summary(self) -> str:
        """The counts in one line."""
        speed = ""
        if self.downloaded_bytes and self.seconds and self.collected:
            megabytes = self.downloaded_bytes / 1e6
            speed = f" ({megabytes:.1f} MB, {self.collected / self.seconds:.1f}/s)"

        parts = [f"{count_of(self.collected, 'photograph')} collected{speed}"]
        if self.rejected:
            parts.append(f"{self.rejected} rejected (see authface status)")
        if self.forgotten:
            parts.append(f"{self.forgotten} skipped because they were forgotten")
        parts.append(f"{self.already_present} already in the workspace")
        return ", ".join(parts)


@dataclass(frozen=True)
class RefreshReport:
    """Which photographs of the workspace their source no longer has."""

    checked: int
    vanished: list[str]
    error: AuthfaceError | None = None
    """Why not all photographs were checked, or that originals are missing."""
    notes: list[str] = field(default_factory=list)
    """Further results, one line each."""


class Plan(Protocol):
    """An estimate of what a collection would take: a dataclass, printed as JSON with `--json`."""

    def lines(self) -> list[str]:
        """The estimate in plain text."""
        ...


class Source(Protocol):
    """A place that photographs come from.

    Args:
        workspace: The workspace to fill.
        options: An instance of `options_model`.
    """

    name: ClassVar[str]
    """Value of `--source` and of the column `source` of the photos manifest."""
    options_model: ClassVar[type[SourceOptions]]

    def __init__(self, workspace: Workspace, options: Any) -> None: ...

    def photos(self) -> Iterator[Offer]:
        """Describe the photographs that the source offers, without reading or downloading them.

        Raises:
            UserError: If the source cannot be read or has no photographs.
        """
        ...

    def collect(self, run: RunOptions) -> CollectReport:
        """Bring the photographs into the workspace.

        Raises:
            UserError: If the options or the photographs do not allow a collection.
        """
        ...

    @classmethod
    def refresh(cls, workspace: Workspace, wait: bool) -> RefreshReport:
        """Look up which collected photographs the source no longer has, and record them.

        Args:
            workspace: The workspace whose photographs are looked up.
            wait: Wait if the source limits requests; otherwise stop with an error in the report.
        """
        ...


@runtime_checkable
class PlannedSource(Source, Protocol):
    """A source on the web: its collection can be estimated before it starts."""

    def plan(self) -> Plan:
        """Estimate the collection. Nothing is downloaded or stored."""
        ...
