"""Time and peak memory of the commands that read a whole workspace, over a million faces.

    python benchmarks/million.py [--faces 1000000] [--only status,report] [--workspace DIR]

The workspace is synthetic: photographs with one face each, ten scores, ten gates, and two captions
of every face. Every step is a new process, start-up included, as its user runs it. The memory is
the largest resident set of the process and its children together, sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from authface_data.captions.vocabulary import Family, load_vocabulary
from manifests.names import QUALITY_MEASURES
from manifests.schema import CAPTIONS, FACES, PHOTOS, SCORES, Manifest
from manifests.store import ROWS_PER_PART, Store, encode_part
from manifests.workspace import Workspace

FINGERPRINT = "f" * 16
METRICS = QUALITY_MEASURES[:10]
FACES_PER_PHOTOGRAPHER = 20
LINKS_PER_FILE = 50_000
"""Number of names of one picture file. File systems allow 65,000."""
FACETS_PER_CAPTION = 5
"""Number of facets of each family that have a tag in a caption."""
SAMPLE_INTERVAL_S = 0.02
VOCABULARY = (
    "woman",
    "man",
    "portrait",
    "smiling",
    "black shirt",
    "window",
    "street",
    "boots",
    "red",
)

MEGABYTE = 1e6

READ_VIEW = """
import sys
from manifests.training_view import LIGHT_COLUMNS, training_view
from manifests.workspace import Workspace
view = training_view(Workspace(sys.argv[1]), face_columns=LIGHT_COLUMNS)
print(len(view), "rows")
"""
FIND_DUPLICATES = """
import sys
from authface_data.duplicates import find_duplicates
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace
photos = Store(Workspace(sys.argv[1]), PHOTOS).read_pandas(["photo_id", "phash", "pixel_hash"])
print(len(find_duplicates(photos, radius=6)), "duplicates")
"""
COMPACT = """
import sys
from manifests.schema import MANIFESTS
from manifests.store import Store
from manifests.workspace import Workspace
for manifest in MANIFESTS.values():
    print(manifest.name, Store(Workspace(sys.argv[1]), manifest).compact(), end=" ")
"""


@dataclass(frozen=True)
class Measurement:
    """What one process took.

    Attributes:
        seconds: Wall time.
        cpu_seconds: User and system time of the process and its children.
        peak_bytes: Largest resident set of the process and its children together.
        output: Last line of its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def main() -> None:
    """Fill a workspace, run every step and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="steps to run, comma-separated; default: all")
    parser.add_argument("--workspace", type=Path, help="use this folder and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.workspace or Path(folder) / "ws"
        if not root.exists():
            fill_workspace(root, options.faces)
        print(describe_machine())
        print(f"{'step':24} {'time':>8} {'CPU':>8} {'memory':>9}")
        for name, command in list_steps(root, Path(folder)).items():
            if options.only and name not in options.only.split(","):
                continue
            prepare_step(name, root, options.faces)
            taken = run_measured(command)
            print(
                f"{name:24} {taken.seconds:6.1f} s {taken.cpu_seconds:6.1f} s "
                f"{taken.peak_bytes / MEGABYTE:6,.0f} MB  {taken.output}",
                flush=True,
            )


def list_steps(root: Path, folder: Path) -> dict[str, list[str]]:
    """Name of each step -> its command.

    Args:
        root: The workspace.
        folder: Where exported tables are written.
    """
    python = [sys.executable, "-P"]
    authface = [*python, "-m", "cli"]
    on_workspace = ["-w", str(root)]
    table = str(folder / "review.csv")
    return {
        "first regate": [*authface, "filter", "--regate", *on_workspace],
        "unchanged regate": [*authface, "filter", "--regate", *on_workspace],
        "changed regate": [*authface, "filter", "--regate", *on_workspace],
        "status": [*authface, "status", *on_workspace],
        "report": [*authface, "report", *on_workspace],
        "duplicates": [*python, "-c", FIND_DUPLICATES, str(root)],
        "training view": [*python, "-c", READ_VIEW, str(root)],
        "review export": [*authface, "review", "export", *on_workspace, "--csv", table],
        "compaction": [*python, "-c", COMPACT, str(root)],
    }


def prepare_step(name: str, root: Path, count: int) -> None:
    """Change the workspace before a step that needs it."""
    if name == "changed regate":
        settings = root / "authface.toml"
        settings.write_text(
            settings.read_text().replace("threshold = 0.1\n", "threshold = 0.11\n", 1)
        )
    if name == "compaction":
        # A tenth of the faces was measured again.
        ids = make_ids(0, count // 10)
        scores = score_columns(ids, np.random.default_rng(1))
        append_part(Workspace(root), SCORES, 900_000, scores, "e" * 16)


def describe_machine() -> str:
    """Cores and versions, for the table."""
    packages = ("pyarrow", "pandas", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {versions}"


def run_measured(command: Sequence[str]) -> Measurement:
    """Run a command and measure it.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks = [0]
    sampler = threading.Thread(target=_sample_memory, args=(process, peaks))
    sampler.start()
    output, _ = process.communicate()
    seconds = time.monotonic() - started
    sampler.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    lines = output.strip().splitlines()
    return Measurement(seconds, cpu_seconds, max(peaks), lines[-1] if lines else "")


