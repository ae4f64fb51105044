"""The libraries' own talk, turned off before they are imported."""

from __future__ import annotations


def silence_libraries() -> None:
    """No warnings that no one can act on, and no progress bars through ours.

    To be called before anything that imports diffusers: some of it is said on import.
    """
    import logging
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for chatty in (
        "bitsandbytes",
        "torch.utils._pytree",
    ):  # tell of kernels and enumerations that no one asked for
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
