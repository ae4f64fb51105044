"""Restores files: aligned faces and whole photographs, in batches, with one record row per face."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.faces.align import Quad
from authface_data.faces.descriptor import FaceDescriptor
from authface_data.faces.finder import FaceFinder, FaceSelection, FoundFace
from authface_data.images.open import PICTURE_ERRORS, decode_image, open_image, read_file
from authface_train.restore.image_file import ImageFile, UnsupportedImageError
from authface_train.restore.output_folder import CERTAINTY_FOLDER, RECORD_FILE, STRIP_FILE
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
SAVE_INTERVAL_S = 30.0
"""Seconds after which the record is saved during a run."""
DETAIL_LOSS_SCALE = 1.25
"""Faces that are larger than this multiple of the model's size visibly lose detail."""


def find_weights_dir(workspace: Path | None) -> str | None:
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
        faces: Which faces of a photograph to restore; every input is then treated as a photograph.
            None treats square inputs as aligned faces, and restores all faces of the others.
        upscale: Factor by which a photograph is enlarged before its faces are pasted.
        seeds: Number of seeds with which each face is restored. The first one is the result; with
            more than one, their disagreement is measured.
        batch: Number of faces per batch.
        detector: Name of the face detector for photographs.
    """

    faces: FaceSelection | None = None
    upscale: int = 1
    seeds: int = 1
    batch: int = 4
    detector: str = "retinaface-mobile"


@dataclass
class RestoreTask:
    """One input file with its faces and, once restored, the results.

    Attributes:
        file: The input file.
        output_name: Path of the result relative to the output folder.
        crops: Aligned faces, (size_px, size_px, 3) uint8 RGB each.
        photo: The photograph that contains the faces, or None if the input is an aligned face.
        faces: Faces of the photograph in the order of `crops`; empty for an aligned face.
        restored: For each crop, the restored faces in the order of the seeds.
        seconds_per_face: Duration of the restoration of one face.
    """

    file: Path
    output_name: Path
    crops: list[np.ndarray]
    photo: ImageFile | None = None
    faces: list[FoundFace] = field(default_factory=list)
    restored: list[list[np.ndarray]] = field(default_factory=list)
    seconds_per_face: float = 0.0


@dataclass(frozen=True)
class RestoreSummary:
    """Counts and speed of a run.

    Attributes:
        faces: Number of restored faces.
        pictures: Number of written pictures.
        seconds_per_face: Mean duration per face.
        larger_faces: Number of faces larger than `DETAIL_LOSS_SCALE` times the model's size.
    """

    faces: int
    pictures: int
    seconds_per_face: float
    larger_faces: int


def is_aligned_face(file: Path, faces: FaceSelection | None) -> bool:
    """Whether a file is treated as an aligned face.

    Args:
        file: A picture file.
        faces: As in `RestoreOptions`. If None, square pictures are aligned faces; otherwise no
            picture is.
    """
    if faces is not None:
        return False
    try:
        with open_image(file) as image:
            return image.width == image.height
    except PICTURE_ERRORS:
        return False


def output_path(name: Path, output: Path, aligned: bool) -> Path:
    """Path of the restored picture.

    Args:
        name: Path of the result relative to the output folder, with the suffix of the input.
        output: The output folder.
        aligned: Whether the input is an aligned face. Its result is a PNG file, while a photograph
            keeps its format.
    """
    return output / (name.with_suffix(".png") if aligned else name)


def check_output_folder(files: Mapping[Path, Path], output: Path) -> None:
    """Refuse an output folder whose results would overwrite the inputs.

    Args:
        files: Input files, and the path of each result relative to the output folder.
        output: The output folder.

    Raises:
        UserError: If `output` is a folder of the inputs, or an input has the name of the strip.
    """
    input_folders = set()
    for file, name in files.items():
        parents = file.resolve().parents
        input_folders |= {parents[0], parents[len(name.parts) - 1]}
    if output.resolve() in input_folders:
        raise UserError(
            "--output is a folder of --input: results would overwrite inputs; use another folder"
        )
    if any(file.name == STRIP_FILE for file in files):
        raise UserError(
            f"an input is named {STRIP_FILE}, like the overview that this command writes; rename it"
        )


def select_missing(
    files: Mapping[Path, Path], output: Path, faces: FaceSelection | None
) -> dict[Path, Path]:
    """Input files whose result does not exist yet.

    Args:
        files: Input files, and the path of each result relative to the output folder.
        output: The output folder.
        faces: As in `RestoreOptions`.
    """
    return {
        file: name
        for file, name in files.items()
        if not output_path(name, output, is_aligned_face(file, faces)).exists()
    }


class RestoreRunner:
    """Restores files with one model and records what was done to each face.

    Args:
        restorer: The model.
        output: Folder for the results.
        options: How files are restored.
        model: Name of the model as the user gave it, for the record.
        weights_dir: Folder of downloaded weights for the detector and the face descriptor.

    Attributes:
        rows: One row of the record per restored face.
        failures: One message per file that could not be restored.
    """

    def __init__(
        self,
        *,
        restorer: Restorer,
        output: Path,
        options: RestoreOptions,
        model: str,
        weights_dir: str | None,
    ) -> None:
        self.restorer = restorer
        self.output = output
        self.options = options
        self.model = model
        self.weights_dir = weights_dir
        self.rows: list[dict[str, object]] = []
        self.failures: list[str] = []
        self._strip_pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._seconds = 0.0
        self._larger_faces = 0
        self._descriptor: FaceDescriptor | None = None
        if options.seeds > 1:
            self._descriptor = FaceDescriptor()
            self._descriptor.setup(weights_dir)

    @cached_property
    def finder(self) -> FaceFinder:
        """The face detector, loaded when the first photograph needs it."""
        return FaceFinder(self.options.detector, self.weights_dir)

    def restore(self, files: Mapping[Path, Path]) -> None:
        """Restore files, a batch of faces at a time, and write the record and the strip.

        A file that cannot be restored adds a message to `failures` and does not stop the others.

        Args:
            files: Input files, and the path of each result relative to the output folder.
        """
        last_save = time.monotonic()
        try:
            with ProgressBar("restore", len(files), unit="pictures") as progress:
                for tasks in self._batches(files):
                    self._restore_batch(tasks)
                    for task in tasks:
                        try:
                            self._write_result(task)
                        except PICTURE_ERRORS as error:
                            self._add_failure(task.file, "written", error)
                    if time.monotonic() - last_save > SAVE_INTERVAL_S:
                        self.save_record()
                        last_save = time.monotonic()
                    progress.advance(len(tasks))
                progress.update(len(files))
        finally:
            self.save_record()
        if self._strip_pairs:
            _draw_strip(self._strip_pairs).save(self.output / STRIP_FILE, quality=92)

    def save_record(self) -> None:
        """Write the record of this and earlier runs; new rows replace those of the same result."""
        if not self.rows:
            return
        path = self.output / RECORD_FILE
        record = pd.DataFrame(self.rows)
        if path.is_file():
            earlier = pd.read_parquet(path)
            earlier = earlier[~earlier["output"].isin(record["output"])]
            record = pd.concat([earlier, record], ignore_index=True)
        with atomic_path(path) as temporary:
            record.to_parquet(temporary, index=False)

    def summarise(self) -> RestoreSummary | None:
        """Counts of this run, or None if no face was restored."""
        if not self.rows:
            return None
        return RestoreSummary(
            faces=len(self.rows),
            pictures=len({row["output"] for row in self.rows}),
            seconds_per_face=self._seconds / len(self.rows),
            larger_faces=self._larger_faces,
        )

    def _batches(self, files: Mapping[Path, Path]) -> Iterator[list[RestoreTask]]:
        """Group files until their faces fill a batch."""
        tasks: list[RestoreTask] = []
        for file, name in files.items():
            task = self._prepare(file, name)
            if task is None:
                continue
            tasks.append(task)
            num_faces = sum(len(pending.crops) for pending in tasks)
            if num_faces >= self.options.batch:
                yield tasks
                tasks = []
        if tasks:
            yield tasks

    def _prepare(self, file: Path, output_name: Path) -> RestoreTask | None:
        """Read a file and cut out its faces. Failures are recorded and give None."""
        size_px = self.restorer.size_px
        try:
            if is_aligned_face(file, self.options.faces):
                if self.options.upscale > 1:
                    raise UnsupportedImageError(
                        f"is an aligned face, whose result has {size_px} px; "
                        "--upscale applies to photographs only"
                    )
                crop = _resize(decode_image(read_file(file)), size_px)
                return RestoreTask(file, output_name, [crop])
            photo = ImageFile(file)
            faces = self.finder.find(photo.data, self.options.faces or "all", size_px)
        except PICTURE_ERRORS as error:
            self._add_failure(file, "decoded", error)
            return None
        if not faces:
            self.failures.append(f"{file.name}: no face found")
            return None
        return RestoreTask(file, output_name, [face.crop for face in faces], photo, faces)

    def _add_failure(self, file: Path, action: str, error: Exception) -> None:
        """Record that a file cannot be "decoded" or "written"."""
        if isinstance(error, UnsupportedImageError):
            self.failures.append(f"{file.name} {error}")
        else:
            self.failures.append(f"{file.name} cannot be {action} ({error})")

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
        """Write the picture of a file, and a record row for each of its faces."""
        path = output_path(task.output_name, self.output, aligned=task.photo is None)
        if task.photo is None:
            with atomic_path(path) as temporary:
                Image.fromarray(task.restored[0][0]).save(temporary, "PNG")
        else:
            self._write_photo(task.photo, task, path)

        for index, (crop, restored) in enumerate(zip(task.crops, task.restored, strict=True)):
            uncertainty = self._measure_uncertainty(task.output_name, index, crop, restored)
            self._add_row(task, path, index, uncertainty)
            if len(self._strip_pairs) < STRIP_FACES:
                self._strip_pairs.append((crop, restored[0]))

    def _write_photo(self, photo: ImageFile, task: RestoreTask, path: Path) -> None:
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

    def _measure_uncertainty(
        self, output_name: Path, index: int, crop: np.ndarray, restored: Sequence[np.ndarray]
    ) -> Uncertainty | None:
        """Measure and draw the disagreement between seeds; None with a single seed."""
        if self._descriptor is None:
            return None
        uncertainty = measure_uncertainty(crop, restored, self._descriptor)
        folder = self.output / CERTAINTY_FOLDER
        path = folder / output_name.with_name(f"{output_name.stem}-{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_uncertainty(crop, restored[0], uncertainty.disagreement).save(path)
        return uncertainty

    def _add_row(
        self, task: RestoreTask, path: Path, index: int, uncertainty: Uncertainty | None
    ) -> None:
        """Add the record row of the face at `index`."""
        face = task.faces[index] if task.faces else None
        if face is not None and face.quad.size_px > DETAIL_LOSS_SCALE * self.restorer.size_px:
            self._larger_faces += 1
        unet_dtype = str(self.restorer.pipeline.unet.dtype)
        self.rows.append(
            {
                "input": to_storable(str(task.file)),
                "output": to_storable(path.relative_to(self.output).as_posix()),
                "face": index,
                "box_px": None if face is None else face.box_px.tolist(),
                "quad_px": None if face is None else face.quad.corners_px.ravel().tolist(),
                "qsize_px": None if face is None else face.quad.size_px,
                "detector_score": None if face is None else face.score,
                "model": self.model,
                "trained": not self.restorer.notes.get("untrained", False),
                **asdict(self.restorer.sampling),
                "precision": unet_dtype.removeprefix("torch."),
                "faces": self.options.faces,
                "detector": self.options.detector if task.faces else None,
                "seeds": self.options.seeds,
                "upscale": self.options.upscale,
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