def _sample_memory(process: subprocess.Popen[str], peaks: list[int]) -> None:
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            tree = [root, *root.children(recursive=True)]
            peaks.append(sum(member.memory_info().rss for member in tree))
        except psutil.NoSuchProcess:
            pass  # a member of the tree has just ended
        time.sleep(SAMPLE_INTERVAL_S)


# The workspace


def fill_workspace(root: Path, count: int) -> None:
    """Create a workspace with photographs, faces, scores and gates.

    Args:
        root: The folder to create.
        count: Number of photographs.
    """
    gates = "".join(_gate_toml(metric) for metric in METRICS)
    workspace = Workspace.create(root, gates)
    rng = np.random.default_rng(0)
    for start in range(0, count, ROWS_PER_PART):
        ids = make_ids(start, min(start + ROWS_PER_PART, count))
        number = start // ROWS_PER_PART + 1
        append_part(workspace, PHOTOS, number, photo_columns(ids, rng), FINGERPRINT)
        append_part(workspace, FACES, number, face_columns(ids, rng), FINGERPRINT)
    fill_captions(workspace, count)
    faces_per_part = ROWS_PER_PART // len(METRICS)
    for start in range(0, count, faces_per_part):
        ids = make_ids(start, min(start + faces_per_part, count))
        number = start // faces_per_part + 1
        append_part(workspace, SCORES, number, score_columns(ids, rng), FINGERPRINT)
    for manifest in (PHOTOS, FACES, SCORES, CAPTIONS):
        Store(workspace, manifest).compact()  # as `authface filter` does at its end
    for folder, suffix in (("photos", ".jpg"), ("faces", ".png")):
        _link_pictures(root / folder, suffix, count)


