"""The right to be forgotten: no byte of the photograph and no mention of its id is left, and it does not come back."""

import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from authface_data.images.hashes import hash_of_pixels
from authface_data.images.open import DECODE_ERRORS, Photo
from manifests.schema import MANIFESTS
from manifests.training_view import training_view
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow
KILLER = Path(__file__).parents[2] / "support" / "killer.py"


def manifest(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


@pytest.fixture(scope="module")
def crowded(filled, tmp_path_factory, authface_here) -> Path:
    """The filled workspace with everything that may hold a photograph: a run, caches, strips, a report, pages of a listing."""
    root = tmp_path_factory.mktemp("crowded") / "ws"
    shutil.copytree(filled, root)
    done = authface_here(
        "train-prior", "-w", root, "--preset", "tiny", "--steps", 2, "--set", "audit=false"
    )
    assert done.returncode == 0, done.stderr
    faces, photo_id = manifest(root, "faces"), victim(root)
    face = faces[faces["photo_id"] == photo_id].iloc[0]
    crop = (root / face["crop_path"]).read_bytes()
    run = root / "runs/prior-tiny"
    from torch.utils.tensorboard import SummaryWriter

    with Image.open(io.BytesIO(crop)) as image, SummaryWriter(str(run / "logs")) as board:
        import numpy as np

        board.add_image("validation", np.asarray(image)[..., :3], dataformats="HWC")
    (run / "validation").mkdir()
    (run / "validation" / "step-2.png").write_bytes(crop)
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


def victim(root: Path) -> str:
    """A photograph with a kept face that is trained on."""
    view = training_view(Workspace(root))
    return sorted(view[view["split"] == "train"]["photo_id"])[0]


def photo_row(root: Path) -> pd.Series:
    photos = manifest(root, "photos").set_index("photo_id")
    return photos.loc[victim(root)]


def traces(
    root: Path, photo_id: str, face_ids: list[str], pixels: set[str], hashes: set[str]
) -> list[str]:
    """Every file that names the photograph or holds its pixels, whatever it is called; Parquet is read, not searched."""
    found = []
    names = re.compile("|".join(map(re.escape, [photo_id, *face_ids, *hashes])))
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        texts = [str(path.relative_to(root))]
        if path.suffix == ".parquet" and path.read_bytes()[:4] == b"PAR1":
            texts.append(str(pq.read_table(path).to_pydict()))
        else:
            texts.append(path.read_bytes().decode("latin-1"))
        if any(names.search(text) for text in texts):
            found.append(f"{path}: named")
        try:
            if hash_of_pixels(Photo(path.read_bytes).pixels()) in pixels:
                found.append(f"{path}: pixels")
        except DECODE_ERRORS:
            pass
    return found


def evidence(root: Path) -> tuple[str, list[str], set[str], set[str]]:
    photo_id, row = victim(root), photo_row(root)
    faces = manifest(root, "faces")
    mine = faces[faces["photo_id"] == photo_id]
    pictures = [root / row["path"], *(root / path for path in mine["crop_path"])]
    pixels = {hash_of_pixels(Photo(path.read_bytes).pixels()) for path in pictures}
    return photo_id, list(mine["face_id"]), pixels, {row["sha256"], *mine["crop_sha256"]}


def test_nothing_is_left_and_it_does_not_come_back(crowded, tmp_path, authface_here, photos):
    root = tmp_path / "ws"
    shutil.copytree(crowded, root)
    before = evidence(root)
    photo_id = before[0]
    assert len(traces(root, *before)) > 10
    kept = set(training_view(Workspace(root))["photo_id"])
    dry = authface_here("forget", "-w", root, photo_id)
    assert dry.returncode == 0, dry.stderr
    assert "runs/prior-tiny" in dry.stdout
    assert "1 of photos" in dry.stdout
    assert len(traces(root, *before)) > 10  # a dry run does nothing
    said = json.loads(authface_here("forget", "-w", root, photo_id, "--json").stdout)
    assert said["runs"] == ["runs/prior-tiny"]
    done = authface_here(
        "forget", "-w", root, photo_id, "--yes", "--why", f"asked by letter about {photo_id}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs/prior-tiny" in done.stdout
    assert traces(root, *before) == []
    assert set(training_view(Workspace(root))["photo_id"]) == kept - {photo_id}

    tombstones = manifest(root, "tombstones")
    assert set(tombstones["kind"]) == {"id", "file", "pixels"}
    assert set(tombstones["why"]) == {"asked by letter about forgotten"}
    lineage = pd.read_parquet(root / "runs/prior-tiny/lineage.parquet")
    nameless = lineage[lineage["photo_id"].isin(tombstones["keyed_hash"])]
    assert len(nameless) == 1
    assert (
        nameless[["sha256", "photographer_name", "source_url", "licence_basis"]]
        .isna()
        .all(axis=None)
    )
    others = set(lineage["photo_id"]) - set(nameless["photo_id"])
    assert others == set(
        pd.read_parquet(crowded / "runs/prior-tiny/lineage.parquet")["photo_id"]
    ) - {photo_id}
    assert len(others) >= 2
    assert "other" in set(pd.read_parquet(root / "reports/hq/draws.parquet")["name"])
    assert (root / "reports/notes.csv").read_text() == "id,word\nfs_other,fine\n"
    assert json.loads((root / "cache/unsplash/listings/0123/00001.json").read_text())["photos"] == [
        {"id": "abc"}
    ]
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
    again = authface_here(
        "collect", "-w", root, "--source", "folder", "--path", folder, "--licence-basis", "own"
    )
    assert again.returncode == 0, again.stderr
    verdicts = manifest(root, "verdicts")
    assert verdicts["reason"].str.startswith("forgotten", na=False).sum() == 2
    same = dict.fromkeys(manifest(root, "photos")["photo_id"])
    assert photo_id not in same
    assert (
        authface_here("forget", "-w", root, photo_id).stdout.strip() == "1 were forgotten already"
    )
    for name, kind in MANIFESTS.items():
        assert not manifest(root, name).duplicated(list(kind.key)).any()


def test_the_id_is_skipped_when_its_source_offers_it_again(filled, tmp_path, authface_here, photos):
    root, folder = tmp_path / "ws", tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos["biden.jpg"], folder)
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    words = (
        "collect",
        "-w",
        root,
        "--source",
        "folder",
        "--path",
        folder,
        "--licence-basis",
        "own",
    )
    assert authface_here(*words).returncode == 0
    photo_id = manifest(root, "photos")["photo_id"].iloc[0]
    assert authface_here("forget", "-w", root, photo_id, "--yes").returncode == 0
    again = authface_here(*words)
    assert "1 not taken since they were forgotten" in again.stdout
    assert manifest(root, "photos").empty
    assert not list((root / "photos").iterdir())


def test_photographs_of_the_same_pixels_go_together_and_near_ones_are_named(
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
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    words = ("--source", "folder", "--path", folder, "--licence-basis", "own")
    assert authface_here("collect", "-w", root, *words).returncode == 0
    assert authface_here("filter", "-w", root, "--metrics", "").returncode == 0
    rows = manifest(root, "photos").set_index("description")["photo_id"]
    verdicts = manifest(root, "verdicts")
    told = verdicts[
        (verdicts["gate"] == "duplicates") & (verdicts["subject"] == "photo")
    ].set_index("id")
    kept = told[told["verdict"] == "kept"].index
    assert len(kept) == 1
    assert kept[0] in {rows["a.png"], rows["b.bmp.png"]}  # the larger one
    assert set(told.drop(kept)["reason"]) == {f"duplicate_of:{kept[0]}"}
    assert len(training_view(Workspace(root))) == 1

    said = json.loads(authface_here("forget", "-w", root, kept[0], "--json").stdout)
    assert set(said["photo_ids"]) == {rows["a.png"], rows["b.bmp.png"]}
    assert said["alike"] == [rows["c.jpg"]]
    assert authface_here("forget", "-w", root, kept[0], "--yes").returncode == 0
    assert list(training_view(Workspace(root))["photo_id"]) == [
        rows["c.jpg"]
    ]  # what was dropped as its duplicate is kept now
    assert all((root / path).exists() for path in manifest(root, "faces")["crop_path"])


def paint(path: Path, number: int, size: int = 64) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(rough).resize((size, size)).save(path)


def test_ids_that_begin_alike_are_not_confused(tmp_path, authface_here):
    """`IMG`, and `IMG_20260101`, which looks like a face of it, and one more that goes on from there."""
    names = ["IMG", "IMG_20260101", "IMG_20260101_1", "IMG_2", "other_IMG"]
    for number, name in enumerate(names):
        paint(tmp_path / f"hq/{name}.png", number)
        (tmp_path / f"hq/{name}_qwen.json").write_text(json.dumps(f"tag {number}"))
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    words = (
        "collect",
        "-w",
        root,
        "--source",
        "authface-hq",
        "--path",
        tmp_path / "hq",
        "--licence-basis",
        "own",
    )
    assert authface_here(*words).returncode == 0
    done = authface_here(
        "forget", "-w", root, "afhq_IMG", "--yes", "--json", "--why", "asked 11 May 2021"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["photo_ids"] == ["afhq_IMG"]
    photos = manifest(root, "photos")
    assert set(photos["photo_id"]) == {f"afhq_{name}" for name in names[1:]}
    assert all((root / path).exists() for path in photos["path"])
    assert len(list((root / "photos").iterdir())) == 4
    captions = set(manifest(root, "captions")["face_id"])
    assert len(captions) == 4  # that of the forgotten one went before any face was found
    assert not [one for one in captions if re.fullmatch(r"afhq_IMG_[0-9a-f]{8}", one)]
    assert set(manifest(root, "tombstones")["why"]) == {"asked 11 May 2021"}


def test_whatever_lies_about(tmp_path, authface_here):
    """Damaged files, strange names, a shared URL, a decision on a face of long ago, folders on another disk."""
    for number, name in enumerate(("a", "b")):
        paint(tmp_path / f"in/{name}.png", number)
        (tmp_path / f"in/{name}.png.json").write_text(
            json.dumps({"source_url": "https://studio.example/portraits"})
        )
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    (tmp_path / "disk").mkdir()
    shutil.rmtree(root / "photos")
    (root / "photos").symlink_to(tmp_path / "disk")
    assert (
        authface_here(
            "collect",
            "-w",
            root,
            "--source",
            "folder",
            "--path",
            tmp_path / "in",
            "--licence-basis",
            "own",
        ).returncode
        == 0
    )
    rows = manifest(root, "photos").set_index("description")
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
    before = evidence_of(root, photo_id)
    done = authface_here("forget", "-w", root, photo_id, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert traces(root, *before) == []
    assert not list((root / ".tmp").iterdir())
    assert [path.name for path in (tmp_path / "disk").iterdir()] == [
        Path(rows.loc["b.png", "path"]).name
    ]
    left = pd.read_parquet(root / "cache/pictures.parquet")["image"].tolist()
    assert [row["path"] for row in left] == ["b.png"]
    assert manifest(root, "decisions").empty
    assert list(manifest(root, "photos")["source_url"]) == ["https://studio.example/portraits"]
    assert authface_here("status", "-w", root).returncode == 0


def evidence_of(root: Path, photo_id: str) -> tuple[str, list[str], set[str], set[str]]:
    row = manifest(root, "photos").set_index("photo_id").loc[photo_id]
    return (
        photo_id,
        [],
        {hash_of_pixels(Photo((root / row["path"]).read_bytes).pixels())},
        {row["sha256"]},
    )


def kill_run(words, stop: int) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, KILLER, str(stop), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_killed_and_finished(crowded, tmp_path, authface_here):
    """Before any of its writes and removals: nothing else is let in, and doing it again finishes it."""
    whole = tmp_path / "whole"
    shutil.copytree(crowded, whole)
    before = evidence(whole)
    words = ["forget", before[0], "--yes"]
    count = int(re.search(r"operations (\d+)", kill_run([*words, "-w", whole], 0).stdout)[1])
    assert count > 15
    rng = random.Random(5)
    for number, share in enumerate([0.02, *(rng.uniform(0.05, 0.95) for _ in range(4))]):
        root = tmp_path / f"ws{number}"
        shutil.copytree(crowded, root)
        killed = kill_run([*words, "-w", root], 1 + int(share * count))
        assert killed.returncode == -signal.SIGKILL, killed.stdout
        if (root / ".forgetting.json").exists():
            held = authface_here("status", "-w", root)
            assert held.returncode == 0
            refused = authface_here("filter", "-w", root, "--regate")
            assert refused.returncode == 2
            assert "authface forget --yes" in refused.stderr
            finished = authface_here("forget", "-w", root, "--yes")
        else:
            finished = authface_here(*words, "-w", root)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert traces(root, *before) == []
        assert not (root / ".forgetting.json").exists()


def test_an_unknown_id_is_a_mistake(filled, tmp_path, authface_here):
    root = tmp_path / "ws"
    shutil.copytree(filled, root)
    done = authface_here("forget", "-w", root, "us_nobody")
    assert done.returncode == 2
    assert "us_nobody" in done.stderr
    assert authface_here("forget", "-w", root).returncode == 2
    dropped = manifest(root, "verdicts").query("gate == 'collect'")["id"].iloc[0]
    assert (
        authface_here("forget", "-w", root, dropped, "--yes").returncode == 0
    )  # one that never came in can be forgotten too
    assert dropped not in set(manifest(root, "verdicts")["id"])
