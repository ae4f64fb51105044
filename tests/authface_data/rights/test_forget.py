"""Forgetting: no copy and no id of the photograph remains, and it is not collected again."""

import hashlib
import io
import json
import random
import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import collect_files, collect_folder, init_workspace
from killable import count_operations, run_killable
from PIL import Image

from authface_data.images.hashes import hash_pixels
from authface_data.images.open import DECODE_ERRORS, Photo
from authface_data.rights.forget import read_interrupted
from manifests.schema import MANIFESTS
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


def read_manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


@pytest.fixture(scope="module")
def crowded(filled, tmp_path_factory, authface_here) -> Path:
    """The filled workspace with other files that may contain a photograph.

    It has a run, caches, overview pictures, a report and stored search results.
    """
    root = tmp_path_factory.mktemp("crowded") / "ws"
    shutil.copytree(filled, root)
    done = authface_here(
        "train-prior", "-w", root, "--preset", "tiny", "--steps", 2, "--set", "audit=false"
    )
    assert done.returncode == 0, done.stderr
    faces = read_manifest(root, "faces")
    photo_id = photo_to_forget(root)
    face = faces[faces["photo_id"] == photo_id].iloc[0]
    crop = (root / face["crop_path"]).read_bytes()
    run = root / "runs/prior-tiny"
    from torch.utils.tensorboard import SummaryWriter

    with Image.open(io.BytesIO(crop)) as image, SummaryWriter(str(run / "logs")) as board:
        import numpy as np

        board.add_image("validation", np.asarray(image)[..., :3], dataformats="HWC")
    (run / "validation").mkdir()
    (run / "validation" / "step-2.png").write_bytes(crop)
    # Runs that only validated with faces: the photograph, another one, and an unknown one.
    for name, validated in (("shows", photo_id), ("other", "fs_other"), ("old", None)):
        folder = root / "runs" / name / "validation"
        folder.mkdir(parents=True)
        with Image.open(io.BytesIO(crop)) as image:
            image.resize((64, 64)).save(folder / "step-00000002.png")
        if validated:
            (folder / "faces.csv").write_text(f"face_id\n{validated}_00000000\n")
    (root / "reports/hq").mkdir(parents=True)
    (root / f"reports/hq/{face['face_id']}.png").write_bytes(crop)
    with Image.open(io.BytesIO(crop)) as image:
        image.save(root / "reports/hq/another-name.webp", lossless=True)
        image.save(root / "reports/hq/strip.jpg")
    pd.DataFrame({"name": [face["face_id"], "other"], "sigma": [1.0, 2.0]}).to_parquet(
        root / "reports/hq/draws.parquet"
    )
    (root / "reports/notes.csv").write_text(f"id,word\n{photo_id},nice\nfs_other,fine\n")
    assert authface_here("report", "-w", root).returncode == 0
    pages = root / "cache/unsplash/listings/0123"
    pages.mkdir(parents=True)
    (pages / "00001.json").write_text(json.dumps({"photos": [{"id": "abc"}], "has_next": False}))
    (root / "cache/downloads").mkdir()
    (root / f"cache/downloads/{photo_id}-0a1b2c3d.part").write_bytes(
        (root / photo_row(root)["path"]).read_bytes()[:5000]
    )
    return root


def photo_to_forget(root: Path) -> str:
    """The photo_id of a photograph with a kept face in the training split."""
    view = training_view(Workspace(root))
    return sorted(view[view["split"] == "train"]["photo_id"])[0]


def photo_row(root: Path) -> pd.Series:
    photos = read_manifest(root, "photos").set_index("photo_id")
    return photos.loc[photo_to_forget(root)]


