"""The connections of all HTTP clients: a time limit for whole requests, and checks of URLs.

The timeouts of httpx limit the silence of a connection. A server that sends one byte a second is
never silent, neither in its headers nor in its body; only a limit for the whole request ends it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

MAX_TIMEOUT_S = 1e6
"""Longest timeout that sockets accept on every system."""
WRITE_BYTES = 65536

_deadline: ContextVar[tuple[float, float] | None] = ContextVar("deadline", default=None)
"""When the request of this thread must be done (by `time.monotonic`), and its time limit."""


@contextmanager
def total_timeout(seconds: float) -> Iterator[None]:
    """Limit the time of the requests in the block, from connecting to the end of the body.

    It applies to clients whose network backend is a `DeadlineBackend`. At the limit they raise
    httpx.TimeoutException.

    Args:
        seconds: The limit for all requests in the block together.
    """
    token = _deadline.set((time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def _limited(timeout: float | None, error: type[httpcore.TimeoutException]) -> Iterator[float]:
    """Yield the timeout of one operation: at most the time that is left.

    Args:
        timeout: The timeout of the operation alone, in seconds.
        error: What the operation raises when it takes too long.
    """
    timeout_s = MAX_TIMEOUT_S if timeout is None else min(timeout, MAX_TIMEOUT_S)
    deadline = _deadline.get()
    if deadline is None:
        yield timeout_s
        return

    end_s, total_s = deadline
    left_s = end_s - time.monotonic()
    message = f"not done after {total_s:g} s"
    if left_s <= 0:
        raise error(message)
    try:
        yield min(timeout_s, left_s)
    except error as timed_out:
        raise (error(message) if left_s <= timeout_s else timed_out) from None


class DeadlineBackend(httpcore.SyncBackend):
    """The network backend of httpcore, limited by `total_timeout`."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host.

        Args:
            host: Name or address.
            port: The port.
            timeout: Longest duration of the attempt, in seconds.
            local_address: Address of this machine to connect from.
            socket_options: Options of the socket.
        """
        with _limited(timeout, httpcore.ConnectTimeout) as limited_s:
            return _DeadlineStream(
                super().connect_tcp(host, port, limited_s, local_address, socket_options)
            )


class _DeadlineStream(httpcore.NetworkStream):
    """A connection whose operations end at the deadline of the present request."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _limited(timeout, httpcore.ReadTimeout) as limited_s:
            return self._stream.read(max_bytes, limited_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            part = buffer[start : start + WRITE_BYTES]
            with _limited(timeout, httpcore.WriteTimeout) as limited_s:
                self._stream.write(part, limited_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with _limited(timeout, httpcore.ConnectTimeout) as limited_s:
            return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, limited_s))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def parse_url(url: str) -> httpx.URL:
    """Parse a URL from a server or a setting.

    Raises:
        ValueError: If it is malformed.
    """
    try:
        parsed = httpx.URL(url)
        _ = parsed.host  # decodes international names, which may be malformed too
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error
    if parsed.port is not None and parsed.port > 65535:
        raise ValueError(f"the port is {parsed.port}")
    return parsed


class PooledTransport(httpx.HTTPTransport):
    """The transport of httpx over a connection pool with a network backend of ours.

    httpx has no public parameter for the network backend, so the pool is replaced.

    Args:
        backend: The network backend.
        connections: Size of the pool.
    """

    def __init__(self, backend: httpcore.NetworkBackend, connections: int) -> None:
        ssl_context = httpx.create_ssl_context()
        super().__init__(verify=ssl_context)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=5.0,
            network_backend=backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. A redirect to a malformed URL is an error of the protocol.

        Args:
            request: The request.
        """
        response = super().handle_request(request)
        try:
            parse_url(response.headers.get("location", ""))
        except ValueError:
            response.close()
            raise httpx.RemoteProtocolError("it redirects to a malformed URL") from None
        return response
