"""A typed client of the Unsplash API: what is asked, what of the answers is used, and what its refusals mean.

Answers are read leniently: fields that are not known are ignored, and one photograph that cannot be read spoils no page.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from authface_data.http.hosts import AllowedHosts, HostRefused, guarded_client
from authface_data.http.retry import RetryableError, call_with_retries
from authface_data.sources.unsplash.rate_limiter import RateLimiter
from authface_data.sources.unsplash.responses import Details, Photo
from manifests.settings import Collect
from manifests.support.errors import MissingResourceError, PartialFailureError, UserError

KEY_VARIABLE = "UNSPLASH_ACCESS_KEY"
OFFICIAL = "https://api.unsplash.com"
PER_PAGE = 30


@dataclass(frozen=True)
class Listing:
    """Photographs that are asked for page by page: what a search finds, or what a topic, collection or user has."""

    kind: Literal["query", "topic", "collection", "user"]
    name: str
    orientation: str | None = None
    content_filter: str | None = None
    order_by: str | None = None

    def request(self, page: int) -> tuple[str, dict[str, Any]]:
        """Path and parameters of a page."""
        params: dict[str, Any] = {"page": page, "per_page": PER_PAGE}
        if self.orientation:
            params["orientation"] = self.orientation
        if self.order_by and self.kind != "collection":
            params["order_by"] = self.order_by
        if self.kind == "query":
            params["query"] = self.name
            if self.content_filter:
                params["content_filter"] = self.content_filter
            return "/search/photos", params
        folder = {"topic": "topics", "collection": "collections", "user": "users"}[self.kind]
        return f"/{folder}/{quote(self.name.removeprefix('@'), safe='')}/photos", params


@dataclass(frozen=True)
class Page:
    """photos: of those that could be read. unread: what of an item is known, where it could not be read. total: as it says."""

    photos: list[Photo]
    unread: list[str]
    total: int | None
    has_next: bool


class ListingRefused(Exception):
    """The API will not give this listing (a query flagged as spam, a topic that is not there); others may go."""


class _LostAnswer(Exception):
    pass


class LimitReached(Exception):
    """This hour's requests are spent: this one was not counted."""


class NotReportable(Exception):
    """A download cannot be reported: its location is none of the API's, or the API will not have it."""


