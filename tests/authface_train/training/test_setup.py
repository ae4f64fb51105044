"""What is refused before anything is computed or written."""

import importlib.util

import captioned_workspace
import pytest
import torch
from PIL import Image

from authface_train.models.sdxl import tiny_sdxl
from authface_train.presets import load_preset
from authface_train.training.setup import check_libraries, has_ffhq, load_rows
from manifests.schema import FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.errors import MissingResourceError, UserError
from manifests.verdicts import ALL_GATES, verdict_row


@pytest.mark.parametrize(
    ("overrides", "library"),
    [
        ({"wandb": True}, "wandb"),
        ({"optimiser": "adamw-8bit"}, "bitsandbytes"),
        ({"optimiser": "adamw-8bit-bf16", "mixed_precision": "bf16"}, "torchao"),
        ({"lora_rank": 4}, "peft"),
    ],
)
def test_missing_library_of_a_setting_is_named(monkeypatch, overrides, library):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == library else find_spec(name)
    )
    check_libraries(load_preset("prior", "tiny", {}))
    with pytest.raises(MissingResourceError, match=f"needs {library}; pip install {library}, or"):
        check_libraries(load_preset("prior", "tiny", overrides))


def add_ffhq(workspace, count=8):
    """Add kept faces of FFHQ, without captions and licence."""
    ids = [f"ffhq_{number:05d}" for number in range(count)]
    rows = [{"photo_id": name, "source": "ffhq", "sha256": name} for name in ids]
    faces = [
        {"face_id": f"{name}_1", "photo_id": name, "crop_path": f"faces/{name}.png"} for name in ids
    ]
    for name in ids:
        Image.new("RGB", (16, 16)).save(workspace.local_path(f"faces/{name}.png"))
    Store(workspace, PHOTOS).append([{**row, "fingerprint": "f"} for row in rows])
    Store(workspace, FACES).append([{**row, "fingerprint": "f"} for row in faces])
    Store(workspace, VERDICTS).append(
        [verdict_row("face", f"{name}_1", ALL_GATES, "kept", fingerprint="f") for name in ids]
    )


def test_each_stage_has_its_source(workspace):
    """Neither captions nor licences of FFHQ are demanded of a run that does not learn from it."""
    captioned_workspace.fill(workspace)
    assert not has_ffhq(workspace)
    with pytest.raises(UserError, match="no kept face comes from FFHQ; run `authface collect"):
        load_rows(workspace, "none", allow_unknown_licence=True, source="ffhq")
    add_ffhq(workspace)
    assert has_ffhq(workspace)

    rows = load_rows(workspace, "both", allow_unknown_licence=False)
    assert rows.source == "portraits"
    assert set(rows.all["photo_id"]) <= {"fs_a", "fs_b", "fs_c"}
    rows = load_rows(workspace, "none", allow_unknown_licence=True, source="ffhq")
    assert set(rows.all["source"]) == {"ffhq"}
    rows = load_rows(workspace, "none", allow_unknown_licence=True, source="workspace")
    assert set(rows.all["source"] == "ffhq") == {True, False}
    with pytest.raises(UserError, match=r"faces have no caption; .* or --source portraits"):
        load_rows(workspace, "both", allow_unknown_licence=True, source="workspace")


def test_workspace_of_ffhq_alone_is_the_source_of_both_stages(workspace):
    add_ffhq(workspace)
    rows = load_rows(workspace, "none", allow_unknown_licence=True)
    assert rows.source == "ffhq"
    with pytest.raises(UserError, match="no kept face comes from elsewhere than FFHQ"):
        load_rows(workspace, "none", allow_unknown_licence=True, source="portraits")


@pytest.mark.slow
def test_refused_start_leaves_no_run(filled, tmp_path, authface_here):
    pipeline = tiny_sdxl(0)
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight.fill_(float("nan"))
    pipeline.save_pretrained(tmp_path / "broken")
    run = tmp_path / "runs" / "run"
    command = ["train-prior", "--preset", "tiny", "-w", filled, "--output", run]
    completed = authface_here(*command, "--base", tmp_path / "broken")
    assert completed.returncode == 2
    assert "VAE returns NaN" in completed.stderr
    assert not run.parent.exists()


@pytest.mark.slow
def test_resumed_run_finds_its_base(filled, tmp_path, authface_here):
    base = tmp_path / "base"
    tiny_sdxl(3).save_pretrained(base)
    command = ["train-prior", "--preset", "tiny", "-w", filled, "--output", tmp_path / "run"]
    command += ["--set", "audit=false", "--set", "draw.every=0"]
    completed = authface_here(*command, "--base", base, "--steps", 1)
    assert completed.returncode == 0, completed.stderr
    completed = authface_here(*command, "--steps", 2, "--resume")
    assert completed.returncode == 0, completed.stderr

    moved = base.rename(tmp_path / "moved")
    completed = authface_here(*command, "--steps", 3, "--resume")
    assert completed.returncode == 2
    assert f"{base}" in completed.stderr
    completed = authface_here(*command, "--steps", 3, "--resume", "--base", moved)
    assert completed.returncode == 0, completed.stderr
