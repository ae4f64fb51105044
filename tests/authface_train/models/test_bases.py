"""Bases in the forms that people have: each is loaded exactly, or refused in one accurate line."""

import json
import logging
import shutil
import struct
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EDMEulerScheduler
from safetensors.torch import load_file, save_file

from authface_train.models.base_check import check_base
from authface_train.models.digest import model_digest, tokenizer_digest
from authface_train.models.sdxl import is_untrained, load_base, load_vae, tiny_sdxl
from authface_train.models.sdxl_config import SDXL_CONFIGURATION
from authface_train.models.single_file_check import CONFIGURATION_KEY
from authface_train.runs.export import export_single_file
from authface_train.runs.lineage import read_lineage, write_lineage
from manifests.support.errors import MissingResourceError, UserError

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline():
    return tiny_sdxl(0)


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory):
    """A saved SDXL of the real classes."""
    folder = tmp_path_factory.mktemp("bases") / "model"
    pipeline.save_pretrained(folder)
    (folder / "authface.json").write_text(json.dumps({"stage": "prior", "untrained": True}))
    return folder


@pytest.fixture(scope="module")
def exported(model):
    """The model as `authface export` writes it."""
    path = model.parent / "exported.safetensors"
    export_single_file(model, path)
    return path


@pytest.fixture(scope="module")
def original(exported):
    """The weights of the model by their original names."""
    return load_file(exported)


@pytest.fixture
def folder(model, tmp_path):
    """A copy of the model whose files a test may change."""
    return shutil.copytree(model, tmp_path / "model")


def assert_equal(loaded, pipeline):
    """Check that every tensor and both tokenizers are equal, and that the weights are fp32."""
    for name in NETWORKS:
        expected = getattr(pipeline, name).state_dict()
        found = getattr(loaded, name).state_dict()
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == torch.float32
            assert torch.equal(found[key], value), key
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(loaded, name)
        assert tokenizer_digest(tokenizer) == tokenizer_digest(getattr(pipeline, name))
        assert tokenizer("a face").input_ids == getattr(pipeline, name)("a face").input_ids
    assert loaded.scheduler.config.beta_schedule == "scaled_linear"


