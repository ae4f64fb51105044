"""Networks of pyiqa's metrics with weights drawn at random, at the places where pyiqa looks for the published ones."""

from pathlib import Path

import torch
import torchvision


def save_alexnet_lpips(torch_home: Path) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """LPIPS on AlexNet. Returns the network's features and the five non-negative weights (channels,) over them."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet()
    weights = [torch.rand(channels, generator=generator) for channels in (64, 192, 384, 256, 256)]
    checkpoints, pyiqa = torch_home / "hub/checkpoints", torch_home / "hub/pyiqa"
    for folder in (checkpoints, pyiqa):
        folder.mkdir(parents=True, exist_ok=True)
    torch.save(alexnet.state_dict(), checkpoints / "alexnet-owt-7be5be79.pth")
    linear = {
        f"lin{place}.model.1.weight": weight[None, :, None, None]
        for place, weight in enumerate(weights)
    }
    torch.save(linear, pyiqa / "LPIPS_v0.1_alex-df73285e.pth")
    return alexnet.features.eval(), weights


def save_inception(torch_home: Path, monkeypatch) -> None:
    """FID's Inception."""
    from pyiqa.archs import inception

    monkeypatch.setattr(inception, "load_pretrained_network", lambda *_: None)
    torch.manual_seed(0)
    folder = torch_home / "hub/pyiqa"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(
        inception.fid_inception_v3().state_dict(), folder / "pt_inception-2015-12-05-6726825d.pth"
    )
