"""For a drawn picture, the nearest face of the training set: by latents, and by who it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from authface_data.faces.descriptor import Descriptor
from authface_train.callbacks.previews import label_grid
from authface_train.data.cache import Cache
from authface_train.data.latents import Latents
from manifests.support.console import console
from manifests.support.errors import MissingResourceError
from manifests.support.fingerprint import short_hash

# Of a larger training set so many faces are compared with, and of held-out ones so many set the yardstick; always the same.
MOST, MOST_HELD_OUT = 2000, 200


class FaceSet(NamedTuple):
    """latents: (n, channels, h, w), times the scaling factor; pictures: n of (H, W, 3) uint8."""

    latents: torch.Tensor
    pictures: Sequence[np.ndarray]


@dataclass
class NearestMatch:
    """The nearest training face by each measure that could be taken: its place in the training set, and how far it is."""

    place: dict[str, int] = field(default_factory=dict)
    distance: dict[str, float] = field(default_factory=dict)
    picture: np.ndarray | None = None


@dataclass
class HeldOutBaseline:
    """What held-out people have: the least and the median distance to the training set, by measure."""

    least: dict[str, float] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)


class NearestFaces:
    """latents, crops, keys: of the training set and of held-out people; crops are read when they are needed.

    descriptors: where those of crops are kept. Without the descriptor's weights, latents alone are compared, and that is said.
    """

    def __init__(
        self,
        training: Latents,
        held_out: Latents,
        crop: Callable[[str], np.ndarray],
        scaling_factor: float,
        descriptors: Cache,
        weights_dir: str | None,
    ):
        self.training, self.places = training, _some(training.keys, MOST)
        chosen = [held_out.keys[place] for place in _some(held_out.keys, MOST_HELD_OUT)]
        self._held_out, self.crop, self.scaling_factor = (
            Latents(held_out.cache, chosen),
            crop,
            scaling_factor,
        )
        self.descriptors, self.weights_dir = descriptors, weights_dir

    def nearest(self, drawn: FaceSet) -> list[NearestMatch]:
        """Of each drawn picture."""
        found = [NearestMatch() for _ in drawn.pictures]
        self._by_latents(drawn.latents, found)
        own = [self._describe(picture) for picture in drawn.pictures]
        self._by_descriptor(own, found)
        for near in found:
            place = near.place.get("descriptor", near.place.get("latent"))
            near.picture = None if place is None else self.crop(self.training.keys[place])
        return found

    @cached_property
    def held_out(self) -> HeldOutBaseline:
        """The yardstick: held-out faces' own nearest training faces."""
        if not len(self._held_out):
            return HeldOutBaseline()
        found = [NearestMatch() for _ in self._held_out.keys]
        means = (
            torch.stack([self._held_out[place][0, 0] for place in range(len(found))])
            * self.scaling_factor
        )
        self._by_latents(means, found)
        self._by_descriptor(self._kept(self._held_out.keys), found)
        usual = HeldOutBaseline()
        for kind in ("latent", "descriptor"):
            distances = [near.distance[kind] for near in found if kind in near.distance]
            if distances:
                usual.least[kind], usual.median[kind] = min(distances), float(np.median(distances))
        return usual

    def _by_latents(self, latents: torch.Tensor, found: list[NearestMatch]) -> None:
        """Root mean square difference to the posterior mean of a face or its mirror image."""
        least = torch.full((len(latents),), float("inf"))
        for place in self.places:
            means = self.training[place][:, 0] * self.scaling_factor
            distance = (latents[:, None] - means[None]).square().mean((2, 3, 4)).sqrt().amin(1)
            for number in torch.nonzero(distance < least).flatten().tolist():
                found[number].place["latent"] = place
                found[number].distance["latent"] = float(distance[number])
            least = torch.minimum(least, distance)

    def _by_descriptor(self, own: Sequence[np.ndarray | None], found: list[NearestMatch]) -> None:
        kept = self._kept([self.training.keys[place] for place in self.places])
        faces = {
            place: one for place, one in zip(self.places, kept, strict=True) if one is not None
        }
        for one, near in zip(own, found, strict=True):
            if one is not None and faces:
                distances = {
                    place: float(np.linalg.norm(one - face)) for place, face in faces.items()
                }
                near.place["descriptor"] = min(distances, key=distances.__getitem__)
                near.distance["descriptor"] = min(distances.values())

    @cached_property
    def _descriptor(self) -> Descriptor | None:
        descriptor = Descriptor()
        try:
            descriptor.setup(self.weights_dir)
        except MissingResourceError as error:
            console.print(f"[yellow]The audit compares latents only:[/] {error}")
            return None
        return descriptor

    def _describe(self, picture: np.ndarray) -> np.ndarray | None:
        return None if self._descriptor is None else self._descriptor.describe(picture)

    def _kept(self, keys: Sequence[str]) -> list[np.ndarray | None]:
        """The descriptors of crops, made once and kept. A crop without a detectable face has none."""
        if self._descriptor is None:
            return [None] * len(keys)
        missing = self.descriptors.missing(keys)
        if missing:
            none = np.full(128, np.nan)
            made = {key: self._descriptor.describe(self.crop(key)) for key in missing}
            records = {key: none if one is None else one for key, one in made.items()}
            self.descriptors.write(
                {key: {"descriptor": torch.from_numpy(one).float()} for key, one in records.items()}
            )
        kept = [self.descriptors[key]["descriptor"].numpy() for key in keys]
        return [None if np.isnan(own).any() else own for own in kept]


def _some(keys: Sequence[str], most: int) -> list[int]:
    """Places of up to so many keys, the same whatever their order."""
    return sorted(sorted(range(len(keys)), key=lambda place: short_hash(keys[place], 16))[:most])


def pairs_picture(
    pictures: Sequence[np.ndarray], found: Sequence[NearestMatch], copies: Sequence[bool]
) -> Image.Image:
    """A row for each drawn picture: itself, and the training face that is nearest."""
    shown, labels = [], []
    for picture, near, copy in zip(pictures, found, copies, strict=True):
        shown += [picture, near.picture if near.picture is not None else np.zeros_like(picture)]
        told = "  ".join(f"{kind} {distance:.3f}" for kind, distance in near.distance.items())
        labels.append(f"drawn | nearest: {told}{'  COPY?' if copy else ''}")
    return label_grid(shown, labels)
