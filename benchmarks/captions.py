"""How often measured tags are true: of 47 public faces labelled by looking, half of them kept aside while tuning.

    python benchmarks/captions.py                  the figures of docs/captions.md
    python benchmarks/captions.py --table          every face with its tags as Markdown, those that are wrong struck out
    python benchmarks/captions.py --sheet FILE     also a picture: each crop beside its tags (for yourself: whether the people
                                                   in it agreed to be shown is not known)

A label is what a person sees in the crop, several where any of them would do, empty where none would: a tag is right if it is
one of them. What a measure does not say costs nothing here: the second figure is how often it says anything.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))
LABELS = ROOT / "tests" / "authface_data" / "captions" / "labels.csv"

# What of a label's column a tag claims.
CLAIMS = {
    "framing": {"close-up": "close-up", "head and shoulders": "head and shoulders"},
    "view": {
        "front view": "front",
        "three-quarter view": "three-quarter",
        "profile view": "profile",
    },
    "tilt": {"chin up": "up", "chin down": "down"},
    "gaze": {"direct gaze": "camera", "looking away": "away"},
    "light": {"key light left": "left", "key light right": "right", "even light": "even"},
    "hardness": {"hard light": "hard", "soft light": "soft"},
    "key": {"low-key": "low", "high-key": "high"},
    "contrast": {"high contrast": "high", "low contrast": "low"},
    "colour": {"black and white": "bw", "colour photograph": "colour"},
    "warmth": {"warm colours": "warm", "cool colours": "cool"},
    "palette": {"vivid colours": "strong", "muted colours": "muted"},
    "background": {"blurred background": "blurred", "sharp background": "sharp"},
    "eyes": {"sharp eyes": "sharp", "soft focus": "soft"},
}


@dataclass(frozen=True)
class Judged:
    """One tag of one face. half: tuned or kept aside; sure: confident enough to contradict a model; right: as labelled."""

    photo: str
    place: int
    half: str
    column: str
    tag: str
    sure: bool
    right: bool


def judged() -> Iterator[Judged]:
    """Every measured tag of every labelled face, held against its label."""
    from public_faces import found_faces

    from authface_data.captions.measured.measurement import HIGH_CONFIDENCE
    from authface_data.captions.measured.stage import measure_face

    column_of = {tag: column for column, claims in CLAIMS.items() for tag in claims}
    faces = {(face.photo, face.place): face for face in found_faces()}
    with LABELS.open() as file:
        for row in csv.DictReader(file):
            face = faces[row["photo"], int(row["face"])]
            for fact in measure_face(face.row, face.crop):
                if column := column_of.get(fact.tag):
                    right = CLAIMS[column][fact.tag] in row[column].split("/")
                    yield Judged(
                        face.photo,
                        face.place,
                        row["half"],
                        column,
                        fact.tag,
                        fact.confidence >= HIGH_CONFIDENCE,
                        right,
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sheet", type=Path, help="the picture to write")
    parser.add_argument(
        "--table", action="store_true", help="every face with its tags, as Markdown"
    )
    parser.add_argument("--half", choices=["tuned", "kept aside"], help="only one half")
    asked = parser.parse_args()
    if asked.table:
        _table()
        return
    told = [one for one in judged() if asked.half in (None, one.half)]
    halves = ("tuned", "kept aside") if asked.half is None else (asked.half,)
    with LABELS.open() as file:
        count = {
            half: sum(row["half"] == half for row in csv.DictReader(file))
            for half in halves
            if not file.seek(0)
        }
    for half in halves:
        print(f"{half}: {count[half]} faces")
        rows: dict[str, list[Judged]] = defaultdict(list)
        for one in told:
            if one.half == half:
                rows[one.column].append(one)
        every = [one for of_column in rows.values() for one in of_column]
        for name, own in [*((column, rows[column]) for column in CLAIMS), ("all", every)]:
            right, sure = [one for one in own if one.right], [one for one in own if one.sure]
            faces = len({(one.photo, one.place) for one in own})
            print(
                f"  {name:11} {len(right):3} of {len(own):3} right, sure ones {sum(one.sure for one in right):3} "
                f"of {len(sure):3}; says something of {faces}"
            )
        for one in every:
            if not one.right:
                print(f"  wrong: {one.photo} #{one.place} {one.tag}{' (sure)' if one.sure else ''}")
    if asked.sheet:
        _draw(asked.sheet)


def _table() -> None:
    from public_faces import found_faces

    from authface_data.captions.measured.stage import measure_face

    wrong = {(one.photo, one.place, one.tag) for one in judged() if not one.right}
    with LABELS.open() as file:
        halves = {(row["photo"], int(row["face"])): row["half"] for row in csv.DictReader(file)}
    print("| photograph | face | half | tags |\n|---|---|---|---|")
    for face in found_faces():
        tags = [
            fact.tag for fact in measure_face(face.row, face.crop) if fact.tag != "colour photograph"
        ]
        shown = [f"~~{tag}~~" if (face.photo, face.place, tag) in wrong else tag for tag in tags]
        print(
            f"| {face.photo} | {face.place + 1} | {halves[face.photo, face.place]} | {', '.join(shown)} |"
        )


def _draw(path: Path) -> None:
    import textwrap

    from PIL import Image, ImageDraw, ImageFont
    from public_faces import found_faces

    from authface_data.captions.measured.stage import measure_face

    side, columns, text = 256, 4, 190
    faces, font = found_faces(), ImageFont.load_default(size=15)
    sheet = Image.new(
        "RGB", (columns * (side + 8), -(-len(faces) // columns) * (side + text)), "#16181c"
    )
    pen = ImageDraw.Draw(sheet)
    for number, face in enumerate(faces):
        x, y = number % columns * (side + 8), number // columns * (side + text)
        sheet.paste(Image.fromarray(face.crop).resize((side, side)), (x, y))
        tags = ", ".join(
            f"{fact.tag} .{round(100 * fact.confidence):02d}"
            for fact in measure_face(face.row, face.crop)
        )
        lines = textwrap.wrap(f"{face.photo} #{face.place}: {tags}".replace(".100", "1"), 36)
        pen.multiline_text((x, y + side + 2), "\n".join(lines), fill="#e8e6e3", font=font)
    sheet.save(path)


if __name__ == "__main__":
    main()
