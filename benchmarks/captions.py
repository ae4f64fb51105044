"""Accuracy of measured tags on 47 labelled public faces, half of them held out from tuning.

    python benchmarks/captions.py                the figures of docs/captions.md
    python benchmarks/captions.py --table        each face with its tags as Markdown, wrong ones
                                                 struck out
    python benchmarks/captions.py --sheet FILE   also a contact sheet of the crops and their tags

Do not publish the contact sheet: it is unknown whether the people agreed to be shown.

A label contains what a person sees in the crop. It has several values if each of them is
acceptable, and it is empty if no tag is. A tag is correct if the label contains its value. Missing
tags do not count as errors; the number of faces with a tag shows how often a measure gives one.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from public_faces import DetectedFace

    from authface_data.captions.measured.measurement import Measurement
    from authface_data.captions.measured.networks import CropNetworks

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))
LABELS = ROOT / "tests" / "authface_data" / "captions" / "labels.csv"
HALVES = ("tuned", "held out")

# Column of labels.csv -> measured tag -> the value of the label that makes the tag correct.
LABEL_OF_TAG = {
    "framing": {"close-up": "close-up"},
    "view": {
        "front view": "front",
        "three-quarter view": "three-quarter",
        "profile view": "profile",
    },
    "tilt": {"chin up": "up", "chin down": "down"},
    "gaze": {"direct gaze": "camera", "looking away": "away"},
    "light": {"key light left": "left", "key light right": "right", "even light": "even"},
    "hardness": {"soft light": "soft"},
    "key": {"low-key": "low", "high-key": "high"},
    "colour": {"black and white": "bw", "colour photograph": "colour"},
    "warmth": {"warm colours": "warm", "cool colours": "cool"},
    "palette": {"vivid colours": "strong", "muted colours": "muted"},
    "background": {"blurred background": "blurred", "sharp background": "sharp"},
    "eyes": {"sharp eyes": "sharp", "soft focus": "soft"},
}


@dataclass(frozen=True)
class LabelledTag:
    """A measured tag, compared with the label of its face.

    Attributes:
        photo: File name of the photograph.
        face_index: Index of the face in the photograph, from the left.
        half: "tuned" or "held out".
        column: Column of the label.
        tag: The measured tag.
        is_confident: Whether the confidence suffices to overrule a model.
        is_correct: Whether the label contains the tag.
    """

    photo: str
    face_index: int
    half: str
    column: str
    tag: str
    is_confident: bool
    is_correct: bool


def read_labels() -> list[dict[str, str]]:
    """Read labels.csv: one row per face."""
    with LABELS.open() as file:
        return list(csv.DictReader(file))


@functools.cache
def _networks() -> CropNetworks:
    from authface_data.captions.measured.networks import CropNetworks

    networks = CropNetworks()
    networks.setup(None)
    return networks


def measure(face: DetectedFace) -> list[Measurement]:
    """Measure the tags of a face as the captioner does."""
    from authface_data.captions.measured.stage import measure_face, read_face

    width, height = face.photo_px
    row = {**face.row, "width": width, "height": height}
    return measure_face(read_face(row, face.crop, _networks()))


def compare_with_labels() -> Iterator[LabelledTag]:
    """Measure every labelled face and compare its tags with the label."""
    from public_faces import detected_faces

    from authface_data.captions.measured.measurement import HIGH_CONFIDENCE

    column_of = {tag: column for column, labels in LABEL_OF_TAG.items() for tag in labels}
    faces = {(face.photo, face.index): face for face in detected_faces()}
    for row in read_labels():
        face = faces[row["photo"], int(row["face"])]
        for measurement in measure(face):
            column = column_of.get(measurement.tag)
            if column is None:
                continue
            yield LabelledTag(
                photo=face.photo,
                face_index=face.index,
                half=row["half"],
                column=column,
                tag=measurement.tag,
                is_confident=measurement.confidence >= HIGH_CONFIDENCE,
                is_correct=LABEL_OF_TAG[column][measurement.tag] in row[column].split("/"),
            )


def main() -> None:
    """Parse the command line and print the accuracy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also draw a contact sheet")
    parser.add_argument("--table", action="store_true", help="print a Markdown table of all faces")
    parser.add_argument("--half", choices=HALVES, help="evaluate one half only")
    options = parser.parse_args()
    if options.table:
        print_table()
        return

    results = list(compare_with_labels())
    labels = read_labels()
    for half in HALVES if options.half is None else (options.half,):
        face_count = sum(row["half"] == half for row in labels)
        print(f"{half}: {face_count} faces")
        print_accuracy([result for result in results if result.half == half])
    if options.sheet:
        draw_sheet(options.sheet)


