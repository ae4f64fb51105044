"""A typed client of the Unsplash API.

Responses are parsed leniently: unknown fields are ignored, and a photograph that cannot be parsed
does not affect the others of its page.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import httpx
from pydantic import JsonValue, ValidationError

from authface_data.http.answer import Answer, parse_count, request_answer
from authface_data.http.hosts import AllowedHosts, HostRefused, guarded_client
from authface_data.http.retry import RetryableError, call_with_retries
from authface_data.http.transport import parse_url
from authface_data.sources.unsplash.rate_limiter import RateLimiter
from authface_data.sources.unsplash.responses import Details, Photo
from manifests.settings import Collect
from manifests.support.errors import MissingResourceError, PartialFailureError, UserError
from manifests.support.text import excerpt

KEY_VARIABLE = "UNSPLASH_ACCESS_KEY"
OFFICIAL_HOST = "api.unsplash.com"
PHOTOS_PER_PAGE = 30
CONNECTIONS = 2
GONE_STATUS_CODES = (404, 410)
ANSWER_TIMEOUT_S = 60.0
"""Longest duration of one request; `collect.total_timeout_s` can shorten it."""
MAX_TOTAL = 10**12
MAX_ERROR_LENGTH = 300

ListingKind = Literal["query", "topic", "collection", "user"]
LISTING_FOLDERS = {"topic": "topics", "collection": "collections", "user": "users"}


@dataclass(frozen=True)
class Listing:
    """A paginated list of photographs: a search, a topic, a collection or a photographer's work."""

    kind: ListingKind
    name: str
    """Search text, topic slug, collection id or username."""
    orientation: str | None = None
    content_filter: str | None = None
    order_by: str | None = None

    def request(self, page: int) -> tuple[str, dict[str, str | int]]:
        """Path and query parameters of a page; pages count from 1."""
        params: dict[str, str | int] = {"page": page, "per_page": PHOTOS_PER_PAGE}
        if self.orientation:
            params["orientation"] = self.orientation
        if self.order_by and self.kind != "collection":
            params["order_by"] = self.order_by

        if self.kind == "query":
            params["query"] = self.name
            if self.content_filter:
                params["content_filter"] = self.content_filter
            return "/search/photos", params
        name = quote(self.name.removeprefix("@"), safe="")
        return f"/{LISTING_FOLDERS[self.kind]}/{name}/photos", params


@dataclass(frozen=True)
class Page:
    """One page of a listing."""

    photos: list[Photo]
    unparsed_ids: list[str]
    """Ids of the photographs that could not be parsed, "" if even the id is unknown."""
    total: int | None
    """Number of photographs in the listing, if the API reports it."""
    has_next: bool


class ListingRefused(Exception):
    """The API refuses this listing, for example a query flagged as spam; others may work."""


class LimitReached(Exception):
    """The API refused a request because of its limit, and did not count it."""


class NotReportable(Exception):
    """A download cannot be reported: its location is not at the API, or the API rejects it."""


class _ResponseLost(Exception):
    """The request was sent, but its response did not arrive."""


