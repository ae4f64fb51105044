"""Listings of the Unsplash API, read page by page and cached.

A killed collection requests no page twice. A cached page holds only what is used, and no place. The
pages are removed when a collection has finished; the next one reads the listings anew.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from authface_data.http.hosts import AllowedHosts
from authface_data.sources.protocol import Flush, Offer, PhotoInput, RejectedPhoto
from authface_data.sources.remote import SizeFilter
from authface_data.sources.unsplash.client import Listing, ListingRefused, UnsplashApi
from authface_data.sources.unsplash.metadata_gate import (
    UNSPLASH_ID,
    reject_by_metadata,
)
from authface_data.sources.unsplash.responses import Photo
from authface_data.sources.unsplash.stored_names import LISTINGS_FOLDER, PHOTO_ID_PREFIX
from manifests.support.fingerprint import fingerprint
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)


class ListingReader:
    """Reads several listings in turns, page by page, from the cache or from the API.

    Args:
        workspace: Holds the cached pages.
        api: Fetches the pages that are not cached.
        licence_basis: Licence basis of the photographs.
        size_filter: The smallest photographs to accept.
        hosts: The hosts that files may come from.
    """

    def __init__(
        self,
        workspace: Workspace,
        api: UnsplashApi,
        *,
        licence_basis: str,
        size_filter: SizeFilter,
        hosts: AllowedHosts,
    ) -> None:
        self.workspace = workspace
        self.api = api
        self.licence_basis = licence_basis
        self.size_filter = size_filter
        self.hosts = hosts
        self.refused: list[str] = []
        """Messages about listings that the API refused."""

    def offers(self, listings: list[Listing]) -> Iterator[Offer]:
        """Yield the photographs of all listings, one page of each listing in turn."""
        unfinished = list(listings)
        seen: dict[Listing, set[str]] = {listing: set() for listing in listings}
        number = 1
        while unfinished:
            for listing in list(unfinished):
                path = f"{_folder(listing)}/{number:05d}.json"
                if not self.workspace.exists(path):
                    if self.api.rate_limiter.is_exhausted:
                        yield Flush()
                    if not self._fetch_page(listing, number, path):
                        unfinished.remove(listing)
                        continue

                page = json.loads(self.workspace.read_bytes(path))
                for row in page["photos"]:
                    yield self._offer(row)
                ids = {row["id"] for row in page["photos"]}
                repeats_itself = ids <= seen[listing]
                if not page["has_next"] or repeats_itself:
                    unfinished.remove(listing)
                seen[listing] |= ids
            number += 1

    def _fetch_page(self, listing: Listing, number: int, path: str) -> bool:
        """Fetch a page and cache it. Returns False if the API refuses the listing."""
        try:
            page = self.api.fetch_page(listing, number)
        except ListingRefused as refusal:
            self.refused.append(str(refusal))
            logger.warning("skipped: %s", refusal)
            return False

        rows = [_cached_row(photo) for photo in page.photos]
        rows += [
            {"id": photo_id} for photo_id in page.unparsed_ids if UNSPLASH_ID.fullmatch(photo_id)
        ]
        content = {"photos": rows, "has_next": page.has_next}
        self.workspace.write_bytes(path, json.dumps(content).encode())
        return True

    def remove_cached_pages(self, listings: list[Listing]) -> None:
        """Remove the cached pages of listings."""
        for listing in listings:
            for name in self.workspace.list_names(_folder(listing)):
                self.workspace.remove(f"{_folder(listing)}/{name}")

    def _offer(self, row: dict[str, Any]) -> Offer:
        """The photograph of a cached row, or its rejection."""
        photo_id = PHOTO_ID_PREFIX + row["id"]
        if "url" not in row:
            return RejectedPhoto(photo_id, "unreadable: the answer lacks what every photograph has")
        rejected = reject_by_metadata(
            photo_id,
            url=row["url"],
            width=row["width"],
            height=row["height"],
            size_filter=self.size_filter,
            hosts=self.hosts,
        )
        if rejected is not None:
            return rejected
        columns = {
            "licence_basis": self.licence_basis,
            "licence": "Unsplash License",
            "terms_date": f"{datetime.now(UTC):%Y-%m-%d}",
            "source_url": row["page"],
            "photographer_name": row["photographer"],
            "photographer_url": row["photographer_url"],
            "description": row["description"],
            "download_location": row["download_location"],
        }
        return PhotoInput(
            photo_id=photo_id,
            url=row["url"],
            width=row["width"],
            height=row["height"],
            columns=columns,
        )


def _folder(listing: Listing) -> str:
    return f"{LISTINGS_FOLDER}/{fingerprint(**dataclasses.asdict(listing))}"


def _cached_row(photo: Photo) -> dict[str, object]:
    """What is cached of a photograph; only an id if the id is malformed."""
    if not UNSPLASH_ID.fullmatch(photo.id):
        return {"id": re.sub(r"[^A-Za-z0-9_-]", "_", photo.id)[:64] or "_"}

    photographer_url = f"https://unsplash.com/@{photo.user.username}"
    if photo.user.links:
        photographer_url = to_utf8(photo.user.links.html)
    return {
        "id": photo.id,
        "width": photo.width,
        "height": photo.height,
        "url": to_utf8(photo.urls.raw),
        "page": to_utf8(photo.links.html),
        "download_location": to_utf8(photo.links.download_location),
        "photographer": to_utf8(photo.user.full_name),
        "photographer_url": photographer_url,
        "description": to_utf8(photo.description or photo.alt_description or "") or None,
    }