def find_traces(
    root: Path, photo_id: str, face_ids: list[str], pixels: set[str], hashes: set[str]
) -> list[str]:
    """Every file that names the photograph or has its pixels. Parquet files are decoded."""
    found = []
    names = [name.encode() for name in (photo_id, *face_ids, *hashes)]
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        texts = [str(path.relative_to(root)).encode(errors="surrogateescape"), content]
        if path.suffix == ".parquet" and content[:4] == b"PAR1":
            texts[1] = str(pq.read_table(path).to_pydict()).encode(errors="surrogateescape")
        if any(name in text for text in texts for name in names):
            found.append(f"{path}: named")
        if pixels_of(content) in pixels:
            found.append(f"{path}: pixels")
    return found


pixels_by_digest: dict[bytes, str | None] = {}
"""Hashes of pictures by the SHA-256 of the file, since the copies of a workspace share theirs."""


def pixels_of(content: bytes) -> str | None:
    """The hash of the pixels of a picture file; None for other files."""
    digest = hashlib.sha256(content).digest()
    if digest not in pixels_by_digest:
        try:
            pixels_by_digest[digest] = hash_pixels(Photo(lambda: content).pixels())
        except DECODE_ERRORS:
            pixels_by_digest[digest] = None
    return pixels_by_digest[digest]


def collect_evidence(root: Path) -> tuple[str, list[str], set[str], set[str]]:
    """photo_id, face_ids, pixel hashes and file hashes of the photograph to forget."""
    photo_id = photo_to_forget(root)
    row = photo_row(root)
    faces = read_manifest(root, "faces")
    faces = faces[faces["photo_id"] == photo_id]
    pictures = [root / row["path"], *(root / path for path in faces["crop_path"])]
    pixels = {hash_pixels(Photo(path.read_bytes).pixels()) for path in pictures}
    return photo_id, list(faces["face_id"]), pixels, {row["sha256"], *faces["crop_sha256"]}