def print_accuracy(results: Sequence[LabelledTag]) -> None:
    """Print the accuracy of each label column and of all tags, then the wrong tags."""
    for column in LABEL_OF_TAG:
        print_accuracy_line(column, [result for result in results if result.column == column])
    print_accuracy_line("all", results)
    for result in results:
        if not result.is_correct:
            suffix = " (confident)" if result.is_confident else ""
            print(f"  wrong: {result.photo} #{result.face_index} {result.tag}{suffix}")


def print_accuracy_line(name: str, results: Sequence[LabelledTag]) -> None:
    """Print the number of correct tags, of confident correct tags, and of faces with a tag.

    Args:
        name: Name of the line.
        results: The compared tags.
    """
    confident = [result for result in results if result.is_confident]
    correct = sum(result.is_correct for result in results)
    confident_correct = sum(result.is_correct for result in confident)
    faces = {(result.photo, result.face_index) for result in results}
    print(
        f"  {name:11} {correct:3} of {len(results):3} correct, "
        f"confident ones {confident_correct:3} of {len(confident):3}; "
        f"{len(faces)} faces have a tag"
    )


def print_table() -> None:
    """Print each face with its tags as a Markdown table; wrong tags are struck out."""
    from public_faces import detected_faces

    wrong = {
        (result.photo, result.face_index, result.tag)
        for result in compare_with_labels()
        if not result.is_correct
    }
    half_of = {(row["photo"], int(row["face"])): row["half"] for row in read_labels()}
    print("| photograph | face | half | tags |\n|---|---|---|---|")
    for face in detected_faces():
        tags = []
        for measurement in measure(face):
            tag = measurement.tag
            if tag == "colour photograph":  # never part of a caption
                continue
            tags.append(f"~~{tag}~~" if (face.photo, face.index, tag) in wrong else tag)
        half = half_of[face.photo, face.index]
        print(f"| {face.photo} | {face.index + 1} | {half} | {', '.join(tags)} |")


def draw_sheet(path: Path) -> None:
    """Draw each crop above its tags and their confidences."""
    import textwrap

    from PIL import Image, ImageDraw, ImageFont
    from public_faces import detected_faces

    side, columns, text_height = 256, 4, 190
    faces = detected_faces()
    row_count = -(-len(faces) // columns)
    size = (columns * (side + 8), row_count * (side + text_height))
    sheet = Image.new("RGB", size, "#16181c")
    font = ImageFont.load_default(size=15)
    draw = ImageDraw.Draw(sheet)
    for number, face in enumerate(faces):
        x = number % columns * (side + 8)
        y = number // columns * (side + text_height)
        sheet.paste(Image.fromarray(face.crop).resize((side, side)), (x, y))
        tags = ", ".join(
            f"{measurement.tag} {measurement.confidence:.2f}" for measurement in measure(face)
        )
        lines = textwrap.wrap(f"{face.photo} #{face.index}: {tags}", 36)
        draw.multiline_text((x, y + side + 2), "\n".join(lines), fill="#e8e6e3", font=font)
    sheet.save(path)


if __name__ == "__main__":
    main()
