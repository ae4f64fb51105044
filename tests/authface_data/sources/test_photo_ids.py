"""Ids of photographs in folders: by the whole content, read once, and kept in older workspaces."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import collect_folder, init_workspace
from PIL import Image

from authface_data.engine.stage import expected_fingerprints
from authface_data.sources.file_digests import DIGESTS_FILE, FileDigests
from authface_data.sources.file_source import FileOptions
from authface_data.sources.folder import FolderSource
from authface_data.sources.protocol import RunOptions
from authface_data.sources.stage import CollectStage
from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

OLD = (1_600_000_000, 1_600_000_000)


def write_scan(path: Path, colour: int) -> Path:
    """An uncompressed TIFF with borders of white that are larger than 64 KiB."""
    pixels = np.full((400, 200, 3), 255, np.uint8)
    pixels[150:250] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    os.utime(path, OLD)
    return path


def earlier_id(path: Path, name: str) -> str:
    """The id that authface gave before it read whole files."""
    data = path.read_bytes()
    ends = data[:65536] + data[max(len(data) - 65536, 0) :]
    digest = hashlib.sha256(os.fsencode(name) + f"\0{len(data)}\0".encode() + ends)
    return f"fs_{digest.hexdigest()[:16]}"


def describe(workspace: Workspace, folder: Path) -> dict[str, str]:
    """Name -> id of the photographs of a folder."""
    source = FolderSource(workspace, FileOptions(path=folder))
    return {photo.name: photo.photo_id for photo in source.photos()}


def read_photos(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests/photos")


def make_earlier(root: Path, path: Path, name: str) -> str:
    """Give a photograph of a workspace the id and the fingerprint of an earlier authface."""
    workspace = Workspace(root)
    store = Store(workspace, PHOTOS)
    photo_id = earlier_id(path, name)
    status = path.stat()
    inputs = fingerprint(size=status.st_size, time=status.st_mtime_ns, sidecar={})
    stage = CollectStage("folder", "own")
    fingerprints = expected_fingerprints(stage, [(photo_id, {"fingerprint": inputs})])
    rows = store.read().to_pylist()
    for row in rows:
        row.pop("created_at")
        if row["description"] == name:
            row |= {"photo_id": photo_id, "fingerprint": fingerprints[photo_id]}
    table = store.table(rows)
    store.compact(lambda part: pa.repeat(True, part.num_rows), table)
    return photo_id


def test_scans_with_equal_ends_are_two_photographs(tmp_path, authface_here):
    paths = [write_scan(tmp_path / f"{colour}/scan.tif", colour) for colour in (10, 200)]
    assert earlier_id(paths[0], "scan.tif") == earlier_id(paths[1], "scan.tif")
    assert paths[0].stat().st_size == paths[1].stat().st_size
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    for path in paths:
        collected = authface_here(*collect_folder(root, path.parent))
        assert collected.returncode == 0, collected.stderr
        assert collected.stdout.startswith("1 photograph collected")
    assert len(set(read_photos(root)["photo_id"])) == 2


def test_file_of_an_earlier_workspace_keeps_its_id(tmp_path, authface_here):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 15.5), 3: "W", 4: (13.0, 24.0, 0.5)}
    folder = tmp_path / "in"
    scan = write_scan(folder / "scan.tif", 10)
    with_place = folder / "place.jpg"
    Image.new("RGB", (30, 20)).save(with_place, exif=exif)
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    assert authface_here(*collect_folder(root, folder)).returncode == 0
    ids = {make_earlier(root, scan, "scan.tif"), make_earlier(root, with_place, "place.jpg")}
    assert set(read_photos(root)["photo_id"]) == ids

    repeated = authface_here(*collect_folder(root, folder))
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stdout.startswith("0 photographs collected, 2 already in the workspace")
    assert set(read_photos(root)["photo_id"]) == ids

    # Another scan with the same ends is another photograph.
    write_scan(folder / "scan.tif", 200).touch()
    other = authface_here(*collect_folder(root, folder))
    assert other.stdout.startswith("1 photograph collected, 1 already in the workspace")
    assert len(set(read_photos(root)["photo_id"])) == 3


def test_files_are_read_once(tmp_path, workspace, monkeypatch):
    path = write_scan(tmp_path / "in/scan.tif", 10)
    source = FolderSource(workspace, FileOptions(path=tmp_path / "in"))
    photo_ids = [photo.photo_id for photo in source.photos()]
    source.digests.save(lambda secret: False, tmp_path / "in")

    def refuse(*arguments):
        raise AssertionError("the file is read again")

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", refuse)
        assert list(describe(workspace, tmp_path / "in").values()) == photo_ids
        path.touch()
        with pytest.raises(AssertionError, match="read again"):
            describe(workspace, tmp_path / "in")
    assert list(describe(workspace, tmp_path / "in").values()) == photo_ids


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 1000, None])
def test_damaged_digests_are_ignored(tmp_path, workspace, damage):
    write_scan(tmp_path / "in/scan.tif", 10)
    photo_ids = describe(workspace, tmp_path / "in")
    digests = FileDigests(workspace)
    digests.digest(tmp_path / "in/scan.tif")
    digests.save(lambda secret: False)
    if damage is None:
        pd.DataFrame({"path": [1], "size": ["x"]}).to_parquet(workspace.local_path(DIGESTS_FILE))
    else:
        workspace.write_bytes(DIGESTS_FILE, damage)
    assert describe(workspace, tmp_path / "in") == photo_ids


def test_young_files_and_forgotten_photographs_are_not_remembered(tmp_path, workspace):
    old, young = write_scan(tmp_path / "old.tif", 1), write_scan(tmp_path / "young.tif", 2)
    young.touch()
    digests = FileDigests(workspace)
    forgotten = digests.digest(write_scan(tmp_path / "forgotten.tif", 3)).sha256
    digests.digest(old)
    digests.digest(young)
    digests.save(lambda secret: secret == forgotten)
    stored = pd.read_parquet(workspace.local_path(DIGESTS_FILE))
    assert [Path(path).name for path in stored["path"]] == ["old.tif"]

    old.unlink()
    FileDigests(workspace).save(lambda secret: False, tmp_path)
    assert not len(pd.read_parquet(workspace.local_path(DIGESTS_FILE)))


def test_file_that_could_not_be_read_fails_until_it_can(tmp_path, workspace, monkeypatch):
    path = write_scan(tmp_path / "in/scan.tif", 10)
    write_scan(tmp_path / "in/other.tif", 20)
    read = FileDigests.digest

    def fail(digests: FileDigests, file: Path):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return read(digests, file)

    with monkeypatch.context() as patch:
        patch.setattr(FileDigests, "digest", fail)
        failed_id = describe(workspace, tmp_path / "in")["scan.tif"]
    verdict = {
        "subject": "photo",
        "id": failed_id,
        "gate": "collect",
        "verdict": "failed",
        "reason": "Permission denied",
        "fingerprint": "",
    }
    Store(workspace, VERDICTS).append([verdict])

    source = FolderSource(workspace, FileOptions(path=tmp_path / "in", licence_basis="own"))
    assert source.collect(RunOptions()).collected == 2
    assert Store(workspace, VERDICTS).read(["id"]).num_rows == 0
    assert failed_id not in set(read_photos(Path(workspace.root))["photo_id"])


def test_digests_of_forgotten_photographs_are_removed(tmp_path, authface_here):
    write_scan(tmp_path / "in/scan.tif", 10)
    write_scan(tmp_path / "in/other.tif", 20)
    root = tmp_path / "ws"
    assert authface_here(*init_workspace(root)).returncode == 0
    for _ in range(2):
        assert authface_here(*collect_folder(root, tmp_path / "in")).returncode == 0
        stored = pd.read_parquet(root / DIGESTS_FILE)
        photos = read_photos(root)
        assert sorted(stored["photo_id"]) == sorted(photos["photo_id"])
        photo_id = photos.loc[photos["description"] == "scan.tif", "photo_id"]
        if len(photo_id):
            assert authface_here("forget", "-w", root, *photo_id, "--yes").returncode == 0
            left = pd.read_parquet(root / DIGESTS_FILE)
            assert [Path(path).name for path in left["path"]] == ["other.tif"]
