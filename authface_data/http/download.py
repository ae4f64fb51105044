"""Downloads of photographs: many at a time, few from one host, resumed where the server allows, committed by a rename.

A killed download goes on where it was (see partial.py). Only pictures are taken, by their content type; whether one can be
decoded is seen later.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tenacity

from authface_data.http.hosts import Hosts, Pace, RefusedHost, guarded_client
from authface_data.http.partial_download import PartialDownload, version_of
from authface_data.http.retry import RetryableError, asked_wait_s, backoff
from manifests.settings import Collect
from manifests.support.errors import UserError

GONE = (404, 410)
BUSY = (408, 425, 429)  # and 5xx
REDIRECTS, MOST_REDIRECTS = (301, 302, 303, 307, 308), 5
HOSTS_AT_ONCE = 2
NOTHING_YET_S = 0.2


@dataclass(frozen=True)
class Job:
    """key: of the photograph. target: where the file goes, its folder existing."""

    key: str
    url: str
    target: Path


@dataclass(frozen=True)
class Arrived:
    job: Job
    bytes: int


@dataclass(frozen=True)
class Refused:
    """The server's or our own final no; asking again would change nothing."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Failed:
    """Tried as often as allowed; another time it may go."""

    job: Job
    message: str


Result = Arrived | Refused | Failed


class _Refusal(Exception):
    pass


class Downloader:
    """Fetches jobs in threads. Use as a context manager; leaving it abandons what is on its way."""

    def __init__(self, settings: Collect, hosts: Hosts):
        self.settings, self.hosts = settings, hosts
        self.threads = settings.per_host * HOSTS_AT_ONCE
        self.client = guarded_client(
            hosts, settings.connect_timeout_s, settings.read_timeout_s, self.threads
        )
        self.pace = Pace(settings.photos_per_second)
        self._slots: dict[str, threading.Semaphore] = defaultdict(
            lambda: threading.Semaphore(settings.per_host)
        )
        self._slots_lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.client.close()

    def fetch_all(self, jobs: Iterable[Job], patient: bool = True) -> Iterator[Result | None]:
        """One result per job, as they come. Not patient: None whenever nothing has come for a moment."""
        todo = deque(jobs)
        done: queue.Queue[Result | BaseException] = queue.Queue()
        waiting = len(todo)

        def work() -> None:
            while not self._stop.is_set():
                try:
                    job = todo.popleft()
                except IndexError:
                    return
                try:
                    done.put(self.fetch(job))
                except BaseException as error:
                    done.put(error)

        for _ in range(min(self.threads, waiting)):
            threading.Thread(target=work, daemon=True).start()
        while waiting:
            try:
                result = done.get(timeout=NOTHING_YET_S)
            except queue.Empty:
                if not patient:
                    yield None
                continue
            if isinstance(result, BaseException):
                raise result
            waiting -= 1
            yield result

    def fetch(self, job: Job) -> Result:
        """Bring one file. Raises UserError where it cannot be written."""
        try:
            return Arrived(job, self._until_done(job))
        except (_Refusal, RefusedHost) as refusal:
            PartialDownload(job.target).remove()
            return Refused(job, str(refusal))
        except (RetryableError, httpx.TransportError) as error:
            return Failed(job, _words(error))
        except httpx.InvalidURL:
            return Refused(job, "malformed_url")
        except OSError as error:
            raise UserError(f"cannot write {job.target}: {error.strerror or error}") from error

    def _until_done(self, job: Job) -> int:
        if job.target.is_file():
            return job.target.stat().st_size
        tries = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.settings.attempts),
                tenacity.stop_when_event_set(self._stop),
            ),
            wait=backoff,
            sleep=self._sleep,
            retry=tenacity.retry_if_exception_type((RetryableError, httpx.TransportError)),
            reraise=True,
        )
        return tries(self._once, job)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _once(self, job: Job) -> int:
        try:
            return self._follow(job, job.url)
        except _Refusal as refusal:
            # The image server has photographs that it finds only when the URL has a query.
            if str(refusal).startswith("gone") and not httpx.URL(job.url).query:
                return self._follow(job, f"{job.url}?fit=max")
            raise

    def _follow(self, job: Job, url: str) -> int:
        for _ in range(MOST_REDIRECTS + 1):
            host = httpx.URL(url).host
            with self._slots_lock:
                slot = self._slots[host]
            with slot:
                if not self.hosts.is_named(host):
                    self.pace.wait(host)
                answer = self._receive(job, url)
            if isinstance(answer, int):
                return answer
            url = answer
        raise _Refusal("too_many_redirects")

    def _receive(self, job: Job, url: str) -> int | str:
        """The size of the file, when it is there; or the URL that the server sends us to."""
        partial = PartialDownload(job.target)
        have, version = partial.begun(url)
        headers = {"Accept-Encoding": "identity", "Accept": "image/*"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        ends = time.monotonic() + self.settings.total_timeout_s
        with self.client.stream("GET", url, headers=headers) as answer:
            if answer.status_code in REDIRECTS and "location" in answer.headers:
                return str(answer.url.join(answer.headers["location"]))
            self._check(answer)
            if answer.status_code == 416:
                partial.remove()
                raise RetryableError("the file has changed at the server")
            said = answer.headers.get("content-length", "")
            length = expected = int(said) if said.isascii() and said.isdecimal() else None
            if answer.status_code == 206:
                expected = _goes_on(partial, answer, have, version, length)
            else:
                have = 0
                partial.begin(url, answer)
            limit = int(self.settings.max_megabytes * 1e6)
            if expected is not None and expected > limit:
                raise _Refusal(
                    f"too_large: {expected / 1e6:.3g} MB > {self.settings.max_megabytes:g} MB"
                )
            with partial.part.open("r+b") as file:
                file.seek(have)
                size = have
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise _Refusal(f"too_large: > {self.settings.max_megabytes:g} MB")
                    if time.monotonic() > ends and size != expected:
                        raise RetryableError(f"not done after {self.settings.total_timeout_s:g} s")
                    if self._stop.is_set():
                        raise RetryableError("stopped")
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        if expected is not None and size != expected:
            if (
                length is not None and size >= have + length
            ):  # all came that was sent, and it is not the file
                partial.remove()
            raise RetryableError(f"{size} bytes came of {expected}")
        partial.finish()
        return size

    def _check(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in GONE:
            raise _Refusal(f"gone: HTTP {status}")
        if status in BUSY or status >= 500:
            raise RetryableError(f"HTTP {status}", asked_wait_s(answer))
        if status not in (200, 206, 416):
            raise _Refusal(f"refused: HTTP {status}")
        kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
        if status != 416 and not kind.startswith("image/"):
            raise _Refusal(f"content_type: {kind or 'none'}")


def _goes_on(
    partial: PartialDownload, answer: httpx.Response, have: int, version: str, length: int | None
) -> int | None:
    """The size of the whole file, where the answer goes on with what is there. Raises TryAgain where it does not fit."""
    found = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""), re.ASCII
    )
    now = version_of(answer)
    if not have or found is None or int(found[1]) != have or (now and now != version):
        partial.remove()
        raise RetryableError("the file has changed at the server")
    return int(found[2]) if found[2] != "*" else None if length is None else have + length


def _words(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {error}"
        if isinstance(error, httpx.TransportError)
        else str(error)
    )
