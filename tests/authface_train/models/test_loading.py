"""Model folders with a wrong value anywhere: one line, before the model is used."""

import copy
import json
import shutil

import pytest
import tiny_restorer
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from authface_train.models.loading import check_parts, load_part, load_scheduler
from authface_train.models.noise_schedule import check_noise_schedule
from authface_train.models.sdxl import load_base, load_vae
from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import Sampling
from authface_train.runs.export import export_folder, export_single_file
from manifests.support.errors import UserError

SIZE_PX = 64
PARTS = ("unet", "controlnet", "vae", "text_encoder", "text_encoder_2", "scheduler")
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


@torch.no_grad()
def use_parts(pipeline):
    """Run every part once."""
    prompts, _, pooled_prompts, _ = pipeline.encode_prompt(
        prompt="", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    picture = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    latents = pipeline.vae.encode(picture).latent_dist.mean
    pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)
    for scheduler_class in (DDPMScheduler, EulerDiscreteScheduler):
        scheduler = scheduler_class.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(3)
        scheduler.step(latents, scheduler.timesteps[0], latents)
    conditions = {"text_embeds": pooled_prompts, "time_ids": torch.full((1, 6), float(SIZE_PX))}
    down_residuals, mid_residual = pipeline.controlnet(
        latents, 999, prompts, picture, added_cond_kwargs=conditions, return_dict=False
    )
    pipeline.unet(
        latents,
        999,
        prompts,
        added_cond_kwargs=conditions,
        down_block_additional_residuals=down_residuals,
        mid_block_additional_residual=mid_residual,
    )


@pytest.mark.parametrize("name", PARTS)
def test_wrong_value_in_a_configuration_is_one_line(model, pipeline, tmp_path, name):
    """Each value in turn: what is not refused can be used."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    shutil.copytree(model / name, folder / name)
    (path,) = (folder / name).glob("*config.json")
    config = json.loads(path.read_text())
    messages = []
    for number, key in enumerate(config):
        value = WRONG_VALUES[number % len(WRONG_VALUES)]
        path.write_text(json.dumps({**config, key: value}))
        try:
            check_parts(folder, with_controlnet=True, with_weights=False)
            if name == "scheduler":
                part = load_scheduler(folder)
                check_noise_schedule("base", part.config)
            else:
                part = load_part(folder, name, torch.float32)
        except UserError as error:
            messages.append(str(error))
            continue
        changed = copy.copy(pipeline)
        changed.register_modules(**{name: part})
        use_parts(changed)
    assert len(messages) > len(config) / 2
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
    "model/unet cannot be loaded (config.json: norm_eps must be a number": lambda m: change_config(
        m / "unet/config.json", norm_eps="small"
    ),
    "model/controlnet cannot be loaded": lambda m: change_config(
        m / "controlnet/config.json", controlnet_conditioning_channel_order=7
    ),
    "model/text_encoder_2 cannot be loaded (config.json: num_attention_heads": lambda m: (
        change_config(m / "text_encoder_2/config.json", num_attention_heads=-1)
    ),
    "model/vae": lambda m: change_tensors(
        m / "vae/diffusion_pytorch_model.safetensors", lambda value: value.flatten()[:1]
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_restorer_is_one_line_that_names_the_file(damaged, message):
    DAMAGES[message](damaged)
    with pytest.raises(UserError) as error:
        Restorer(str(damaged), Sampling(steps=1))
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_damaged_base_is_one_line(damaged):
    change_config(damaged / "text_encoder/config.json", layer_norm_eps="small")
    with pytest.raises(UserError, match="model/text_encoder cannot be loaded"):
        load_base(str(damaged), None, 0)


@pytest.mark.parametrize("values", [{"_class_name": 7}, {"in_channels": "x"}])
def test_vae_with_wrong_values_is_one_line(damaged, values):
    change_config(damaged / "vae/config.json", **values)
    with pytest.raises(UserError, match=r"cannot be loaded \("):
        load_vae(str(damaged), None, 0)


def test_missing_vae_is_one_line(damaged):
    shutil.rmtree(damaged / "vae")
    with pytest.raises(UserError, match="model has no folder vae"):
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
    """A part without safetensors files is read from `.bin` files."""

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    for name, weights in (
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "pytorch_model"),
    ):
        for path in (damaged / name).glob("*.safetensors"):
            path.unlink()
        torch.save({"a": Attack()}, damaged / name / f"{weights}.bin")
        with pytest.raises(UserError, match=f"model/{name} cannot be loaded"):
            load_part(damaged, name, torch.float32)
    assert not (tmp_path / "attacked").exists()
