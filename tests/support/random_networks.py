"""Random weights for networks of pyiqa, saved where pyiqa looks for the published weights."""

from pathlib import Path

import pytest
import torch
import torchvision


def use_torch_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch and pyiqa, which reads TORCH_HOME on import alone, find weights in this folder."""
    from pyiqa.utils import download_util

    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(folder / "hub/pyiqa"))


def save_alexnet_lpips(torch_home: Path) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """Save random weights of LPIPS on AlexNet.

    Args:
        torch_home: The folder of the published weights (see `use_torch_home`).

    Returns:
        The network of the features, and the five non-negative weights (channels,) over them.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet()
    weights = [torch.rand(channels, generator=generator) for channels in (64, 192, 384, 256, 256)]

    checkpoints = torch_home / "hub/checkpoints"
    pyiqa_folder = torch_home / "hub/pyiqa"
    for folder in (checkpoints, pyiqa_folder):
        folder.mkdir(parents=True, exist_ok=True)
    torch.save(alexnet.state_dict(), checkpoints / "alexnet-owt-7be5be79.pth")
    linear_layers = {
        f"lin{index}.model.1.weight": weight[None, :, None, None]
        for index, weight in enumerate(weights)
    }
    torch.save(linear_layers, pyiqa_folder / "LPIPS_v0.1_alex-df73285e.pth")
    return alexnet.features.eval(), weights


def save_inception(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save random weights of the Inception network of FID.

    Args:
        torch_home: The folder of the published weights (see `use_torch_home`).
        monkeypatch: Prevents pyiqa from downloading the published weights while building.
    """
    from pyiqa.archs import inception

    monkeypatch.setattr(inception, "load_pretrained_network", lambda *_: None)
    torch.manual_seed(0)
    folder = torch_home / "hub/pyiqa"
    folder.mkdir(parents=True, exist_ok=True)
    weights = inception.fid_inception_v3().state_dict()
    torch.save(weights, folder / "pt_inception-2015-12-05-6726825d.pth")
