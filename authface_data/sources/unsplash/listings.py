"""Pages of Unsplash's listings, each kept when it was read, so that a killed collection asks for none of them twice.

A kept page holds what is used of it and no place. When a collection has come to its end its pages go; the next one asks anew.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from authface_data.http.hosts import AllowedHosts, HostRefused
from authface_data.sources.remote import Candidate, Flush, Offer, Rejected
from authface_data.sources.unsplash.client import Listing, ListingRefused, Photo, UnsplashApi
from manifests.support.console import console
from manifests.support.fingerprint import fingerprint
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

FOLDER = "cache/unsplash/listings"
PLUS = ("https://plus.unsplash.com/", "http://plus.unsplash.com/")
IMAGE_HOST = "images.unsplash.com"
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PREFIX = "us_"
MOST_SIDE_PX = 200_000


@dataclass(frozen=True)
class SizeFilter:
    """What of a photograph its metadata must show."""

    min_megapixels: float
    min_long_side_px: int


class ListingReader:
    """Reads listings, several in turn, page by page: what was kept from the disk, the rest from the API."""

    def __init__(
        self,
        workspace: Workspace,
        api: UnsplashApi,
        licence_basis: str,
        wanted: SizeFilter,
        allowed: Callable[[str], None],
    ):
        self.ws, self.api, self.basis, self.wanted, self.allowed = (
            workspace,
            api,
            licence_basis,
            wanted,
            allowed,
        )
        self.refused: list[str] = []

    def offers(self, listings: list[Listing]) -> Iterator[Offer]:
        """Every photograph of the listings, one page of each in turn."""
        open_, number = list(listings), 1
        seen: dict[Listing, set[str]] = {listing: set() for listing in listings}
        while open_:
            for listing in list(open_):
                path = f"{_folder(listing)}/{number:05d}.json"
                if not self.ws.exists(path):
                    if self.api.budget.is_spent:
                        yield Flush()
                    if not self._fetch(listing, number, path):
                        open_.remove(listing)
                        continue
                page = json.loads(self.ws.read_bytes(path))
                yield from map(self._offer, page["photos"])
                ids = {row["id"] for row in page["photos"]}
                if (
                    not page["has_next"] or ids <= seen[listing]
                ):  # the end, or a server that repeats itself
                    open_.remove(listing)
                seen[listing] |= ids
            number += 1

    def _fetch(self, listing: Listing, number: int, path: str) -> bool:
        """Ask for a page and keep it. False where the listing is refused."""
        try:
            page = self.api.page(listing, number)
        except ListingRefused as refusal:
            self.refused.append(str(refusal))
            console.print(f"[yellow]Passed over:[/] {escape(str(refusal))}")
            return False
        rows: list[dict[str, Any]] = [_kept(photo) for photo in page.photos]
        rows += [{"id": unsplash_id} for unsplash_id in page.unread if ID.fullmatch(unsplash_id)]
        self.ws.write_bytes(path, json.dumps({"photos": rows, "has_next": page.has_next}).encode())
        return True

    def forget_pages(self, listings: list[Listing]) -> None:
        """Remove what was kept of listings."""
        for listing in listings:
            for name in self.ws.list(_folder(listing)):
                self.ws.remove(f"{_folder(listing)}/{name}")

    def _offer(self, row: dict[str, Any]) -> Offer:
        photo_id = PREFIX + row["id"]
        if "url" not in row:
            return Rejected(photo_id, "unreadable: the answer lacks what every photograph has")
        why = turned(row["url"], row["width"], row["height"], self.wanted, self.allowed)
        if why is not None:
            return dataclasses.replace(why, photo_id=photo_id)
        columns = {
            "licence_basis": self.basis,
            "licence": "Unsplash License",
            "terms_date": f"{datetime.now(UTC):%Y-%m-%d}",
            "source_url": row["page"],
            "photographer_name": row["photographer"],
            "photographer_url": row["photographer_url"],
            "description": row["description"],
            "download_location": row["download_location"],
        }
        return Candidate(photo_id, row["url"], row["width"], row["height"], columns)


def turned(
    url: str, width: int, height: int, wanted: SizeFilter, allowed: Callable[[str], None]
) -> Rejected | None:
    """Why a photograph is not to be downloaded, by its URL and size; None where it may. `allowed` raises for a host."""
    if not url.isprintable() or " " in url:
        return Rejected("", "malformed_url")
    if url.lower().startswith(PLUS):
        return Rejected("", "unsplash_plus: watermarked, and its terms forbid training")
    try:
        allowed(url)
    except HostRefused as refusal:
        return Rejected("", str(refusal))
    if not 1 <= width <= MOST_SIDE_PX or not 1 <= height <= MOST_SIDE_PX:
        return Rejected("", "size: none that a photograph has")
    if max(width, height) < wanted.min_long_side_px:
        return Rejected(
            "", "long_side_px < min_long_side_px", max(width, height), wanted.min_long_side_px
        )
    if width * height / 1e6 < wanted.min_megapixels:
        return Rejected(
            "", "megapixels < min_megapixels", width * height / 1e6, wanted.min_megapixels
        )
    return None


def hosts_of(ws: Workspace) -> AllowedHosts:
    """Where photographs may come from."""
    return AllowedHosts({IMAGE_HOST}, ws.settings.collect.allowed_hosts)


def _folder(listing: Listing) -> str:
    return f"{FOLDER}/{fingerprint(**dataclasses.asdict(listing))}"


def _kept(photo: Photo) -> dict[str, Any]:
    if not ID.fullmatch(photo.id):
        return {"id": re.sub(r"[^A-Za-z0-9_-]", "_", photo.id)[:64] or "_"}
    return {
        "id": photo.id,
        "width": photo.width,
        "height": photo.height,
        "url": to_utf8(photo.urls.raw),
        "page": to_utf8(photo.links.html),
        "download_location": to_utf8(photo.links.download_location),
        "photographer": to_utf8(photo.user.full_name),
        "photographer_url": to_utf8(photo.user.links.html)
        if photo.user.links
        else f"https://unsplash.com/@{photo.user.username}",
        "description": to_utf8(photo.description or photo.alt_description or "") or None,
    }
