"""Which hosts may be asked, and at what addresses."""

import socket
import time

import httpx
import pytest
from unsplash_server import Photo, UnsplashServer, picture

from authface_data.http.hosts import (
    AllowedHosts,
    HostRefused,
    RequestPacer,
    guarded_client,
    is_public,
)

CLIENT_OPTIONS = {"connect_timeout_s": 5, "read_timeout_s": 5, "connections": 2}
HOSTS = AllowedHosts(
    {"images.unsplash.com"}, ["127.0.0.1", "localhost:8080", "[::1]:99", "Proxy.Lan"]
)


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
def test_allowed(url):
    HOSTS.check(url)


@pytest.mark.parametrize(
    ("url", "why"),
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
def test_refused(url, why):
    with pytest.raises(HostRefused, match=why):
        HOSTS.check(url)


@pytest.mark.parametrize(
    ("address", "public"),
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
def test_addresses(address, public):
    assert is_public(address) == public


def test_a_name_that_means_a_private_address_is_not_connected_to(monkeypatch):
    """The address is judged where it is connected to: a name cannot be public when looked at and private when used."""
    with UnsplashServer([Photo("a", picture(1), 1, 1)]) as server:
        port = int(server.url.rsplit(":", 1)[1])
        real = socket.getaddrinfo

        def lying(host, *args, **options):
            return real(
                "127.0.0.1" if host == "images.unsplash.com" else host, port, *args[1:], **options
            )

        monkeypatch.setattr(socket, "getaddrinfo", lying)
        with (
            guarded_client(AllowedHosts({"images.unsplash.com"}, []), **CLIENT_OPTIONS) as client,
            pytest.raises(HostRefused, match="private"),
        ):
            client.get("https://images.unsplash.com/img/photo-a")
        with guarded_client(AllowedHosts(set(), ["127.0.0.1"]), **CLIENT_OPTIONS) as client:
            assert client.get(f"{server.url}/img/photo-a").status_code == 200


def test_no_redirect_is_followed_unseen():
    photo = Photo("a", picture(1), 1, 1, moved="http://10.0.0.1/x")
    with (
        UnsplashServer([photo]) as server,
        guarded_client(AllowedHosts(set(), ["127.0.0.1"]), **CLIENT_OPTIONS) as client,
    ):
        answer = client.get(f"{server.url}/img/photo-a")
        assert isinstance(answer, httpx.Response)
        assert answer.status_code == 302


def test_pace_spreads_requests(monkeypatch):
    """At 50 a second, each waits a fiftieth longer than the one before; another host waits for none of them."""
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pace = RequestPacer(50)
    for host in ("a", "a", "a", "b"):
        pace.wait(host)
    assert waits == pytest.approx([0, 1 / 50, 2 / 50, 0])
