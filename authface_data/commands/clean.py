"""`authface clean`: list and remove what a workspace can lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from manifests.support.console import (
    JsonOption,
    WorkspaceOption,
    YesOption,
    console,
    print_json,
    quote_path,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authface_data.clean import Removable


def clean(
    kind: Annotated[
        Literal["cache", "temporary", "copies", "checkpoints"] | None,
        typer.Argument(help="What to remove. Default: all four kinds."),
    ] = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove caches, temporary files, copies of old manifests and old checkpoints.

    `cache` is crops, latents and prompts, which training makes again; `temporary` is unfinished
    files and downloads; `copies` is the manifests from before `authface migrate`; `checkpoints` is
    all checkpoints of finished runs but the newest. Without --yes, only show what would be
    removed, with sizes.

    ```
    authface clean
    authface clean checkpoints --yes
    ```
    """
    from authface_data.clean import KINDS, list_removable, machine_cache, remove
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    items = list_removable(ws, KINDS if kind is None else [kind])
    if yes:
        with ws.lock("clean"):
            remove(items)
    if as_json:
        print_json({"removed": yes, "items": items})
        return
    if not items:
        console.print("There is nothing to remove.")
        return
    _print_items(ws.root, items)
    total = _format_size(sum(item.size for item in items))
    if yes:
        console.print(f"Removed {total}")
        return
    folder, size = machine_cache()
    console.print(f"{total} can be removed; repeat the command with [bold]--yes[/]")
    console.print(
        f"Weights and demo photographs of all workspaces stay: {quote_path(folder)}, "
        f"{_format_size(size)}"
    )


def _print_items(root: str, items: Sequence[Removable]) -> None:
    for item in items:
        path = item.path.removeprefix(f"{root}/")
        console.print(
            f"{_format_size(item.size):>9}  {item.kind:<11}  {escape(path)}  "
            f"[dim]{escape(item.description)}[/]"
        )


def _format_size(size: int) -> str:
    """A size in bytes for people, such as "1.2 GB"."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
