"""The commands of the storm, in the order of a user's work."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from commands import collect_files, collect_folder, init_workspace, set_options
from hostile_files import ALIGNED, CAMERA, LINKED, HostileFile

from manifests.schema import DECISIONS, PHOTOS, Manifest
from manifests.settings import SETTINGS_FILE

FILE_SECONDS = 10
"""Time limit of a file in the storm's workspaces."""
DETECT_PX = 640
"""Longer side at which faces are detected in the storm: the photographs are no larger."""
LOWER_GATES = {"224": "60", "0.05": "0.6"}
"""Thresholds of the preset for the size and the padding of faces, and lower ones, so that faces of
small photographs are kept."""
MODEL_PX = 64
MAX_SMALL_BYTES = 60_000
NUM_SMALL_FILES = 24


@dataclass(frozen=True)
class Side:
    """One of the two arrangements that run the same commands: undisturbed or in the storm.

    Attributes:
        folder: Folder of everything that the commands write.
        corpus: The hostile files.
        model: Folder of a tiny restorer.
    """

    folder: Path
    corpus: Path
    model: Path

    @property
    def workspace(self) -> Path:
        """The workspace."""
        return self.folder / "ws"

    @property
    def output(self) -> Path:
        """Folder of what is written outside the workspace."""
        return self.folder / "out"

    @property
    def small_files(self) -> Path:
        """The input of `restore` and `evaluate`, the same for both sides."""
        return self.folder.parent / "small"

    def part(self, number: int) -> Path:
        """A folder of at most a hundred files of the corpus; numbers beyond the last start anew."""
        parts = sorted((self.corpus / CAMERA).iterdir())
        return parts[number % len(parts)]


Arguments = list[object]


@dataclass(frozen=True)
class Step:
    """A command of the storm.

    Attributes:
        name: Name for messages.
        arguments: The arguments of `authface`.
        kills: Share of the kills, relative to the other steps.
        has_workers: With many files the command starts worker processes, which are killed too. It
            continues where it was killed, so that each run of many is killed early.
        codes: Exit codes that are right.
        prepare: Called once before the command.
        collects: Folder of the corpus that the command collects.
        outputs: Paths in the side's folder that must not depend on kills.
    """

    name: str
    arguments: Callable[[Side], Arguments]
    kills: float = 1
    has_workers: bool = False
    codes: tuple[int, ...] = (0,)
    prepare: Callable[[Side], None] | None = None
    collects: str | None = None
    outputs: tuple[str, ...] = ()


def in_workspace(*arguments: object) -> Callable[[Side], Arguments]:
    """Arguments that differ between the sides only by the workspace."""
    return lambda side: [*arguments, "-w", side.workspace]


def change_settings(side: Side) -> None:
    """Make the settings those of a storm: a short time limit, no slow metrics, lower gates."""
    path = side.workspace / SETTINGS_FILE
    settings = path.read_text()
    if "[limits]" in settings:
        return
    settings = re.sub(r"metrics = .*", f"metrics = []\ndetect_long_side_px = {DETECT_PX}", settings)
    for threshold, lower in LOWER_GATES.items():
        settings = settings.replace(f"threshold = {threshold}\n", f"threshold = {lower}\n")
    path.write_text(f"{settings}\n[limits]\nfile_seconds = {FILE_SECONDS}\n")


def first_ids(side: Side, manifest: str, column: str, count: int) -> list[str]:
    """The first ids of a manifest, in alphabetical order."""
    rows = pd.read_parquet(side.workspace / "manifests" / manifest, columns=[column])
    return sorted(rows[column])[:count]


def review(side: Side) -> None:
    """Fill in decisions in the exported table."""
    path = side.output / "review.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = file.read().splitlines(keepends=True)
    head = lines.pop(0) if lines[0].startswith("sep=") else ""
    separator = max(",;\t", key=lines[0].count)
    rows = list(csv.DictReader(lines, delimiter=separator))
    rng = random.Random(0)
    for row in sorted(rows, key=lambda row: row["id"]):
        row["decision"] = rng.choice(("keep", "keep", "drop", "unsure", ""))
    reviewed = side.output / "reviewed.csv"
    with reviewed.open("w", newline="", encoding="utf-8-sig") as file:
        file.write(head)
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def make_old(side: Side) -> None:
    """Turn parts of two manifests into those of an older authface: without their last column."""
    for manifest in (PHOTOS, DECISIONS):
        for path in (side.workspace / "manifests" / manifest.name).glob("part-*.parquet"):
            write_as_old(path, manifest)


