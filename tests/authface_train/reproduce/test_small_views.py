"""Changed copies of faces, pieces of photographs, and degradations that are computed once."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.facial_loss.regions import REGIONS
from authface_train.reproduce.small_pairs import VARIANTS, SharedPairs, degraded_variants
from authface_train.reproduce.small_views import COPIES_PER_FACE, CROP_PX, piece_rows, with_copies
from manifests.settings import preset_text
from manifests.workspace import Workspace

EYE_BOX = np.array([30.0, 40.0, 50.0, 60.0])


@pytest.fixture
def view(tmp_path):
    """A workspace with one face of 128 px whose left eye is a white square, and its view."""
    workspace = Workspace.create(tmp_path / "ws", preset_text("embedded"))
    pixels = np.full((128, 128, 3), 90, np.uint8)
    pixels[40:60, 30:50] = 255
    path = workspace.local_path("faces/one.png")
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    boxes = {f"{name}_box_crop_px": EYE_BOX for name in REGIONS}
    visible = {f"{name}_visible": True for name in REGIONS}
    row = {"face_id": "one", "crop_path": "faces/one.png", "crop_sha256": "a", "crop_size_px": 128}
    return workspace, pd.DataFrame([{**row, **boxes, **visible}])


def test_boxes_of_copies_surround_the_moved_eye(view):
    workspace, faces = view
    copies = with_copies(workspace, faces).iloc[1:]
    assert len(copies) == COPIES_PER_FACE
    for copy in copies.to_dict("records"):
        pixels = np.asarray(Image.open(workspace.local_path(copy["crop_path"])))
        rows, columns = np.nonzero(pixels[..., 0] > 170)
        box = copy["left_eye_box_crop_px"]
        assert copy["crop_size_px"] == CROP_PX
        assert (box[0] + box[2]) / 2 == pytest.approx(columns.mean() + 0.5, abs=1.5)
        assert (box[1] + box[3]) / 2 == pytest.approx(rows.mean() + 0.5, abs=1.5)
    again = with_copies(workspace, faces)
    assert again["crop_sha256"].tolist()[1:] == copies["crop_sha256"].tolist(), "same every time"


def test_pieces_have_no_regions(view):
    workspace, _ = view
    image = np.random.default_rng(0).integers(0, 255, (90, 300, 3), dtype=np.uint8)
    pieces = piece_rows(workspace, [image], 3, prefix="p", licence_basis="own", seed=0)
    assert pieces["crop_sha256"].nunique() == 3
    assert not pieces[[f"{name}_visible" for name in REGIONS]].to_numpy().any()


class FlipAll:
    """A noise sampler that mirrors every sample."""

    def sample(self, key):
        return {"latent": torch.zeros(1)}, True


def test_samples_take_the_stored_degradations_in_turn(view, tmp_path):
    workspace, faces = view
    pairs = DegradedPairs(workspace, faces, 64, "gfpgan", seed=0)
    file = tmp_path / "degraded.npy"
    degraded = degraded_variants(file, pairs)
    assert degraded.shape == (1, VARIANTS, 2, 3, 64, 64)

    samples = SharedPairs(FlipAll(), pairs, degraded)
    expected = pairs.make_pair(SampleKey(1, 0), flip=True)
    sample = samples[SampleKey(1 + VARIANTS, 0)]
    assert torch.allclose(sample["degraded"], expected.degraded, atol=0.003)
    assert torch.equal(sample["boxes_px"], expected.boxes_px)
    assert np.array_equal(degraded_variants(file, pairs), degraded), "read from the file"

    clean = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(1, 3, 64, 64).astype(np.uint8)
    regression = SharedPairs(FlipAll(), pairs, degraded, clean)[SampleKey(0, 0)]
    assert torch.equal(regression["clean"] * 255, torch.from_numpy(clean[0]).float().flip(-1))
