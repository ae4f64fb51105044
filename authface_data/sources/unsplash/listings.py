"""Listings of the Unsplash API, read page by page and cached.

A killed collection requests no page twice. A cached page holds only what is used, and no place. The
pages are removed when a collection has finished; the next one reads the listings anew.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import BaseModel

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
from manifests.support.parsing import parse_json
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)


class _CachedPhoto(BaseModel):
    """What is cached of a photograph; only the id if the API's description of it is incomplete."""

    id: str
    url: str | None = None
    width: int = 0
    height: int = 0
    page: str | None = None
    download_location: str | None = None
    photographer: str | None = None
    photographer_url: str | None = None
    description: str | None = None


class _CachedPage(BaseModel):
    """A page of a listing in the cache."""

    photos: list[_CachedPhoto]
    has_next: bool


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
                page = self._read_page(path)
                if page is None:
                    if self.api.rate_limiter.is_exhausted:
                        yield Flush()
                    page = self._fetch_page(listing, number, path)
                if page is None:
                    unfinished.remove(listing)
                    continue

                for row in page.photos:
                    yield self._offer(row)
                ids = {row.id for row in page.photos}
                repeats_itself = ids <= seen[listing]
                if not page.has_next or repeats_itself:
                    unfinished.remove(listing)
                seen[listing] |= ids
            number += 1

    def _read_page(self, path: str) -> _CachedPage | None:
        """Read a page from the cache. Returns None if it is missing or damaged."""
        if not self.workspace.exists(path):
            return None
        try:
            return _CachedPage.model_validate(parse_json(self.workspace.read_bytes(path)))
        except ValueError:
            return None

    def _fetch_page(self, listing: Listing, number: int, path: str) -> _CachedPage | None:
        """Fetch a page and cache it. Returns None if the API refuses the listing."""
        try:
            page = self.api.fetch_page(listing, number)
        except ListingRefused as refusal:
            self.refused.append(str(refusal))
            logger.warning("skipped: %s", refusal)
            return None

        photos = [_cached_photo(photo) for photo in page.photos]
        photos += [
            _CachedPhoto(id=photo_id)
            for photo_id in page.unparsed_ids
            if UNSPLASH_ID.fullmatch(photo_id)
        ]
        cached = _CachedPage(photos=photos, has_next=page.has_next)
        self.workspace.write_bytes(path, cached.model_dump_json(exclude_defaults=True).encode())
        return cached

    def remove_cached_pages(self, listings: list[Listing]) -> None:
        """Remove the cached pages of listings."""
        for listing in listings:
            for name in self.workspace.list_names(_folder(listing)):
                self.workspace.remove(f"{_folder(listing)}/{name}")

    def _offer(self, photo: _CachedPhoto) -> Offer:
        """A cached photograph, or its rejection."""
        photo_id = PHOTO_ID_PREFIX + photo.id
        if photo.url is None:
            return RejectedPhoto(photo_id, "unreadable: the answer lacks what every photograph has")
        rejected = reject_by_metadata(
            photo_id,
            url=photo.url,
            width=photo.width,
            height=photo.height,
            size_filter=self.size_filter,
            hosts=self.hosts,
        )
        if rejected is not None:
            return rejected
        columns = {
            "licence_basis": self.licence_basis,
            "licence": "Unsplash License",
            "terms_date": f"{datetime.now(UTC):%Y-%m-%d}",
            "source_url": photo.page,
            "photographer_name": photo.photographer,
            "photographer_url": photo.photographer_url,
            "description": photo.description,
            "download_location": photo.download_location,
        }
        return PhotoInput(
            photo_id=photo_id,
            url=photo.url,
            width=photo.width,
            height=photo.height,
            columns=columns,
        )


def _folder(listing: Listing) -> str:
    return f"{LISTINGS_FOLDER}/{fingerprint(**dataclasses.asdict(listing))}"


def _cached_photo(photo: Photo) -> _CachedPhoto:
    """What is cached of a photograph; only an id if the id is malformed."""
    if not UNSPLASH_ID.fullmatch(photo.id):
        return _CachedPhoto(id=re.sub(r"[^A-Za-z0-9_-]", "_", photo.id)[:64] or "_")

    photographer_url = f"https://unsplash.com/@{photo.user.username}"
    if photo.user.links:
        photographer_url = photo.user.links.html
    return _CachedPhoto(
        id=photo.id,
        width=photo.width,
        height=photo.height,
        url=to_utf8(photo.urls.raw),
        page=to_utf8(photo.links.html),
        download_location=to_utf8(photo.links.download_location),
        photographer=to_utf8(photo.user.full_name),
        photographer_url=to_utf8(photographer_url),
        description=to_utf8(photo.description or photo.alt_description or "") or None,
    )
