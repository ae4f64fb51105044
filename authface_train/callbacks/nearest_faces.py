"""Nearest training face of an image, by VAE latents and by face descriptor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image

from authface_data.faces.descriptor import FaceDescriptor
from authface_train.callbacks.image_grid import label_grid
from authface_train.data.cache import Cache
from authface_train.data.latents import Latents
from authface_train.data.sample_keys import hash_order
from manifests.support.errors import MissingResourceError

logger = logging.getLogger(__name__)

Measure = Literal["latent", "descriptor"]
MEASURES: tuple[Measure, ...] = ("latent", "descriptor")

MAX_TRAINING_FACES = 2000
"""Maximum number of training faces to compare with. Larger sets are reduced to a fixed subset."""
MAX_HELD_OUT_FACES = 200
"""Maximum number of held-out faces for the baseline. Larger sets are reduced to a fixed subset."""
DESCRIPTOR_DIM = 128


@dataclass
class NearestMatch:
    """The nearest training face of one image.

    Attributes:
        index: Index of the nearest face in the training set, by measure. The key "descriptor" is
            missing if no face is detected or the descriptor's weights are not installed.
        distance: Distance to that face, by measure: root mean square difference of the latents,
            Euclidean distance of the descriptors.
        image: Crop (H, W, 3) uint8 of the nearest face, by descriptor if possible.
    """

    index: dict[Measure, int] = field(default_factory=dict)
    distance: dict[Measure, float] = field(default_factory=dict)
    image: np.ndarray | None = None


@dataclass
class HeldOutBaseline:
    """Distances from held-out faces to their nearest training faces.

    Attributes:
        minimum: Smallest distance of any held-out face, by measure.
        median: Median distance, by measure.
    """

    minimum: dict[Measure, float] = field(default_factory=dict)
    median: dict[Measure, float] = field(default_factory=dict)


class NearestFaces:
    """Finds the nearest training face of generated images, and of held-out faces as a baseline.

    If the descriptor's weights are not installed, only latents are compared, with a warning.

    Args:
        training: Latents of the training faces.
        held_out: Latents of the held-out faces; may be empty.
        load_crop: Loads the crop (H, W, 3) uint8 of a key of `training` or `held_out`.
        scaling_factor: Scaling factor of the VAE.
        descriptors: Cache for the descriptors of crops.
        weights_dir: Folder of model weights, or None for the default one.
    """

    def __init__(
        self,
        *,
        training: Latents,
        held_out: Latents,
        load_crop: Callable[[str], np.ndarray],
        scaling_factor: float,
        descriptors: Cache,
        weights_dir: str | None,
    ) -> None:
        self.training = training
        self.training_indices = _fixed_subset(training.keys, MAX_TRAINING_FACES)
        held_out_indices = _fixed_subset(held_out.keys, MAX_HELD_OUT_FACES)
        self.held_out = Latents(held_out.cache, [held_out.keys[i] for i in held_out_indices])
        self.load_crop = load_crop
        self.scaling_factor = scaling_factor
        self.descriptors = descriptors
        self.weights_dir = weights_dir

    def find(self, latents: torch.Tensor, images: Sequence[np.ndarray]) -> list[NearestMatch]:
        """Find the nearest training face of each image.

        Args:
            latents: (n, channels, height, width) latents of the images, multiplied by the scaling
                factor.
            images: The n images, (H, W, 3) uint8.

        Returns:
            n matches.
        """
        matches = [NearestMatch() for _ in images]
        self._match_latents(latents, matches)
        self._match_descriptors([self._describe(image) for image in images], matches)
        for match in matches:
            index = match.index.get("descriptor", match.index.get("latent"))
            if index is not None:
                match.image = self.load_crop(self.training.keys[index])
        return matches

    @cached_property
    def baseline(self) -> HeldOutBaseline:
        """Distances of the held-out faces to the training set; empty without held-out faces."""
        baseline = HeldOutBaseline()
        if not len(self.held_out):
            return baseline
        matches = [NearestMatch() for _ in self.held_out.keys]
        posterior_means = [self.held_out[index][0, 0] for index in range(len(matches))]
        self._match_latents(torch.stack(posterior_means) * self.scaling_factor, matches)
        self._match_descriptors(self._cached_descriptors(self.held_out.keys), matches)
        for measure in MEASURES:
            distances = known_distances(matches, measure)
            if distances:
                baseline.minimum[measure] = min(distances)
                baseline.median[measure] = float(np.median(distances))
        return baseline

    def _match_latents(self, latents: torch.Tensor, matches: list[NearestMatch]) -> None:
        """Set each match's nearest face by the root mean square difference of latents.

        A training face is compared by the posterior mean of its crop and of the mirrored crop.
        """
        smallest = torch.full((len(latents),), float("inf"))
        for index in self.training_indices:
            means = self.training[index][:, 0] * self.scaling_factor
            distance = (latents[:, None] - means[None]).square().mean((2, 3, 4)).sqrt().amin(1)
            for position in torch.nonzero(distance < smallest).flatten().tolist():
                matches[position].index["latent"] = index
                matches[position].distance["latent"] = float(distance[position])
            smallest = torch.minimum(smallest, distance)

    def _match_descriptors(
        self, descriptors: Sequence[np.ndarray | None], matches: list[NearestMatch]
    ) -> None:
        """Set the nearest face by descriptor of each match whose image has a descriptor."""
        keys = [self.training.keys[index] for index in self.training_indices]
        training_descriptors = {
            index: descriptor
            for index, descriptor in zip(
                self.training_indices, self._cached_descriptors(keys), strict=True
            )
            if descriptor is not None
        }
        if not training_descriptors:
            return
        for descriptor, match in zip(descriptors, matches, strict=True):
            if descriptor is None:
                continue
            distances = {
                index: float(np.linalg.norm(descriptor - training_descriptor))
                for index, training_descriptor in training_descriptors.items()
            }
            match.index["descriptor"] = min(distances, key=distances.__getitem__)
            match.distance["descriptor"] = min(distances.values())

    @cached_property
    def _descriptor(self) -> FaceDescriptor | None:
        descriptor = FaceDescriptor()
        try:
            descriptor.setup(self.weights_dir)
        except MissingResourceError as error:
            logger.warning("the memorisation audit compares latents only: %s", error)
            return None
        return descriptor

    def _describe(self, image: np.ndarray) -> np.ndarray | None:
        return None if self._descriptor is None else self._descriptor.describe(image)

    def _cached_descriptors(self, keys: Sequence[str]) -> list[np.ndarray | None]:
        """Descriptors of crops, computed once. None for a crop without a detectable face."""
        if self._descriptor is None:
            return [None] * len(keys)
        missing = self.descriptors.missing(keys)
        if missing:
            records = {}
            for key in missing:
                descriptor = self._descriptor.describe(self.load_crop(key))
                if descriptor is None:
                    # NaN means "no face", so that the detector does not search the crop again.
                    descriptor = np.full(DESCRIPTOR_DIM, np.nan)
                records[key] = {"descriptor": torch.from_numpy(descriptor).float()}
            self.descriptors.write(records)
        cached = [self.descriptors[key]["descriptor"].numpy() for key in keys]
        return [None if np.isnan(descriptor).any() else descriptor for descriptor in cached]


def known_distances(matches: Sequence[NearestMatch], measure: Measure) -> list[float]:
    """Distances by a measure, of the matches that have one.

    Args:
        matches: The matches.
        measure: "latent" or "descriptor".
    """
    return [match.distance[measure] for match in matches if measure in match.distance]


def _fixed_subset(keys: Sequence[str], max_count: int) -> list[int]:
    """Sorted indices of up to `max_count` keys, chosen independently of the order of the keys."""
    return sorted(hash_order(keys)[:max_count])


def nearest_grid(
    images: Sequence[np.ndarray],
    matches: Sequence[NearestMatch],
    possible_copies: Sequence[bool],
) -> Image.Image:
    """Draw each image beside its nearest training face.

    Args:
        images: Generated images, (H, W, 3) uint8.
        matches: The nearest training face of each image; a missing one is drawn black.
        possible_copies: Whether each image is flagged as a possible copy.

    Returns:
        An RGB image with a labelled row for each pair.
    """
    cells = []
    labels = []
    for image, match, is_copy in zip(images, matches, possible_copies, strict=True):
        nearest = match.image if match.image is not None else np.zeros_like(image)
        cells += [image, nearest]
        distances = "  ".join(f"{name} {value:.3f}" for name, value in match.distance.items())
        flag = "  COPY?" if is_copy else ""
        labels.append(f"preview | nearest training face: {distances}{flag}")
    return label_grid(cells, labels)
