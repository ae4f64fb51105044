"""Export: original names in one file, the same tensors when diffusers reads it, plain folders."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny_restorer
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from authface_train.models.sdxl import tiny_sdxl
from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import Sampling
from authface_train.runs.single_file import unet_name, vae_name

pytestmark = pytest.mark.slow

CARD = "model card"


def make_text_config(num_layers, width):
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=4,
        num_hidden_layers=num_layers,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
    )


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A finished prior with the structure of SDXL in small, as folder and pipeline.

    The U-Net has three levels with two resnets each and no attention at the first; the text
    encoders have two widths.
    """
    folder = tmp_path_factory.mktemp("export") / "prior"
    tiny = tiny_sdxl(0)
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 48,
        cross_attention_dim=80,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        latent_channels=4,
        layers_per_block=2,
        scaling_factor=0.13025,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(make_text_config(3, 32)),
        text_encoder_2=CLIPTextModelWithProjection(make_text_config(11, 48)),
        tokenizer=tiny.tokenizer,
        tokenizer_2=tiny.tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler.from_config(tiny.scheduler.config),
    )
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    (folder / "authface.json").write_text(json.dumps({"stage": "prior", "untrained": True}))
    pd.DataFrame({"photo_id": ["a"]}).to_parquet(folder / "lineage.parquet")
    (folder / "checkpoints").mkdir()
    return folder, pipeline


def test_diffusers_reads_the_same_tensors_from_the_single_file(prior, tmp_path, authface_here):
    folder, pipeline = prior
    file = tmp_path / "prior.safetensors"
    result = authface_here("export", folder, "--format", "single-file", "--output", file)
    assert result.returncode == 0, result.stderr
    loaded = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True
    )
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        expected = getattr(pipeline, component).state_dict()
        actual = getattr(loaded, component).state_dict()
        assert expected.keys() == actual.keys()
        for name, value in expected.items():
            assert torch.equal(value, actual[name].to(value.dtype)), (component, name)


def test_single_file_has_card_lineage_and_metadata(prior, tmp_path, authface_here):
    folder, _ = prior
    file = tmp_path / "prior.safetensors"
    assert authface_here("export", folder, "--output", file).returncode == 0
    assert (tmp_path / "prior.md").read_text() == CARD
    assert len(pd.read_parquet(tmp_path / "prior.lineage.parquet")) == 1
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
        assert opened.metadata()["authface.untrained"] == "true"


@pytest.mark.parametrize(
    ("name", "original_name"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
        ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
        (
            "down_blocks.1.resnets.0.conv_shortcut.weight",
            "input_blocks.4.0.skip_connection.weight",
        ),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight",
            "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight",
        ),
        ("mid_block.resnets.1.norm2.bias", "middle_block.2.out_layers.0.bias"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("up_blocks.2.resnets.2.time_emb_proj.weight", "output_blocks.8.0.emb_layers.1.weight"),
        ("conv_norm_out.weight", "out.0.weight"),
    ],
)
def test_unet_names_are_those_of_sd_xl_base(name, original_name):
    assert unet_name(name, 2, {"up_blocks.0", "up_blocks.1"}) == original_name


@pytest.mark.parametrize(
    ("name", "original_name"),
    [
        ("encoder.down_blocks.2.downsamplers.0.conv.bias", "encoder.down.2.downsample.conv.bias"),
        ("decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.up.3.block.2.conv1.weight"),
        (
            "decoder.up_blocks.2.resnets.0.conv_shortcut.bias",
            "decoder.up.1.block.0.nin_shortcut.bias",
        ),
        ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
        ("encoder.conv_norm_out.bias", "encoder.norm_out.bias"),
        ("quant_conv.weight", "quant_conv.weight"),
    ],
)
def test_vae_names_are_those_of_sd_xl_base(name, original_name):
    assert vae_name(name, 4) == original_name


def test_single_file_has_the_original_layout(prior, tmp_path, authface_here):
    folder, _ = prior
    file = tmp_path / "prior.safetensors"
    assert authface_here("export", folder, "--output", file).returncode == 0
    weights = load_file(file)
    open_clip = "conditioner.embedders.1.model.transformer.resblocks"
    clip = "conditioner.embedders.0.transformer.text_model"
    shapes = {
        f"{open_clip}.9.mlp.c_proj.bias": (48,),
        f"{open_clip}.0.attn.in_proj_weight": (144, 48),
        f"{clip}.embeddings.position_embedding.weight": (77, 32),
        "first_stage_model.decoder.mid.attn_1.q.weight": (32, 32, 1, 1),
    }
    assert {name: weights[name].shape for name in shapes} == shapes
    assert {name.split(".")[0] for name in weights} == {"model", "first_stage_model", "conditioner"}


def test_exported_folder_has_the_model_without_its_run(prior, tmp_path, authface_here):
    folder, pipeline = prior
    output = tmp_path / "out"
    result = authface_here("export", folder, "--format", "folder", "--output", output)
    assert result.returncode == 0, result.stderr
    assert not (output / "checkpoints").exists()
    loaded = StableDiffusionXLPipeline.from_pretrained(output)
    assert torch.equal(loaded.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    assert (output / "README.md").read_text() == CARD


def test_export_refuses_what_it_cannot_write(prior, tmp_path, authface_here):
    folder, _ = prior
    existing = tmp_path / "out"
    existing.mkdir()
    restorer = tmp_path / "restorer"
    (restorer / "controlnet").mkdir(parents=True)
    (restorer / "model_index.json").write_text("{}")
    file = tmp_path / "x.safetensors"
    for arguments, message in (
        ((folder, "--format", "folder", "--output", existing), "already exists"),
        ((folder, "--output", tmp_path / "out.ckpt"), "NAME.safetensors"),
        ((tmp_path,), "no finished model"),
        ((restorer, "--output", file), "--format folder"),
    ):
        result = authface_here("export", *arguments)
        assert result.returncode == 2
        assert message in result.stderr


def test_fp16_single_file_halves_the_unet(prior, tmp_path, authface_here):
    folder, pipeline = prior
    file = tmp_path / "prior.safetensors"
    result = authface_here("export", folder, "--precision", "fp16", "--output", file)
    assert result.returncode == 0, result.stderr
    loaded = StableDiffusionXLPipeline.from_single_file(
        file, config=str(folder), torch_dtype=torch.float32
    )
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value.half().float())


def test_fp16_restorer_folder_keeps_the_vae_in_fp32(tmp_path, authface_here):
    restorer = tiny_restorer.save_tiny_restorer(tmp_path / "restorer", 64)
    (restorer / "README.md").write_text(CARD)
    output = tmp_path / "restorer-half"
    result = authface_here(
        "export", restorer, "--format", "folder", "--precision", "fp16", "--output", output
    )
    assert result.returncode == 0, result.stderr

    for component, dtype in (
        ("unet", torch.float16),
        ("controlnet", torch.float16),
        ("text_encoder", torch.float16),
        ("vae", torch.float32),
    ):
        (file,) = (output / component).glob("*.safetensors")
        weights = load_file(file).values()
        assert {value.dtype for value in weights if value.is_floating_point()} == {dtype}
    assert (output / "README.md").read_text() == CARD
    crop = np.zeros((64, 64, 3), np.uint8)
    (restored,) = Restorer(str(output), Sampling(steps=1)).restore([crop])
    assert restored.shape == (64, 64, 3)
