"""Restores files: aligned faces and whole photographs, in batches, with one record row per face."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.faces.align import Quad, align_photo
from authface_data.faces.descriptor import FaceDescriptor
from authface_data.faces.finder import (
    MIN_FACE_PX,
    FaceFinder,
    FaceSelection,
    FoundFace,
    covers_picture,
    select_faces,
)
from authface_data.images.open import JPEG_FORMATS, PICTURE_ERRORS, Photo, open_image, read_file
from authface_train.restore.converted_file import ConvertedFile, save_picture
from authface_train.restore.earlier_results import MODEL_STATE, describe_settings, model_state
from authface_train.restore.image_file import ImageFile, UnsupportedImageError
from authface_train.restore.output_folder import (
    CERTAINTY_FOLDER,
    RECORD_FILE,
    STRIP_FILE,
    OutputTarget,
    ResultNames,
)
from authface_train.restore.paste import paste_face
from authface_train.restore.pipeline import Restorer
from authface_train.restore.uncertainty import Uncertainty, draw_uncertainty, measure_uncertainty
from manifests.support.errors import UserError
from manifests.support.files import atomic_path
from manifests.support.progress import ProgressBar
from manifests.support.text import to_storable
from manifests.workspace import Workspace

STRIP_FACES = 8
"""Maximum number of faces in the strip."""
STRIP_SIDE_PX = 256
DETAIL_LOSS_SCALE = 1.25
"""Faces that are larger than this multiple of the model's size visibly lose detail."""
MAX_UNDETECTED_PX = 1024
"""Largest side of a square picture that is taken for an aligned face although no face is detected
in it, as in heavily degraded crops."""


def find_weights_dir(workspace: str | Path | None) -> str | None:
    """The `weights_dir` setting of the workspace, or None outside a workspace.

    Raises:
        UserError: If `workspace` is given but is not a workspace.
    """
    try:
        return Workspace.find(workspace).weights_dir
    except UserError:
        if workspace is not None:
            raise
        return None


@dataclass(frozen=True)
class RestoreOptions:
    """How files are restored.

    Attributes:
        aligned: Whether every input is an aligned face.
        faces: Which faces of a photograph to restore; every input is then treated as a photograph.
            If it is None and `aligned` is false, a square input is an aligned face if its landmarks
            say so, and all faces of the other inputs are restored.
        upscale: Factor by which a photograph is enlarged before its faces are pasted.
        seeds: Number of seeds with which each face is restored. The first one is the result; with
            more than one, their disagreement is measured.
        batch: Number of faces per batch.
        detector: Name of the face detector for photographs.
        min_face_px: Longer side of the smallest face that is restored in a photograph.
    """

    aligned: bool = False
    faces: FaceSelection | None = None
    upscale: int = 1
    seeds: int = 1
    batch: int = 4
    detector: str = "retinaface-mobile"
    min_face_px: int = MIN_FACE_PX

    def __post_init__(self) -> None:
        if self.aligned and self.faces is not None:
            raise UserError("--aligned and --faces exclude each other: --faces is for photographs")
        if self.aligned and self.upscale > 1:
            raise UserError("--upscale enlarges photographs; it has no effect with --aligned")

    @property
    def known_aligned(self) -> bool | None:
        """Whether inputs are aligned faces; None if the landmarks of each input decide that."""
        if self.aligned:
            return True
        return None if self.faces is None else False


@dataclass
class RestoreTask:
    """One input file with its faces and, once restored, the results.

    Attributes:
        file: The input file.
        names: Names of its result.
        crops: Aligned faces, (size_px, size_px, 3) uint8 RGB each.
        photo: The photograph that contains the faces, or None if the input is an aligned face.
        faces: Faces of the photograph in the order of `crops`; empty for an aligned face.
        restored: For each crop, the restored faces in the order of the seeds.
        uncertainties: For each crop, the disagreement of the seeds; None with a single seed.
        seconds_per_face: Duration of the restoration of one face.
    """

    file: Path
    names: ResultNames
    crops: list[np.ndarray]
    photo: ImageFile | ConvertedFile | None = None
    faces: list[FoundFace] = field(default_factory=list)
    restored: list[list[np.ndarray]] = field(default_factory=list)
    uncertainties: list[Uncertainty | None] = field(default_factory=list)
    seconds_per_face: float = 0.0

    @property
    def output(self) -> Path:
        """Path of the result, relative to the output folder."""
        return self.names.face if self.photo is None else self.names.photo


