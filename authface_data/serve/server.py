"""Runs the web application on a loopback address until it is interrupted or nobody uses it."""

from __future__ import annotations

import asyncio
import socket
import time

import uvicorn

from authface_data.serve.app import LOOPBACK_HOSTS, WorkspaceApp
from manifests.support.errors import UserError
from manifests.workspace import Workspace

IDLE_S = 3600.0
"""The server ends after this many seconds without a request. An open page sends requests."""
MAX_SHUTDOWN_S = 5
CHECK_INTERVAL_S = 1.0


class Server:
    """A server of one workspace. Its port is open once it has been created.

    Args:
        workspace: The workspace.
        host: A loopback address.
        port: The port; 0 chooses a free one.
        idle_s: End after this many seconds without a request.

    Raises:
        UserError: If the host is not a loopback address, or the port is in use.
    """

    def __init__(
        self, workspace: Workspace, host: str, port: int, *, idle_s: float = IDLE_S
    ) -> None:
        if host not in LOOPBACK_HOSTS:
            raise UserError(
                f"--host {host} is not an address of this computer alone; use 127.0.0.1, and from "
                "another computer `ssh -L PORT:127.0.0.1:PORT`"
            )
        self._socket = _bind(host, port)
        self._idle_s = idle_s
        self._app = WorkspaceApp(workspace)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app.asgi,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=MAX_SHUTDOWN_S,
            )
        )
        shown_host = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown_host}:{self._socket.getsockname()[1]}/{self._app.token}/"

    def run(self) -> None:
        """Serve until `stop`, an interruption or the end of the idle time."""
        try:
            asyncio.run(self._serve())
        finally:
            self._app.jobs.close()
            self._socket.close()

    def stop(self) -> None:
        """End `run` soon."""
        self._server.should_exit = True

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not serving.done():
            await asyncio.wait({serving}, timeout=min(CHECK_INTERVAL_S, self._idle_s))
            idle_s = time.monotonic() - self._app.last_request_at
            if idle_s > self._idle_s and not self._app.jobs.is_running:
                self.stop()
        await serving


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise UserError(
            f"cannot use port {port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from error
    return bound
