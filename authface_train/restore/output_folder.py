"""Where `authface restore` writes: names of results, and what a folder holds besides them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.support.errors import UserError
from manifests.workspace import STRIP_FILE

RECORD_FILE = "restored.parquet"
"""One row per restored face."""
CERTAINTY_FOLDER = "certainty"
"""Maps of the disagreement between seeds, one picture per face."""

OUTPUT_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Suffix of an output file to Pillow's name of its format."""


@dataclass(frozen=True)
class ResultNames:
    """Paths of the result of an input, relative to the output folder.

    Attributes:
        photo: Result of a photograph. It keeps the format of the input.
        face: Result of an aligned face, a PNG file. Its stem is that of the input, or the whole
            name (`a.jpg.png`) if inputs differ in their suffix alone.
    """

    photo: Path
    face: Path


@dataclass(frozen=True)
class OutputTarget:
    """Where results are written.

    Attributes:
        folder: Folder of the results.
        file: The only result, if `--output` is a file; nothing else is written then.
    """

    folder: Path
    file: Path | None = None

    @classmethod
    def parse(cls, output: Path) -> OutputTarget:
        """Interpret the value of `--output`.

        A path with the suffix of a picture is a file, unless it is a folder that exists.

        Raises:
            UserError: If it is another file than a picture, or a picture of a format that is not
                written.
        """
        # Imported here because the commands import this module for `authface --help`.
        from authface_data.images.open import IMAGE_SUFFIXES

        suffix = output.suffix.lower()
        formats = ", ".join(OUTPUT_FORMATS)
        if output.is_dir() or (suffix not in IMAGE_SUFFIXES and not output.exists()):
            return cls(output)
        if suffix in OUTPUT_FORMATS:
            return cls(output.parent, output)
        if suffix in IMAGE_SUFFIXES:
            raise UserError(f"--output {output}: {suffix} is not written; use one of {formats}")
        raise UserError(
            f"--output {output} is a file; use a folder, or for one picture a file named {formats}"
        )

    @property
    def image_format(self) -> str | None:
        """Pillow's name of the format of `file`, or None if a folder is written."""
        return None if self.file is None else OUTPUT_FORMATS[self.file.suffix.lower()]

    def rename(self, names: Mapping[Path, ResultNames]) -> dict[Path, ResultNames]:
        """The names of the results in this target.

        Args:
            names: Input files, and the names of their results in a folder.

        Returns:
            The same names, or that of `file` for the only input.

        Raises:
            UserError: If there are several inputs and a single file.
        """
        if self.file is None:
            return dict(names)
        if len(names) > 1:
            raise UserError(
                f"--output {self.file} is one file, and --input names {len(names)} pictures; use a "
                "folder"
            )
        name = Path(self.file.name)
        return {path: ResultNames(name, name) for path in names}

    def check(self, names: Mapping[Path, ResultNames]) -> None:
        """Refuse a target whose results would overwrite inputs.

        Args:
            names: Input files, and the names of their results.

        Raises:
            UserError: If the target is an input or a folder of the inputs, or if an input has the
                name of the strip.
        """
        if self.file is not None:
            if self.file.resolve() in {path.resolve() for path in names}:
                raise UserError(f"--output {self.file} is the input itself; use another name")
            return
        input_folders = set()
        for path, name in names.items():
            parents = path.resolve().parents
            input_folders |= {parents[0], parents[len(name.photo.parts) - 1]}
        if self.folder.resolve() in input_folders:
            raise UserError(
                "--output is a folder of --input: results would overwrite inputs; use another "
                "folder"
            )
        if any(path.name == STRIP_FILE for path in names):
            raise UserError(
                f"an input is named {STRIP_FILE}, like the overview that this command writes; "
                "rename it"
            )

    def existing_results(self, path: Path, names: ResultNames, aligned: bool | None) -> list[Path]:
        """Files that may be the result of an input. No face is detected to find that out.

        Args:
            path: The input file.
            names: Names of its result.
            aligned: Whether the input is an aligned face. None if its landmarks decide that, in
                which case the result of either kind counts.

        Returns:
            Paths relative to the folder.
        """
        if aligned is not None:
            possible = [names.face if aligned else names.photo]
        else:
            possible = [names.photo]
            if (self.folder / names.face).exists() and is_square(path):
                possible.append(names.face)
        return [name for name in possible if (self.folder / name).exists()]


def is_square(path: Path) -> bool:
    """Whether a file is a square picture; False if it cannot be decoded."""
    from authface_data.images.open import PICTURE_ERRORS, open_image

    try:
        with open_image(path) as image:
            return image.width == image.height
    except PICTURE_ERRORS:
        return False


def name_results(names: Mapping[Path, Path]) -> dict[Path, ResultNames]:
    """Name the results of inputs, so that no two of them are one file.

    Args:
        names: Input files, and their names relative to the output folder.

    Raises:
        UserError: If two inputs have the same name.
    """
    stems: dict[Path, list[Path]] = {}
    for path, name in names.items():
        stems.setdefault(name.with_suffix(""), []).append(path)
    results = {}
    for path, name in names.items():
        is_shared = len(stems[name.with_suffix("")]) > 1
        face = name.with_name(f"{name.name}.png") if is_shared else name.with_suffix(".png")
        results[path] = ResultNames(name, face)

    owners: dict[Path, Path] = {}
    for path, result in results.items():
        for name in dict.fromkeys((result.photo, result.face)):
            if name in owners:
                raise UserError(
                    f"the results of {owners[name]} and {path} would be the same file {name}; "
                    "rename one of the inputs"
                )
            owners[name] = path
    return results


def is_by_product(path: Path, folder: Path) -> bool:
    """Whether a picture was written by `authface restore` but is not itself a result.

    Args:
        path: A picture in `folder` or in one of its sub-folders.
        folder: A folder that may be an output folder of `authface restore`.
    """
    if not (folder / RECORD_FILE).is_file():
        return False
    inside = path.relative_to(folder)
    return inside == Path(STRIP_FILE) or inside.parts[0] == CERTAINTY_FOLDER
