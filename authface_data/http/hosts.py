"""Which hosts may be asked, at what addresses, and how often.

A source names its public hosts; `collect.allowed_hosts` adds others, and only those may have private addresses, plain http
or another port. The address that was looked up and found public is the one connected to, so that a name cannot change its
meaning in between.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

USER_AGENT = "authface/0.1"


class RefusedHost(Exception):
    """A URL that must not be followed; the message is the reason."""


class Hosts:
    """public: the source's own hosts, https only. named: `collect.allowed_hosts`, with or without a port."""

    def __init__(self, public: Collection[str], named: Iterable[str]):
        self.public = frozenset(public)
        self.named = frozenset(_host_alone(name) for name in named)

    def check(self, url: str) -> None:
        """Raises RefusedHost for a URL whose host is not allowed. Its address is checked when it is connected to."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise RefusedHost("malformed_url") from None
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise RefusedHost("malformed_url")
        if host in self.named:
            return
        if host not in self.public:
            raise RefusedHost(f"host_not_allowed: {host}")
        if parts.scheme != "https" or port not in (None, 443):
            raise RefusedHost(f"not_https: {host}")

    def is_named(self, host: str) -> bool:
        """Whether the user's settings name the host."""
        return host.lower() in self.named


def _host_alone(name: str) -> str:
    """`localhost:8080`, `[::1]:80` and `::1` without port and brackets, in lower case."""
    name = name.strip().lower()
    if name.startswith("["):
        return name[1:].split("]")[0]
    return name.split(":")[0] if name.count(":") == 1 else name


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class _GuardedBackend(httpcore.SyncBackend):
    """Connects to the address that was checked, not to the name."""

    def __init__(self, hosts: Hosts):
        self.hosts = hosts

    def connect_tcp(
        self, host: str, port: int, *args: Any, **options: Any
    ) -> httpcore.NetworkStream:
        if self.hosts.is_named(host):
            return super().connect_tcp(host, port, *args, **options)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror or error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses or not all(map(is_public, addresses)):
            raise RefusedHost(f"private_address: {host}")
        for address in addresses[:-1]:
            try:
                return super().connect_tcp(address, port, *args, **options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return super().connect_tcp(addresses[-1], port, *args, **options)


class _GuardedTransport(httpx.HTTPTransport):
    """httpx's transport over a pool that connects through the guard. httpx has no public way to give it one."""

    def __init__(self, hosts: Hosts, connections: int):
        super().__init__()
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=5.0,
            network_backend=_GuardedBackend(hosts),
        )


def guarded_client(hosts: Hosts, connect_s: float, read_s: float, connections: int) -> httpx.Client:
    """An httpx client that connects to allowed hosts and public addresses alone, and follows no redirect by itself.

    Requests to a host that is refused raise RefusedHost. Proxies of the environment are not used: behind one, the address
    connected to could not be known.
    """

    def check(request: httpx.Request) -> None:
        hosts.check(str(request.url))

    return httpx.Client(
        transport=_GuardedTransport(hosts, connections),
        timeout=httpx.Timeout(read_s, connect=connect_s, pool=None),
        headers={"User-Agent": USER_AGENT},
        follow_redirects=False,
        event_hooks={"request": [check]},
    )


class Pace:
    """Spreads requests to a host evenly: at most `per_second`, over all threads."""

    def __init__(self, per_second: float):
        self.every_s = 1.0 / per_second
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def wait(self, host: str) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(self._next.get(host, now), now)
            self._next[host] = turn + self.every_s
        time.sleep(max(turn - now, 0.0))
