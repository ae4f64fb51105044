"""Creates the page of a user study: one offline HTML file that asks which picture looks better.

Nothing that a rater sees reveals which method made a picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from authface_data.images.encode import lossless_data_uri
from authface_train.evaluation.image_pairs import find_pictures, match_pictures, read_picture
from manifests.support import html_page
from manifests.support.errors import UserError
from manifests.support.files import write_atomic

PAGE_FILE = "study.html"
PACKAGE = "authface_train.study"


@dataclass(frozen=True)
class Method:
    """A method and the folder of its pictures."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Pair:
    """Two pictures to compare.

    Attributes:
        name: Name of the pictures.
        a_left: Whether the picture of method A is on the left.
        a: Picture of method A, (height, width, 3) uint8 RGB.
        b: Picture of method B, same shape.
        degraded: The degraded picture, or None if it is not shown.
    """

    name: str
    a_left: bool
    a: np.ndarray
    b: np.ndarray
    degraded: np.ndarray | None


@dataclass(frozen=True)
class Study:
    """A page that was written, and its number of pairs."""

    path: Path
    pairs: int


def create_study(
    a: Method, b: Method, output: Path, *, degraded: Path | None, seed: int, count: int | None
) -> Study:
    """Draw pairs and write the page.

    Args:
        a: The first method.
        b: The second method.
        output: Folder for the page. It is created if necessary.
        degraded: Folder of the degraded pictures, shown above each pair.
        seed: Seed of the choice, order and sides of the pairs.
        count: Number of pairs. None uses all.

    Raises:
        UserError: As `draw_pairs` does.
    """
    pairs = draw_pairs(a, b, degraded=degraded, seed=seed, count=count)
    path = output / PAGE_FILE
    write_atomic(path, render_page(a, b, pairs, seed))
    return Study(path, len(pairs))


def draw_pairs(
    a: Method, b: Method, *, degraded: Path | None, seed: int, count: int | None
) -> list[Pair]:
    """Draw pairs of pictures, their order and their sides.

    Args:
        a: The first method.
        b: The second method. Pictures are matched by name.
        degraded: Folder of the degraded pictures.
        seed: Seed of the random draws.
        count: Number of pairs. None uses all.

    Raises:
        UserError: If the folders share no name or too few, if the pictures of a pair differ in
            size, or if a degraded picture is missing.
    """
    matches = match_pictures(find_pictures(a.folder), find_pictures(b.folder)).pairs
    if not matches:
        raise UserError(
            f"no picture of {a.folder} has the name of a picture in {b.folder}; "
            "pictures are matched by name"
        )
    if count is not None and count > len(matches):
        raise UserError(f"--count {count} is more than the {len(matches)} pairs that exist")

    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(sorted(matches))][:count]
    # Each method is on the left equally often, so that a preference for one side cancels out.
    a_left_flags = rng.permutation(np.arange(len(names)) % 2 == 0)
    degraded_pictures = {} if degraded is None else _read_degraded(degraded, names)
    pairs = []
    for name, a_left in zip(names, a_left_flags, strict=True):
        picture_a, picture_b = (read_picture(path)[0] for path in matches[name])
        if picture_a.shape != picture_b.shape:
            raise UserError(
                f"{name} differs in size between {a.folder} and {b.folder}, which would reveal the "
                "method; resize one of them"
            )
        pairs.append(
            Pair(
                name=name,
                a_left=bool(a_left),
                a=picture_a,
                b=picture_b,
                degraded=degraded_pictures.get(name),
            )
        )
    return pairs


def _read_degraded(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the degraded picture of each name."""
    matches = match_pictures({name: Path(name) for name in names}, find_pictures(folder))
    paths = {str(name): path for name, path in matches.pairs.values()}
    for name in names:
        if name not in paths:
            raise UserError(f"{folder} has no picture named {name}")
    return {name: read_picture(paths[name])[0] for name in names}


def render_page(a: Method, b: Method, pairs: Sequence[Pair], seed: int) -> str:
    """Render the HTML page.

    Args:
        a: The first method.
        b: The second method.
        pairs: The pairs, in the order of display.
        seed: Seed that the pairs were drawn with.

    Returns:
        The page. It carries an id of the study, a hash of methods, sides and pixels, that
        keeps answers of different pages apart.
    """
    sides = [(pair.name, pair.a_left) for pair in pairs]
    digest = hashlib.sha256(json.dumps([a.name, b.name, seed, sides]).encode())
    for pair in pairs:
        digest.update(pair.a.tobytes() + pair.b.tobytes())
    data = {
        "study": digest.hexdigest()[:16],
        "a": a.name,
        "b": b.name,
        "seed": seed,
        "pairs": [_encode_pair(pair) for pair in pairs],
    }
    return html_page.render_page(
        PACKAGE,
        "page.html.jinja",
        has_degraded=any(pair.degraded is not None for pair in pairs),
        data=html_page.json_for_script(data),
        script=html_page.read_asset(PACKAGE, "answers.js")
        + html_page.read_asset(PACKAGE, "page.js"),
    )


def _encode_pair(pair: Pair) -> dict[str, object]:
    """A pair as data of the page; pictures are lossless, so that no encoder affects the answers."""
    left, right = (pair.a, pair.b) if pair.a_left else (pair.b, pair.a)
    return {
        "name": pair.name,
        "left": "a" if pair.a_left else "b",
        "pictures": [lossless_data_uri(left), lossless_data_uri(right)],
        "degraded": None if pair.degraded is None else lossless_data_uri(pair.degraded),
    }
