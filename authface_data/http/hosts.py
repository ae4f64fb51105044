"""Which hosts may be contacted, at which addresses, and how often.

A source names its public hosts. `collect.allowed_hosts` adds others, and only those may have
private addresses, plain http or another port. The connection is made to the very address that was
resolved and checked, so a host name cannot point elsewhere between the check and the request (DNS
rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from authface_data.http.transport import DeadlineBackend, PooledTransport
from manifests.support.text import excerpt

USER_AGENT = "authface/0.1"


class HostRefused(Exception):
    """A URL must not be followed. The message is the reason, as stored in verdicts."""


class AllowedHosts:
    """The hosts that requests may go to.

    Args:
        public: The source's own hosts; only https on port 443.
        user_hosts: Hosts of `collect.allowed_hosts`, with or without a port; any scheme, port and
            address.
    """

    def __init__(self, public: Collection[str], user_hosts: Iterable[str]) -> None:
        self.public = frozenset(public)
        self.user_hosts = frozenset(_without_port(name) for name in user_hosts)

    def check(self, url: str) -> None:
        """Check that the host of a URL is allowed. Its address is checked on connecting.

        Raises:
            HostRefused: If the URL is malformed or its host is not allowed.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            port = parts.port
        except ValueError:
            raise HostRefused("malformed_url") from None

        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise HostRefused("malformed_url")
        if host in self.user_hosts:
            return
        if host not in self.public:
            raise HostRefused(f"host_not_allowed: {excerpt(host)}")
        if parts.scheme != "https" or port not in (None, 443):
            raise HostRefused(f"not_https: {host}")

    def is_user_host(self, host: str) -> bool:
        """Whether the user's settings name the host."""
        return host.lower() in self.user_hosts


def _without_port(name: str) -> str:
    """The host of `localhost:8080`, `[::1]:80` or `::1`, without port and brackets, lower case."""
    name = name.strip().lower()
    if name.startswith("["):
        return name[1:].split("]")[0]
    return name.split(":")[0] if name.count(":") == 1 else name


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; embedded IPv4 addresses count."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded is not None:
            ip = embedded
    return ip.is_global and not ip.is_multicast


class _GuardedBackend(DeadlineBackend):
    """Resolves a host, checks its addresses and connects to one of them."""

    def __init__(self, hosts: AllowedHosts) -> None:
        self.hosts = hosts

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        connect = partial(
            super().connect_tcp,
            port=port,
            timeout=timeout,
            local_address=local_address,
            socket_options=socket_options,
        )
        if self.hosts.is_user_host(host):
            return connect(host)

        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror or error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in resolved))
        if not addresses or not all(map(is_public, addresses)):
            raise HostRefused(f"private_address: {host}")

        for address in addresses[:-1]:
            try:
                return connect(address)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return connect(addresses[-1])


def guarded_client(
    hosts: AllowedHosts, *, connect_timeout_s: float, read_timeout_s: float, connections: int
) -> httpx.Client:
    """An httpx client that connects only to allowed hosts at public addresses.

    Requests to other hosts raise HostRefused. Redirects are not followed. Proxies of the
    environment are not used: behind a proxy, the address of the server would be unknown.

    Args:
        hosts: The allowed hosts.
        connect_timeout_s: Timeout of a connection attempt.
        read_timeout_s: Longest silence of a connection.
        connections: Size of the connection pool.

    Returns:
        The client; close it after use.
    """

    def check_host(request: httpx.Request) -> None:
        hosts.check(str(request.url))

    return httpx.Client(
        transport=PooledTransport(_GuardedBackend(hosts), connections),
        timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=None),
        headers={"User-Agent": USER_AGENT},
        follow_redirects=False,
        event_hooks={"request": [check_host]},
    )


class RequestPacer:
    """Spreads the requests to each host evenly over time, across all threads.

    Args:
        requests_per_second: Highest rate per host.
    """

    def __init__(self, requests_per_second: float) -> None:
        self.interval_s = 1.0 / requests_per_second
        self._lock = threading.Lock()
        self._next_slot_s: dict[str, float] = {}

    def wait(self, host: str) -> None:
        """Sleep until the next request to the host may be sent."""
        with self._lock:
            now = time.monotonic()
            slot_s = max(self._next_slot_s.get(host, now), now)
            self._next_slot_s[host] = slot_s + self.interval_s
        time.sleep(max(slot_s - now, 0.0))
