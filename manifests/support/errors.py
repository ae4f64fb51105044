"""Errors that end a command with one line and an exit code instead of a traceback.

The message of each error is one line: what is wrong, then what to do.
"""


class AuthfaceError(Exception):
    """Base class of errors that end a command without a traceback."""

    exit_code = 1


class UserError(AuthfaceError):
    """A wrong option or setting, a held lock or a refused licence."""

    exit_code = 2


class MissingResourceError(AuthfaceError):
    """Weights, an API key or an optional dependency is missing.

    The message names it, its source and where to put it.
    """

    exit_code = 3


class PartialFailureError(AuthfaceError):
    """The command did what it could, but some rows failed or a budget is spent."""

    exit_code = 4


class Terminated(BaseException):
    """SIGTERM was received.

    It is not an Exception, so that code that catches the failure of a row does not catch it.
    """

    exit_code = 143
