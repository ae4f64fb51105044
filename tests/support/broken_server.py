"""A local server that answers each connection with raw bytes, valid HTTP or not."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator

Reply = Callable[[], Iterable[bytes]]
"""Makes the parts of a reply; each is sent at once."""


class BrokenServer:
    """Context manager that serves on a free port of 127.0.0.1.

    Args:
        reply: The reply to every request.

    Attributes:
        url: Address of the server.
        num_requests: Number of requests so far.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.num_requests = 0

    def __enter__(self) -> BrokenServer:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(1_000_000)
                self.num_requests += 1
                for part in self.reply():
                    connection.sendall(part)
            except OSError:
                return  # the client has closed the connection


def head(status: int = 200, **headers: object) -> bytes:
    """Status line and headers, such as `content_length=5`."""
    lines = [f"HTTP/1.1 {status} x", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def body(data: bytes, content_type: str = "application/json", **headers: object) -> Reply:
    """A reply with a whole body."""
    values = {"content_type": content_type, "content_length": len(data), **headers}
    return lambda: [head(**values), data]


def drip(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, one every 50 ms."""
    for part in parts:
        yield part
        time.sleep(0.05)


def _endless_body(part: bytes, content_type: str) -> Iterator[bytes]:
    yield head(content_type=content_type, transfer_encoding="chunked")
    for _ in itertools.count():
        yield b"%x\r\n%s\r\n" % (len(part), part)


def _gzip_bomb() -> Iterator[bytes]:
    """10 GB of spaces in 10 MB, packed on the fly."""
    yield head(content_type="application/json", content_encoding="gzip")
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    part = packer.compress(b" " * 10_000_000) + packer.flush(zlib.Z_FULL_FLUSH)
    yield part
    repeated = packer.compress(b" " * 10_000_000) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(1000):
        yield repeated


def broken_replies(content_type: str) -> dict[str, Reply]:
    """Replies that break HTTP, by name. Readers must end each with an error in bounded time."""
    json_head = head(content_type=content_type, content_length=10_000)
    return {
        "one byte at a time": lambda: itertools.chain(
            [json_head], drip(itertools.repeat(b" ", 10_000))
        ),
        "headers one byte at a time": lambda: drip(
            itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"a", 10_000))
        ),
        "headers without end": lambda: itertools.chain(
            [b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"x: " + b"y" * 1000 + b"\r\n", 100_000)
        ),
        "informational answers without end": lambda: drip(
            itertools.repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", 10_000)
        ),
        "body without end": lambda: _endless_body(b" " * 65536, content_type),
        "silence": lambda: drip(itertools.repeat(b"", 200)),
        "no reply": list,
        "no HTTP": lambda: [b"\x1b[31m220 mail.example.com ESMTP\r\n" * 100],
        "content length too large": lambda: [json_head, b"[]"],
        "content length of 5,000 digits": lambda: [head(content_length="9" * 5000), b"[]"],
        "negative content length": lambda: [head(content_length=-5), b"[]"],
        "cut-off chunk": lambda: [head(transfer_encoding="chunked"), b"ffff\r\n[]"],
        "malformed chunk": lambda: [head(transfer_encoding="chunked"), b"xyz\r\n[]\r\n"],
        "huge chunk": lambda: [head(transfer_encoding="chunked"), b"f" * 100 + b"\r\n[]"],
    }


def broken_answers() -> dict[str, Reply]:
    """Replies whose HTTP is valid and whose body is no usable JSON, by name."""
    packed = gzip.compress(b"[]" * 1000)
    unpacked_sizes = {"content_encoding": "gzip"}
    return {
        "gzip bomb": _gzip_bomb,
        "no gzip": body(b"[]", **unpacked_sizes),
        "cut-off gzip": body(packed[:-20], **unpacked_sizes),
        "unknown encoding": body(b"[]", content_encoding="br"),
        "nested": body(b"[" * 100_000),
        "nested objects": body(b'{"results":' * 100_000),
        "10,000 digits": body(b'{"results": ' + b"1" * 10_000 + b"}"),
        "invalid UTF-8": body(b'{"results": "\xff"}'),
        "NaN": body(b'{"results": NaN}'),
        "Infinity": body(b"[-Infinity]"),
        "empty": body(b""),
        "HTML": body(b"<html>\x1b[31mproxy</html>", "text/html"),
    }


TYPICAL_REPLIES = [
    "one byte at a time",
    "headers one byte at a time",
    "body without end",
    "no HTTP",
]
TYPICAL_ANSWERS = ["gzip bomb", "cut-off gzip", "nested", "10,000 digits", "invalid UTF-8", "HTML"]
"""Names for the tests of callers; test_answer.py has all."""
WRONG_VALUES = [
    b'"results"',
    b"null",
    b"17",
    b"[[[]]]",
    b"[null, 1]",
    b"{}",
    b'{"results": {"a": [1]}, "choices": {}, "data": 7, "errors": "x"}',
    b'{"results": 7, "choices": [7], "data": [7], "errors": [[]]}',
    b'{"results": "abc", "choices": [{"message": []}], "data": [{"id": 7}], "errors": {}}',
    b'{"total": -5, "choices": [{"message": {"content": [1]}}], "data": [{"id": null}]}',
    b'{"choices": [{"message": {"content": "x"}}], "system_fingerprint": {}, "data": "x"}',
]
"""Valid JSON of another form than any API's answers."""
