"""`authface serve`: review, report and restoration in a browser on this computer."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.support.console import WorkspaceOption, console, quote_path
from manifests.support.extras import needs_extras

DEFAULT_PORT = 8765


@needs_extras("serve")
def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="A loopback address: only this computer.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The port; 0 for a free one.")
    ] = DEFAULT_PORT,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the workspace in a browser: review faces, read the report, restore photographs.

    Decisions are saved in the workspace at once. The server ends with Ctrl-C, or an hour after its
    last page was closed.

    ```
    authface serve -w faces
    ```
    """
    from authface_data.serve.server import Server
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    server = Server(ws, host, port)
    console.print(f"{quote_path(ws.root)} is served on this computer only. Open this address:")
    console.print(f"  [bold]{server.address}[/]")
    console.print("Ctrl-C ends the server; it also ends an hour after its last page was closed.")
    try:
        server.run()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("stopped; every saved decision is in the workspace") from error