def test_no_trace_remains_and_the_photo_is_not_collected_again(
    crowded, tmp_path, authface_here, photos
):
    root = tmp_path / "ws"
    shutil.copytree(crowded, root)
    evidence = collect_evidence(root)
    photo_id = evidence[0]
    assert len(find_traces(root, *evidence)) > 10
    kept = set(training_view(Workspace(root))["photo_id"])
    dry = authface_here("forget", "-w", root, photo_id)
    assert dry.returncode == 0, dry.stderr
    assert "runs/prior-tiny" in dry.stdout
    assert "1 of photos" in dry.stdout
    assert len(find_traces(root, *evidence)) > 10  # a dry run does nothing
    preview = json.loads(authface_here("forget", "-w", root, photo_id, "--json").stdout)
    assert preview["runs"] == ["runs/prior-tiny"]
    done = authface_here(
        "forget", "-w", root, photo_id, "--yes", "--why", f"asked by letter about {photo_id}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs/prior-tiny" in done.stdout
    assert find_traces(root, *evidence) == []
    assert set(training_view(Workspace(root))["photo_id"]) == kept - {photo_id}

    tombstones = read_manifest(root, "tombstones")
    assert set(tombstones["kind"]) == {"id", "file", "pixels"}
    assert set(tombstones["why"]) == {"asked by letter about forgotten"}
    lineage = pd.read_parquet(root / "runs/prior-tiny/lineage.parquet")
    anonymised = lineage[lineage["photo_id"].isin(tombstones["keyed_hash"])]
    assert len(anonymised) == 1
    assert (
        anonymised[["sha256", "photographer_name", "source_url", "licence_basis"]]
        .isna()
        .all(axis=None)
    )
    others = set(lineage["photo_id"]) - set(anonymised["photo_id"])
    assert others == set(
        pd.read_parquet(crowded / "runs/prior-tiny/lineage.parquet")["photo_id"]
    ) - {photo_id}
    assert len(others) >= 2
    assert "other" in set(pd.read_parquet(root / "reports/hq/draws.parquet")["name"])
    assert (root / "reports/notes.csv").read_text() == "id,word\nfs_other,fine\n"
    assert json.loads((root / "cache/unsplash/listings/0123/00001.json").read_text())["photos"] == [
        {"id": "abc"}
    ]
    strips = [path.parts[-3] for path in root.glob("runs/*/validation/step-*.png")]
    assert strips == ["other"]
    assert (root / "runs/shows/validation/faces.csv").read_text() == "face_id\n"
    card = (root / "runs/prior-tiny/README.md").read_text()
    assert all(other in card for other in others)

    file = next(
        path
        for name, path in photos.items()
        if path.read_bytes()[-999:] == (crowded / photo_row(crowded)["path"]).read_bytes()[-999:]
    )
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copy(file, folder / "another name.jpg")
    with Image.open(file) as image:
        image.convert("RGB").save(folder / "same pixels.png")
    again = authface_here(*collect_folder(root, folder))
    assert again.returncode == 0, again.stderr
    verdicts = read_manifest(root, "verdicts")
    assert verdicts["reason"].str.startswith("forgotten", na=False).sum() == 2
    assert photo_id not in set(read_manifest(root, "photos")["photo_id"])
    assert (
        authface_here("forget", "-w", root, photo_id).stdout.strip()
        == "Forgotten earlier: 1 photograph"
    )
    for name, kind in MANIFESTS.items():
        assert not read_manifest(root, name).duplicated(list(kind.key)).any()


def test_models_outside_the_workspace_are_named(filled, tmp_path, authface_here):
    root = shutil.copytree(filled, tmp_path / "ws")
    folder = tmp_path / "models" / "prior"
    train = ["train-prior", "-w", root, "--preset", "tiny", "--steps", 1, "--set", "audit=false"]
    done = authface_here(*train, "--output", folder)
    assert done.returncode == 0, done.stderr
    photo_id = photo_to_forget(root)
    explanation = json.loads(authface_here("explain", "-w", root, photo_id, "--json").stdout)
    assert explanation["runs"] == [str(folder)]
    preview = json.loads(authface_here("forget", "-w", root, photo_id, "--json").stdout)
    assert (preview["runs"], preview["unreadable_runs"]) == ([str(folder)], [])
    done = authface_here("forget", "-w", root, photo_id, "--yes")
    assert f"which they cannot forget: {folder}; train them again" in done.stdout

    folder.rename(tmp_path / "models" / "renamed")
    explanation = authface_here("explain", "-w", root, photo_to_forget(root)).stdout
    assert f"have moved or are gone, which may have used it: {folder}" in explanation
    assert "No training run" not in explanation
    done = authface_here("forget", "-w", root, photo_to_forget(root), "--yes")
    assert "have moved or are gone" in done.stdout
    assert f"may have been trained on these photographs: {folder};" in done.stdout


def test_forgotten_id_is_skipped_when_its_source_is_collected_again(
    filled, tmp_path, authface_here, photos
):
    root, folder = tmp_path / "ws", tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos["biden.jpg"], folder)
    assert authface_here(*init_workspace(root)).returncode == 0
    collect = collect_folder(root, folder)
    assert authface_here(*collect).returncode == 0
    photo_id = read_manifest(root, "photos")["photo_id"].iloc[0]
    assert authface_here("forget", "-w", root, photo_id, "--yes").returncode == 0
    again = authface_here(*collect)
    assert "1 skipped because they were forgotten" in again.stdout
    assert read_manifest(root, "photos").empty
    assert not list((root / "photos").iterdir())


