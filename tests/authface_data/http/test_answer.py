"""Answers of broken and hostile servers: each ends with one error, in bounded time and memory."""

import gzip
import itertools
import json
import time
import tracemalloc

import httpx
import pytest
from broken_server import BrokenServer, body, broken_answers, broken_replies, drip, head

from authface_data.http.answer import MAX_ANSWER_BYTES, parse_count, request_answer
from authface_data.http.hosts import AllowedHosts, guarded_client
from authface_data.http.transport import total_timeout

TOTAL_TIMEOUT_S = 0.4
MAX_SECONDS = 3.0


def ask(server, total_timeout_s=TOTAL_TIMEOUT_S):
    hosts = AllowedHosts(set(), ["127.0.0.1"])
    with guarded_client(hosts, connect_timeout_s=1, read_timeout_s=1, connections=1) as client:
        return request_answer(client, "GET", server.url, total_timeout_s=total_timeout_s)


@pytest.mark.parametrize("name", broken_replies(""))
def test_broken_reply_is_a_transport_error_in_bounded_time(name):
    start_s = time.monotonic()
    with (
        BrokenServer(broken_replies("application/json")[name]) as server,
        pytest.raises(httpx.TransportError),
    ):
        ask(server)
    assert time.monotonic() - start_s < MAX_SECONDS


@pytest.mark.parametrize("name", broken_answers())
def test_broken_body_is_an_error_of_one_line(name):
    with (
        BrokenServer(broken_answers()[name]) as server,
        pytest.raises((httpx.TransportError, ValueError), match=r".") as error,
    ):
        ask(server, total_timeout_s=5).json()
    assert "\n" not in str(error.value)


def test_gzip_bomb_does_not_fill_the_memory():
    tracemalloc.start()
    with (
        BrokenServer(broken_answers()["gzip bomb"]) as server,
        pytest.raises(httpx.RemoteProtocolError, match="larger than 8 MB"),
    ):
        ask(server, total_timeout_s=5)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * MAX_ANSWER_BYTES


def test_packed_and_slow_answers_arrive_whole():
    value = [{"a": "é" * 1000}] * 50
    data = json.dumps(value).encode()
    with BrokenServer(body(gzip.compress(data), content_encoding="gzip")) as server:
        assert ask(server).json() == value

    parts = [bytes([byte]) for byte in b"[1]"]
    slow = lambda: itertools.chain([head(content_length=3)], drip(parts))  # noqa: E731
    with BrokenServer(slow) as server:
        assert ask(server, total_timeout_s=5).json() == [1]


def test_body_longer_than_its_content_length_is_cut():
    with BrokenServer(lambda: [head(content_length=2), b"[]" + b"x" * 1000]) as server:
        assert ask(server).json() == []


def test_excerpt_has_no_control_characters():
    with BrokenServer(body(b"\x1b[2Jhello\x07\r\n\xff " + b"x" * 100_000)) as server:
        text = ask(server).excerpt(50)
    assert text.isprintable()
    assert "hello" in text
    assert len(text) <= 50


def test_time_limit_does_not_outlive_its_block():
    with BrokenServer(body(b"[]")) as server:
        with total_timeout(0.0), pytest.raises(httpx.ConnectTimeout, match="not done after"):
            httpx_get(server)
        assert httpx_get(server).status_code == 200


def httpx_get(server):
    hosts = AllowedHosts(set(), ["127.0.0.1"])
    with guarded_client(hosts, connect_timeout_s=1, read_timeout_s=1, connections=1) as client:
        return client.get(server.url)


@pytest.mark.parametrize("text", [None, "", "-1", "1.5", "²", "9" * 5000, "1e3", " 7"])
def test_malformed_count_is_none(text):
    assert parse_count(text) is None
    assert parse_count("42") == 42
