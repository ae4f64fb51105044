"""The captions that a Stage I run encodes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from authface_train.data.sample_keys import numpy_generator
from authface_train.settings import PriorSettings
from manifests.captions import caption_text, truncate_tags

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captions:
    """Captions of one run, by use."""

    training: list[str]
    """`settings.orders` captions per training face, face by face."""
    held_out: list[str]
    """One caption per held-out face."""
    preview: list[str]
    """Prompts of the preview grids."""

    @property
    def all(self) -> list[str]:
        """All captions: training, held-out, preview."""
        return [*self.training, *self.held_out, *self.preview]


def build_captions(
    pipeline: StableDiffusionXLPipeline,
    training: pd.DataFrame,
    held_out: pd.DataFrame,
    settings: PriorSettings,
) -> Captions:
    """Collect the captions of a run.

    Args:
        pipeline: Its tokenizers are used.
        training: Training view of the training faces.
        held_out: Training view of the held-out faces; it may be empty.
        settings: Settings of the run.
    """
    train_captions, num_cut = captions_of_view(pipeline, training, settings.orders, settings.seed)
    val_captions, _ = captions_of_view(pipeline, held_out, 1, settings.seed)
    if num_cut:
        logger.warning(
            "%d captions are longer than the text encoders see; their last tags are left out",
            num_cut,
        )
    candidates = val_captions or train_captions[:: settings.orders]
    distinct = list(dict.fromkeys(candidates))
    preview = settings.draw.prompts or distinct[: settings.draw.count]
    return Captions(train_captions, val_captions, preview)


def captions_of_view(
    pipeline: StableDiffusionXLPipeline, view: pd.DataFrame, orders: int, seed: int
) -> tuple[list[str], int]:
    """The captions of the faces of a training view.

    With one order it is the view's own caption, with several each caption is a shuffle of the
    face's tags. Tags that the text encoders would not see are left out, from the last.

    Args:
        pipeline: Its tokenizers count the tokens.
        view: Training view with the columns face_id, tags and caption.
        orders: Captions per face.
        seed: Seed of the shuffles.

    Returns:
        The captions, `orders` per face, face by face; and the number of faces that lost tags.
    """

    def count_tokens(caption: str) -> int:
        return _count_tokens(pipeline, caption)

    captions: list[str] = []
    num_cut = 0
    for face_id, face_tags, caption in zip(
        view["face_id"], view["tags"], view["caption"], strict=True
    ):
        # A face without a caption has None or NaN in both columns.
        tags = face_tags if isinstance(face_tags, list) else []
        kept, removed = truncate_tags(tags, count_tokens)
        num_cut += bool(removed)
        if orders > 1:
            captions += [_shuffled_caption(kept, seed, order, face_id) for order in range(orders)]
        elif removed or not isinstance(caption, str):
            captions.append(caption_text(kept))
        else:
            captions.append(caption)
    return captions, num_cut


def _shuffled_caption(tags: list[str], seed: int, order: int, face_id: str) -> str:
    permutation = numpy_generator(seed, order, face_id, "tags").permutation(len(tags))
    return caption_text(tags[index] for index in permutation)


def _count_tokens(pipeline: StableDiffusionXLPipeline, caption: str) -> int:
    """Tokens of a caption, by the tokenizer that needs more of them."""
    tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
    return max(len(tokenizer(caption, truncation=False).input_ids) for tokenizer in tokenizers)
