"""Creates the page of a ranking: one offline HTML file on which people rank k pictures per prompt.

Nothing that a rater sees reveals which method made a picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from authface_data.images.encode import lossless_data_uri
from authface_train.evaluation.image_pairs import find_pictures, read_picture
from authface_train.study.create import PACKAGE, PAGE_FILE, Method, Study
from manifests.support import html_page
from manifests.support.errors import UserError
from manifests.support.files import write_atomic

MAX_METHODS = 9
"""A rater chooses a picture with one of the keys 1 to 9."""


@dataclass(frozen=True)
class RankedItem:
    """The pictures of one name, to be ranked against each other.

    Attributes:
        name: Name of the pictures.
        prompt: The prompt that they were generated from, or None.
        order: Indices of the methods, from left to right.
        pictures: Pictures in that order, (height, width, 3) uint8 RGB each, of one shape.
    """

    name: str
    prompt: str | None
    order: tuple[int, ...]
    pictures: tuple[np.ndarray, ...]


def create_ranking(
    methods: Sequence[Method],
    output: Path,
    *,
    prompts: Mapping[str, str] | None,
    seed: int,
    count: int | None,
) -> Study:
    """Draw pictures and write the page.

    Args:
        methods: The methods, two to nine.
        output: Folder for the page. It is created if necessary.
        prompts: Name of a picture to its prompt. One picture per prompt is drawn.
        seed: Seed of the choice and the order of pictures.
        count: Largest number of prompts, or of names without prompts. None uses all.

    Raises:
        UserError: As `draw_items` does.
    """
    items = draw_items(methods, prompts=prompts, seed=seed, count=count)
    path = output / PAGE_FILE
    write_atomic(path, render_ranking(methods, items, seed))
    return Study(path, len(items))


def draw_items(
    methods: Sequence[Method],
    *,
    prompts: Mapping[str, str] | None,
    seed: int,
    count: int | None,
) -> list[RankedItem]:
    """Draw names, and the order of the methods for each.

    Each method appears about equally often at each place, so that a preference for a place cancels
    out.

    Args:
        methods: The methods. Their pictures have the same names.
        prompts: Name of a picture to its prompt. One picture per prompt is drawn.
        seed: Seed of the random draws.
        count: Largest number of prompts, or of names without prompts. None uses all.

    Raises:
        UserError: If the number of methods is out of range, if the folders share no name or none
            with a prompt, or if the pictures of a name differ in size.
    """
    if not 2 <= len(methods) <= MAX_METHODS:
        raise UserError(f"a ranking needs 2 to {MAX_METHODS} methods; got {len(methods)}")
    found = [find_pictures(method.folder) for method in methods]
    shared = sorted(set.intersection(*(set(pictures) for pictures in found)))
    if not shared:
        folders = ", ".join(str(method.folder) for method in methods)
        raise UserError(f"no name of a picture is in all of {folders}; pictures match by name")

    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(shared)]
    if prompts is not None:
        names = _one_per_prompt(names, prompts)
        if not names:
            raise UserError(
                f"the prompts name none of the {len(shared)} pictures; the column file must hold "
                "their names"
            )
    names = names[:count]

    items = []
    for name, order in zip(names, _draw_orders(len(methods), len(names), rng), strict=True):
        pictures = tuple(read_picture(found[index][name])[0] for index in order)
        if len({picture.shape for picture in pictures}) > 1:
            raise UserError(
                f"{name} differs in size between the methods, which would reveal them; resize "
                "some of them"
            )
        items.append(RankedItem(name, (prompts or {}).get(name), order, pictures))
    return items


def _one_per_prompt(names: Sequence[str], prompts: Mapping[str, str]) -> list[str]:
    """The first name of each prompt, in the order of `names`."""
    first_of: dict[str, str] = {}
    for name in names:
        if name in prompts:
            first_of.setdefault(prompts[name], name)
    return list(first_of.values())


def _draw_orders(
    num_methods: int, num_items: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Orders of the methods, in rounds of the rotations of a random order."""
    orders: list[tuple[int, ...]] = []
    while len(orders) < num_items:
        order = rng.permutation(num_methods)
        for shift in rng.permutation(num_methods):
            orders.append(tuple(int(index) for index in np.roll(order, shift)))
    return orders[:num_items]


def render_ranking(methods: Sequence[Method], items: Sequence[RankedItem], seed: int) -> str:
    """Render the HTML page.

    Args:
        methods: The methods.
        items: The items, in the order of display.
        seed: Seed that the items were drawn with.

    Returns:
        The page. It carries an id of the study, a hash of methods, orders and pixels, that keeps
        answers of different pages apart.
    """
    names = [method.name for method in methods]
    orders = [(item.name, item.order) for item in items]
    digest = hashlib.sha256(json.dumps([names, seed, orders]).encode())
    for item in items:
        for picture in item.pictures:
            digest.update(picture.tobytes())
    data = {
        "study": digest.hexdigest()[:16],
        "methods": names,
        "items": [
            {
                "name": item.name,
                "prompt": item.prompt,
                "order": item.order,
                "pictures": [lossless_data_uri(picture) for picture in item.pictures],
            }
            for item in items
        ],
    }
    return html_page.render_page(
        PACKAGE,
        "ranking.html.jinja",
        count=len(methods),
        has_prompts=any(item.prompt for item in items),
        data=html_page.json_for_script(data),
        script=html_page.read_asset(PACKAGE, "answers.js")
        + html_page.read_asset(PACKAGE, "ranking.js"),
    )
