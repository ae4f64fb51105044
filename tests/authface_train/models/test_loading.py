"""Model folders with a wrong value anywhere: one line, whether it fails on loading or in use."""

import copy
import json
import shutil

import pytest
import tiny_restorer
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from authface_train.models.loading import load_checked, try_parts
from authface_train.models.sdxl import load_base, load_vae
from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import Sampling
from authface_train.runs.export import export_folder, export_single_file
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.model_folder import explain_loading

SIZE_PX = 64
PARTS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "scheduler": EulerDiscreteScheduler,
    "text_encoder": CLIPTextModel,
}
WRONG_VALUES = [None, "abc", -1, [], {"a": 1}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_restorer.save_tiny_restorer(tmp_path_factory.mktemp("model"), SIZE_PX)


@pytest.fixture(scope="module")
def pipeline(model):
    return DiffusionPipeline.from_pretrained(model)


@pytest.fixture
def damaged(model, tmp_path):
    """A copy of the model whose files a test may change."""
    return shutil.copytree(model, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_wrong_value_in_a_configuration_is_one_line(model, pipeline, tmp_path, name):
    """Each value in turn; the part is loaded and used as `load_base` and `Restorer` do."""
    folder = shutil.copytree(model / name, tmp_path / name)
    (path,) = folder.glob("*config.json")
    config = json.loads(path.read_text())
    messages = []
    for number, key in enumerate(config):
        value = WRONG_VALUES[number % len(WRONG_VALUES)]
        path.write_text(json.dumps({**config, key: value}))
        try:
            with explain_loading(folder):
                part = PARTS[name].from_pretrained(folder)
            changed = copy.copy(pipeline)
            changed.register_modules(**{name: part})
            try_parts(changed, str(folder))
            with explain_loading(folder):
                changed.to("cpu")
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > len(config) / 4
    assert all(message.isprintable() and len(message) < 500 for message in messages)


def change_config(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def change_tensors(path, change):
    tensors = {name: change(value).contiguous() for name, value in load_file(path).items()}
    save_file(tensors, path)


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
DAMAGES = {
    "unet/config.json is damaged": lambda m: (m / "unet/config.json").write_text("[]"),
    "model_index.json is damaged": lambda m: (m / "model_index.json").write_bytes(b"\xff"),
    "model_index.json is damaged (unet": lambda m: change_config(
        m / "model_index.json", unet=["os", "system"]
    ),
    f"{WEIGHTS} is damaged": lambda m: cut(m / WEIGHTS),
    "tokenizer/vocab.json": lambda m: (m / "tokenizer/vocab.json").write_bytes(b"[" * 10_000),
    "authface.json is damaged (resolution_px": lambda m: change_config(
        m / "authface.json", resolution_px="large"
    ),
    "authface.json is damaged (time_ids": lambda m: change_config(
        m / "authface.json", time_ids=[1, 2]
    ),
    "model/unet cannot be loaded": lambda m: change_config(
        m / "unet/config.json", block_out_channels="wide"
    ),
    "model/scheduler cannot be loaded": lambda m: change_config(
        m / "scheduler/scheduler_config.json", beta_schedule=7
    ),
    "model/unet cannot be loaded (group_norm()": lambda m: change_config(
        m / "unet/config.json", norm_eps="small"
    ),
    "model/controlnet cannot be loaded": lambda m: change_config(
        m / "controlnet/config.json", controlnet_conditioning_channel_order=7
    ),
    "text encoders of": lambda m: change_config(
        m / "text_encoder_2/config.json", num_attention_heads=-1
    ),
    "model/vae": lambda m: change_tensors(
        m / "vae/diffusion_pytorch_model.safetensors", lambda value: value.flatten()[:1]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_restorer_is_one_line_that_names_the_file(damaged, message):
    DAMAGES[message](damaged)
    with pytest.raises(UserError) as error:
        Restorer(str(damaged), Sampling(steps=1))
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.slow
def test_damaged_base_is_one_line(damaged, model, tmp_path):
    change_config(damaged / "text_encoder/config.json", layer_norm_eps="small")
    with pytest.raises(UserError, match=r"text_encoder|text encoders"):
        load_base(str(damaged), None, 0)
    shutil.rmtree(damaged / "text_encoder")
    with pytest.raises((UserError, MissingResourceError), match="model"):
        load_base(str(damaged), None, 0)


@pytest.mark.parametrize("values", [{"_class_name": 7}, {"in_channels": "x"}])
def test_vae_with_wrong_values_is_one_line(damaged, values):
    change_config(damaged / "vae/config.json", **values)
    with pytest.raises(UserError, match=r"cannot be loaded \("):
        load_vae(str(damaged), None, 0)


def test_missing_vae_is_one_line(damaged):
    shutil.rmtree(damaged / "vae")
    with pytest.raises(MissingResourceError, match="vae"):
        load_vae(str(damaged), None, 0)


def test_export_of_a_damaged_model_is_one_line(damaged, tmp_path):
    change_config(damaged / "unet/config.json", layers_per_block="many")
    shutil.rmtree(damaged / "controlnet")
    with pytest.raises(UserError, match=r"model cannot be loaded \("):
        export_single_file(damaged, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    cut(damaged / WEIGHTS)
    with pytest.raises(UserError, match=r"safetensors is damaged"):
        export_folder(damaged, tmp_path / "out", half=True)
    assert not (tmp_path / "out").exists()


def test_pickled_weights_do_not_run_code(damaged, tmp_path):
    """diffusers falls back to a pickle where no safetensors file is."""

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    weights = damaged / WEIGHTS
    weights.unlink()
    torch.save({"a": Attack()}, weights.with_suffix(".bin"))
    with pytest.raises((UserError, OSError)):
        load_checked(lambda: UNet2DConditionModel.from_pretrained(damaged / "unet"), "unet")
    assert not (tmp_path / "attacked").exists()
