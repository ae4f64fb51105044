"""What a command says and returns when it cannot do all that was asked.

Each error is one line: what is wrong, and what to do. The exit codes are those of the command line.
"""


class AuthfaceError(Exception):
    """Base of the errors that end a command with one line instead of a traceback."""

    exit_code = 1


class UserError(AuthfaceError):
    """A wrong option or setting, a held lock, a refused licence."""

    exit_code = 2


class MissingResourceError(AuthfaceError):
    """Something needed is not there: weights, a key, an optional dependency. Says which, whence, and where to put it."""

    exit_code = 3


class PartialFailureError(AuthfaceError):
    """The command did what it could; some rows failed."""

    exit_code = 4


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception: what catches row failures must let it pass."""

    exit_code = 143
