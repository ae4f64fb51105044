"""Parallel downloads of photographs, with a limit per host, resumed where the server allows it.

A file is written beside its target and renamed when it is complete; a killed download is resumed by
the next run (see partial_download.py). Only responses with an image content type are accepted;
whether the image can be decoded is checked later.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from authface_data.http.answer import parse_count
from authface_data.http.hosts import (
    AllowedHosts,
    HostRefused,
    RequestPacer,
    guarded_client,
)
from authface_data.http.partial_download import PartialDownload, resume_version
from authface_data.http.retry import (
    RETRYABLE_ERRORS,
    RetryableError,
    call_with_retries,
    is_retryable_status,
    retry_after_s,
)
from authface_data.http.transport import parse_url, total_timeout
from manifests.settings import Collect
from manifests.support.errors import UserError
from manifests.support.text import excerpt

GONE_STATUS_CODES = (404, 410)
REDIRECT_STATUS_CODES = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
PARALLEL_HOSTS = 2
"""Threads suffice to keep this many hosts busy at their limit of connections."""
POLL_INTERVAL_S = 0.2


@dataclass(frozen=True)
class DownloadJob:
    """One file to download."""

    key: str
    """Id of the photograph."""
    url: str
    target: Path
    """Where the file is placed; its folder must exist."""


@dataclass(frozen=True)
class Downloaded:
    """The file is at its target."""

    job: DownloadJob
    bytes: int


@dataclass(frozen=True)
class DownloadRefused:
    """The server or a rule of this client refused the download for good; a retry is pointless."""

    job: DownloadJob
    reason: str


@dataclass(frozen=True)
class DownloadFailed:
    """All attempts failed; a later run may succeed."""

    job: DownloadJob
    message: str


DownloadResult = Downloaded | DownloadRefused | DownloadFailed


class _Refused(Exception):
    """Ends a download for good. The message is the reason."""


class Downloader:
    """Downloads files in threads. Use as a context manager; leaving it abandons running downloads.

    Args:
        settings: Timeouts, attempts, rates and size limit.
        hosts: The hosts that files may come from, redirects included.
    """

    def __init__(self, settings: Collect, hosts: AllowedHosts) -> None:
        self.settings = settings
        self.hosts = hosts
        self.threads = settings.per_host * PARALLEL_HOSTS
        self.max_bytes = settings.max_megabytes * 1e6
        self.client = guarded_client(
            hosts,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            connections=self.threads,
        )
        self.pacer = RequestPacer(settings.photos_per_second)
        self._host_slots: dict[str, threading.Semaphore] = defaultdict(
            lambda: threading.Semaphore(settings.per_host)
        )
        self._host_slots_lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.client.close()

    def fetch_all(
        self, jobs: Iterable[DownloadJob], yield_while_waiting: bool = False
    ) -> Iterator[DownloadResult | None]:
        """Download all files in parallel.

        Args:
            jobs: The files.
            yield_while_waiting: Yield None whenever no download has finished for `POLL_INTERVAL_S`
                seconds, so that the caller can do other work.

        Yields:
            One result per job, in the order in which they finish.

        Raises:
            UserError: If a file cannot be written.
        """
        pending = deque(jobs)
        results: queue.Queue[DownloadResult | BaseException] = queue.Queue()
        unfinished = len(pending)

        def work() -> None:
            while not self._stop.is_set():
                try:
                    job = pending.popleft()
                except IndexError:
                    return
                try:
                    results.put(self.fetch(job))
                except BaseException as error:
                    results.put(error)

        for _ in range(min(self.threads, unfinished)):
            threading.Thread(target=work, daemon=True).start()

        while unfinished:
            try:
                result = results.get(timeout=POLL_INTERVAL_S)
            except queue.Empty:
                if yield_while_waiting:
                    yield None
                continue
            if isinstance(result, BaseException):
                raise result
            unfinished -= 1
            yield result

    def fetch(self, job: DownloadJob) -> DownloadResult:
        """Download one file; a target that exists counts as downloaded.

        Raises:
            UserError: If the file cannot be written.
        """
        if job.target.is_file():
            return Downloaded(job, job.target.stat().st_size)
        try:
            size = call_with_retries(
                lambda: self._attempt(job),
                attempts=self.settings.attempts,
                stop_event=self._stop,
            )
        except (_Refused, HostRefused) as refusal:
            PartialDownload(job.target).remove()
            return DownloadRefused(job, str(refusal))
        except RETRYABLE_ERRORS as error:
            return DownloadFailed(job, _describe(error))
        except httpx.InvalidURL:
            return DownloadRefused(job, "malformed_url")
        except OSError as error:
            raise UserError(f"cannot write {job.target}: {error.strerror or error}") from error
        return Downloaded(job, size)

    def _attempt(self, job: DownloadJob) -> int:
        """Make one attempt. Returns the size of the file in bytes."""
        try:
            return self._follow_redirects(job, job.url)
        except _Refused as refusal:
            # Unsplash's image server finds some photographs only if the URL has a query.
            if str(refusal).startswith("gone") and not httpx.URL(job.url).query:
                return self._follow_redirects(job, f"{job.url}?fit=max")
            raise

    def _follow_redirects(self, job: DownloadJob, url: str) -> int:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                host = parse_url(url).host
            except ValueError:
                raise _Refused("malformed_url") from None
            with self._host_slots_lock:
                host_slot = self._host_slots[host]
            with host_slot:
                if not self.hosts.is_user_host(host):
                    self.pacer.wait(host)
                with total_timeout(self.settings.total_timeout_s):
                    size_or_redirect = self._receive(job, url)
            if isinstance(size_or_redirect, int):
                return size_or_redirect
            url = size_or_redirect
        raise _Refused("too_many_redirects")

    def _receive(self, job: DownloadJob, url: str) -> int | str:
        """Request a URL and store the body. Returns the size of the file, or the redirect's URL."""
        partial = PartialDownload(job.target)
        offset, version = partial.resumable(url)
        headers = {"Accept-Encoding": "identity", "Accept": "image/*"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version}

        with self.client.stream("GET", url, headers=headers) as response:
            if response.status_code in REDIRECT_STATUS_CODES and "location" in response.headers:
                return str(response.url.join(response.headers["location"]))
            _check_response(response)
            if response.status_code == 416:
                partial.remove()
                raise RetryableError("the file has changed at the server")

            body_bytes = parse_count(response.headers.get("content-length"))
            if response.status_code == 206:
                file_bytes = _resumed_file_size(partial, response, offset, version)
            else:
                offset = 0
                file_bytes = body_bytes
                partial.start(url, response)
            if file_bytes is not None and file_bytes > self.max_bytes:
                raise _Refused(
                    f"too_large: {file_bytes / 1e6:.3g} MB > {self.settings.max_megabytes:g} MB"
                )
            size = self._write_body(response, partial.part_path, offset)

        if file_bytes is not None and size != file_bytes:
            if body_bytes is not None and size >= offset + body_bytes:
                # The whole body arrived and still does not complete the file: it cannot be resumed.
                partial.remove()
            raise RetryableError(f"{size} bytes came of {file_bytes}")
        partial.finish()
        return size

    def _write_body(self, response: httpx.Response, part_path: Path, offset: int) -> int:
        """Write the body from `offset` on and sync it. Returns the size of the file so far."""
        size = offset
        with part_path.open("r+b") as file:
            file.seek(offset)
            for chunk in response.iter_raw():
                file.write(chunk)
                size += len(chunk)
                if size > self.max_bytes:
                    raise _Refused(f"too_large: > {self.settings.max_megabytes:g} MB")
                if self._stop.is_set():
                    raise RetryableError("stopped")
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return size


