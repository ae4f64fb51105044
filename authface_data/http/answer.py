"""Answers of APIs: JSON and text, read with a limit of size and time.

Images are not read here, but streamed to the disk (see download.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from authface_data.http.transport import total_timeout
from manifests.support.parsing import parse_json
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_ANSWER_BYTES = 8_000_000
"""Largest body of an answer, unpacked. A page of Unsplash's listings has about 200 kB."""
CHUNK_BYTES = 65536
MAX_COUNT_DIGITS = 15


@dataclass(frozen=True)
class Answer:
    """An answer that was received completely."""

    status: int
    headers: httpx.Headers
    body: bytes
    """The unpacked body."""

    def json(self) -> JsonValue:
        """The body as JSON.

        Raises:
            ValueError: If it is not valid JSON (see `parse_json`).
        """
        return parse_json(self.body)

    def excerpt(self, length: int = 200) -> str:
        """The beginning of the body as one line of printable text; "no message" if it is empty."""
        return excerpt(self.body[: 10 * length].decode("utf-8", "replace"), length) or "no message"


def request_answer(
    client: httpx.Client,
    method: str,
    url: httpx.URL | str,
    *,
    total_timeout_s: float,
    headers: Mapping[str, str] | None = None,
    json: object = None,
) -> Answer:
    """Send a request and read its answer.

    Args:
        client: A client whose network backend is a `DeadlineBackend`.
        method: Such as "GET".
        url: The address.
        total_timeout_s: Limit for the whole request, in seconds.
        headers: Headers besides those of the client.
        json: JSON body of the request, if any.

    Returns:
        The answer, whatever its status.

    Raises:
        httpx.TransportError: If no complete answer arrives in time, or if it is larger than
            `MAX_ANSWER_BYTES` or packed wrongly.
    """
    # The client would unpack other encodings too, and without a limit.
    all_headers = {**(headers or {}), "Accept-Encoding": "gzip"}
    with (
        total_timeout(total_timeout_s),
        client.stream(method, url, headers=all_headers, json=json) as response,
    ):
        body = bytearray()
        for chunk in _unpacked_chunks(response):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise httpx.RemoteProtocolError(
                    f"the answer is larger than {MAX_ANSWER_BYTES / 1e6:g} MB"
                )
        return Answer(response.status_code, response.headers, bytes(body))


def _unpacked_chunks(response: httpx.Response) -> Iterator[bytes]:
    """The unpacked body in parts of at most about 64 kB."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from response.iter_raw()
        return
    if encoding not in ("gzip", "x-gzip"):
        raise httpx.RemoteProtocolError(f"the answer has the encoding {excerpt(encoding, 40)}")

    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    is_empty = True
    try:
        for chunk in response.iter_raw():
            packed = chunk
            while packed:
                is_empty = False
                yield unpacker.decompress(packed, CHUNK_BYTES)
                packed = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise httpx.RemoteProtocolError("the answer is not valid gzip") from error
    if not (unpacker.eof or is_empty):
        raise httpx.RemoteProtocolError("the answer is cut off")


def parse_count(text: str | None) -> int | None:
    """The number of a header such as Content-Length; None if it is missing, malformed or absurd."""
    if not text or len(text) > MAX_COUNT_DIGITS or not (text.isascii() and text.isdecimal()):
        return None
    return int(text)
