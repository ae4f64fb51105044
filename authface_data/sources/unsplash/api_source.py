"""Collecting from the Unsplash API: permission, the plan, the collection, what is owed afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.markup import escape

from authface_data.sources.refresh import suggest
from authface_data.sources.remote import USUAL_BYTES_PER_PX, RemoteCollector, Tally
from authface_data.sources.unsplash.client import PER_PAGE, Listing, ListingRefused, UnsplashApi
from authface_data.sources.unsplash.listings import ListingReader, SizeFilter, hosts_of, turned
from authface_data.sources.unsplash.rate_limiter import RateLimiter, RateLimitReached
from authface_data.sources.unsplash.reporting import (
    SOURCE,
    ask_again,
    fetch_details,
    report_downloads,
)
from manifests.support.console import console
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

PERMISSION = "unsplash-permission.txt"
DEMO_LIMIT = 50


@dataclass(frozen=True)
class Request:
    """What the user asks of the API source."""

    listings: list[Listing]
    wanted: SizeFilter
    max_photos: int | None
    face_gate: bool
    details: bool
    wait: bool


def licence_basis(ws: Workspace, permission: str | None) -> str:
    """The basis that every row carries: the user's statement, asked for once and kept in the workspace.

    Raises UserError where none was made.
    """
    if permission is not None:
        words = " ".join(to_utf8(permission).split())
        if not words:
            raise UserError(
                "--i-have-permission is empty: say what permission you have, and from whom"
            )
        ws.write_bytes(PERMISSION, words.encode())
    elif ws.exists(PERMISSION):
        words = ws.read_bytes(PERMISSION).decode()
    else:
        raise UserError(
            "Unsplash restricts using its photographs with machine learning (see docs/licences-and-consent.md; its data set "
            'grants it: --source unsplash-dataset). If you have permission, say so once: --i-have-permission "WHAT, FROM WHOM"'
        )
    return f"unsplash-api+permission:{words}"


def collect(
    ws: Workspace, request: Request, basis: str, retry_failed: bool, workers: int | None
) -> Tally:
    """Fill the workspace. Raises PartialFailureError where the budget did not suffice or a listing was refused, all work kept."""
    settings, hosts = ws.settings.collect, hosts_of(ws)
    budget = RateLimiter(ws, settings.unsplash.window_s, request.wait)
    collector = RemoteCollector(
        ws,
        SOURCE,
        hosts,
        max_photos=request.max_photos,
        face_gate=request.face_gate,
        retry_failed=retry_failed,
        workers=workers,
    )
    reported = 0
    spent: RateLimitReached | None = None
    with UnsplashApi(settings, budget) as api:
        pages = ListingReader(ws, api, basis, request.wanted, hosts.check)

        def report() -> None:
            nonlocal reported, spent
            try:
                reported += report_downloads(ws, api)
            except RateLimitReached as error:  # photographs are not counted, and still come
                spent = error

        def offers():
            nonlocal spent
            try:
                yield from pages.offers(request.listings)
            except RateLimitReached as error:  # what was listed is still taken
                spent = error

        try:
            tally = collector.take(offers(), after_chunk=report)
            report()
            if request.details and spent is None:
                gone = fetch_details(ws, api, settings.store_place)
                suggest(ws, gone)
            if spent is None:
                pages.forget_pages(request.listings)
        except RateLimitReached as error:
            spent, tally = error, collector.tally
    console.print(
        f"{tally.words()}; {reported} downloads reported, {budget.requests} requests made"
    )
    if spent is not None:
        raise spent
    if pages.refused:
        words = "; ".join(pages.refused)
        raise PartialFailureError(words) if tally.collected or tally.already else UserError(words)
    return tally


@dataclass(frozen=True)
class Plan:
    """What a collection would take. bytes, hours: estimates from the first page of each listing."""

    found: dict[str, int]
    passing_share: float
    downloads: int
    pages: int
    requests: int
    limit_per_hour: int
    remaining_now: int | None
    hours: float
    previews: int
    bytes: int

    def say(self) -> None:
        for name, count in self.found.items():
            console.print(f"{escape(name)}: {count:,} photographs")
        console.print(
            f"{self.passing_share:.0%} of the first pages pass the metadata gate: about {self.downloads:,} downloads"
        )
        console.print(
            f"{self.requests:,} requests ({self.pages:,} pages, the rest one or two per download): "
            f"{self.hours:.1f} hours at {self.limit_per_hour:,} an hour"
        )
        console.print(
            f"about {self.bytes / 1e9:.1f} GB of photographs"
            + (f", {self.previews:,} previews" if self.previews else "")
        )


def plan(ws: Workspace, request: Request) -> Plan:
    """Ask for the first page of each listing, and reckon from it."""
    settings, hosts = ws.settings.collect, hosts_of(ws)
    budget = RateLimiter(ws, settings.unsplash.window_s, request.wait)
    found: dict[str, int] = {}
    looked, passing, pixels = 0, 0, 0
    with UnsplashApi(settings, budget) as api:
        for listing in request.listings:
            try:
                page = api.page(listing, 1)
            except ListingRefused as refusal:
                raise UserError(str(refusal)) from refusal
            found[f"{listing.kind} {listing.name}"] = (
                len(page.photos) if page.total is None else page.total
            )
            for photo in page.photos:
                looked += 1
                if (
                    turned(photo.urls.raw, photo.width, photo.height, request.wanted, hosts.check)
                    is None
                ):
                    passing += 1
                    pixels += photo.width * photo.height
    share = passing / looked if looked else 0.0
    passes = round(sum(found.values()) * share)
    downloads = passes if request.max_photos is None else min(passes, request.max_photos)
    candidates = (
        sum(found.values()) if not share else min(sum(found.values()), math.ceil(downloads / share))
    )
    pages = math.ceil(candidates / PER_PAGE)
    requests = pages + downloads * (2 if request.details else 1)
    limit = budget.limit or DEMO_LIMIT
    return Plan(
        found=found,
        passing_share=share,
        downloads=downloads,
        pages=pages,
        requests=requests,
        limit_per_hour=limit,
        remaining_now=budget.remaining,
        hours=requests / limit,
        previews=downloads if request.face_gate else 0,
        bytes=round(downloads * (pixels / passing if passing else 0) * USUAL_BYTES_PER_PX),
    )


def refresh(ws: Workspace, wait: bool) -> tuple[int, int]:
    """Ask for every photograph again: (how many were asked, how many are gone)."""
    budget = RateLimiter(ws, ws.settings.collect.unsplash.window_s, wait)
    with UnsplashApi(ws.settings.collect, budget) as api:
        return ask_again(ws, api)
