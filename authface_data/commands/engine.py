"""The options that choose where the stages of a command run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manifests.support.errors import UserError
from manifests.support.extras import require_extras

if TYPE_CHECKING:
    from authface_data.engine.run import Engine

EngineName = Literal["local", "ray"]
EngineOption = Annotated[
    EngineName, typer.Option(help="Work on this machine, or on the machines of a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster of --engine ray. Default: RAY_ADDRESS, else one on this machine.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Worker processes. Default: chosen by cores and work.")
]


def make_engine(name: EngineName, address: str | None, workers: int | None) -> Engine:
    """The engine that the options choose.

    Raises:
        UserError: If the engine does not take an option.
        MissingResourceError: If Ray is not installed.
    """
    from authface_data.engine.run import Engine

    if address is not None and name != "ray":
        raise UserError("--address is only valid with --engine ray")
    if name == "ray":
        require_extras("ray", purpose="--engine ray")
    return Engine(name, workers, address)
