"""Turns off the log messages and progress bars of the machine learning libraries."""

from __future__ import annotations

import logging
import os

NOISY_LOGGERS = ("bitsandbytes", "torch.utils._pytree")
"""Loggers that warn about missing kernels and re-registered types, which a user cannot change."""


def silence_libraries() -> None:
    """Turn off warnings that a user cannot act on, and progress bars that would break ours.

    Call it before the first import of diffusers or transformers: some messages appear on import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library_logging in (diffusers_logging, transformers_logging):
        library_logging.disable_progress_bar()
        library_logging.set_verbosity_error()
