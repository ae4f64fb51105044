"""Checks that the processes of a run, which may be on several machines, work on the same run.

The command line, the base and even the disk may differ between machines. Processes that disagree
would wait for each other, or train on different faces without an error.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from authface_train.runs.training_run import TrainingRun, data_fingerprint, flatten
from authface_train.settings import TrainSettings
from authface_train.training.processes import raise_on_all, wait_for_shared_disk
from manifests.run_folder import RUN_FILE
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import Future

MAY_DIFFER = {"base", "workers"}
"""Settings that may differ between machines. The content of the base is compared instead."""


def check_same_request(
    settings: TrainSettings, view: pd.DataFrame, *, resume: bool, accelerator: Accelerator
) -> None:
    """Check that all processes were started with the same settings and read the same faces.

    All processes must call it together.

    Args:
        settings: Settings of the run.
        view: The training faces.
        resume: Whether an existing run may be continued.
        accelerator: The run's accelerator.

    Raises:
        UserError: On all processes, if one differs from the main process.
    """
    if accelerator.num_processes == 1:
        return
    options = {"--resume": resume, **flatten(settings.model_dump(mode="json", exclude=MAY_DIFFER))}
    local = (socket.gethostname(), data_fingerprint(view), options)
    main_host, main_faces, main_options = None, None, None
    for host, faces, other_options in gather_object([local]):
        if main_options is None:
            main_host, main_faces, main_options = host, faces, other_options
        for name in sorted(main_options.keys() | other_options.keys()):
            expected = main_options.get(name)
            actual = other_options.get(name)
            if actual != expected:
                raise UserError(
                    f"{name} is {actual} in a process on {host} and {expected} in the main process "
                    f"on {main_host}; start the same command on all machines"
                )
        if faces != main_faces:
            raise UserError(
                f"{host} reads other faces or captions than {main_host}; the workspace must be on "
                "a disk that all machines share"
            )


def check_shared_run(
    run: TrainingRun, base_digest: Future[str] | None, accelerator: Accelerator
) -> None:
    """Check that all machines see the started run and have loaded the same base.

    All processes must call it together.

    Args:
        run: The run, which the main process has started.
        base_digest: Digest of the base's U-Net on one process of each machine, None on the others.
        accelerator: The run's accelerator.

    Raises:
        UserError: On all processes, if a machine does not.
    """
    records = [run.read_record() if accelerator.is_main_process else None]
    broadcast_object_list(records)
    record = records[0]
    assert record is not None

    host = socket.gethostname()
    error: UserError | None = None
    if not wait_for_shared_disk(lambda: run.read_record() == record):
        error = UserError(
            f"{host} does not see the {RUN_FILE} that the main process has written to "
            f"{run.folder}; the run's folder must be on a disk that all machines share"
        )
    elif base_digest is not None and base_digest.result() != record["base_digest"]:
        error = UserError(
            f"the base model on {host} is not the one of the main process; use the same model on "
            "all machines"
        )
    raise_on_all(error)
