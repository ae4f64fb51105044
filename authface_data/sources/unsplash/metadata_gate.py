"""What the metadata of an Unsplash photograph must show before the photograph is downloaded."""

from __future__ import annotations

import re

from authface_data.http.hosts import AllowedHosts, HostRefused
from authface_data.sources.protocol import RejectedPhoto
from authface_data.sources.remote import SizeFilter
from manifests.workspace import Workspace

UNSPLASH_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
IMAGE_HOST = "images.unsplash.com"
PLUS_URLS = ("https://plus.unsplash.com/", "http://plus.unsplash.com/")
MAX_SIDE_PX = 200_000
MAX_URL_LENGTH = 4096


def image_hosts(workspace: Workspace) -> AllowedHosts:
    """The hosts that photographs may come from: Unsplash's and those of the settings."""
    return AllowedHosts({IMAGE_HOST}, workspace.settings.collect.allowed_hosts)


def reject_by_metadata(
    photo_id: str,
    *,
    url: str,
    width: int,
    height: int,
    size_filter: SizeFilter,
    hosts: AllowedHosts,
) -> RejectedPhoto | None:
    """Check the URL and the size of a photograph.

    Args:
        photo_id: The photograph.
        url: URL of its file.
        width: Width in pixels.
        height: Height in pixels.
        size_filter: The smallest photographs to accept. A rejection by it has a value and a
            threshold, others have none.
        hosts: The hosts that files may come from.

    Returns:
        The rejection, or None if the photograph may be downloaded.
    """
    if not url.isprintable() or " " in url or len(url) > MAX_URL_LENGTH:
        return RejectedPhoto(photo_id, "malformed_url")
    if url.lower().startswith(PLUS_URLS):
        return RejectedPhoto(photo_id, "unsplash_plus: watermarked, and its terms forbid training")
    try:
        hosts.check(url)
    except HostRefused as refusal:
        return RejectedPhoto(photo_id, str(refusal))

    if not 1 <= width <= MAX_SIDE_PX or not 1 <= height <= MAX_SIDE_PX:
        return RejectedPhoto(photo_id, "size: none that a photograph has")
    long_side_px = max(width, height)
    if long_side_px < size_filter.min_long_side_px:
        return RejectedPhoto(
            photo_id,
            "long_side_px < min_long_side_px",
            long_side_px,
            size_filter.min_long_side_px,
        )
    megapixels = width * height / 1e6
    if megapixels < size_filter.min_megapixels:
        return RejectedPhoto(
            photo_id, "megapixels < min_megapixels", megapixels, size_filter.min_megapixels
        )
    return None
