"""The face gate on previews: a photograph is downloaded only if its small version shows a face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from authface_data.faces.detect import detect_faces
from authface_data.faces.detectors import make_detector
from authface_data.http.download import Downloaded, Downloader, DownloadJob, DownloadRefused
from authface_data.http.hosts import AllowedHosts
from authface_data.images.open import DECODE_ERRORS, Photo
from authface_data.sources.refusals import PREVIEW, Refusals
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from authface_data.sources.remote import Candidate

PREVIEWS = "cache/previews"


def preview_url(url: str) -> str:
    """The same photograph 1080 px wide, as Unsplash's image server makes it, every parameter of its URL kept."""
    return str(
        httpx.URL(url).copy_merge_params({"w": "1080", "fm": "jpg", "q": "80", "fit": "max"})
    )


class PreviewGate:
    """Looks at previews with the detector of the filter stage, at its least score."""

    def __init__(self, workspace: Workspace, hosts: AllowedHosts, refusals: Refusals):
        self.ws, self.hosts, self.refusals = workspace, hosts, refusals
        self.settings, self.filter = workspace.settings.collect, workspace.settings.filter
        self.least_score = self.filter.min_detector_score
        self.detector = make_detector(self.filter.detector)
        device = "cpu"
        if self.detector.uses_gpu:
            import torch

            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.detector.setup(device, workspace.weights_dir)

    def kept(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates whose preview shows a face, in their order; the others are refused with the reason.

        One whose preview fails to come is kept: its download will tell.
        """
        folder = self.ws.local(PREVIEWS)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            DownloadJob(
                c.photo_id, preview_url(c.url), folder / f"{c.photo_id}-{short_hash(c.photo_id)}"
            )
            for c in candidates
        ]
        out: set[str] = set()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Downloader(self.settings, self.hosts) as downloader, Progress(*columns) as progress:
            for result in progress.track(
                downloader.fetch_all(jobs), total=len(jobs), description="previews"
            ):
                assert result is not None
                key = result.job.key
                if isinstance(result, DownloadRefused):
                    out.add(key)
                    self.refusals.refuse(key, PREVIEW, result.reason, None, self.least_score)
                elif isinstance(result, Downloaded):
                    self._judge(result.job, out)
                    result.job.target.unlink(missing_ok=True)
        return [candidate for candidate in candidates if candidate.photo_id not in out]

    def _judge(self, job: DownloadJob, out: set[str]) -> None:
        try:
            found = detect_faces(
                self.detector,
                [Photo(job.target.read_bytes)],
                self.filter.detect_long_side_px,
                self.least_score,
            )
        except DECODE_ERRORS:
            return
        if not found[0]:
            out.add(job.key)
            self.refusals.refuse(job.key, PREVIEW, "no_face in the preview", None, self.least_score)
