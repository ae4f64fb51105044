"""The processes of a run: they start and end together, and none outlives its launcher."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)

from authface_train.settings import TrainSettings
from authface_train.training.signals import end_promptly
from manifests.support.errors import AuthfaceError, PartialFailureError

SHARED_DISK_DELAY_S = 90.0
"""Longest time until a network file system shows what another machine has written. NFS keeps
attributes and names of a folder for up to 60 s."""
POLL_S = 0.2


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Join the process group, on the GPU of this process or on the CPU.

    Args:
        settings: `mixed_precision` is used. Only fp16 uses Accelerate's autocast and loss scaler;
            in bf16 the weights themselves are bf16, see `MasterWeights`.
    """
    return Accelerator(
        mixed_precision="fp16" if settings.mixed_precision == "fp16" else "no",
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            # The other processes wait while the main process saves or compares images.
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),
        ],
    )


@contextlib.contextmanager
def run_together() -> Iterator[None]:
    """Run the block as one of the processes of a run.

    A process that fails leaves the process group at once, so that the others do not wait for it.

    Raises:
        PartialFailureError: If another process has ended.
    """
    with end_promptly():
        try:
            yield
        except RuntimeError as error:
            _leave_after_error()
            if is_lost_connection(error):
                raise PartialFailureError(
                    "another process of the run has ended; see its output, then continue with "
                    "--resume"
                ) from error
            raise
        except BaseException:
            _leave_after_error()
            raise


def leave_together(accelerator: Accelerator) -> None:
    """Wait for all processes, then leave the process group. All processes must call it.

    Without it a process may end while another one still uses the group: that one aborts.

    Args:
        accelerator: The run's accelerator.
    """
    accelerator.wait_for_everyone()
    accelerator.state.destroy_process_group()


def run_on_main(accelerator: Accelerator, function: Callable[[], object]) -> None:
    """Run a function on the main process and raise its error, if any, on all processes.

    All processes must call it together.

    Args:
        accelerator: The run's accelerator.
        function: The function; it reads or writes files that all processes share.

    Raises:
        AuthfaceError: If the function raises one.
    """
    errors: list[AuthfaceError | None] = [None]
    if accelerator.is_main_process:
        try:
            function()
        except AuthfaceError as error:
            errors = [error]
    broadcast_object_list(errors)
    if errors[0] is not None:
        raise errors[0]


def raise_on_all(error: AuthfaceError | None) -> None:
    """Raise the first error of any process on all processes, which must call it together.

    Args:
        error: The error of this process, or None.

    Raises:
        AuthfaceError: If any process has one.
    """
    for any_error in gather_object([error]):
        if any_error is not None:
            raise any_error


def wait_for_shared_disk(condition: Callable[[], bool]) -> bool:
    """Wait until this machine sees what a process of another machine has written.

    Args:
        condition: Whether it does.

    Returns:
        Whether it did within `SHARED_DISK_DELAY_S`.
    """
    deadline = time.monotonic() + SHARED_DISK_DELAY_S
    while not (is_met := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return is_met


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective operation failed because another process has ended.

    Args:
        error: The error; gloo raises plain RuntimeErrors with the name of its source file.
    """
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


def _leave_after_error() -> None:
    """Leave the process group without waiting for the others.

    NCCL's group is ended by the end of the process: leaving it in order would wait for the others.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