def test_equal_pixels_are_forgotten_together_and_near_duplicates_are_listed(
    tmp_path, authface_here, photos, weights
):
    root, folder = tmp_path / "ws", tmp_path / "photos"
    folder.mkdir()
    with Image.open(photos["obama.jpg"]) as image:
        image = image.convert("RGB")
        for name in ("a.png", "b.bmp.png"):
            image.save(folder / name)
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(
            folder / "c.jpg", quality=90
        )
    assert authface_here(*init_workspace(root)).returncode == 0
    assert authface_here(*collect_folder(root, folder)).returncode == 0
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    rows = read_manifest(root, "photos").set_index("description")["photo_id"]
    verdicts = read_manifest(root, "verdicts")
    duplicates = verdicts[
        (verdicts["gate"] == "duplicates") & (verdicts["subject"] == "photo")
    ].set_index("id")
    kept = duplicates[duplicates["verdict"] == "kept"].index
    assert len(kept) == 1
    assert kept[0] in {rows["a.png"], rows["b.bmp.png"]}  # the larger of the three sizes
    assert set(duplicates.drop(kept)["reason"]) == {f"duplicate_of:{kept[0]}"}
    assert len(training_view(Workspace(root))) == 1

    preview = json.loads(authface_here("forget", "-w", root, kept[0], "--json").stdout)
    assert set(preview["photo_ids"]) == {rows["a.png"], rows["b.bmp.png"]}
    assert preview["alike"] == [rows["c.jpg"]]
    assert authface_here("forget", "-w", root, kept[0], "--yes").returncode == 0
    # The photograph that was dropped as a duplicate is kept now.
    assert list(training_view(Workspace(root))["photo_id"]) == [rows["c.jpg"]]
    assert all((root / path).exists() for path in read_manifest(root, "faces")["crop_path"])


def write_picture(path: Path, seed: int, size: int = 64) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size, size)).save(path)


