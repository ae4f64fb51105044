"""Logging of the packages on the command line: messages on stderr, level set by -v and -q."""

from __future__ import annotations

import logging

from rich.markup import escape

from manifests.support.console import error_console

PACKAGES = ("manifests", "authface_data", "authface_train")
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Prints records on the console that progress bars use, so that they do not break a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings and errors start with their level."""
        try:
            message = escape(self.format(record))
            style = _STYLES.get(record.levelno)
            prefix = f"[{style}]{record.levelname.capitalize()}:[/] " if style else ""
            error_console.print(f"{prefix}{message}")
        except Exception:
            self.handleError(record)


def configure_logging(level: int = logging.INFO) -> None:
    """Send log records to stderr: the packages', and the warnings of other libraries.

    Args:
        level: logging.INFO by default, logging.DEBUG for -v, logging.WARNING for -q.
    """
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
            logger.addHandler(ConsoleHandler())
    # Warnings of libraries are for developers: -v shows them, above a progress bar.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(
        logging.WARNING if level <= logging.DEBUG else logging.ERROR
    )
    # Python's own handler of last resort writes control characters, and breaks a progress bar.
    logging.lastResort = ConsoleHandler(logging.WARNING)