class UnsplashApi:
    """Client of the API, within its rate limit. Use as a context manager.

    The access key comes from the environment. It is sent as a header, and only to the API's host.

    Args:
        settings: Section `collect` of the workspace's settings.
        rate_limiter: Controls when each request may be sent.

    Raises:
        MissingResourceError: If the environment has no access key.
        UserError: If the access key or the base URL is malformed, or the host is not allowed.
    """

    def __init__(self, settings: Collect, rate_limiter: RateLimiter) -> None:
        self.settings = settings
        self.rate_limiter = rate_limiter
        access_key = _read_access_key()
        self.base_url = settings.unsplash.base_url.rstrip("/")
        try:
            self._base = parse_url(self.base_url)
        except ValueError as error:
            raise UserError(f"collect.unsplash.base_url is not a URL: {self.base_url}") from error

        self._headers = {
            "Authorization": f"Client-ID {access_key}",
            "Accept-Version": "v1",
            "Accept": "application/json",
        }
        hosts = AllowedHosts({self._base.host}, settings.allowed_hosts)
        try:
            hosts.check(str(self._base))
        except HostRefused as refusal:
            raise UserError(
                f"collect.unsplash.base_url {self._base} is refused ({refusal}); to use it, add "
                "its host to collect.allowed_hosts"
            ) from refusal
        self._client = guarded_client(
            hosts,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            connections=CONNECTIONS,
        )

    def __enter__(self) -> UnsplashApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fetch_page(self, listing: Listing, number: int) -> Page:
        """Fetch one page of a listing.

        Args:
            listing: The listing.
            number: Number of the page, from 1.

        Returns:
            The page; an empty one follows the last.

        Raises:
            ListingRefused: If the API refuses the listing.
        """
        path, params = listing.request(number)
        answer = self._get(httpx.URL(f"{self.base_url}{path}", params=params))
        if answer.status in GONE_STATUS_CODES:
            reason = "flagged as spam" if answer.status == 410 else "not found"
            raise ListingRefused(
                f"{listing.kind} {listing.name!r} is {reason}: {_error_text(answer)}"
            )
        _raise_for_refusal(answer, path)

        body = _json(answer)
        items = body.get("results") if isinstance(body, dict) else body
        if not isinstance(items, list):
            raise PartialFailureError(
                f"the response of Unsplash to {path} has an unknown form; everything collected is "
                "kept"
            )

        photos: list[Photo] = []
        unparsed_ids: list[str] = []
        for item in items:
            try:
                photos.append(Photo.model_validate(item))
            except ValidationError:
                unparsed_ids.append(str(item.get("id")) if isinstance(item, dict) else "")
        total = _total(body, answer)
        has_next = bool(items) and _has_next_page(answer, number, total)
        return Page(photos, unparsed_ids, total, has_next)

    def fetch_details(self, unsplash_id: str) -> Details | None:
        """The details of a photograph, or None if it no longer exists.

        Raises:
            ValueError: If they cannot be parsed.
        """
        answer = self._get_photo(unsplash_id)
        if answer is None:
            return None
        try:
            return Details.model_validate(_json(answer))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"the details of {unsplash_id} cannot be parsed: {reason}") from error

    def exists(self, unsplash_id: str) -> bool:
        """Whether the photograph still exists."""
        return self._get_photo(unsplash_id) is not None

    def _get_photo(self, unsplash_id: str) -> Answer | None:
        path = f"/photos/{quote(unsplash_id, safe='')}"
        answer = self._get(httpx.URL(f"{self.base_url}{path}"))
        if answer.status in GONE_STATUS_CODES:
            return None
        _raise_for_refusal(answer, path)
        return answer

    def report_download(self, location: str) -> None:
        """Report a download, as the API's guidelines require.

        Returns if the download was reported, if the photograph no longer exists, or if the request
        was sent and its response was lost; it must not be reported again in any of these cases.

        Args:
            location: The photograph's `download_location`, with its query.

        Raises:
            LimitReached: If the API did not count the request.
            NotReportable: If the location is not at the API, which must not receive the key, or if
                the API rejects the report.
        """
        url = self._report_url(location)
        try:
            answer = self._request(
                url, retry_on=(RetryableError, httpx.ConnectError, httpx.ConnectTimeout)
            )
        except _ResponseLost:
            return
        if answer.status in (401, 403):
            _raise_for_refusal(answer, url.path)
        if answer.status not in (200, *GONE_STATUS_CODES):
            raise NotReportable(f"HTTP {answer.status} ({_error_text(answer)})")

    def _report_url(self, location: str) -> httpx.URL:
        try:
            url = parse_url(location)
        except ValueError:
            raise NotReportable("its download location is not a URL") from None

        is_behind_proxy = url.host == OFFICIAL_HOST != self._base.host
        if is_behind_proxy:
            url = url.copy_with(
                scheme=self._base.scheme,
                host=self._base.host,
                port=self._base.port,
                raw_path=self._base.raw_path.rstrip(b"/") + url.raw_path,
            )
        origin = (url.scheme, url.host, url.port)
        base_origin = (self._base.scheme, self._base.host, self._base.port)
        if origin != base_origin or url.userinfo:
            host = excerpt(url.host)
            raise NotReportable(f"its download location is at {host}, which is not the API")
        return url

    def _get(self, url: httpx.URL) -> Answer:
        while True:
            try:
                return self._request(url, retry_on=(RetryableError, httpx.RequestError))
            except LimitReached:
                continue  # the rate limiter waits before the next request, or raises

    def _request(self, url: httpx.URL, *, retry_on: tuple[type[Exception], ...]) -> Answer:
        """Send a request, with retries. Raises _ResponseLost for other connection errors."""
        try:
            return call_with_retries(
                lambda: self._attempt(url), attempts=self.settings.attempts, retry_on=retry_on
            )
        except retry_on as error:
            raise PartialFailureError(
                f"Unsplash does not answer ({excerpt(str(error)) or type(error).__name__}); "
                "everything collected is kept. Run the command again later"
            ) from error
        except httpx.RequestError as error:
            raise _ResponseLost from error
        except HostRefused as refusal:
            raise UserError(
                f"{self._base.host} is refused ({refusal}); if it is yours, add it to "
                "collect.allowed_hosts"
            ) from refusal

    def _attempt(self, url: httpx.URL) -> Answer:
        self.rate_limiter.before_request()
        answer = request_answer(
            self._client,
            "GET",
            url,
            headers=self._headers,
            total_timeout_s=min(ANSWER_TIMEOUT_S, self.settings.total_timeout_s),
        )
        is_limit = answer.status == 403 and not _is_json_object(answer)
        if answer.status == 429 or is_limit:
            self.rate_limiter.mark_exhausted()
            raise LimitReached

        self.rate_limiter.after_request(
            answer.headers.get("x-ratelimit-limit"),
            answer.headers.get("x-ratelimit-remaining"),
        )
        if answer.status >= 500 or answer.status == 408:
            raise RetryableError(f"HTTP {answer.status}")
        return answer