def test_ids_with_a_common_prefix_are_not_confused(tmp_path, authface_here):
    """`IMG_20260101` looks like a face of `IMG`, and `IMG_20260101_1` begins with both."""
    names = ["IMG", "IMG_20260101", "IMG_20260101_1", "IMG_2", "other_IMG"]
    for number, name in enumerate(names):
        write_picture(tmp_path / f"hq/{name}.png", number, size=128)
        (tmp_path / f"hq/{name}_qwen.json").write_text(json.dumps(f"tag {number}"))
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    collect = collect_files("authface-hq", root, tmp_path / "hq")
    assert authface_here(*collect).returncode == 0
    done = authface_here(
        "forget", "-w", root, "afhq_IMG", "--yes", "--json", "--why", "asked 11 May 2021"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["photo_ids"] == ["afhq_IMG"]
    photos = read_manifest(root, "photos")
    assert set(photos["photo_id"]) == {f"afhq_{name}" for name in names[1:]}
    assert all((root / path).exists() for path in photos["path"])
    assert len(list((root / "photos").iterdir())) == 4
    captions = set(read_manifest(root, "captions")["face_id"])
    assert len(captions) == 4  # the forgotten photograph's caption was removed too
    assert not any(re.fullmatch(r"afhq_IMG_[0-9a-f]{8}", face_id) for face_id in captions)
    assert set(read_manifest(root, "tombstones")["why"]) == {"asked 11 May 2021"}


def test_damaged_files_odd_names_and_linked_folders(tmp_path, authface_here):
    """Also a URL that two photographs share, and a decision on a face that does not exist."""
    for number, name in enumerate(("a", "b")):
        write_picture(tmp_path / f"in/{name}.png", number)
        (tmp_path / f"in/{name}.png.json").write_text(
            json.dumps({"source_url": "https://studio.example/portraits"})
        )
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    (tmp_path / "disk").mkdir()
    shutil.rmtree(root / "photos")
    (root / "photos").symlink_to(tmp_path / "disk")
    assert authface_here(*collect_folder(root, tmp_path / "in")).returncode == 0
    rows = read_manifest(root, "photos").set_index("description")
    photo_id = rows.loc["a.png", "photo_id"]
    from manifests.schema import DECISIONS
    from manifests.store import Store

    now = pd.Timestamp("2026-01-01", tz="UTC")
    decision = {
        "id": f"{photo_id}_deadbeef",
        "reviewer": "r",
        "decision": "keep",
        "decided_at": now,
        "fingerprint": "",
    }
    Store(Workspace(root), DECISIONS).append([decision])
    listing = root / "cache/unsplash/listings/x"
    listing.mkdir(parents=True)
    (listing / "00001.json").write_text('{"photos": [')
    (root / "cache/notes.parquet").write_bytes(b"no table")
    (root / "cache" / b"caf\xe9.txt".decode("utf-8", "surrogateescape")).write_bytes(
        photo_id.encode()
    )
    (root / f"reports/restored_{photo_id}.txt").write_text("x")
    (root / "reports/links.json").write_text(
        json.dumps({"picture": f"photos%2F{photo_id}-0a1b2c3d.png"})
    )
    (root / ".tmp").mkdir(exist_ok=True)
    (root / ".tmp/otherhost.17.abc").write_bytes(
        (root / rows.loc["a.png", "path"]).read_bytes()[:50]
    )
    pictures = [
        {"bytes": (root / rows.loc[f"{name}.png", "path"]).read_bytes(), "path": f"{name}.png"}
        for name in "ab"
    ]
    pd.DataFrame({"image": pictures}).to_parquet(root / "cache/pictures.parquet")
    evidence = evidence_of_photo(root, photo_id)
    done = authface_here("forget", "-w", root, photo_id, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert find_traces(root, *evidence) == []
    assert not list((root / ".tmp").iterdir())
    assert [path.name for path in (tmp_path / "disk").iterdir()] == [
        Path(rows.loc["b.png", "path"]).name
    ]
    remaining = pd.read_parquet(root / "cache/pictures.parquet")["image"].tolist()
    assert [row["path"] for row in remaining] == ["b.png"]
    assert read_manifest(root, "decisions").empty
    assert list(read_manifest(root, "photos")["source_url"]) == ["https://studio.example/portraits"]
    assert authface_here("status", "-w", root).returncode == 0


def evidence_of_photo(root: Path, photo_id: str) -> tuple[str, list[str], set[str], set[str]]:
    row = read_manifest(root, "photos").set_index("photo_id").loc[photo_id]
    return (
        photo_id,
        [],
        {hash_pixels(Photo((root / row["path"]).read_bytes).pixels())},
        {row["sha256"]},
    )


def test_interrupted_forget_is_finished_by_repeating_it(crowded, tmp_path, authface_here):
    """Killed at any write or removal. No other command writes to the workspace until then."""
    original = tmp_path / "original"
    shutil.copytree(crowded, original)
    evidence = collect_evidence(original)
    forget = ["forget", evidence[0], "--yes"]
    count = count_operations(run_killable([*forget, "-w", original]))
    assert count > 15
    rng = random.Random(5)
    for number, share in enumerate([0.02, *(rng.uniform(0.05, 0.95) for _ in range(4))]):
        root = tmp_path / f"ws{number}"
        shutil.copytree(crowded, root)
        killed = run_killable([*forget, "-w", root], kill_at=1 + int(share * count))
        assert killed.returncode == -signal.SIGKILL, killed.stdout
        if (root / ".forgetting.json").exists():
            assert authface_here("status", "-w", root).returncode == 0
            refused = authface_here("filter", "-w", root, "--regate")
            assert refused.returncode == 2
            assert "authface forget --yes" in refused.stderr
            finished = authface_here("forget", "-w", root, "--yes")
        else:
            finished = authface_here(*forget, "-w", root)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert find_traces(root, *evidence) == []
        assert not (root / ".forgetting.json").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"photo_ids": "a"}', b'{"photo_ids": [1]}', b"{}"],
)
def test_damaged_plan_of_an_interrupted_forget_is_one_line(workspace, content):
    workspace.write_bytes(".forgetting.json", content)
    with pytest.raises(UserError, match=r"\.forgetting\.json, the plan of .* is damaged; remove"):
        read_interrupted(workspace)


def test_unknown_ids_are_rejected(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface_here("forget", "-w", root, "us_nobody")
    assert done.returncode == 2
    assert "us_nobody" in done.stderr
    assert authface_here("forget", "-w", root).returncode == 2
    # A photograph that could not be collected can be forgotten too.
    dropped = read_manifest(root, "verdicts").query("gate == 'collect'")["id"].iloc[0]
    assert authface_here("forget", "-w", root, dropped, "--yes").returncode == 0
    assert dropped not in set(read_manifest(root, "verdicts")["id"])
