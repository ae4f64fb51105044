"""Which hosts may be contacted, at which addresses, and how often."""

import socket
import time

import httpx
import pytest
from unsplash_server import Photo, UnsplashServer, make_jpeg

from authface_data.http.hosts import (
    AllowedHosts,
    HostRefused,
    RequestPacer,
    guarded_client,
    is_public,
)

HOSTS = AllowedHosts(
    {"images.unsplash.com"}, ["127.0.0.1", "localhost:8080", "[::1]:99", "Proxy.Lan"]
)
CLIENT_OPTIONS = {"connect_timeout_s": 5, "read_timeout_s": 5, "connections": 2}


@pytest.mark.parametrize(
    "url",
    [
        "https://images.unsplash.com/photo-1?ixid=2",
        "https://IMAGES.unsplash.com:443/photo-1",
        "http://127.0.0.1:4711/x",
        "http://localhost/x",
        "http://[::1]/x",
        "https://proxy.lan/x",
    ],
)
def test_url_of_an_allowed_host_passes(url):
    HOSTS.check(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://images.unsplash.com/photo-1", "not_https"),
        ("https://images.unsplash.com:8443/photo-1", "not_https"),
        ("https://images.unsplash.com.evil.example/x", "host_not_allowed"),
        ("https://evil.example/images.unsplash.com", "host_not_allowed"),
        ("https://user:secret@images.unsplash.com/x", "malformed_url"),
        ("https://images.unsplash.com@evil.example/x", "malformed_url"),
        ("ftp://images.unsplash.com/x", "malformed_url"),
        ("file:///etc/passwd", "malformed_url"),
        ("https:///x", "malformed_url"),
        ("https://[bad/x", "malformed_url"),
        ("http://127.0.0.2/x", "host_not_allowed"),
        ("http://2130706433/x", "host_not_allowed"),
    ],
)
def test_other_urls_are_refused_with_a_reason(url, reason):
    with pytest.raises(HostRefused, match=reason):
        HOSTS.check(url)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("151.101.1.181", True),
        ("2a04:4e42::347", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False),
    ],
)
def test_private_addresses_are_recognised(address, expected):
    assert is_public(address) == expected


def test_allowed_name_that_resolves_to_a_private_address_is_refused(monkeypatch):
    """The address is checked when connecting: a name cannot resolve differently in between."""
    with UnsplashServer([Photo("a", make_jpeg(1), 1, 1)]) as server:
        port = int(server.url.rsplit(":", 1)[1])
        real_getaddrinfo = socket.getaddrinfo

        def spoofed_getaddrinfo(host, *args, **options):
            resolved_host = "127.0.0.1" if host == "images.unsplash.com" else host
            return real_getaddrinfo(resolved_host, port, *args[1:], **options)

        monkeypatch.setattr(socket, "getaddrinfo", spoofed_getaddrinfo)
        with (
            guarded_client(AllowedHosts({"images.unsplash.com"}, []), **CLIENT_OPTIONS) as client,
            pytest.raises(HostRefused, match="private"),
        ):
            client.get("https://images.unsplash.com/img/photo-a")
        with guarded_client(AllowedHosts(set(), ["127.0.0.1"]), **CLIENT_OPTIONS) as client:
            assert client.get(f"{server.url}/img/photo-a").status_code == 200


def test_client_does_not_follow_redirects():
    photo = Photo("a", make_jpeg(1), 1, 1, redirect_to="http://10.0.0.1/x")
    with (
        UnsplashServer([photo]) as server,
        guarded_client(AllowedHosts(set(), ["127.0.0.1"]), **CLIENT_OPTIONS) as client,
    ):
        response = client.get(f"{server.url}/img/photo-a")
        assert isinstance(response, httpx.Response)
        assert response.status_code == 302


def test_pacer_spreads_the_requests_to_each_host(monkeypatch):
    waits_s = []
    monkeypatch.setattr(time, "sleep", waits_s.append)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pacer = RequestPacer(50)
    for host in ("a", "a", "a", "b"):
        pacer.wait(host)
    assert waits_s == pytest.approx([0, 1 / 50, 2 / 50, 0])
