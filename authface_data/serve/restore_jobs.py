"""Restores single photographs for the server, each with `authface restore` in a new process.

The model's memory is free again after each photograph. Photographs and results lie in a temporary
folder that is removed when the server ends.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from authface_data.images.encode import encode_image
from authface_data.images.open import DECODE_ERRORS, IMAGE_SUFFIXES, Photo, PictureReadError
from manifests.run_folder import RUNS, list_runs
from manifests.support.errors import UserError
from manifests.workspace import Workspace

MAX_PHOTO_BYTES = 200_000_000
PREVIEW_PX = 2400
"""Longest side of the pictures that the browser compares."""
PREVIEW_QUALITY = 92
MAX_STEPS = 1000
MAX_KEPT_JOBS = 8
"""Photographs whose results are kept; those of older ones are removed."""
LAUNCHER = (sys.executable, "-P", "-m", "cli")


@dataclass(frozen=True)
class RestoreModel:
    """A finished restorer of the workspace.

    Attributes:
        name: Name of the run.
        untrained: Whether it is a small random model, whose output is noise.
    """

    name: str
    untrained: bool


@dataclass
class RestoreJob:
    """A photograph that is being restored or was restored.

    Attributes:
        id: Random id of the job.
        folder: Folder of the photograph and of the result.
        photo: The photograph.
        started_at: Monotonic time of the start in seconds.
        state: Whether the process runs, has written a result, or has failed.
        message: The last line of the process's output.
        result: The result, once it is there.
    """

    id: str
    folder: Path
    photo: Path
    started_at: float
    state: Literal["running", "done", "failed"] = "running"
    message: str = ""
    result: Path | None = None
    process: subprocess.Popen[str] | None = field(default=None, repr=False)


class RestoreJobs:
    """Runs one restoration at a time.

    Args:
        workspace: The workspace whose runs are the models.
        launcher: Command that starts authface.
    """

    def __init__(self, workspace: Workspace, launcher: Sequence[str] = LAUNCHER) -> None:
        self._workspace = workspace
        self._launcher = launcher
        self._folder = Path(tempfile.mkdtemp(prefix="authface-serve-"))
        self._lock = threading.Lock()
        self._jobs: dict[str, RestoreJob] = {}

    def list_models(self) -> list[RestoreModel]:
        """The finished restorers of the workspace, in the order of their names."""
        if not self._workspace.is_local:
            return []
        models = []
        for run in list_runs(self._workspace):
            with contextlib.suppress(UserError):  # a damaged run is no model
                notes = run.read_notes()
                if run.is_finished() and notes.get("stage") == "restorer":
                    models.append(RestoreModel(run.name, bool(notes.get("untrained"))))
        return models

    @property
    def is_running(self) -> bool:
        """Whether a photograph is being restored."""
        return any(job.state == "running" for job in list(self._jobs.values()))

    def get(self, job_id: str) -> RestoreJob | None:
        """The job with an id, or None."""
        return self._jobs.get(job_id)

    def start(self, photo: bytes, *, name: str, model: str, steps: int | None) -> RestoreJob:
        """Start restoring a photograph.

        Args:
            photo: Content of the file.
            name: Name of the file, of which only the suffix is used.
            model: Name of a model of `list_models`.
            steps: Denoising steps. Default: those of the command.

        Raises:
            UserError: If the model is unknown, the file is no picture, or another photograph is
                being restored.
        """
        if model not in {known.name for known in self.list_models()}:
            raise UserError(f"no finished restorer named {model} in {self._workspace.root}/{RUNS}")
        suffix = Path(name).suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            raise UserError(f"cannot restore {suffix or 'this file'}; choose a picture file")
        if steps is not None and not 1 <= steps <= MAX_STEPS:
            raise UserError(f"the number of steps must be between 1 and {MAX_STEPS}")

        with self._lock:
            if self.is_running:
                raise UserError("another photograph is being restored; wait until it is done")
            job_id = secrets.token_urlsafe(12)
            folder = self._folder / job_id
            path = folder / f"photo{suffix}"
            job = RestoreJob(job_id, folder, path, time.monotonic())
            self._jobs[job_id] = job
            for oldest in list(self._jobs)[:-MAX_KEPT_JOBS]:
                shutil.rmtree(self._jobs.pop(oldest).folder, ignore_errors=True)
        folder.mkdir()
        path.write_bytes(photo)
        model_folder = self._workspace.local_path(f"{RUNS}/{model}")
        command = ["restore", "--model", model_folder, "--input", path]
        command += ["--output", folder / "restored", "-w", self._workspace.root]
        if steps is not None:
            command += ["--steps", steps]
        threading.Thread(target=self._run, args=(job, command), daemon=True).start()
        return job

    def preview(self, job: RestoreJob, which: str) -> bytes | None:
        """Encode a picture of a job for a browser.

        Args:
            job: The job.
            which: `before` or `after`.

        Returns:
            A JPEG file, or None if there is no such picture yet.
        """
        path = {"before": job.photo, "after": job.result}.get(which)
        if path is None:
            return None
        try:
            pixels = Photo(path.read_bytes).pixels(PREVIEW_PX)
        except (*DECODE_ERRORS, PictureReadError):
            return None
        return encode_image(pixels, quality=PREVIEW_QUALITY)

    def close(self) -> None:
        """End the running process, and remove all photographs and results."""
        for job in self._jobs.values():
            if job.process is not None and job.process.poll() is None:
                job.process.terminate()
                job.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, job: RestoreJob, command: Sequence[object]) -> None:
        """Run the command and keep the last line of its output."""
        job.process = subprocess.Popen(
            [*self._launcher, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert job.process.stdout is not None
        for line in job.process.stdout:
            job.message = line.strip() or job.message
        exit_code = job.process.wait()
        job.result = _find_result(job.folder / "restored")
        if exit_code == 0 and job.result is not None:
            job.state = "done"
        else:
            job.message = job.message.removeprefix("authface: ") or f"exit code {exit_code}"
            job.state = "failed"


def _find_result(folder: Path) -> Path | None:
    """The restored photograph, which has the stem of the input."""
    found = [path for path in folder.glob("photo*") if path.suffix.lower() in IMAGE_SUFFIXES]
    return found[0] if found else None
