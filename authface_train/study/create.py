"""One self-contained page that asks which of two pictures is better; nothing in what is shown tells the methods apart."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from authface_train.evaluation.image_pairs import matched, pictures_by_name, read
from manifests.support.errors import UserError

PAGE = "study.html"


@dataclass(frozen=True)
class Method:
    name: str
    folder: Path


@dataclass(frozen=True)
class Pair:
    """a_left: whether the picture of method a stands on the left; the two are (H, W, 3) uint8 of one size."""

    name: str
    a_left: bool
    a: np.ndarray
    b: np.ndarray
    given: np.ndarray | None


def draw_pairs(
    a: Method, b: Method, given: Path | None, seed: int, count: int | None
) -> list[Pair]:
    """Pairs that both methods have, in an order and on sides drawn from the seed; `count` of them.

    Raises UserError where the folders share no name, or a pair is not of one size.
    """
    both = matched(pictures_by_name(a.folder), pictures_by_name(b.folder)).pairs
    if not both:
        raise UserError(f"no picture of {a.folder} has the name of one in {b.folder}")
    if count is not None and count > len(both):
        raise UserError(f"--count {count}: there are {len(both)} pairs")
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(sorted(both))][:count]
    # As often on one side as on the other: a rater who likes the left must not decide.
    sides = rng.permutation(np.arange(len(names)) % 2 == 0)
    shown = _given(given, names) if given is not None else {}
    pairs = []
    for name, a_left in zip(names, sides, strict=True):
        of_a, of_b = (read(path)[0] for path in both[name])
        if of_a.shape != of_b.shape:
            raise UserError(
                f"{name} is not of one size in {a.folder} and {b.folder}: people would see which is which"
            )
        pairs.append(Pair(name, bool(a_left), of_a, of_b, shown.get(name)))
    return pairs


def _given(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    found = matched({name: Path(name) for name in names}, pictures_by_name(folder)).pairs
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{folder} has no picture named {missing[0]}")
    return {name: read(path)[0] for name, (_, path) in found.items()}


def page(a: Method, b: Method, pairs: list[Pair], seed: int) -> str:
    """The HTML. Its `study` is a hash of the pictures, methods and sides: answers of another page do not mix with it."""
    import jinja2

    digest = hashlib.sha256(
        json.dumps([a.name, b.name, seed, [(pair.name, pair.a_left) for pair in pairs]]).encode()
    )
    for pair in pairs:
        digest.update(pair.a.tobytes() + pair.b.tobytes())
    data = {
        "study": digest.hexdigest()[:16],
        "a": a.name,
        "b": b.name,
        "seed": seed,
        "pairs": [
            {
                "name": pair.name,
                "left": "a" if pair.a_left else "b",
                "pictures": [
                    _uri(pair.a if pair.a_left else pair.b),
                    _uri(pair.b if pair.a_left else pair.a),
                ],
                "given": None if pair.given is None else _uri(pair.given),
            }
            for pair in pairs
        ],
    }
    files = resources.files("authface_train.study")
    # `<` is escaped, so that a file's name cannot end the script that the data stand in.
    return (
        jinja2.Environment(autoescape=True)
        .from_string(files.joinpath("page.html.jinja").read_text())
        .render(
            data=json.dumps(data).replace("<", "\\u003c"),
            script=files.joinpath("page.js").read_text(),
        )
    )


def _uri(picture: np.ndarray) -> str:
    """Without loss: what is compared must not be the encoder's work."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", lossless=True, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
