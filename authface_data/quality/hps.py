"""HPSv2: how much people would prefer a picture for its prompt (Wu et al. 2023, arXiv 2306.09341).

The score is the cosine of picture and prompt in a ViT-H-14 CLIP that was fine-tuned on human
choices: .26 to .30 for the images of the paper's Table 3. The package `hpsv2` needs protobuf
below 4 and pytest 7.2.0 and lacks its tokenizer's vocabulary. Its network and tokenizer are those
of open_clip, which is used instead: with equal weights both give equal scores.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from authface_data.weights import WeightFile, find_weights
from manifests.support.errors import MissingResourceError
from manifests.support.extras import require_extras
from manifests.support.text import excerpt

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "ViT-H-14"
SIDE_PX = 224

# Apache-2.0. Version 2.0, the one that the package scores with by default. Its hash is not
# published.
HPS_V2 = WeightFile(
    file="HPS_v2_compressed.pt",
    sha256="",
    url="https://huggingface.co/xswu/HPSv2/resolve/main/HPS_v2_compressed.pt",
)


class HpsScorer:
    """Scores pictures with HPSv2.

    Args:
        weights_dir: Folder of downloaded weights.
        device: Device of the network, such as "cpu" or "cuda".

    Raises:
        MissingResourceError: If open_clip is not installed, or if the weights are missing and
            cannot be downloaded, or are no weights of the network.
    """

    def __init__(self, weights_dir: str | None, device: str) -> None:
        require_extras("hps", purpose="the metric hpsv2")
        import open_clip
        import torch

        path = find_weights(HPS_V2, weights_dir)
        with _silence_warnings():
            model = open_clip.create_model(ARCHITECTURE, load_weights=False, output_dict=True)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            model.load_state_dict(state)
        except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError) as error:
            raise MissingResourceError(
                f"{path} does not hold the weights of HPSv2 ({excerpt(str(error), 100)}); "
                f"{HPS_V2.instructions}"
            ) from error
        self._device = device
        self._model = model.eval().to(device)
        self._tokenizer = open_clip.get_tokenizer(ARCHITECTURE)

    def score(self, picture: np.ndarray, prompt: str) -> float:
        """Score one picture.

        Args:
            picture: (height, width, 3) uint8 RGB.
            prompt: What it was generated from; the network sees its first 77 tokens.

        Returns:
            The cosine of picture and prompt, from -1 to 1; higher is better.
        """
        import torch

        with torch.no_grad():
            features = self._model(
                preprocess(picture)[None].to(self._device),
                self._tokenizer([prompt]).to(self._device),
            )
        return float((features["image_features"] * features["text_features"]).sum())


@contextlib.contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silence open_clip, which warns that the network has random weights until they are loaded."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def preprocess(picture: np.ndarray) -> torch.Tensor:
    """Resize, crop and normalise a picture as the package `hpsv2` does.

    Args:
        picture: (height, width, 3) uint8 RGB.

    Returns:
        (3, 224, 224) float32.
    """
    import open_clip
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    tensor = transforms.resize(
        tensor, [SIDE_PX], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    tensor = transforms.center_crop(tensor, [SIDE_PX, SIDE_PX])
    return transforms.normalize(
        tensor, list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD)
    )