def _check_response(response: httpx.Response) -> None:
    """Raise RetryableError or _Refused for a response whose body is not the file."""
    status = response.status_code
    if status in GONE_STATUS_CODES:
        raise _Refused(f"gone: HTTP {status}")
    if is_retryable_status(status):
        raise RetryableError(f"HTTP {status}", retry_after_s(response.headers))
    if status not in (200, 206, 416):
        raise _Refused(f"refused: HTTP {status}")
    content_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if status != 416 and not content_type.startswith("image/"):
        raise _Refused(f"content_type: {excerpt(content_type, 60) or 'none'}")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise _Refused(f"content_encoding: {excerpt(encoding, 60)}")


def _resumed_file_size(
    partial: PartialDownload, response: httpx.Response, offset: int, version: str
) -> int | None:
    """Size of the whole file according to a 206 response, or None if it is unknown.

    Raises RetryableError if the response does not continue the bytes on the disk.
    """
    content_range = re.fullmatch(
        r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)",
        response.headers.get("content-range", ""),
        re.ASCII,
    )
    response_version = resume_version(response)
    has_changed = bool(response_version) and response_version != version
    if not offset or content_range is None or int(content_range[1]) != offset or has_changed:
        partial.remove()
        raise RetryableError("the file has changed at the server")

    if content_range[2] != "*":
        return int(content_range[2])
    body_bytes = parse_count(response.headers.get("content-length"))
    return None if body_bytes is None else offset + body_bytes


def _describe(error: Exception) -> str:
    """A failure in words; transport errors of httpx often have an empty message."""
    if isinstance(error, httpx.TransportError):
        return f"{type(error).__name__}: {excerpt(str(error))}"
    return str(error)
