"""How long `authface filter --regate` takes to decide again over many faces.

    python benchmarks/regate.py [--faces 100000] [--scores 10]

A workspace of synthetic rows: faces, scores, perceptual hashes and gates. The real command is timed, start-up included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.schema import FACES, PHOTOS, SCORES, Manifest
from manifests.store import Store
from manifests.workspace import Workspace


def fill(ws: Workspace, manifest: Manifest, columns: dict) -> None:
    """Rows from columns; those not given are null."""
    count = len(next(iter(columns.values())))
    schema = manifest.schema.remove_metadata()
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type)
        for f in schema
    ]
    Store(ws, manifest).compact(add=pa.Table.from_arrays(arrays, schema=schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--scores", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    count, metrics = options.faces, [f"metric{number}" for number in range(options.scores)]
    with tempfile.TemporaryDirectory() as temp:
        gates = "".join(
            f'[[gates]]\nname = "{m}"\nmetric = "{m}"\nop = ">="\nthreshold = 0.1\n'
            for m in metrics
        )
        ws = Workspace.create(Path(temp) / "ws", f"{gates}")
        photo_ids, face_ids = (
            [f"us_{n:011d}" for n in range(count)],
            [f"us_{n:011d}_0a1b2c3d" for n in range(count)],
        )
        hashes = [f"{value:016x}" for value in rng.integers(0, 2**64, count, dtype=np.uint64)]
        sizes = rng.integers(1000, 8000, count)
        mark = ["f" * 16] * count
        fill(
            ws,
            PHOTOS,
            {
                "photo_id": photo_ids,
                "phash": hashes,
                "width": sizes,
                "height": sizes,
                "fingerprint": mark,
            },
        )
        fill(
            ws,
            FACES,
            {
                "face_id": face_ids,
                "photo_id": photo_ids,
                "qsize_px": sizes / 3,
                "fingerprint": mark,
            },
        )
        for metric in metrics:
            scores = {
                "face_id": face_ids,
                "metric": [metric] * count,
                "value": rng.random(count),
                "fingerprint": mark,
            }
            fill(ws, SCORES, scores)
        for _ in range(2):
            started = time.monotonic()
            command = [sys.executable, "-P", "-m", "cli", "filter", "--regate", "-w", ws.root]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(
                f"{count:,} faces, {options.scores} scores: {time.monotonic() - started:.2f} s ({os.cpu_count()} cores)"
            )
        print(said.strip())


if __name__ == "__main__":
    main()