def change_config(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename_weights(folder, rename, save, convert=lambda tensor: tensor):
    for path in sorted(folder.glob("*/*.safetensors")):
        weights = {name: convert(value) for name, value in load_file(path).items()}
        save(weights, path.with_name(rename(path.name)))
        path.unlink()


def bin_name(name):
    return "pytorch_model.bin" if name == "model.safetensors" else f"{Path(name).stem}.bin"


# Files and folders that work.


def test_exported_file_has_the_same_tensors(exported, pipeline, monkeypatch):
    monkeypatch.chdir(exported.parent)
    loaded = load_base(exported.name, None, 1)
    assert_equal(loaded, pipeline)
    assert is_untrained(exported.name)
    assert torch.equal(
        load_vae(str(exported), None, 1).encoder.conv_in.weight, pipeline.vae.encoder.conv_in.weight
    )


def test_file_with_the_names_of_diffusers(pipeline, tmp_path):
    state = {
        f"{part}.{name}": value.contiguous()
        for part in NETWORKS
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    save_file(state, tmp_path / "base.safetensors")
    assert_equal(load_base(str(tmp_path / "base.safetensors"), None, 1), pipeline)


def test_file_of_other_programs_in_the_weights_folder(original, pipeline, tmp_path):
    """No stored configuration, attention of the VAE as matrices, and tensors that are not used."""
    state = {
        name: value.flatten(1) if ".attn_1." in name and value.dim() == 4 else value
        for name, value in original.items()
    }
    ids = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
    state |= {"denoiser.sigmas": torch.zeros(1000), ids: torch.arange(77)[None]}
    save_file(state, tmp_path / "base.safetensors")
    assert_equal(load_base("base.safetensors", str(tmp_path), 1), pipeline)


def test_folder_of_fp16_variants_without_tokenizers_and_index(folder, pipeline, caplog):
    def rename(name):
        return name.replace(".safetensors", ".fp16.safetensors")

    def save(weights, path):
        save_file(weights, path, metadata={"format": "pt"})

    rename_weights(folder, rename, save, torch.Tensor.half)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(folder / name)
    (folder / "model_index.json").unlink()
    with caplog.at_level(logging.INFO):
        loaded = load_base(str(folder), None, 1)
    assert "has no folder tokenizer_2; using CLIP's vocabulary" in caplog.text
    pipeline_in_half = tiny_sdxl(0)
    for name in NETWORKS:
        getattr(pipeline_in_half, name).half().float()
    assert_equal(loaded, pipeline_in_half)

    as_stored = load_base(str(folder), None, 1, unet_as_stored=True)
    assert as_stored.unet.dtype == torch.float16
    assert as_stored.vae.dtype == torch.float32
    assert model_digest(as_stored.unet) == model_digest(loaded.unet)


def test_unet_of_a_file_in_half_precision_is_loaded_as_stored(pipeline, tmp_path):
    state = {
        f"{part}.{name}": value.bfloat16()
        for part in NETWORKS
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    save_file(state, tmp_path / "base.safetensors")
    loaded = load_base(str(tmp_path / "base.safetensors"), None, 1, unet_as_stored=True)
    assert loaded.unet.dtype == torch.bfloat16
    assert loaded.text_encoder.dtype == torch.float32
    assert torch.equal(loaded.unet.conv_in.weight, state["unet.conv_in.weight"])


def test_folder_of_bin_files_and_a_solver_that_writes_infinity(folder, pipeline):
    rename_weights(folder, bin_name, torch.save)
    DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config).save_pretrained(
        folder / "scheduler"
    )
    assert "-Infinity" in (folder / "scheduler/scheduler_config.json").read_text()
    scheduler = ["diffusers", "DPMSolverMultistepScheduler"]
    change_config(folder / "model_index.json", scheduler=scheduler)
    shutil.rmtree(folder / "tokenizer")
    assert_equal(load_base(str(folder), None, 1), pipeline)


def test_null_in_the_configuration_of_sdxl_is_accepted(folder):
    """SDXL base 1.0 was published with it, although the class expects true or false."""
    change_config(folder / "unet/config.json", upcast_attention=None)
    check_base(str(folder), None)


def test_configuration_of_sdxl_has_the_published_sizes():
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(SDXL_CONFIGURATION["unet"])
        vae = AutoencoderKL.from_config(SDXL_CONFIGURATION["vae"])
        config = CLIPTextConfig.from_dict(SDXL_CONFIGURATION["text_encoder_2"])
        encoder = CLIPTextModelWithProjection(config)
    sizes = [sum(weight.numel() for weight in part.parameters()) for part in (unet, vae, encoder)]
    assert sizes == [2_567_463_684, 83_653_863, 694_659_840]


def test_lineage_beside_a_file_is_kept(exported, tmp_path):
    import pandas as pd

    columns = ["photo_id", "source", "sha256", "photographer_name", "photographer_url"]
    view = pd.DataFrame(
        [dict.fromkeys(["face_id", *columns, "source_url", "licence", "licence_basis"], "b")]
    )
    base = shutil.copy(exported, tmp_path / "base.safetensors")
    earlier = view.assign(face_id="a", stage="prior")
    earlier.to_parquet(tmp_path / "base.lineage.parquet")
    write_lineage(tmp_path, "restorer", view, Path(base))
    assert sorted(read_lineage(tmp_path)["face_id"]) == ["a", "b"]


# Folders that are refused.


def refused(base, weights_dir=None):
    """The message with which a base is refused."""
    with pytest.raises(UserError) as error:
        check_base(str(base), weights_dir)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 500
    assert "download" not in message.replace("`git lfs pull` downloads", "")
    return message


def change_scheduler(**values):
    return lambda folder: change_config(folder / "scheduler/scheduler_config.json", **values)


def change_unet(**values):
    return lambda folder: change_config(folder / "unet/config.json", **values)


def change_index(**values):
    return lambda folder: change_config(folder / "model_index.json", **values)


def to_edm(folder):
    EDMEulerScheduler().save_pretrained(folder / "scheduler")
    change_index(scheduler=["diffusers", "EDMEulerScheduler"])(folder)


def to_flux(folder):
    shutil.rmtree(folder / "unet")
    change_index(_class_name="FluxPipeline")(folder)


def cut(folder):
    path = folder / UNET_FILE
    path.write_bytes(path.read_bytes()[:-10])


def to_lone_shard(folder):
    (folder / UNET_FILE).rename(folder / "unet/diffusion_pytorch_model-00001-of-00002.safetensors")


REFUSED_FOLDERS = {
    "is SD 1.5; SDXL is needed": change_unet(addition_embed_type=None, cross_attention_dim=768),
    "is SD 2; SDXL is needed": change_unet(addition_embed_type=None, cross_attention_dim=1024),
    "is the SDXL refiner": lambda folder: shutil.rmtree(folder / "text_encoder"),
    "for inpainting with 9 input channels": change_unet(in_channels=9),
    "is a FluxPipeline; SDXL is needed": to_flux,
    "unet is 48, and the other parts need 64": change_unet(cross_attention_dim=48),
    "predicts v_prediction": change_scheduler(prediction_type="v_prediction"),
    "has zero terminal SNR (resc": change_scheduler(rescale_betas_zero_snr=True),
    "has zero terminal SNR": change_scheduler(trained_betas=[0.01] * 999 + [1.0]),
    "impossible betas": change_scheduler(beta_end=3),
    "has 500 timesteps": change_scheduler(num_train_timesteps=500),
    "has the noise schedule of EDMEulerScheduler": to_edm,
    "custom code (unet is my_unet.MyUNet)": change_index(unet=["my_unet", "MyUNet"]),
    "custom code (_class_name is pipe.Pipe)": change_index(_class_name=["pipe", "Pipe"]),
    "vae is a AutoencoderTiny": change_index(vae=["diffusers", "AutoencoderTiny"]),
    "has no folder unet": lambda folder: shutil.rmtree(folder / "unet"),
    "has no folder vae": lambda folder: shutil.rmtree(folder / "vae"),
    "unet has no weights": lambda folder: (folder / UNET_FILE).unlink(),
    "has 1 of the 2 files": to_lone_shard,
    "safetensors is damaged": cut,
    "Git LFS pointer": lambda folder: (folder / UNET_FILE).write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0"
    ),
    "num_attention_heads must not be negative": lambda folder: change_config(
        folder / "text_encoder_2/config.json", num_attention_heads=-1
    ),
}


@pytest.mark.parametrize("message", REFUSED_FOLDERS)
def test_refused_folder(folder, message):
    code = folder / "unet/my_unet.py"
    code.write_text("raise SystemExit('custom code was run')")
    REFUSED_FOLDERS[message](folder)
    assert message in refused(folder)


def test_folder_that_is_no_model(exported, tmp_path):
    assert "it has no model_index.json" in refused(tmp_path)
    shutil.copy(exported, tmp_path / "sdxl.safetensors")
    assert "use its file sdxl.safetensors" in refused(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert "holds a run that is not finished" in refused(tmp_path)


def test_folder_without_some_weights(folder):
    weights = load_file(folder / UNET_FILE)
    del weights["conv_in.bias"]
    save_file(weights, folder / UNET_FILE, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"unet lacks 1 weights, such as conv_in\.bias"):
        load_base(str(folder), None, 0)


# Files that are refused.

TO_K = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
SD_1 = {"cond_stage_model.transformer.a": torch.zeros(1), "first_stage_model.a": torch.zeros(1)}
OTHER_FILES = {
    "is SD 1.5; SDXL": {TO_K: torch.zeros(4, 768), **SD_1},
    "is SD 2; SDXL": {TO_K: torch.zeros(4, 1024), **SD_1},
    "is the SDXL refiner": {"conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)},
    "is a LoRA": {"lora_unet_a.lora_down.weight": torch.zeros(1)},
    "is a ControlNet": {"controlnet_cond_embedding.conv_in.bias": torch.zeros(1)},
    "is FLUX": {"model.diffusion_model.double_blocks.0.a": torch.zeros(1)},
    "is a VAE; a complete SDXL": {"decoder.conv_in.weight": torch.zeros(1)},
    "is a U-Net; a complete SDXL": {"down_blocks.0.resnets.0.conv1.bias": torch.zeros(1)},
    "has no VAE and no first text": {CONV_IN: torch.zeros(32, 4, 3, 3)},
    "is no SDXL": {"a": torch.zeros(1)},
}
CHANGED_FILES = {
    "predicts v_prediction": {"v_pred": torch.zeros(0)},
    "has zero terminal SNR": {"ztsnr": torch.zeros(0)},
    "schedule of EDM": {"edm_mean": torch.zeros(4)},
    "fp8 file with scaled weights": {"model.diffusion_model.scaled_fp8": torch.zeros(1)},
    "has 9 input channels": {CONV_IN: torch.zeros(32, 9, 3, 3)},
    "is 320 channels wide)": {CONV_IN: torch.zeros(64, 4, 3, 3)},
    "quantised weights": {"first_stage_model.quant_conv.bias": torch.zeros(8, dtype=torch.int8)},
}


@pytest.mark.parametrize("message", OTHER_FILES)
def test_file_of_another_model(tmp_path, message):
    save_file(OTHER_FILES[message], tmp_path / "base.safetensors")
    assert message in refused(tmp_path / "base.safetensors")


@pytest.mark.parametrize("message", CHANGED_FILES)
def test_file_that_differs_from_sdxl(original, tmp_path, message):
    save_file({**original, **CHANGED_FILES[message]}, tmp_path / "base.safetensors")
    assert message.replace("320", "64") in refused(tmp_path / "base.safetensors")


def test_file_with_fewer_blocks(original, tmp_path):
    state = {name: value for name, value in original.items() if "middle_block" not in name}
    save_file(state, tmp_path / "base.safetensors")
    assert "of 485 are missing or have another shape, such as model." in refused(
        tmp_path / "base.safetensors"
    )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"modelspec.prediction_type": "v"}, "predicts v;"),
        ({CONFIGURATION_KEY: "{"}, "is damaged (authface.configuration:"),
        ({CONFIGURATION_KEY: "{}"}, "does not describe unet"),
    ],
)
def test_file_with_other_metadata(original, tmp_path, metadata, message):
    save_file(original, tmp_path / "base.safetensors", metadata=metadata)
    assert message in refused(tmp_path / "base.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\x03" + bytes(100), "is a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "is a PyTorch checkpoint"),
        (b"\x80\x02}q" + bytes(100), "is a PyTorch checkpoint"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"", "its header is cut off"),
        (struct.pack("<Q", 1000) + b"{}", "its header is cut off"),
    ],
)
def test_file_of_another_format(tmp_path, content, message):
    path = tmp_path / "base.safetensors"
    path.write_bytes(content)
    assert message in refused(path)


def test_truncated_file(exported, tmp_path):
    path = tmp_path / "base.safetensors"
    path.write_bytes(exported.read_bytes()[:-100])
    assert "is damaged (it holds 18,036,872 bytes of tensors instead of" in refused(path)


def test_path_that_does_not_exist():
    assert "there is no models/a.safetensors on the disk" in refused("models/a.safetensors")
    with pytest.raises(MissingResourceError, match="could not be downloaded"):
        check_base("owner/name", None)


def test_model_of_the_hub_is_checked_before_its_weights(folder, tmp_path, monkeypatch, pipeline):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.move(folder, snapshot)
    assert_equal(load_base("owner/name", None, 1), pipeline)
    for path in snapshot.glob("*/*.safetensors"):
        path.unlink()
    change_scheduler(prediction_type="v_prediction")(snapshot)
    assert "predicts v_prediction" in refused("owner/name")
