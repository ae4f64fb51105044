"""Collection from the Unsplash API: permission, plan, collection and required reports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import model_validator

from authface_data.sources.protocol import (
    CollectReport,
    Offer,
    RefreshReport,
    RunOptions,
    SourceOptions,
    Text,
)
from authface_data.sources.refresh import record_vanished
from authface_data.sources.remote import DEFAULT_BYTES_PER_PX, RemoteOptions
from authface_data.sources.unsplash.client import (
    PHOTOS_PER_PAGE,
    Listing,
    ListingKind,
    ListingRefused,
    UnsplashApi,
)
from authface_data.sources.unsplash.listings import ListingReader
from authface_data.sources.unsplash.metadata_gate import image_hosts, reject_by_metadata
from authface_data.sources.unsplash.preview import make_collector
from authface_data.sources.unsplash.rate_limiter import RateLimiter, RateLimitReached
from authface_data.sources.unsplash.reporting import (
    SOURCE,
    fetch_details,
    find_vanished,
    report_downloads,
)
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.text import count_of
from manifests.workspace import Workspace

PERMISSION_FILE = "unsplash-permission.txt"
DEMO_REQUESTS_PER_HOUR = 50
"""The limit of a new application, until the API reports the actual one."""


class UnsplashOptions(RemoteOptions):
    """Options of the Unsplash API."""

    query: tuple[Text, ...] = ()
    topic: tuple[Text, ...] = ()
    collection: tuple[Text, ...] = ()
    user: tuple[Text, ...] = ()
    orientation: Literal["landscape", "portrait", "squarish"] | None = None
    content_filter: Literal["low", "high"] | None = None
    order_by: str | None = None
    details: bool = False
    """Fetch camera data and tags too, with one more request for each photograph."""
    i_have_permission: Text | None = None
    """The permission that the user has, and from whom."""
    no_wait: bool = False
    """Stop when the hour's requests are spent, instead of waiting for the next hour."""

    @model_validator(mode="after")
    def _check_listings(self) -> UnsplashOptions:
        listings = self.listings()
        if not listings:
            raise ValueError("give at least one of --query, --topic, --collection and --user")
        for listing in listings:
            if listing.name in ("", ".", ".."):
                raise ValueError(f"--{listing.kind} {listing.name!r} is not a valid name")
        return self

    def listings(self) -> list[Listing]:
        """The listings to collect from, without repetitions."""
        names: dict[ListingKind, tuple[str, ...]] = {
            "query": self.query,
            "topic": self.topic,
            "collection": self.collection,
            "user": self.user,
        }
        return [
            Listing(kind, name, self.orientation, self.content_filter, self.order_by)
            for kind, kind_names in names.items()
            for name in dict.fromkeys(kind_names)
        ]


@dataclass(frozen=True)
class ApiPlan:
    """An estimate of a collection from the first page of each listing."""

    found: dict[str, int]
    """Photographs in each listing."""
    passing_share: float
    """Share of the first pages' photographs that pass the metadata gate."""
    downloads: int
    pages: int
    requests: int
    limit_per_hour: int
    remaining_now: int | None
    """Requests left in this hour, if known."""
    hours: float
    previews: int
    bytes: int

    def lines(self) -> list[str]:
        """The estimate in plain text."""
        lines = [f"{name}: {count_of(count, 'photograph')}" for name, count in self.found.items()]
        lines.append(
            f"{self.passing_share:.0%} of the first pages pass the metadata gate: about "
            f"{self.downloads:,} downloads"
        )
        lines.append(
            f"{self.requests:,} requests ({self.pages:,} for pages, one or two for each download): "
            f"{self.hours:.1f} hours at {self.limit_per_hour:,} requests an hour"
        )
        previews = f", {self.previews:,} previews" if self.previews else ""
        lines.append(f"about {self.bytes / 1e9:.1f} GB of photographs{previews}")
        return lines


