"""`authface push` against a stand-in of the hub, and what the licences refuse."""

import shutil

import huggingface_hub.constants
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hub_server import TOKEN, HubServer
from PIL import Image

from manifests.licence_policy import may_publish


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def model(tmp_path):
    """A finished run with pictures and a checkpoint, which stay here."""
    folder = tmp_path / "restorer"
    for path in ("unet/w.safetensors", "unet/config.json", "drawn/a.png", "checkpoints/s.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"{}")
    (folder / "model_index.json").write_text("{}")
    (folder / "README.md").write_text("# Model\n")
    pd.DataFrame({"photo_id": ["a", "b"], "licence_basis": ["own", "public-domain"]}).to_parquet(
        folder / "lineage.parquet"
    )
    return folder


@pytest.mark.parametrize(
    ("basis", "licence", "expected"),
    [
        ("own", None, True),
        ("public-domain", None, True),
        ("other:Attribution License", None, True),
        ("other:x", "CC-BY-NC 4.0", True),
        ("other:x", "CC BY-ND 4.0", False),
        ("other:Attribution-NonCommercial-NoDerivs License", None, False),
        ("unsplash-dataset-lite", "Unsplash Dataset Terms", False),
        ("permission: Unsplash, 1 May", "Unsplash License", False),
        (None, None, False),
    ],
)
def test_licences_that_allow_publishing(basis, licence, expected):
    assert may_publish(basis, licence) is expected


def test_dataset_is_pushed_and_read_back(hub, filled, authface_here, tmp_path):
    options = ("push", "--dataset", "--repo", "me/faces", "-w", filled)
    dry = authface_here(*options)
    assert dry.returncode == 0, dry.stderr
    assert "would be pushed to the dataset repository me/faces (private" in dry.stdout
    assert hub.repositories == {}

    pushed = authface_here(*options, "--yes")
    assert pushed.returncode == 0, pushed.stderr
    assert f"{hub.url}/datasets/me/faces" in pushed.stdout
    repository = hub.repositories["me/faces"]
    assert (repository.kind, repository.visibility) == ("dataset", "private")
    for path, data in repository.files.items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(data)
    assert "| own |" in repository.files["README.md"].decode()
    assert "CREDITS.md" in repository.files

    from datasets import load_dataset

    loaded = load_dataset(str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))
    faces = pd.read_parquet(filled / "manifests/faces").set_index("face_id")
    assert sum(len(split) for split in loaded.values()) >= 1
    row = loaded["train"][0]
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == (512, 512)
    assert row["licence_basis"] == "own"
    assert row["caption"]
    assert row["face_id"] in faces.index
    assert authface_here(*options, "--yes").returncode == 0  # a second push is a further commit


def test_dataset_with_other_licences_is_refused(hub, filled, authface_here, tmp_path):
    shutil.copytree(filled, tmp_path / "ws")
    for part in (tmp_path / "ws/manifests/photos").glob("*.parquet"):
        table = pq.read_table(part)
        index = table.schema.get_field_index("licence_basis")
        bases = ["unsplash-dataset-lite"] * len(table)
        pq.write_table(table.set_column(index, table.schema.field(index), [bases]), part)
    result = authface_here(
        "push", "--dataset", "--repo", "me/faces", "-w", tmp_path / "ws", "--yes"
    )
    assert result.returncode == 2
    assert "does not allow publishing them (unsplash-dataset-lite; first: " in result.stderr
    assert hub.repositories == {}


def test_model_is_pushed_without_pictures_and_checkpoints(hub, model, authface_here):
    options = ("push", "--model", model, "--repo", "me/restorer")
    assert authface_here(*options).returncode == 0
    assert hub.repositories == {}
    result = authface_here(*options, "--yes", "--public")
    assert result.returncode == 0, result.stderr
    repository = hub.repositories["me/restorer"]
    assert repository.visibility == "public"
    assert set(repository.files) == {
        "README.md",
        "lineage.parquet",
        "model_index.json",
        "unet/config.json",
        "unet/w.safetensors",
    }


def test_model_of_photographs_without_a_basis_is_refused(hub, model, authface_here):
    pd.DataFrame({"photo_id": ["a", "b"], "licence_basis": ["own", None]}).to_parquet(
        model / "lineage.parquet"
    )
    result = authface_here("push", "--model", model, "--repo", "me/restorer", "--yes")
    assert result.returncode == 2
    assert "1 photograph without a licence basis (first: b)" in result.stderr
    (model / "lineage.parquet").unlink()
    result = authface_here("push", "--model", model, "--repo", "me/restorer", "--yes")
    assert "the photographs in the model are unknown" in result.stderr
    assert hub.repositories == {}


def test_errors_are_one_line(hub, model, authface_here, monkeypatch, tmp_path):
    options = ("push", "--model", model, "--repo", "me/restorer", "--yes")
    hub.refuse = True
    refused = authface_here(*options)
    assert refused.returncode == 2
    assert "the hub refused the upload to me/restorer (" in refused.stderr
    hub.refuse = False
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    unreachable = authface_here(*options)
    assert unreachable.returncode == 3
    assert "cannot be reached" in unreachable.stderr
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    without_token = authface_here(*options)
    assert without_token.returncode == 3
    assert "set HF_TOKEN" in without_token.stderr
    for wrong in (("--repo", "nothing"), ("--repo", "me/x", "--dataset")):
        result = authface_here("push", "--model", model, *wrong)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
