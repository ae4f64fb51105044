"""Weights that libraries would download: found in weights_dir, or named in one line each."""

import pytest
import random_networks
import torch

from authface_data.quality import iqa, library_weights
from authface_data.quality.library_weights import LIBRARY_FILES, find_missing, provide_files
from manifests.support.errors import MissingResourceError


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Empty caches, and no network. Returns the URLs that were tried."""
    tried: list[str] = []

    def fail(url, *arguments, **options):
        tried.append(url)
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    random_networks.use_torch_home(tmp_path / "torch", monkeypatch)
    return tried


@pytest.mark.parametrize("metric", LIBRARY_FILES)
def test_every_missing_file_is_a_line_with_source_and_place(metric, offline, tmp_path):
    with pytest.raises(MissingResourceError) as caught:
        iqa.create_metric(metric, "cpu", str(tmp_path / "weights"))
    lines = str(caught.value).splitlines()
    files = LIBRARY_FILES[metric]
    assert len(lines) == len(files)
    for line, file in zip(lines, files, strict=True):
        assert metric in line
        assert file.url in line
        assert f"put it at {tmp_path / 'weights' / file.file}" in line
    assert offline == [file.url for file in files]  # one attempt each


def test_urls_are_those_of_the_libraries():
    from pyiqa.archs import clip_model, inception, lpips_arch, maniqa_arch, musiq_arch
    from timm.models.vision_transformer import default_cfgs
    from torchvision.models import AlexNet_Weights

    urls = {name: [file.url for file in files] for name, files in LIBRARY_FILES.items()}
    assert urls["lpips"][0] == lpips_arch.default_model_urls["0.1_alex"]
    assert urls["lpips"][1] == AlexNet_Weights.IMAGENET1K_V1.url
    assert urls["maniqa"][0] == maniqa_arch.default_model_urls["koniq"]
    assert urls["musiq"] == [musiq_arch.default_model_urls["koniq10k"]]
    assert urls["fid"] == [inception.FID_WEIGHTS_URL]
    assert urls["clipiqa"] == [clip_model._MODELS["RN50"]]
    vit = default_cfgs["vit_base_patch8_224"]
    tag, config = vit.default_with_tag
    assert LIBRARY_FILES["maniqa"][1].folder == f"timm/vit_base_patch8_224.{tag}"
    assert config.hf_hub_id == "timm/"


def test_weights_dir_serves_without_a_network(offline, tmp_path):
    """LPIPS reads its two files from weights_dir; timm reads a model of the hub from it."""
    random_networks.save_alexnet_lpips(tmp_path / "made")
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in LIBRARY_FILES["lpips"]:
        (tmp_path / "made/hub" / file.folder / file.file).rename(folder / file.file)
    assert not find_missing(["lpips"], str(folder))
    network = iqa.create_metric("lpips", "cpu", str(folder))
    picture = torch.rand(1, 3, 64, 64)
    assert float(network(picture, picture)) == 0
    assert offline == []
    assert not find_missing(["lpips"], None)  # torch's folder has links now


def test_timm_reads_hub_models_of_weights_dir(offline, tmp_path):
    from safetensors.torch import save_file
    from timm.models import _builder

    file = LIBRARY_FILES["maniqa"][1]
    path = tmp_path / file.file
    path.parent.mkdir(parents=True)
    save_file({"weight": torch.ones(2)}, path)
    with library_weights.local_files_first(str(tmp_path)):
        state = _builder.load_state_dict_from_hf(file.folder)
    assert state["weight"].tolist() == [1, 1]


def test_metric_without_known_files_needs_nothing(offline):
    provide_files("piqe", None)
    assert find_missing(["piqe", "niqe"], None) == {}
    assert offline == []
