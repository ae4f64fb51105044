"""Forgetting removes what training has cached of a person's crops."""

import shutil

import pytest
import torch

from authface_data.rights import forget, workspace_sweep
from authface_train.data.cache import Cache
from manifests.training_view import training_view
from manifests.workspace import Workspace


@pytest.fixture
def copied_workspace(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    return Workspace(tmp_path / "ws")


@pytest.mark.parametrize("folder", ["cache/crops/512", "cache/latents/0123abcd"])
def test_cached_crops_of_the_person_and_earlier_crops_are_removed(copied_workspace, folder):
    view = training_view(copied_workspace)
    forgotten, *others = view["crop_sha256"]
    crop = {"crop": torch.zeros(8, 8, 3, dtype=torch.uint8)}
    cache = Cache(copied_workspace, folder)
    cache.write({forgotten: crop, others[0]: crop})
    cache.write({others[1]: crop})
    # The crop of a face before `authface filter` made another one of it.
    cache.write({"e" * 64: crop})
    damaged = f"{folder}/damaged.safetensors"
    copied_workspace.write_bytes(damaged, b"\xff" * 20)

    plan, already = forget.plan(copied_workspace, [view["photo_id"][0]], None)
    files = forget.preview(copied_workspace, plan, already).files
    assert sum(path.startswith(folder) for path in files) == 3
    forget.execute(copied_workspace, plan)

    remaining = Cache(copied_workspace, folder)
    assert others[1] in remaining
    assert remaining.missing([forgotten, others[0], "e" * 64]) == [forgotten, others[0], "e" * 64]
    assert len(copied_workspace.list_names(folder)) == 1


def test_only_the_header_of_a_cache_is_searched(copied_workspace, monkeypatch):
    """The tensors of large workspaces are tens of gigabytes."""
    view = training_view(copied_workspace)
    cache = Cache(copied_workspace, "cache/crops/512")
    cache.write({view["crop_sha256"][0]: {"crop": torch.zeros(512, 512, 3, dtype=torch.uint8)}})
    searched = []
    original = workspace_sweep.Traces.occur_in

    def record_size(traces, data):
        searched.append(len(data))
        return original(traces, data)

    monkeypatch.setattr(workspace_sweep.Traces, "occur_in", record_size)
    plan, already = forget.plan(copied_workspace, [view["photo_id"][1]], None)
    forget.preview(copied_workspace, plan, already)
    assert max(searched) < 512 * 512