def fill_captions(workspace: Workspace, count: int) -> None:
    """Add two captions of every face: by measurements and by LLaVA.

    Args:
        workspace: The workspace with the faces.
        count: Number of faces.
    """
    rng = np.random.default_rng(2)
    for captioner, start_number in (("measured", 0), ("llava", count // ROWS_PER_PART + 1)):
        for start in range(0, count, ROWS_PER_PART):
            ids = make_ids(start, min(start + ROWS_PER_PART, count))
            columns = caption_columns(ids, captioner, rng)
            number = start_number + start // ROWS_PER_PART + 1
            append_part(workspace, CAPTIONS, number, columns, FINGERPRINT)


def make_ids(start: int, stop: int) -> np.ndarray:
    """(stop - start,) int64: numbers of photographs."""
    return np.arange(start, stop)


def photo_columns(ids: np.ndarray, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Values of `photos`. One in a hundred has a copy of another one's perceptual hash."""
    hashes = rng.integers(0, 2**64, len(ids), dtype=np.uint64)
    copies = rng.choice(len(ids), len(ids) // 100, replace=False)
    hashes[copies] = hashes[copies - 1] ^ (
        np.uint64(1) << rng.integers(0, 64, len(copies), np.uint64)
    )
    sizes_px = rng.integers(1000, 8000, len(ids))
    photographers = [f"Photographer {number // FACES_PER_PHOTOGRAPHER}" for number in ids]
    texts = [" ".join(chosen) for chosen in rng.choice(VOCABULARY, (len(ids), 8))]
    return {
        "photo_id": _photo_ids(ids),
        "source": pa.repeat("unsplash", len(ids)),
        "source_url": pa.array([f"https://unsplash.com/photos/{number:011d}" for number in ids]),
        "photographer_name": pa.array(photographers),
        "licence": pa.repeat("Unsplash License", len(ids)),
        "licence_basis": pa.repeat("unsplash", len(ids)),
        "path": _paths(ids, "photos", ".jpg"),
        "sha256": _hex_digits(rng, len(ids), 64),
        "width": pa.array(sizes_px),
        "height": pa.array(sizes_px),
        "description": pa.array(texts, mask=rng.random(len(ids)) < 0.2),
        "phash": pa.array([f"{value:016x}" for value in hashes]),
        "pixel_hash": _hex_digits(rng, len(ids), 32),
    }


def face_columns(ids: np.ndarray, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Values of `faces`, with all boxes and landmarks."""
    count = len(ids)
    boxes = np.sort(rng.random((count, 4)), axis=1) * 500
    return {
        "face_id": _face_ids(ids),
        "photo_id": _photo_ids(ids),
        "detector": pa.repeat("retinaface", count),
        "box_px": _numbers(boxes),
        "score": pa.array(rng.random(count)),
        "landmarks5_px": _points(rng, count, 5),
        "landmarks68_px": _points(rng, count, 68),
        "landmark_backend": pa.repeat("dlib", count),
        "yaw_deg": pa.array(rng.normal(0, 25, count)),
        "pitch_deg": pa.array(rng.normal(0, 15, count)),
        "roll_deg": pa.array(rng.normal(0, 10, count)),
        "interocular_px": pa.array(rng.random(count) * 500),
        "quad_px": _points(rng, count, 4),
        "qsize_px": pa.array(rng.random(count) * 3000),
        "upscaled": pa.array(rng.random(count) < 0.2),
        "pad_fraction": pa.array(rng.random(count)),
        "crop_path": _paths(ids, "faces", ".png"),
        "crop_sha256": _hex_digits(rng, count, 64),
        "crop_phash": _hex_digits(rng, count, 16),
        "crop_size_px": pa.repeat(512, count),
        "landmarks_crop_px": _points(rng, count, 68),
        "left_eye_box_crop_px": _numbers(boxes),
        "right_eye_box_crop_px": _numbers(boxes),
        "mouth_box_crop_px": _numbers(boxes),
        "left_eye_visible": pa.repeat(True, count),
        "right_eye_visible": pa.repeat(True, count),
        "mouth_visible": pa.repeat(True, count),
    }


def score_columns(ids: np.ndarray, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Values of `scores`: every metric of every face, in blocks of 256 faces as they are made."""
    order = np.argsort(np.tile(np.arange(len(ids)) // 256, len(METRICS)), kind="stable")
    metrics = pa.array(METRICS)
    return {
        "face_id": _face_ids(ids).take(pa.array(np.tile(np.arange(len(ids)), len(METRICS))[order])),
        "metric": metrics.take(pa.array(np.repeat(np.arange(len(METRICS)), len(ids))[order])),
        "value": pa.array(rng.random(len(order))),
        "metric_version": pa.repeat("0.1.16", len(order)),
        "crop_policy": pa.repeat("whole crop", len(order)),
        "device": pa.repeat("cpu", len(order)),
        "model_revision": pa.repeat("a" * 16, len(order)),
    }


def caption_columns(
    ids: np.ndarray, captioner: str, rng: np.random.Generator
) -> dict[str, pa.Array]:
    """Values of `captions`, with tags of the vocabulary."""
    families = {"photographic_tags": _tag_lists(len(ids), "photographic", rng)}
    if captioner == "llava":
        families["semantic_tags"] = _tag_lists(len(ids), "semantic", rng)
        answers = [pc.binary_join(families[name], ", ") for name in sorted(families, reverse=True)]
        texts = pa.chunked_array(answers).combine_chunks()
        order = np.arange(2 * len(ids)).reshape(2, -1).T.ravel()  # both answers of a face together
        offsets = np.arange(len(ids) + 1, dtype=np.int32) * 2
        families["raw_answers"] = pa.ListArray.from_arrays(offsets, texts.take(pa.array(order)))
    return {
        "face_id": _face_ids(ids),
        "captioner": pa.repeat(captioner, len(ids)),
        **families,
        "model": pa.repeat(captioner, len(ids)),
        "token_count": pa.array(rng.integers(20, 77, len(ids))),
    }


def _tag_lists(count: int, family: Family, rng: np.random.Generator) -> pa.ListArray:
    """(count,) lists: one tag of each of `FACETS_PER_CAPTION` facets."""
    facets = [
        sorted(facet.tags)
        for facet in load_vocabulary().facets
        if facet.family == family and facet.tags
    ]
    starts = np.cumsum([0, *(len(tags) for tags in facets)])
    chosen = np.argsort(rng.random((count, len(facets))), axis=1)[:, :FACETS_PER_CAPTION]
    chosen.sort(axis=1)
    sizes = np.diff(starts)[chosen]
    codes = starts[chosen] + (rng.random(chosen.shape) * sizes).astype(int)
    tags = pa.array([tag for facet in facets for tag in facet])
    offsets = np.arange(count + 1, dtype=np.int32) * FACETS_PER_CAPTION
    return pa.ListArray.from_arrays(offsets, tags.take(pa.array(codes.ravel())))


def append_part(
    workspace: Workspace,
    manifest: Manifest,
    number: int,
    columns: Mapping[str, pa.Array],
    fingerprint: str,
) -> None:
    """Write one part.

    Args:
        workspace: The workspace.
        manifest: The manifest.
        number: Number of the part.
        columns: Values by column. Other columns are null.
        fingerprint: Fingerprint of all rows.
    """
    count = len(next(iter(columns.values())))
    common = {
        "fingerprint": pa.repeat(fingerprint, count),
        "created_at": pa.repeat(pa.scalar(1_700_000_000_000_000, pa.int64()), count),
    }
    values = {**columns, **common}
    arrays = [
        values[field.name].cast(field.type) if field.name in values else pa.nulls(count, field.type)
        for field in manifest.schema
    ]
    table = pa.Table.from_arrays(arrays, schema=manifest.schema.remove_metadata())
    name = f"part-{number:08d}-{number:08x}.parquet"
    folder = workspace.manifest_folder(manifest.name)
    workspace.write_bytes(f"{folder}/{name}", encode_part(manifest, table, {}))


def _gate_toml(metric: str) -> str:
    """A gate that drops a tenth of the faces."""
    return f'[[gates]]\nname = "{metric}"\nmetric = "{metric}"\nop = ">="\nthreshold = 0.1\n'


def _photo_ids(ids: np.ndarray) -> pa.Array:
    return pa.array([f"us_{number:011d}" for number in ids])


def _face_ids(ids: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(_photo_ids(ids), "0a1b2c3d", "_")


def _paths(ids: np.ndarray, folder: str, suffix: str) -> pa.Array:
    return pa.array([f"{folder}/{_file_name(number, suffix)}" for number in ids])


def _file_name(number: int, suffix: str) -> str:
    return f"us_{number:011d}_0a1b2c3d-89abcdef{suffix}"


def _hex_digits(rng: np.random.Generator, count: int, length: int) -> pa.Array:
    digits = rng.bytes(count * length // 2).hex()
    return pa.array([digits[start : start + length] for start in range(0, len(digits), length)])


def _numbers(values: np.ndarray) -> pa.Array:
    """(n, m) float64 as n lists of m numbers."""
    count, length = values.shape
    return pa.ListArray.from_arrays(
        np.arange(count + 1, dtype=np.int32) * length, pa.array(values.ravel())
    )


def _points(rng: np.random.Generator, count: int, num_points: int) -> pa.Array:
    """Lists of points, rounded as real landmarks are."""
    points = _numbers(rng.random((count * num_points, 2)).astype(np.float32).astype(float))
    return pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * num_points, points)


def _link_pictures(folder: Path, suffix: str, count: int) -> None:
    """Give every row a file: names of few pictures."""
    picture = Image.effect_noise((32, 32), 80).resize((512, 512)).convert("RGB")
    for start in range(0, count, LINKS_PER_FILE):
        original = folder / _file_name(start, suffix)
        picture.save(original)
        for number in range(start + 1, min(start + LINKS_PER_FILE, count)):
            os.link(original, folder / _file_name(number, suffix))


if __name__ == "__main__":
    main()