def _read_access_key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise MissingResourceError(
            f"{KEY_VARIABLE} is not set; create an application at https://unsplash.com/developers "
            "and set the variable to its access key"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{KEY_VARIABLE} holds no access key: it has characters that no key has")
    return key


def _total(body: JsonValue, answer: Answer) -> int | None:
    """The number of photographs of a listing: in the body of a search, else in a header."""
    if not isinstance(body, dict):
        return parse_count(answer.headers.get("x-total"))
    total = body.get("total")
    return total if isinstance(total, int) and 0 <= total <= MAX_TOTAL else None


def _has_next_page(answer: Answer, number: int, total: int | None) -> bool:
    """Whether another page follows, by the Link header or else by the total."""
    if "link" in answer.headers:
        return 'rel="next"' in answer.headers["link"]
    return total is None or number * PHOTOS_PER_PAGE < total


def _raise_for_refusal(answer: Answer, path: str) -> None:
    """Raise UserError for an answer that a retry would not change."""
    if answer.status == 200:
        return
    reason = _error_text(answer)
    if answer.status == 401:
        raise UserError(f"Unsplash does not know the key in {KEY_VARIABLE} ({reason}); check it")
    if answer.status == 403:
        raise UserError(
            f"Unsplash does not permit this request to your application ({reason}); check the "
            "application's page at https://unsplash.com/oauth/applications"
        )
    raise UserError(f"Unsplash refused {excerpt(path)} with HTTP {answer.status} ({reason})")


def _is_json_object(answer: Answer) -> bool:
    """Whether the body is a JSON object. A 403 of the rate limit is plain text, others are JSON."""
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _json(answer: Answer) -> JsonValue:
    try:
        return answer.json()
    except ValueError as error:
        raise PartialFailureError(
            f"the response of Unsplash is not JSON ({excerpt(str(error))}); everything collected "
            "is kept. Run the command again later"
        ) from error


def _error_text(answer: Answer) -> str:
    """The error messages in the body, on one line."""
    try:
        body = answer.json()
    except ValueError:
        return answer.excerpt(100)
    errors = body.get("errors") if isinstance(body, dict) else None
    if not isinstance(errors, list) or not errors:
        return answer.excerpt(100)
    return excerpt("; ".join(map(str, errors)), MAX_ERROR_LENGTH)
