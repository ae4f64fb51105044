"""Turns off the log messages and progress bars of the machine learning libraries."""

from __future__ import annotations

import logging
import os
import threading

from manifests.support.files import WRITE_ADVICE

NOISY_LOGGERS = ("bitsandbytes", "torch.utils._pytree")
"""Loggers that warn about missing kernels and re-registered types, which a user cannot change."""


def silence_libraries() -> None:
    """Turn off warnings that a user cannot act on, and progress bars that would break ours.

    Call it before the first import of diffusers or transformers: some messages appear on import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    threading.excepthook = _report_thread_error

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library_logging in (diffusers_logging, transformers_logging):
        library_logging.disable_progress_bar()
        library_logging.set_verbosity_error()


def _report_thread_error(error: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread, but not that of TensorBoard's thread on a full disk.

    TensorBoard raises that error again in the main thread, where it becomes one line.
    """
    if not isinstance(error.exc_value, OSError) or error.exc_value.errno not in WRITE_ADVICE:
        threading.__excepthook__(error)
