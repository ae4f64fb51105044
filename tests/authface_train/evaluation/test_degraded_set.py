"""Degrading pictures from strangers: each one is degraded or named in a failure."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_train.evaluation.degraded_set import (
    RECORD_FILE,
    degrade_pictures,
    read_degradations,
)


def test_odd_pictures_and_names_stop_nothing(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    output.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise).save(folder / os.fsdecode(b"latin\xe9.png"))
    Image.new("RGB", (65500, 1)).save(folder / "narrow.jpg")
    (folder / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")

    files = {path: Path(f"{path.stem}.png") for path in sorted(folder.iterdir())}
    result = degrade_pictures(files, output, preset="gfpgan", seed=1)

    assert result.count == 2
    assert "narrow.jpg" in result.failures[0]
    assert "script.jpg cannot be decoded (it is not a picture" in result.failures[1]
    record = pd.read_parquet(output / RECORD_FILE)
    assert record["file"].tolist() == ["a.png", "latin\\udce9.png"]
    (output / os.fsdecode(b"latin\xe9.png")).unlink()
    assert len(read_degradations(output / RECORD_FILE, [output])) == 2
