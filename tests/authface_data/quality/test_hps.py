"""HPSv2: scores of a small network of the real class, prompts, and what is missing."""

import importlib.util
import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from authface_data.quality import hps
from authface_train.evaluation.prompts import read_prompts
from manifests.support.errors import MissingResourceError, UserError

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 32, "head_width": 16, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""ViT-H-14 in small."""
PROMPTS = {"a": "a man with a beard", "b": "a woman, studio lighting"}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Weights of a small network in the folder `weights`, and the network."""
    (tmp_path / "small-clip.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(tmp_path / "small-clip.json")
    monkeypatch.setattr(hps, "ARCHITECTURE", "small-clip")
    torch.manual_seed(0)
    network = open_clip.create_model("small-clip", load_weights=False).eval()
    (tmp_path / "weights").mkdir()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights" / hps.HPS_V2.file)
    return network


@pytest.fixture
def drawn(tmp_path):
    """Two pictures with prompts, as `authface reproduce draw` writes them, and one without."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        picture = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((300, 300)).save(folder / f"{name}.png")
    lines = ["file,caption", *(f'{name}.png,"{prompt}"' for name, prompt in PROMPTS.items())]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_score_is_the_cosine_of_picture_and_prompt(model, drawn, tmp_path):
    scorer = hps.HpsScorer(str(tmp_path / "weights"), "cpu")
    with Image.open(drawn / "a.png") as image:
        picture = np.asarray(image)
    pixels = hps.preprocess(picture)
    assert pixels.shape == (3, 224, 224)
    # As the package hpsv2: bicubic, then the mean and deviation of CLIP's training set.
    bicubic = np.asarray(Image.fromarray(picture).resize((224, 224), Image.Resampling.BICUBIC))
    expected = (bicubic / 255 - open_clip.OPENAI_DATASET_MEAN) / open_clip.OPENAI_DATASET_STD
    assert np.abs(pixels.permute(1, 2, 0).numpy() - expected).max() < 0.05

    with torch.no_grad():
        of_picture = model.encode_image(pixels[None])[0]
        of_prompt = model.encode_text(open_clip.tokenize([PROMPTS["a"]]))[0]
    cosine = float(torch.nn.functional.cosine_similarity(of_picture, of_prompt, dim=0))
    assert scorer.score(picture, PROMPTS["a"]) == pytest.approx(cosine, abs=1e-5)
    assert scorer.score(picture, PROMPTS["b"]) != pytest.approx(cosine, abs=1e-4)


def test_evaluate_scores_pictures_that_have_a_prompt(
    model, drawn, tmp_path, authface_here, workspace
):
    toml = workspace.local_path("authface.toml")
    toml.write_text(f'weights_dir = "{tmp_path / "weights"}"\n' + toml.read_text())
    evaluate = ("evaluate", "--restored", drawn, "--metrics", "hpsv2", "-w", workspace.root)
    result = authface_here(*evaluate, "--json", "--output", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    scorer = hps.HpsScorer(str(tmp_path / "weights"), "cpu")
    scores = []
    for name, prompt in PROMPTS.items():
        with Image.open(drawn / f"{name}.png") as image:
            scores.append(scorer.score(np.asarray(image), prompt))
    mean = json.loads(result.stdout)["methods"]["drawn"]["hpsv2"]
    assert mean == pytest.approx(np.mean(scores), abs=1e-5)
    assert "HPSv2 ↑" in (tmp_path / "report" / "table.md").read_text()
    assert "drawn: c has no prompt" in authface_here(*evaluate).stdout

    (tmp_path / "weights" / hps.HPS_V2.file).write_bytes(b"")
    damaged = authface_here(*evaluate)
    assert damaged.returncode == 4
    assert "does not hold the weights of HPSv2" in damaged.stderr
    (drawn / "captions.csv").unlink()
    without_prompts = authface_here(*evaluate)
    assert without_prompts.returncode == 2
    assert "hpsv2 needs the prompts of the pictures; add --prompts FILE.csv" in (
        without_prompts.stderr
    )


def test_missing_weights_and_library_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTHFACE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingResourceError) as caught:
        hps.HpsScorer(str(tmp_path), "cpu")
    message = str(caught.value)
    assert "HPS_v2_compressed.pt is missing" in message
    assert "https://huggingface.co/xswu/HPSv2/resolve/main/HPS_v2_compressed.pt" in message
    assert f"put the file into {tmp_path}" in message

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "open_clip" else find_spec(name)
    )
    with pytest.raises(MissingResourceError, match=r"the metric hpsv2 needs authface\[hps\]"):
        hps.HpsScorer(str(tmp_path), "cpu")


def test_files_that_are_no_prompts_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,caption\nx,y\n")
    with pytest.raises(UserError, match="has no column file"):
        read_prompts(tmp_path / "a.csv")
    with pytest.raises(UserError, match="is not a CSV file"):
        read_prompts(tmp_path / "none.csv")