class UnsplashApi:
    """Asks within the budget, again where the server was busy, and explains what it refuses. Use as a context manager.

    The key comes from the environment and goes into a header, to the API's own host alone. Raises MissingResourceError where it is not set.
    """

    def __init__(self, settings: Collect, budget: RateLimiter):
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key:
            raise MissingResourceError(
                f"{KEY_VARIABLE} is not set: make an application at https://unsplash.com/developers and put its key there"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(f"{KEY_VARIABLE} holds no access key: it has signs that none has")
        self.settings, self.budget = settings, budget
        self.base_url = settings.unsplash.base_url.rstrip("/")
        try:
            self.base = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise UserError(f"collect.unsplash.base_url is no URL: {self.base_url}") from error
        hosts = AllowedHosts({self.base.host}, settings.allowed_hosts)
        try:
            hosts.check(str(self.base))
        except HostRefused as refusal:
            raise UserError(
                f"collect.unsplash.base_url is {self.base} ({refusal}): name its host in collect.allowed_hosts"
            ) from refusal
        self._headers = {
            "Authorization": f"Client-ID {key}",
            "Accept-Version": "v1",
            "Accept": "application/json",
        }
        self._client = guarded_client(
            hosts,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            connections=2,
        )

    def __enter__(self) -> UnsplashApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def page(self, listing: Listing, number: int) -> Page:
        """One page of a listing. Raises ListingRefused."""
        path, params = listing.request(number)
        answer = self._get(httpx.URL(f"{self.base_url}{path}", params=params))
        if answer.status_code in (404, 410):
            why = "flagged as spam" if answer.status_code == 410 else "not there"
            raise ListingRefused(f"the {listing.kind} {listing.name!r} is {why}: {_errors(answer)}")
        self._explain(answer)
        said = _json(answer)
        items = said.get("results") if isinstance(said, dict) else said
        if not isinstance(items, list):
            raise PartialFailureError(
                f"Unsplash answered {path} in a form that is not understood; what was collected is kept"
            )
        photos, unread = [], []
        for item in items:
            try:
                photos.append(Photo.model_validate(item))
            except ValidationError:
                unread.append(str(item.get("id")) if isinstance(item, dict) else "")
        header = answer.headers.get("x-total", "")
        total = (
            said.get("total")
            if isinstance(said, dict)
            else int(header)
            if header.isascii() and header.isdecimal()
            else None
        )
        total = total if isinstance(total, int) else None
        # Pages shift while they are read: an empty one is the end, and so is one that says that no other follows.
        if "link" in answer.headers:
            has_next = 'rel="next"' in answer.headers["link"]
        else:
            has_next = total is None or number * PER_PAGE < total
        has_next = has_next and bool(items)
        return Page(photos, unread, total, has_next)

    def details(self, unsplash_id: str) -> Details | None:
        """A photograph's own page; None where it is gone."""
        answer = self._photo(unsplash_id)
        if answer is None:
            return None
        try:
            return Details.model_validate(_json(answer))
        except ValidationError as error:
            raise ValueError(
                f"the details of {unsplash_id} cannot be read: {error.errors()[0]['msg']}"
            ) from error

    def has(self, unsplash_id: str) -> bool:
        """Whether the photograph is still there."""
        return self._photo(unsplash_id) is not None

    def _photo(self, unsplash_id: str) -> httpx.Response | None:
        answer = self._get(httpx.URL(f"{self.base_url}/photos/{quote(unsplash_id, safe='')}"))
        if answer.status_code in (404, 410):
            return None
        self._explain(answer)
        return answer

    def report_download(self, location: str) -> None:
        """Tell Unsplash of a download, its `download_location` with the query intact. A photograph that is gone needs none.

        Returning means that it was told, or that it was asked and its answer was lost: it must not be told again. Raises
        LimitReached where it was not counted, NotReportable for a location that is not the API's: the key goes nowhere else.
        """
        try:
            url = httpx.URL(location)
        except httpx.InvalidURL:
            raise NotReportable("its location is no URL") from None
        if url.host == httpx.URL(OFFICIAL).host != self.base.host:  # behind a proxy of the user's
            raw = self.base.raw_path.rstrip(b"/") + url.raw_path
            url = url.copy_with(
                scheme=self.base.scheme, host=self.base.host, port=self.base.port, raw_path=raw
            )
        if (url.scheme, url.host, url.port) != (
            self.base.scheme,
            self.base.host,
            self.base.port,
        ) or url.userinfo:
            raise NotReportable(
                f"the download is to be reported to {url.host}, which is not the API"
            )
        try:
            answer = self._tried(url, (RetryableError, httpx.ConnectError, httpx.ConnectTimeout))
        except _LostAnswer:
            return
        if answer.status_code in (401, 403):
            self._explain(answer)
        if answer.status_code not in (200, 404, 410):
            raise NotReportable(f"HTTP {answer.status_code} ({_errors(answer)})")

    def _get(self, url: httpx.URL) -> httpx.Response:
        while True:
            try:
                return self._tried(url, (RetryableError, httpx.RequestError))
            except LimitReached:
                continue  # the budget waits, or says that it will not

    def _tried(self, url: httpx.URL, again: tuple[type[Exception], ...]) -> httpx.Response:
        """Ask, and ask again after errors of the types `again`. Raises _LostAnswer for another error of the connection."""
        try:
            return call_with_retries(
                lambda: self._once(url), attempts=self.settings.attempts, retry_on=again
            )
        except again as error:
            raise PartialFailureError(
                f"Unsplash does not answer ({type(error).__name__.lstrip('_')}: {error}); what was collected is kept: "
                "run the same again later"
            ) from error
        except httpx.RequestError as error:
            raise _LostAnswer from error
        except HostRefused as refusal:
            raise UserError(
                f"{self.base.host}: {refusal}: name it in collect.allowed_hosts if it is yours"
            ) from refusal

    def _once(self, url: httpx.URL) -> httpx.Response:
        self.budget.before_request()
        answer = self._client.get(url, headers=self._headers)
        if answer.status_code == 429 or (answer.status_code == 403 and not _is_json(answer)):
            self.budget.refused()
            raise LimitReached
        self.budget.after_request(
            answer.headers.get("x-ratelimit-limit"), answer.headers.get("x-ratelimit-remaining")
        )
        if answer.status_code >= 500 or answer.status_code == 408:
            raise RetryableError(f"HTTP {answer.status_code}")
        return answer

    def _explain(self, answer: httpx.Response) -> None:
        """Raises UserError for what asking again would not change."""
        if answer.status_code == 401:
            raise UserError(
                f"Unsplash does not know the key in {KEY_VARIABLE} ({_errors(answer)}): check it; nothing was asked again"
            )
        if answer.status_code == 403:
            raise UserError(
                f"Unsplash does not permit this application to do that ({_errors(answer)}): see its page at Unsplash"
            )
        if answer.status_code != 200:
            raise UserError(
                f"Unsplash refused {answer.url.path} with HTTP {answer.status_code} ({_errors(answer)})"
            )


def _is_json(answer: httpx.Response) -> bool:
    """Whether a refusal is one of permission, in JSON; that of the limit is plain text."""
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise PartialFailureError(
            "Unsplash answered with something that is not JSON; what was collected is kept: run again"
        ) from error


def _errors(answer: httpx.Response) -> str:
    """The API's own words."""
    try:
        return "; ".join(map(str, answer.json()["errors"]))[:300]
    except (ValueError, KeyError, TypeError):
        return " ".join(answer.text.split())[:100] or "no words"
