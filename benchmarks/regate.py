"""Time of `authface filter --regate` over many faces.

    python benchmarks/regate.py [--faces 100000] [--scores 10]

The workspace holds synthetic faces, scores, perceptual hashes and gates. The real command is timed,
start-up included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.schema import FACES, PHOTOS, SCORES, Manifest
from manifests.store import Store
from manifests.workspace import Workspace

FINGERPRINT = "f" * 16


def _append_columns(
    workspace: Workspace, manifest: Manifest, columns: Mapping[str, Sequence[object] | np.ndarray]
) -> None:
    """Append rows to a manifest.

    Args:
        workspace: The workspace.
        manifest: The manifest.
        columns: Values by column. Other columns are null.
    """
    count = len(next(iter(columns.values())))
    schema = manifest.schema.remove_metadata()
    arrays = []
    for field in schema:
        if field.name == "fingerprint":
            arrays.append(pa.array([FINGERPRINT] * count, field.type))
        elif field.name in columns:
            arrays.append(pa.array(columns[field.name], field.type))
        else:
            arrays.append(pa.nulls(count, field.type))
    Store(workspace, manifest).compact(add=pa.Table.from_arrays(arrays, schema=schema))


def _gate_toml(metric: str) -> str:
    """Return a gate that drops a tenth of the faces."""
    return f'[[gates]]\nname = "{metric}"\nmetric = "{metric}"\nop = ">="\nthreshold = 0.1\n'


def _fill_workspace(workspace: Workspace, count: int, metrics: Sequence[str]) -> None:
    """Write photographs with one face each, and their scores."""
    rng = np.random.default_rng(0)
    photo_ids = [f"us_{number:011d}" for number in range(count)]
    face_ids = [f"{photo_id}_0a1b2c3d" for photo_id in photo_ids]
    hashes = [f"{value:016x}" for value in rng.integers(0, 2**64, count, dtype=np.uint64)]
    sizes_px = rng.integers(1000, 8000, count)
    _append_columns(
        workspace,
        PHOTOS,
        {"photo_id": photo_ids, "phash": hashes, "width": sizes_px, "height": sizes_px},
    )
    _append_columns(
        workspace,
        FACES,
        {"face_id": face_ids, "photo_id": photo_ids, "qsize_px": sizes_px / 3},
    )
    for metric in metrics:
        _append_columns(
            workspace,
            SCORES,
            {"face_id": face_ids, "metric": [metric] * count, "value": rng.random(count)},
        )


def main() -> None:
    """Fill a workspace and time the command twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--scores", type=int, default=10)
    options = parser.parse_args()
    metrics = [f"metric{number}" for number in range(options.scores)]
    with tempfile.TemporaryDirectory() as folder:
        settings_toml = "".join(_gate_toml(metric) for metric in metrics)
        workspace = Workspace.create(Path(folder) / "ws", settings_toml)
        _fill_workspace(workspace, options.faces, metrics)

        command = [sys.executable, "-P", "-m", "cli", "filter", "--regate", "-w", workspace.root]
        for _ in range(2):
            started = time.monotonic()
            process = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = time.monotonic() - started
            print(
                f"{options.faces:,} faces, {options.scores} scores: {seconds:.2f} s "
                f"({os.cpu_count()} cores)"
            )
        print(process.stdout.strip())


if __name__ == "__main__":
    main()
