"""Names that the Unsplash source stores in workspaces.

They are apart from the source, so that `authface forget` works without the HTTP libraries.
"""

PHOTO_ID_PREFIX = "us_"
"""Prefix of the photo_id; the id on Unsplash follows."""
LISTINGS_FOLDER = "cache/unsplash/listings"
"""Folder of a workspace with the stored listings of the API."""