@dataclass(frozen=True)
class RestoreSummary:
    """Counts and speed of a run.

    Attributes:
        faces: Number of restored faces.
        aligned: Number of inputs that were aligned faces.
        photographs: Number of inputs that were photographs.
        seconds_per_face: Mean duration per face.
        larger_faces: Number of faces larger than `DETAIL_LOSS_SCALE` times the model's size.
    """

    faces: int
    aligned: int
    photographs: int
    seconds_per_face: float
    larger_faces: int


class RestoreRunner:
    """Restores files with one model and records what was done to each face.

    Args:
        restorer: The model.
        target: Where results are written.
        options: How files are restored.
        model: Name of the model as the user gave it, for the record.
        weights_dir: Folder of downloaded weights for the detector and the face descriptor.

    Attributes:
        rows: One row of the record per restored face.
        failures: One message per file that could not be restored.
        undetected: Names of the inputs that were taken for aligned faces because they are square
            and small, although no face was detected in them.
    """

    def __init__(
        self,
        *,
        restorer: Restorer,
        target: OutputTarget,
        options: RestoreOptions,
        model: str,
        weights_dir: str | None,
    ) -> None:
        self.restorer = restorer
        self.target = target
        self.options = options
        self.model = model
        self.weights_dir = weights_dir
        self.rows: list[dict[str, object]] = []
        self.failures: list[str] = []
        self.undetected: list[str] = []
        self._model_state = model_state(restorer.folder)
        self._strip_pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._earlier = pd.DataFrame()
        self._seconds = 0.0
        self._larger_faces = 0
        self._descriptor: FaceDescriptor | None = None
        if options.seeds > 1:
            self._descriptor = FaceDescriptor()
            self._descriptor.setup(weights_dir)

    @cached_property
    def finder(self) -> FaceFinder:
        """The face detector, loaded when the first input needs it."""
        return FaceFinder(
            self.options.detector,
            self.weights_dir,
            str(self.restorer.device),
            self.options.min_face_px,
        )

    def restore(self, inputs: Mapping[Path, ResultNames]) -> None:
        """Restore files, a batch of faces at a time, and write the record and the strip.

        A file that cannot be restored adds a message to `failures` and does not stop the others.
        If the target is a single file, neither record nor strip is written.

        Args:
            inputs: Input files, and the names of their results.
        """
        self._read_record()
        with ProgressBar("restore", len(inputs), unit="pictures") as progress:
            for tasks in self._batches(inputs):
                self._restore_batch(tasks)
                for task in tasks:
                    self._add_rows(task)
                    result = self.target.folder / task.output
                    if result.is_file():  # with --overwrite
                        result.unlink()
                # The record comes first: a run that is killed between the two leaves rows without
                # results, which the next run replaces, and no result without rows.
                self._save_record()
                for task in tasks:
                    try:
                        self._write_result(task)
                    except PICTURE_ERRORS as error:
                        self._add_failure(task.names, "written", error)
                        self._remove_rows(task)
                progress.advance(len(tasks))
            progress.update(len(inputs))
        if self._strip_pairs and self.target.file is None:
            _draw_strip(self._strip_pairs).save(self.target.folder / STRIP_FILE, quality=92)

    def _read_record(self) -> None:
        """Read the record of earlier runs in the folder."""
        path = self.target.folder / RECORD_FILE
        if self.target.file is not None or not path.is_file():
            return
        self._earlier = pd.read_parquet(path)
        if "aligned" not in self._earlier and not self._earlier.empty:
            # A record of an earlier version; only faces of photographs have a box.
            self._earlier = self._earlier.assign(aligned=self._earlier["box_px"].isna())

    def _save_record(self) -> None:
        """Write the record of this and earlier runs; new rows replace those of the same result."""
        if self.target.file is not None:
            return
        path = self.target.folder / RECORD_FILE
        if not self.rows and self._earlier.empty:
            path.unlink(missing_ok=True)
            return
        record = pd.DataFrame(self.rows, columns=None if self.rows else ["output"])
        if not self._earlier.empty:
            earlier = self._earlier[~self._earlier["output"].isin(record["output"])]
            record = pd.concat([earlier, record], ignore_index=True)
        with atomic_path(path) as temporary:
            record.to_parquet(temporary, index=False)

    def summarise(self) -> RestoreSummary | None:
        """Counts of this run, or None if no face was restored."""
        if not self.rows:
            return None
        is_aligned = {row["output"]: row["aligned"] for row in self.rows}
        num_aligned = sum(map(bool, is_aligned.values()))
        return RestoreSummary(
            faces=len(self.rows),
            aligned=num_aligned,
            photographs=len(is_aligned) - num_aligned,
            seconds_per_face=self._seconds / len(self.rows),
            larger_faces=self._larger_faces,
        )

    def _batches(self, inputs: Mapping[Path, ResultNames]) -> Iterator[list[RestoreTask]]:
        """Group files until their faces fill a batch."""
        tasks: list[RestoreTask] = []
        for path, names in inputs.items():
            task = self._prepare(path, names)
            if task is None:
                continue
            tasks.append(task)
            num_faces = sum(len(pending.crops) for pending in tasks)
            if num_faces >= self.options.batch:
                yield tasks
                tasks = []
        if tasks:
            yield tasks

    def _prepare(self, path: Path, names: ResultNames) -> RestoreTask | None:
        """Read a file and cut out its faces. Failures are recorded and give None."""
        try:
            photo = Photo(lambda: read_file(path))
            if self.options.aligned:
                return self._prepare_aligned(path, names, photo)
            is_candidate = self.options.faces is None and photo.size_px[0] == photo.size_px[1]
            # What cannot be written again is refused before its faces are searched.
            file = None if is_candidate else self._open_photo(path)
            found = self.finder.find(photo)
            if is_candidate and self._is_aligned(found, photo.size_px[0], names):
                return self._prepare_aligned(path, names, photo)

            faces = select_faces(found, self.options.faces or "all")
            if not faces:
                advice = "; --aligned restores it as an aligned face" if is_candidate else ""
                self.failures.append(f"{names.photo}: no face found{advice}")
                return None
            crops = [align_photo(photo, face.quad, self.restorer.size_px).pixels for face in faces]
            return RestoreTask(path, names, crops, file or self._open_photo(path), faces)
        except PICTURE_ERRORS as error:
            self._add_failure(names, "decoded", error)
            return None

    def _prepare_aligned(self, path: Path, names: ResultNames, photo: Photo) -> RestoreTask:
        """The task of an aligned face."""
        width, height = photo.size_px
        if width != height:
            raise UnsupportedImageError(
                f"is {width} x {height} px, not square; --aligned takes aligned faces only"
            )
        size_px = self.restorer.size_px
        if self.options.upscale > 1:
            raise UnsupportedImageError(
                f"is an aligned face, whose result has {size_px} px; --upscale applies to "
                "photographs only (--faces all treats it as one)"
            )
        return RestoreTask(path, names, [_resize(photo.pixels(), size_px)])

    def _is_aligned(self, found: Sequence[FoundFace], side_px: int, names: ResultNames) -> bool:
        """Whether a square picture is an aligned face, judged by the faces that are found in it."""
        if found:
            return any(covers_picture(face, side_px) for face in found)
        if side_px > MAX_UNDETECTED_PX:
            return False
        self.undetected.append(str(names.photo))
        return True

    def _open_photo(self, path: Path) -> ImageFile | ConvertedFile:
        """Open a photograph for writing it again, in the format of the output file if it is one."""
        image_format = self.target.image_format
        if image_format is None:
            return ImageFile(path)
        with open_image(path) as image:
            same_format = image.format == image_format or (
                image_format == "JPEG" and image.format in JPEG_FORMATS
            )
        return ImageFile(path) if same_format else ConvertedFile(path, image_format)

    def _add_failure(self, names: ResultNames, action: str, error: Exception) -> None:
        """Record that a file cannot be "decoded" or "written"."""
        if isinstance(error, UnsupportedImageError):
            self.failures.append(f"{names.photo} {error}")
        else:
            self.failures.append(f"{names.photo} cannot be {action} ({error})")

    def _restore_batch(self, tasks: Sequence[RestoreTask]) -> None:
        """Restore the crops of several files with every seed."""
        crops = [crop for task in tasks for crop in task.crops]
        start = time.monotonic()
        restored_by_seed: list[list[np.ndarray]] = []
        for offset in range(self.options.seeds):
            seed = self.restorer.sampling.seed + offset
            restored: list[np.ndarray] = []
            for first in range(0, len(crops), self.options.batch):
                batch = crops[first : first + self.options.batch]
                restored += self.restorer.restore(batch, seed)
            restored_by_seed.append(restored)
        elapsed = time.monotonic() - start
        self._seconds += elapsed

        restored_by_crop = iter(zip(*restored_by_seed, strict=True))
        for task in tasks:
            task.restored = [list(next(restored_by_crop)) for _ in task.crops]
            task.seconds_per_face = elapsed / len(crops)

    def _write_result(self, task: RestoreTask) -> None:
        """Write the picture of a file."""
        path = self.target.folder / task.output
        if task.photo is None:
            save_picture(path, task.restored[0][0], self.target.image_format or "PNG")
        else:
            self._write_photo(task.photo, task, path)

        self._draw_uncertainties(task)
        for crop, restored in zip(task.crops, task.restored, strict=True):
            if len(self._strip_pairs) < STRIP_FACES:
                self._strip_pairs.append((crop, restored[0]))

    def _write_photo(self, photo: ImageFile | ConvertedFile, task: RestoreTask, path: Path) -> None:
        """Paste the restored faces into their photograph and write it."""
        scale = self.options.upscale
        pixels = photo.pixels
        if scale > 1:
            size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        changed_px = []
        for face, restored in zip(task.faces, task.restored, strict=True):
            # Corners are pixel centres; half a pixel is added for the scaling of pixel edges.
            corners_px = (face.quad.corners_px + 0.5) * scale - 0.5
            quad = Quad(corners_px, face.quad.size_px * scale)
            pixels, box_px = paste_face(pixels, quad, photo.to_file_colours(restored[0]))
            changed_px.append(box_px)
        photo.write(pixels, changed_px, path)

    def _draw_uncertainties(self, task: RestoreTask) -> None:
        """Draw the disagreement between seeds, a picture for each face, if there are several."""
        folder = self.target.folder / CERTAINTY_FOLDER
        name = task.names.face
        faces = zip(task.crops, task.restored, task.uncertainties, strict=True)
        for index, (crop, restored, uncertainty) in enumerate(faces):
            if uncertainty is None:
                continue
            path = folder / name.with_name(f"{name.stem}-{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_uncertainty(crop, restored[0], uncertainty.disagreement).save(path)

    def _add_rows(self, task: RestoreTask) -> None:
        """Add a record row for each face of a file."""
        for index, (crop, restored) in enumerate(zip(task.crops, task.restored, strict=True)):
            uncertainty = None
            if self._descriptor is not None:
                uncertainty = measure_uncertainty(crop, restored, self._descriptor)
            task.uncertainties.append(uncertainty)
            self._add_row(task, index, uncertainty)

    def _remove_rows(self, task: RestoreTask) -> None:
        """Remove the rows of a file whose picture could not be written."""
        output = to_storable(task.output.as_posix())
        self.rows = [row for row in self.rows if row["output"] != output]
        self._save_record()

    def _add_row(self, task: RestoreTask, index: int, uncertainty: Uncertainty | None) -> None:
        """Add the record row of the face at `index`."""
        face = task.faces[index] if task.faces else None
        if face is not None and face.quad.size_px > DETAIL_LOSS_SCALE * self.restorer.size_px:
            self._larger_faces += 1
        unet_dtype = str(self.restorer.pipeline.unet.dtype)
        self.rows.append(
            {
                "input": to_storable(str(task.file)),
                "output": to_storable(task.output.as_posix()),
                "aligned": task.photo is None,
                "face": index,
                "box_px": None if face is None else face.box_px.tolist(),
                "quad_px": None if face is None else face.quad.corners_px.ravel().tolist(),
                "qsize_px": None if face is None else face.quad.size_px,
                "detector_score": None if face is None else face.score,
                "model": self.model,
                "trained": not self.restorer.notes.get("untrained", False),
                MODEL_STATE: self._model_state,
                **describe_settings(
                    self.restorer.sampling,
                    seeds=self.options.seeds,
                    upscale=self.options.upscale,
                ),
                "precision": unet_dtype.removeprefix("torch."),
                "faces": self.options.faces,
                "detector": self.options.detector if task.faces else None,
                **(uncertainty.as_row() if uncertainty else {}),
                "seconds": task.seconds_per_face,
                "restored_at": datetime.now(UTC),
            }
        )


def _resize(picture: np.ndarray, size_px: int) -> np.ndarray:
    """Resize a square picture to the side `size_px`, if it has another size."""
    if len(picture) == size_px:
        return picture
    image = Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _draw_strip(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Image.Image:
    """Draw faces side by side, each degraded above restored."""
    size = (STRIP_SIDE_PX, STRIP_SIDE_PX)
    strip = Image.new("RGB", (STRIP_SIDE_PX * len(pairs), STRIP_SIDE_PX * 2))
    for column, pair in enumerate(pairs):
        for row, picture in enumerate(pair):
            tile = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
            strip.paste(tile, (column * STRIP_SIDE_PX, row * STRIP_SIDE_PX))
    return strip
