"""Names and shapes of an export of full size, compared with the published file of SDXL."""

import itertools
import re
from pathlib import Path

import pytest

from authface_train.models.sdxl import meta_networks
from authface_train.models.sdxl_config import SDXL_CONFIGURATION
from authface_train.runs.single_file import to_original_names

pytestmark = pytest.mark.slow

KEYS_FILE = Path(__file__).parents[2] / "support" / "sdxl_keys.txt"
SETS = re.compile(r"\{([^}]*)\}")
NOT_EXPORTED = {
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    "conditioner.embedders.1.model.logit_scale",
}
"""Tensors that no text encoder computes with: the numbers 0 to 76, and CLIP's temperature."""


def expand(pattern):
    """The names of a pattern: `{0..2}` and `{0,2}` stand for each of their numbers."""
    numbers = []
    for members in SETS.findall(pattern):
        first, is_range, last = members.partition("..")
        numbers.append(range(int(first), int(last) + 1) if is_range else members.split(","))
    template = SETS.sub("{}", pattern)
    return [template.format(*chosen) for chosen in itertools.product(*numbers)]


def published_shapes():
    shapes = {}
    for line in KEYS_FILE.read_text().splitlines():
        if not line.startswith("#"):
            pattern, shape = line.split()
            sides = () if shape == "scalar" else tuple(map(int, shape.split("x")))
            shapes |= dict.fromkeys(expand(pattern), sides)
    return shapes


def test_export_has_the_names_and_shapes_of_the_published_file():
    """SUPIR and ComfyUI look for these names; SUPIR ignores what it does not find."""
    networks = meta_networks(SDXL_CONFIGURATION)
    weights = {"unet": networks.unet.state_dict(), "vae": networks.vae.state_dict()}
    for name, encoder in zip(
        ("text_encoder", "text_encoder_2"), networks.text_encoders, strict=True
    ):
        weights[name] = encoder.state_dict()
    state = to_original_names(weights, layers_per_block=2, vae_levels=4)

    published = published_shapes()
    assert len(published) == 2515
    assert set(published) - set(state) == NOT_EXPORTED
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: shape for name, shape in published.items() if name not in NOT_EXPORTED
    }