def write_as_old(path: Path, manifest: Manifest) -> None:
    """Rewrite a part as one of the previous version of a manifest."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata or {})
    metadata[b"authface.version"] = json.dumps(manifest.version - 1).encode()
    table = table.drop_columns([manifest.columns[-1][0]])
    pq.write_table(table.replace_schema_metadata(metadata), path)


def copy_small_files(side: Side) -> None:
    """Copy a few small files for `restore` and `evaluate`, which take long for each picture."""
    folder = side.small_files
    if folder.exists():
        return
    folder.mkdir()
    files = sorted(path for path in (side.corpus / CAMERA).rglob("*") if path.is_file())
    small = [path for path in files if path.stat().st_size < MAX_SMALL_BYTES]
    for path in random.Random(0).sample(small, min(NUM_SMALL_FILES, len(small))):
        shutil.copyfile(path, folder / path.name)


def choose_once(side: Side, name: str, choose: Callable[[], list[str]]) -> list[str]:
    """A choice from the workspace that stays the same when the workspace changes."""
    note = side.folder / f"{name}.json"
    if not note.exists():
        note.write_text(json.dumps(choose()))
    return json.loads(note.read_text())


def forgettable(side: Side) -> list[str]:
    """Three photographs to forget."""
    return choose_once(side, "forget", lambda: first_ids(side, "photos", "photo_id", 3))


def kept_tag(side: Side) -> str:
    """A tag of a caption."""

    def choose() -> list[str]:
        captions = pd.read_parquet(side.workspace / "manifests" / "captions")
        tags = [*captions["semantic_tags"], *captions["photographic_tags"]]
        return sorted({tag for row in tags if row is not None for tag in row})[:1] or ["none"]

    return choose_once(side, "tag", choose)[0]


def collect_linked(side: Side) -> Arguments:
    """Collect the folder of links."""
    return collect_folder(side.workspace, side.corpus / LINKED, "--files", "reference")


def collect_aligned(side: Side) -> Arguments:
    """Collect the folder of aligned faces."""
    return collect_files("ffhq", side.workspace, side.corpus / ALIGNED)


STEPS = (
    Step("init", lambda side: init_workspace(side.workspace), kills=2, codes=(0, 2)),
    Step(
        "collect",
        lambda side: collect_folder(side.workspace, side.corpus / CAMERA),
        kills=34,
        has_workers=True,
        codes=(0, 4),
        prepare=change_settings,
        collects=CAMERA,
    ),
    Step("collect --files reference", collect_linked, kills=9, codes=(0, 4), collects=LINKED),
    Step("collect --source ffhq", collect_aligned, kills=5, codes=(0, 4), collects=ALIGNED),
    Step(
        "hashes",
        lambda side: ["hashes", "--input", side.part(0), "--output", side.output / "hashes.txt"],
        kills=3,
        codes=(0, 4),
        outputs=("out/hashes.txt",),
    ),
    Step(
        "filter",
        in_workspace("filter"),
        kills=26,
        has_workers=True,
        codes=(0, 4),
    ),
    Step(
        "review export",
        lambda side: [
            *("review", "export", "--csv", side.output / "review.csv", "-w", side.workspace)
        ],
        kills=3,
        outputs=("out/review.csv",),
    ),
    Step(
        "review import",
        lambda side: [
            "review", "import", side.output / "reviewed.csv", "--reviewer", "Storm", "--yes",
            "-w", side.workspace,
        ],
        kills=6,
        prepare=review,
    ),
    Step("filter --regate", in_workspace("filter", "--regate"), 4),
    Step("caption", in_workspace("caption", "--captioner", "measured"), kills=8, codes=(0, 4)),
    Step(
        "tags rename",
        lambda side: ["tags", "rename", kept_tag(side), "a new name", "-w", side.workspace],
        kills=4,
        codes=(0, 2),  # 2 after a kill that came later than the commit
    ),
    Step("review sheet", in_workspace("review", "sheet"), 2),
    Step("report", in_workspace("report"), 3),
    Step(
        "export-captions",
        lambda side: [
            "export-captions", "--format", "kohya", "--output", side.output / "kohya",
            "-w", side.workspace,
        ],
        kills=4,
        outputs=("out/kohya",),
    ),
    Step(
        "licences",
        lambda side: ["licences", "--credits", side.output / "credits.md", "-w", side.workspace],
        kills=2,
        outputs=("out/credits.md",),
    ),
    Step(
        "explain",
        lambda side: [
            "explain", *first_ids(side, "photos", "photo_id", 1), "-w", side.workspace,
        ],
    ),
    Step("status", in_workspace("status")),
    Step(
        "degrade",
        lambda side: ["degrade", "--input", side.part(1), "--output", side.output / "degraded"],
        kills=6,
        codes=(0, 4),
        outputs=("out/degraded",),
    ),
    Step(
        "restore",
        lambda side: [
            "restore", "--model", side.model, "--input", side.small_files,
            "--output", side.output / "restored", "--steps", 1,
        ],
        kills=6,
        codes=(0, 4),
        prepare=copy_small_files,
        outputs=("out/restored",),
    ),
    Step(
        "evaluate",
        lambda side: [
            "evaluate", "--restored", f"same={side.small_files}", "--reference", side.small_files,
            "--metrics", "psnr,ssim", "--output", side.output / "evaluated",
        ],
        kills=3,
        codes=(0, 4),
        outputs=("out/evaluated/scores.parquet",),
    ),
    Step(
        "train-prior",
        lambda side: [
            "train-prior", "--preset", "tiny", "--steps", 4, "--resume", "-w", side.workspace,
            *set_options("checkpoint_every=2", "audit=false"),
        ],
        kills=6,
        outputs=("ws/runs/prior-tiny/unet", "ws/runs/prior-tiny/metrics.jsonl"),
    ),
    Step(
        "forget",
        lambda side: ["forget", *forgettable(side), "--yes", "-w", side.workspace],
        kills=6,
    ),
    Step("migrate", in_workspace("migrate", "--yes"), kills=4, prepare=make_old),
    Step("status after migrate", in_workspace("status"), kills=0),
)  # fmt: skip
"""All steps. The later ones use the results of the earlier ones."""


def offered_to(step: Step, side: Side, files: list[HostileFile]) -> list[HostileFile]:
    """The files of the corpus that a step collects."""
    if step.collects is None:
        return []
    folder = side.corpus / step.collects
    return [file for file in files if folder in file.path.parents]
