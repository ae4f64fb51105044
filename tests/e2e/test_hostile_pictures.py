"""Pictures from strangers, from `collect` to `status`: each one is a row, and nothing stops."""

import json
import struct
import sys
import zlib

import pytest
from commands import collect_folder, init_workspace
from PIL import Image

from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")
def test_every_hostile_picture_is_a_row_with_its_reason(tmp_path, authface_here, monkeypatch):
    def run_ghostscript(*arguments, **options):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run_ghostscript)
    folder, root = tmp_path / "in", tmp_path / "ws"
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "good.jpg")
    Image.new("RGB", (65500, 1), "red").save(folder / "narrow.jpg")
    (folder / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 22000, 22000, 8, 6, 0, 0, 0))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b""))
    with (folder / "huge.tif").open("wb") as file:
        file.truncate(3_000_000_000)  # a sparse file
    (folder / "drive.jpg").symlink_to("/proc/self/mem")  # reading it is an I/O error

    assert authface_here(*init_workspace(root)).returncode == 0
    collected = authface_here(*collect_folder(root, folder))

    workspace = Workspace(root)
    names = Store(workspace, PHOTOS).read(["description"])["description"].to_pylist()
    assert sorted(names) == ["good.jpg", "narrow.jpg"]
    verdicts = Store(workspace, VERDICTS).read(["verdict", "reason"]).to_pylist()
    reasons = sorted((row["verdict"], row["reason"]) for row in verdicts)
    assert [verdict for verdict, _ in reasons] == ["dropped", "dropped", "dropped", "failed"]
    assert reasons[0][1].startswith("too large: bomb.png: decoding 22000 x 22000 pixels (RGBA)")
    assert reasons[1][1].startswith("too large: huge.tif: the file would take 3.0 GB")
    assert reasons[2][1].startswith("undecodable: script.jpg: it is not a picture")
    assert "Input/output error" in reasons[3][1]

    # A file that could not be read may be there later, so the command ends with "done in part".
    assert collected.returncode == 4
    assert "--retry failed" in collected.stderr
    status = authface_here("status", "-w", root, "--json")
    assert json.loads(status.stdout)["rows"]["photos"] == 2
    (folder / "drive.jpg").unlink()
    Image.new("RGB", (64, 48), "blue").save(folder / "drive.jpg")
    assert authface_here(*collect_folder(root, folder), "--retry", "failed").returncode == 0
    assert Store(workspace, PHOTOS).read(["photo_id"]).num_rows == 3
    assert "failed" not in Store(workspace, VERDICTS).read(["verdict"])["verdict"].to_pylist()