class UnsplashSource:
    """The Unsplash API. Its terms require a permission for use with machine learning.

    Args:
        workspace: The workspace to fill.
        options: What to collect.
    """

    name: ClassVar[str] = SOURCE
    options_model: ClassVar[type[SourceOptions]] = UnsplashOptions

    def __init__(self, workspace: Workspace, options: UnsplashOptions) -> None:
        self.workspace = workspace
        self.options = options
        self.settings = workspace.settings.collect
        self.hosts = image_hosts(workspace)
        self.size_filter = options.size_filter(self.settings)
        self.listings = options.listings()
        self._num_reported = 0
        self._limit_error: RateLimitReached | None = None

    @cached_property
    def licence_basis(self) -> str:
        """The licence basis of every photograph: the user's statement, stored in the workspace.

        Raises:
            UserError: If the user has never stated a permission.
        """
        statement = self.options.i_have_permission
        if statement is not None:
            permission = " ".join(statement.split())
            if not permission:
                raise UserError(
                    "--i-have-permission is empty; state what permission you have, and from whom"
                )
            self.workspace.write_bytes(PERMISSION_FILE, permission.encode())
        elif self.workspace.exists(PERMISSION_FILE):
            permission = self.workspace.read_bytes(PERMISSION_FILE).decode("utf-8", "replace")
        else:
            raise UserError(
                "Unsplash restricts the use of its photographs with machine learning (see "
                "docs/licences-and-consent.md). Use its data set, which permits it (--source "
                "unsplash-dataset), or state your permission once with "
                '--i-have-permission "WHAT, FROM WHOM"'
            )
        return f"unsplash-api+permission:{permission}"

    @cached_property
    def _api(self) -> UnsplashApi:
        return _open_api(self.workspace, wait=not self.options.no_wait)

    @cached_property
    def _reader(self) -> ListingReader:
        return ListingReader(
            self.workspace,
            self._api,
            licence_basis=self.licence_basis,
            size_filter=self.size_filter,
            hosts=self.hosts,
        )

    def photos(self) -> Iterator[Offer]:
        """Describe the photographs of all listings.

        Raises:
            RateLimitReached: If no request is left and the user does not want to wait.
        """
        yield from self._reader.offers(self.listings)

    def collect(self, run: RunOptions) -> CollectReport:
        """Collect the listings and report each download to Unsplash."""
        reader = self._reader
        collector = make_collector(self.workspace, self.name, self.hosts, run, self.options)

        report = collector.report
        with self._api as api:
            try:
                collector.collect(
                    self._photos_within_limit(), after_chunk=self._report_within_limit
                )
                self._report_within_limit()
                if self.options.details and self._limit_error is None:
                    report.vanished = fetch_details(self.workspace, api, self.settings.store_place)
                    record_vanished(self.workspace, report.vanished)
                if self._limit_error is None:
                    reader.remove_cached_pages(self.listings)
            except RateLimitReached as error:
                self._limit_error = error

        report.notes.append(
            f"{self._num_reported} downloads reported to Unsplash, "
            f"{api.rate_limiter.requests} requests made"
        )
        report.error = self._limit_error or _refused_error(reader.refused, report)
        return report

    def _photos_within_limit(self) -> Iterator[Offer]:
        """The photographs, ending at the rate limit: those listed before are still collected."""
        try:
            yield from self.photos()
        except RateLimitReached as error:
            self._limit_error = error

    def _report_within_limit(self) -> None:
        """Report downloads. The rate limit does not end the downloads, which do not count."""
        try:
            self._num_reported += report_downloads(self.workspace, self._api)
        except RateLimitReached as error:
            self._limit_error = error

    def plan(self) -> ApiPlan:
        """Estimate the collection from the first page of each listing."""
        found: dict[str, int] = {}
        num_checked = 0
        num_passing = 0
        passing_px = 0
        with self._api as api:
            for listing in self.listings:
                try:
                    page = api.fetch_page(listing, 1)
                except ListingRefused as refusal:
                    raise UserError(str(refusal)) from refusal
                total = len(page.photos) if page.total is None else page.total
                found[f"{listing.kind} {listing.name}"] = total
                for photo in page.photos:
                    num_checked += 1
                    rejected = reject_by_metadata(
                        photo.id,
                        url=photo.urls.raw,
                        width=photo.width,
                        height=photo.height,
                        size_filter=self.size_filter,
                        hosts=self.hosts,
                    )
                    if rejected is None:
                        num_passing += 1
                        passing_px += photo.width * photo.height

        passing_share = num_passing / num_checked if num_checked else 0.0
        num_found = sum(found.values())
        downloads = round(num_found * passing_share)
        if self.options.max_photos is not None:
            downloads = min(downloads, self.options.max_photos)
        num_listed = num_found
        if passing_share:
            num_listed = min(num_found, math.ceil(downloads / passing_share))
        pages = math.ceil(num_listed / PHOTOS_PER_PAGE)
        requests = pages + downloads * (2 if self.options.details else 1)
        limit_per_hour = api.rate_limiter.limit or DEMO_REQUESTS_PER_HOUR
        mean_px = passing_px / num_passing if num_passing else 0
        return ApiPlan(
            found=found,
            passing_share=passing_share,
            downloads=downloads,
            pages=pages,
            requests=requests,
            limit_per_hour=limit_per_hour,
            remaining_now=api.rate_limiter.remaining,
            hours=requests / limit_per_hour,
            previews=downloads if self.options.uses_face_gate(self.settings) else 0,
            bytes=round(downloads * mean_px * DEFAULT_BYTES_PER_PX),
        )

    @classmethod
    def refresh(cls, workspace: Workspace, wait: bool) -> RefreshReport:
        """Look up every photograph of this source at the API."""
        with _open_api(workspace, wait) as api:
            return find_vanished(workspace, api)


def _open_api(workspace: Workspace, wait: bool) -> UnsplashApi:
    settings = workspace.settings.collect
    rate_limiter = RateLimiter(workspace, settings.unsplash.window_s, wait)
    return UnsplashApi(settings, rate_limiter)


def _refused_error(
    refused: list[str], report: CollectReport
) -> UserError | PartialFailureError | None:
    """The error for listings that the API refused; a partial failure if others had photographs."""
    if not refused:
        return None
    message = "; ".join(refused)
    if report.collected or report.already_present:
        return PartialFailureError(message)
    return UserError(message)
