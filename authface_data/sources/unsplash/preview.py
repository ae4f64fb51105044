"""The preview gate: a photograph is downloaded only if its small version shows a face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from authface_data.faces.detect import detect_faces
from authface_data.faces.stage import FaceDetection
from authface_data.http.download import Downloaded, Downloader, DownloadJob, DownloadRefused
from authface_data.http.hosts import AllowedHosts
from authface_data.images.open import PICTURE_ERRORS, Photo
from authface_data.sources.protocol import PhotoInput, RejectedPhoto, RunOptions
from authface_data.sources.remote import RemoteCollector, RemoteOptions
from manifests.support.fingerprint import short_hash
from manifests.support.progress import track
from manifests.workspace import Workspace

PREVIEWS_FOLDER = "cache/previews"


def preview_url(url: str) -> str:
    """The URL of the same photograph 1080 px wide; other parameters of the URL are kept."""
    size = {"w": "1080", "fm": "jpg", "q": "80", "fit": "max"}
    return str(httpx.URL(url).copy_merge_params(size))


class PreviewGate:
    """Looks for faces in previews, with the detector and the minimum score of `authface filter`.

    Args:
        workspace: The workspace, for its settings and weights.
        hosts: The hosts that previews may come from.
    """

    def __init__(self, workspace: Workspace, hosts: AllowedHosts) -> None:
        self.workspace = workspace
        self.hosts = hosts
        self.settings = workspace.settings.collect
        self.threshold = workspace.settings.filter.min_detector_score
        self.detect_long_side_px = workspace.settings.filter.detect_long_side_px
        detector = workspace.settings.filter.detector
        self.detection = FaceDetection(detector, self.threshold, workspace.weights_dir)

        device = "cpu"
        if self.detection.uses_gpu:
            import torch

            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.detection.load(device)

    def rejections(self, photos: Sequence[PhotoInput]) -> Iterator[RejectedPhoto]:
        """Yield the photographs whose preview was refused by the server or shows no face.

        A photograph whose preview cannot be downloaded or decoded passes; its full download
        decides.
        """
        folder = self.workspace.local_cache.local_path(PREVIEWS_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            DownloadJob(
                photo.photo_id,
                preview_url(photo.url or ""),
                folder / f"{photo.photo_id}-{short_hash(photo.photo_id)}",
            )
            for photo in photos
        ]
        with Downloader(self.settings, self.hosts) as downloader:
            results = downloader.fetch_all(jobs)
            for result in track(results, "previews", total=len(jobs)):
                if isinstance(result, DownloadRefused):
                    yield self._reject(result.job.key, result.reason)
                elif isinstance(result, Downloaded):
                    shows_face = self._shows_face(result.job.target)
                    result.job.target.unlink(missing_ok=True)
                    if not shows_face:
                        yield self._reject(result.job.key, "no_face in the preview")

    def _reject(self, photo_id: str, reason: str) -> RejectedPhoto:
        return RejectedPhoto(photo_id, reason, threshold=self.threshold)

    def _shows_face(self, path: Path) -> bool:
        """Whether a preview shows a face; True if it cannot be decoded."""
        try:
            photo = Photo(path.read_bytes)
            faces = detect_faces(self.detection.predict, [photo], self.detect_long_side_px)
        except PICTURE_ERRORS:
            return True
        return bool(faces[0])


def make_collector(
    workspace: Workspace,
    source: str,
    hosts: AllowedHosts,
    run: RunOptions,
    options: RemoteOptions,
) -> RemoteCollector:
    """Make the collector of an Unsplash source, with a preview gate if the options ask for one.

    Args:
        workspace: The workspace to collect into; its settings complete the options.
        source: Name of the source.
        hosts: Hosts that downloads may come from.
        run: How the collection is run.
        options: Options of the source.
    """
    preview_gate = None
    if options.uses_face_gate(workspace.settings.collect):
        preview_gate = PreviewGate(workspace, hosts)
    return RemoteCollector(
        workspace,
        source,
        hosts,
        run,
        max_photos=options.max_photos,
        preview_gate=preview_gate,
    )
