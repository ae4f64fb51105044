"""One file for other software: the original's names, and the same tensors when diffusers reads it back."""

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


def text_config(layers, width):
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_attention_heads=4, num_hidden_layers=layers, projection_dim=width,
        bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """SDXL's structure in small: three levels, two resnets each, no attention at the first; text encoders of two widths."""
    folder = tmp_path_factory.mktemp("export") / "prior"
    tiny = tiny_sdxl(0)
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 64), layers_per_block=2, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 2, 3), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 48, cross_attention_dim=80,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8, latent_channels=4, layers_per_block=2,
        scaling_factor=0.13025,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config(3, 32)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(11, 48)),
        tokenizer=tiny.tokenizer,
        tokenizer_2=tiny.tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler.from_config(tiny.scheduler.config),
    )
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("whose photographs")
    (folder / "authface.json").write_text(json.dumps({"stage": "prior", "untrained": True}))
    pd.DataFrame({"photo_id": ["a"]}).to_parquet(folder / "lineage.parquet")
    (folder / "checkpoints").mkdir()
    return folder, pipeline


def test_diffusers_reads_the_same_tensors_back(model, tmp_path, authface_here):
    folder, pipeline = model
    file = tmp_path / "prior.safetensors"
    done = authface_here("export", folder, "--format", "single-file", "--output", file)
    assert done.returncode == 0, done.stderr
    back = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        ours, theirs = (getattr(one, part).state_dict() for one in (pipeline, back))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name].to(value.dtype)), (part, name)
    assert (tmp_path / "prior.md").read_text() == "whose photographs"
    assert len(pd.read_parquet(tmp_path / "prior.lineage.parquet")) == 1
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
        assert opened.metadata()["authface.untrained"] == "true"


def test_names_are_the_originals():
    """A few of sd_xl_base_1.0's own, each of another kind."""
    attended = {"up_blocks.0", "up_blocks.1"}
    for ours, theirs in {
        "conv_in.weight": "input_blocks.0.0.weight",
        "add_embedding.linear_2.bias": "label_emb.0.2.bias",
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
        "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight":
            "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight",
        "mid_block.resnets.1.norm2.bias": "middle_block.2.out_layers.0.bias",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.2.conv.weight",
        "up_blocks.2.resnets.2.time_emb_proj.weight": "output_blocks.8.0.emb_layers.1.weight",
        "conv_norm_out.weight": "out.0.weight",
    }.items():  # fmt: skip
        assert unet_name(ours, 2, attended) == theirs
    for ours, theirs in {
        "encoder.down_blocks.2.downsamplers.0.conv.bias": "encoder.down.2.downsample.conv.bias",
        "decoder.up_blocks.0.resnets.2.conv1.weight": "decoder.up.3.block.2.conv1.weight",
        "decoder.up_blocks.2.resnets.0.conv_shortcut.bias": "decoder.up.1.block.0.nin_shortcut.bias",
        "decoder.mid_block.attentions.0.to_out.0.weight": "decoder.mid.attn_1.proj_out.weight",
        "encoder.conv_norm_out.bias": "encoder.norm_out.bias",
        "quant_conv.weight": "quant_conv.weight",
    }.items():
        assert vae_name(ours, 4) == theirs


def test_the_file_has_the_originals_layout(model, tmp_path, authface_here):
    folder, _ = model
    file = tmp_path / "prior.safetensors"
    assert authface_here("export", folder, "--output", file).returncode == 0
    weights = load_file(file)
    assert weights[
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    ].shape == (48,)
    assert weights[
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    ].shape == (144, 48)
    assert weights[
        "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"
    ].shape == (77, 32)
    assert weights["first_stage_model.decoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    assert {name.split(".")[0] for name in weights} == {"model", "first_stage_model", "conditioner"}


def test_a_folder_goes_without_its_run_and_nothing_is_overwritten(model, tmp_path, authface_here):
    folder, pipeline = model
    assert (
        authface_here(
            "export", folder, "--format", "folder", "--output", tmp_path / "out"
        ).returncode
        == 0
    )
    assert not (tmp_path / "out/checkpoints").exists()
    back = StableDiffusionXLPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(back.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    assert (tmp_path / "out/README.md").read_text() == "whose photographs"
    for words, says in (
        (("--format", "folder", "--output", tmp_path / "out"), "is there already"),
        (("--output", tmp_path / "out.ckpt"), "NAME.safetensors"),
    ):
        done = authface_here("export", folder, *words)
        assert (done.returncode, says in done.stderr) == (2, True)
    done = authface_here("export", tmp_path)
    assert done.returncode == 2
    assert "no finished model" in done.stderr
    (tmp_path / "out/controlnet").mkdir()
    assert (
        "--format folder"
        in authface_here("export", tmp_path / "out", "--output", tmp_path / "x.safetensors").stderr
    )


def test_in_half_the_size(model, tmp_path, authface_here):
    """Everything in fp16 but the VAE, in one file and in a restorer's folder; both load."""
    folder, pipeline = model
    one, many = tmp_path / "prior.safetensors", tmp_path / "restorer-half"
    assert authface_here("export", folder, "--precision", "fp16", "--output", one).returncode == 0
    back = StableDiffusionXLPipeline.from_single_file(
        one, config=str(folder), torch_dtype=torch.float32
    )
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(back.unet.state_dict()[name], value.half().float())
    restorer = tiny_restorer.save(tmp_path / "restorer", 64)
    (restorer / "README.md").write_text("whose photographs")
    done = authface_here(
        "export", restorer, "--format", "folder", "--precision", "fp16", "--output", many
    )
    assert done.returncode == 0, done.stderr
    for part, dtype in (
        ("unet", torch.float16),
        ("controlnet", torch.float16),
        ("text_encoder", torch.float16),
        ("vae", torch.float32),
    ):
        (file,) = (many / part).glob("*.safetensors")
        assert {value.dtype for value in load_file(file).values() if value.is_floating_point()} == {
            dtype
        }
    assert (many / "README.md").read_text() == "whose photographs"
    (made,) = Restorer(str(many), Sampling(steps=1)).restore([np.zeros((64, 64, 3), np.uint8)])
    assert made.shape == (64, 64, 3)
