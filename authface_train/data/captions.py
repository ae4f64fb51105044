"""Which captions a run encodes: those of every training row, of held-out people, of what it draws, and the empty one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from authface_train.data.sample_keys import numpy_generator
from authface_train.settings import PriorSettings
from manifests.captions import truncate_tags
from manifests.support.console import console


@dataclass(frozen=True)
class Captions:
    """training: `orders` for each row, one row after the other; held_out: one for each; drawn: of the grids."""

    training: list[str]
    held_out: list[str]
    drawn: list[str]

    @property
    def all(self) -> list[str]:
        """One after the other."""
        return [*self.training, *self.held_out, *self.drawn]


def build_captions(
    pipeline: Any, training: pd.DataFrame, held_out: pd.DataFrame, settings: PriorSettings
) -> Captions:
    """Of a run. Says how many captions are longer than the text encoders see."""

    def of(view: pd.DataFrame, orders: int) -> tuple[list[str], int]:
        tags = [own if isinstance(own, list) else [] for own in view["tags"]]
        return compose_captions(pipeline, tags, view["face_id"].tolist(), orders, settings.seed)

    ours, cut = of(training, settings.orders)
    theirs, _ = of(held_out, 1)
    if cut:
        console.print(
            f"[yellow]{cut} captions are longer than the text encoders see:[/] their last tags are left out"
        )
    different = list(dict.fromkeys(theirs or ours[:: settings.orders]))
    return Captions(ours, theirs, settings.draw.prompts or different[: settings.draw.count])


def compose_captions(
    pipeline: Any, tags: Sequence[Sequence[str]], face_ids: Sequence[str], orders: int, seed: int
) -> tuple[list[str], int]:
    """The captions of every row, `orders` of each, one row after the other; and how many rows had too many tags.

    A row's tags that the text encoders would not see whole are left out, from the last. Of one order it is the tags' own; of
    several each is a shuffle, by the seed, its number and the face_id.
    """
    captions, cut = [], 0
    for face_id, own in zip(face_ids, tags, strict=True):
        seen, left_out = truncate_tags(own, lambda caption: _tokens(pipeline, caption))
        cut += bool(left_out)
        for number in range(orders):
            order = (
                numpy_generator(seed, number, face_id, "tags").permutation(len(seen))
                if orders > 1
                else range(len(seen))
            )
            captions.append(", ".join(seen[place] for place in order))
    return captions, cut


def _tokens(pipeline: Any, caption: str) -> int:
    """How many tokens a caption is, by whichever tokenizer counts more."""
    both = (pipeline.tokenizer, pipeline.tokenizer_2)
    return max(len(tokenizer(caption, truncation=False).input_ids) for tokenizer in both)
