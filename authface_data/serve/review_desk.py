"""The review page of a running server: its pictures, and answers that go straight into decisions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from PIL import Image

from authface_data.images.encode import encode_image
from authface_data.images.stored_picture import read_stored_picture
from authface_data.review.faces import ReviewFace, faces_to_review
from authface_data.review.import_table import last_answers, read_review_table, record_reviews
from authface_data.review.sheet import (
    DETAIL_QUALITY,
    FINE_QUALITY,
    THUMBNAIL_QUALITY,
    draw_details,
    draw_thumbnail,
    render_sheet,
    select_pictured_faces,
)
from manifests.support import html_page
from manifests.support.errors import UserError
from manifests.workspace import Workspace

PICTURES = {
    "thumbnail": THUMBNAIL_QUALITY,
    "eye": DETAIL_QUALITY,
    "cheek": DETAIL_QUALITY,
    "crop": FINE_QUALITY,
}
"""Pictures of a face and their JPEG quality."""
MAX_CACHED_CROPS = 16


class WorkspaceLockedError(Exception):
    """Another process writes to the workspace; the answers can be saved later."""


class ReviewDesk:
    """Shows faces for review and records the answers.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._shown: dict[str, ReviewFace] = {}
        self._saving = threading.Lock()
        self._read_crop = lru_cache(MAX_CACHED_CROPS)(self._read_crop_uncached)

    def render(self, near_threshold: int | None = None, sample: int | None = None) -> str:
        """Render the page with the present faces, see `faces_to_review`.

        Args:
            near_threshold: Show this many faces that are nearest to a threshold.
            sample: Show this many random faces.

        Raises:
            UserError: If there are no faces, or if a crop is missing.
        """
        faces = faces_to_review(Workspace(self._workspace.root), near_threshold, sample)
        if not faces:
            raise UserError("no faces to review; run `authface filter` first")
        shown: Sequence[ReviewFace] = list(select_pictured_faces(self._workspace, faces))
        self._shown |= {face.face_id: face for face in shown}
        storage = html_page.read_asset("authface_data.serve", "server_storage.js")
        return render_sheet(
            self._workspace,
            shown,
            [_picture_addresses(face) for face in shown],
            storage=storage,
            is_served=True,
        )

    def picture(self, face_id: str, kind: str) -> bytes | None:
        """Encode a picture of a face that the page shows.

        Args:
            face_id: The face.
            kind: A key of `PICTURES`.

        Returns:
            A JPEG file, or None if the page shows no such picture.
        """
        face = self._shown.get(face_id)
        if face is None or kind not in PICTURES:
            return None
        picture = self._read_crop(face.crop_path)
        if kind == "thumbnail":
            picture = draw_thumbnail(picture)
        elif kind != "crop":
            eye, cheek = draw_details(face, picture)
            picture = eye if kind == "eye" else cheek
        return encode_image(picture, quality=PICTURES[kind])

    def answers(self, reviewer: str) -> dict[str, dict[str, str]]:
        """The stored answers of a reviewer, face_id -> field -> text."""
        return last_answers(self._workspace, " ".join(reviewer.split()))

    def save(self, table: bytes) -> int:
        """Record answers as `authface review import` does.

        Args:
            table: A review table with the rows that the reviewer changed.

        Returns:
            The number of rows that were new.

        Raises:
            WorkspaceLockedError: If another process writes to the workspace.
            UserError: If a row has a mistake; nothing is recorded then.
        """
        with self._saving:
            lock = self._workspace.lock("serve")
            try:
                lock.__enter__()
            except UserError as error:
                raise WorkspaceLockedError(str(error)) from error
            try:
                reviews = read_review_table(self._workspace, table, "").new
                record_reviews(self._workspace, reviews, datetime.now(UTC))
            finally:
                lock.__exit__(None, None, None)
        return len(reviews)

    def _read_crop_uncached(self, path: str) -> Image.Image:
        return read_stored_picture(self._workspace, path)


def _picture_addresses(face: ReviewFace) -> dict[str, str]:
    """Addresses relative to the page. The content id makes a browser reload a changed crop."""
    content_id = face.snapshot.content_id
    return {kind: f"pictures/{face.face_id}/{kind}?{content_id}" for kind in PICTURES}
