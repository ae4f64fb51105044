"""What happens before training starts: processes, training faces, micro-batch, run folder.

Everything that makes a run impossible is reported here, before the first step.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from authface_train.memory.estimator import DiskUse, MemoryEstimator, memory_capacity
from authface_train.runs import checkpoint
from authface_train.settings import PriorSettings, TrainSettings
from authface_train.training.loop import accumulation_steps, samples_per_process
from authface_train.training.processes import make_accelerator, run_on_main
from authface_train.training.sharding import check_distribution, sharding_from_launcher
from manifests.missing_files import require_crops
from manifests.run_folder import MODEL_INDEX_FILE, RUNS, is_finished, read_notes
from manifests.run_register import list_registered_runs
from manifests.schema import PHOTOS
from manifests.sources import FFHQ
from manifests.splits import explain_empty_val
from manifests.store import Store
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.options import TrainingSource
from manifests.training_view import LIGHT_COLUMNS, TagChoice, training_view
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from concurrent.futures import Future

    from authface_train.runs.training_run import TrainingRun

logger = logging.getLogger(__name__)

SettingsT = TypeVar("SettingsT", bound=TrainSettings)

ADAMW = "optimiser=adamw"


def start_processes(settings: SettingsT) -> tuple[Accelerator, SettingsT]:
    """Join the process group and adopt the sharding that the launcher is configured for.

    Args:
        settings: Settings of the run.

    Returns:
        The accelerator, and the settings with the launcher's sharding.

    Raises:
        UserError: If the settings cannot work with this device or number of processes.
        MissingResourceError: If a setting needs a library that is not installed.
    """
    on_gpu = torch.cuda.is_available()
    if settings.mixed_precision == "fp16" and not on_gpu:
        raise UserError(
            "mixed_precision=fp16 needs a CUDA GPU; use --set mixed_precision=no or bf16"
        )
    accelerator = make_accelerator(settings)

    sharding = sharding_from_launcher()
    if sharding and sharding != settings.sharding:
        if accelerator.is_main_process:
            logger.info("using sharding=%s, as configured in the launcher", sharding)
        settings = settings.model_copy(update={"sharding": sharding})

    check_libraries(settings)
    check_distribution(settings, accelerator.num_processes)
    samples_per_process(settings, accelerator.num_processes)
    if settings.micro_batch is not None:
        accumulation_steps(settings, accelerator.num_processes)
    return accelerator, settings


def check_libraries(settings: TrainSettings) -> None:
    """Check that the optional libraries of the settings are installed, without importing them.

    Raises:
        MissingResourceError: If one is missing.
    """
    needs_peft = isinstance(settings, PriorSettings) and settings.lora_rank > 0
    needs = (
        ("wandb", settings.wandb, "wandb=true", "wandb=false"),
        ("bitsandbytes", settings.optimiser == "adamw-8bit", "optimiser=adamw-8bit", ADAMW),
        ("torchao", settings.optimiser == "adamw-8bit-bf16", "optimiser=adamw-8bit-bf16", ADAMW),
        ("peft", needs_peft, "lora_rank", "lora_rank=0"),
    )
    for library, is_needed, setting, alternative in needs:
        if is_needed and importlib.util.find_spec(library) is None:
            raise MissingResourceError(
                f"{setting} needs {library}; pip install {library}, or use --set {alternative}"
            )


@dataclass(frozen=True)
class TrainingRows:
    """Rows of the training view.

    Attributes:
        training: Rows of the split `train`.
        held_out: Rows of the split `val`; may be empty.
        source: Where the faces come from, see `TrainSettings.source`.
        why_none_held_out: Why `held_out` is empty although faces should be held out, or None.
    """

    training: pd.DataFrame
    held_out: pd.DataFrame
    source: TrainingSource = "workspace"
    why_none_held_out: str | None = None

    @property
    def all(self) -> pd.DataFrame:
        """The training rows, then the held-out rows."""
        return pd.concat([self.training, self.held_out], ignore_index=True)


def load_rows(
    workspace: Workspace,
    tags: TagChoice,
    *,
    allow_unknown_licence: bool,
    source: TrainingSource | None = None,
) -> TrainingRows:
    """Read the faces to train on from the workspace.

    Args:
        workspace: The workspace.
        tags: Families of tags that make the captions; "none" trains without captions.
        allow_unknown_licence: Accept faces without a licence basis.
        source: "ffhq" for the faces collected from FFHQ, "portraits" for all others, "workspace"
            for both. None takes "portraits", or "ffhq" if there are no others.

    Raises:
        UserError: If there is no face to train on, or if faces lack a caption, a licence basis or
            a crop.
    """
    view = training_view(
        workspace,
        tags,
        allow_unknown_licence=allow_unknown_licence,
        source=source,
        face_columns=LIGHT_COLUMNS,
    )
    if view.empty:
        raise UserError(_no_face_message(source))

    training = view[view["split"] == "train"].reset_index(drop=True)
    if training.empty:
        raise UserError(
            "splits.people in authface.toml pins all kept faces to val or test; pin a person to "
            "train, or remove a pin"
        )
    num_without_caption = int((training["caption"].fillna("") == "").sum())
    if tags != "none" and num_without_caption:
        family = "" if tags == "both" else f" of {tags} tags"
        is_mixed = source == "workspace" and (training["source"] == FFHQ).any()
        hint = ", or --source portraits" if is_mixed else ""
        raise UserError(
            f"{num_without_caption} kept faces have no caption{family}; run `authface caption` "
            f"first, or use --tags none{hint}"
        )
    if source is None:
        source = "ffhq" if (view["source"] == FFHQ).all() else "portraits"
    rows = TrainingRows(
        training,
        held_out=view[view["split"] == "val"].reset_index(drop=True),
        source=source,
        why_none_held_out=explain_empty_val(view, workspace.settings.splits),
    )
    require_crops(workspace, dict(zip(rows.all["face_id"], rows.all["crop_path"], strict=True)))
    return rows


def has_ffhq(workspace: Workspace) -> bool:
    """Whether a workspace has photographs collected from FFHQ."""
    sources = Store(workspace, PHOTOS).read(("source",))["source"]
    return bool(pc.any(pc.equal(sources, FFHQ)).as_py())


def _no_face_message(source: TrainingSource | None) -> str:
    """What is wrong if a source has no kept face, and what to do."""
    if source == "ffhq":
        return (
            "--source ffhq: no kept face comes from FFHQ; run "
            "`authface collect --source ffhq --path DIR`, then `authface filter`, or use "
            "--source workspace"
        )
    if source == "portraits":
        return (
            "--source portraits: no kept face comes from elsewhere than FFHQ; run "
            "`authface collect`, then `authface filter`, or use --source ffhq"
        )
    return "there is no kept face to train on; run `authface filter`, then `authface status`"


def choose_micro_batch(
    settings: SettingsT,
    run: TrainingRun,
    *,
    resume: bool,
    estimator: MemoryEstimator,
    accelerator: Accelerator,
) -> SettingsT:
    """Set the micro-batch: as configured, as in the resumed run, or as large as memory allows.

    Args:
        settings: Settings of the run.
        run: The run, whose record holds the micro-batch of a resumed run.
        resume: Whether the run is resumed.
        estimator: Estimates the memory of a micro-batch.
        accelerator: The run's accelerator; its device with the least memory decides.

    Returns:
        The settings with a micro-batch.

    Raises:
        UserError: If no micro-batch fits, or if it does not divide the batch.
    """
    num_processes = accelerator.num_processes
    if settings.micro_batch is None and resume:
        # The record of the main process, on which all must agree.
        records = [run.read_record() if accelerator.is_main_process else None]
        broadcast_object_list(records)
        micro_batch = (records[0] or {}).get("settings", {}).get("micro_batch")
        if isinstance(micro_batch, int) and micro_batch > 0:
            settings = settings.model_copy(update={"micro_batch": micro_batch})
    if settings.micro_batch is None:
        capacity = smallest_capacity(accelerator)
        micro_batch = estimator.derive_micro_batch(settings, num_processes, capacity)
        settings = settings.model_copy(update={"micro_batch": micro_batch})

    accumulation = accumulation_steps(settings, num_processes)
    if settings.step_in_backward and accumulation > 1:
        raise UserError(
            f"step_in_backward cannot accumulate gradients, and batch {settings.batch} needs "
            f"{accumulation} micro-batches here; use a smaller batch or "
            "--set step_in_backward=false"
        )
    return settings


def smallest_capacity(accelerator: Accelerator) -> float:
    """Memory in bytes that a run may use on the smallest device of all processes.

    All processes must call it together.

    Args:
        accelerator: The run's accelerator.
    """
    capacity = torch.tensor(
        [memory_capacity(accelerator.device)], dtype=torch.float64, device=accelerator.device
    )
    return float(accelerator.gather(capacity).min())  # type: ignore[union-attr]


def start_run(
    run: TrainingRun,
    accelerator: Accelerator,
    settings: TrainSettings,
    view: pd.DataFrame,
    *,
    resume: bool,
    base: str,
    base_digest: Future[str] | None,
    disk_use: DiskUse,
) -> None:
    """Start or resume the run folder on the main process; see `TrainingRun.start`.

    Args:
        run: The run.
        accelerator: Knows the processes.
        settings: Settings of the run.
        view: The training faces.
        resume: Whether an existing run may be continued.
        base: Hub id or folder of the model that the run starts from.
        base_digest: Digest of that model's U-Net; the main process needs it.
        disk_use: Space that checkpoints and the model will take.

    Raises:
        UserError: If the disk is too small or the run folder cannot be used.
    """

    def start() -> None:
        assert base_digest is not None
        _check_disk_space(run, disk_use, settings.steps)
        run.start(
            settings,
            view,
            resume=resume,
            base=base,
            base_digest=base_digest.result(),
            processes=accelerator.num_processes,
        )

    run_on_main(accelerator, start)


def _check_disk_space(run: TrainingRun, disk_use: DiskUse, last_step: int) -> None:
    steps = checkpoint.list_steps(run.checkpoint_folder)
    needed_bytes = disk_use.peak
    if steps:
        present_bytes = checkpoint.folder_bytes(run.checkpoint_folder)
        needed_bytes = disk_use.missing(present_bytes, has_steps_left=steps[-1] < last_step)
    free_bytes = shutil.disk_usage(nearest_existing_folder(run.folder)).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"checkpoints and model need {needed_bytes / 1e9:.1f} GB, and {run.folder} has "
            f"{free_bytes / 1e9:.1f} GB free; free some space, use another --output, or --set "
            "keep_checkpoints=1"
        )


def nearest_existing_folder(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


@contextmanager
def explain_out_of_memory(settings: TrainSettings) -> Iterator[None]:
    """Turn an out-of-memory error of the GPU into a UserError that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of GPU memory with micro_batch {settings.micro_batch}; use a smaller "
            "--set micro_batch=N (more accumulation, the same batch), or see what fits with "
            "--dry-run"
        ) from error


def has_prior(workspace: Workspace) -> bool:
    """Whether a workspace has a finished Stage I run."""
    return bool(_finished_priors(workspace))


def latest_prior(workspace: Workspace) -> str:
    """Folder of the newest finished Stage I run of a workspace.

    The runs of a workspace in an object store are those that it has registered on this machine.

    Raises:
        MissingResourceError: If the workspace has none.
    """
    finished = _finished_priors(workspace)
    if not finished:
        raise MissingResourceError(
            f"{workspace.root} has no finished prior; run `authface train-prior` first, or use "
            "--prior DIR"
        )
    return str(max(finished, key=lambda folder: (folder / MODEL_INDEX_FILE).stat().st_mtime))


def _finished_priors(workspace: Workspace) -> list[Path]:
    if workspace.is_local:
        runs = workspace.local_path(RUNS)
        runs.mkdir(exist_ok=True)
        folders = list(runs.iterdir())
    else:
        folders = [Path(run.folder) for run in list_registered_runs(workspace)]
    return [
        folder
        for folder in folders
        if is_finished(folder) and read_notes(folder).get("stage") == "prior"
    ]
