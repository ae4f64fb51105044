"""Retries of HTTP requests: which failures are worth a retry, and how long to wait before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx
import tenacity

T = TypeVar("T")

RETRYABLE_STATUS_CODES = (408, 425, 429)
"""Request Timeout, Too Early and Too Many Requests; statuses from 500 on are retryable too."""

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30.0
MAX_RETRY_AFTER_S = 120.0


class RetryableError(Exception):
    """A request failed in a way that another attempt may not.

    Args:
        message: Description of the failure.
        retry_after_s: Wait at least this long before the next attempt, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


RETRYABLE_ERRORS = (RetryableError, httpx.TransportError)


def is_retryable_status(status_code: int) -> bool:
    """Whether a response with this status code is worth a retry: the server is busy or broken."""
    return status_code in RETRYABLE_STATUS_CODES or status_code >= 500


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds of the header Retry-After, at most 120; 0 if it is missing or a date."""
    value = headers.get("retry-after", "")
    if not (value.isascii() and value.isdecimal()):
        return 0.0
    return min(float(value), MAX_RETRY_AFTER_S)


def call_with_retries(
    function: Callable[[], T],
    *,
    attempts: int,
    retry_on: tuple[type[Exception], ...] = RETRYABLE_ERRORS,
    stop_event: threading.Event | None = None,
) -> T:
    """Call a function until it succeeds, with exponential backoff and jitter between attempts.

    Args:
        function: Makes one attempt.
        attempts: Number of attempts in all, at least 1.
        retry_on: Exceptions that lead to another attempt. Others are raised at once.
        stop_event: When it is set, waits end at once and no further attempt is made.

    Returns:
        The result of the first attempt that succeeds.

    Raises:
        Exception: The exception of the last attempt, if none succeeds.
    """
    stop: tenacity.stop.stop_base = tenacity.stop_after_attempt(attempts)
    sleep: Callable[[float], None] = tenacity.nap.sleep
    if stop_event is not None:
        stop = tenacity.stop_any(stop, tenacity.stop_when_event_set(stop_event))
        sleep = tenacity.nap.sleep_using_event(stop_event)

    retrying = tenacity.Retrying(
        stop=stop,
        wait=backoff_s,
        sleep=sleep,
        retry=tenacity.retry_if_exception_type(retry_on),
        reraise=True,
    )
    return retrying(function)


_exponential_wait_s = tenacity.wait_exponential_jitter(
    initial=FIRST_WAIT_S, max=MAX_WAIT_S, jitter=FIRST_WAIT_S
)


def backoff_s(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: exponential, but at least the server's Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    requested_s = error.retry_after_s if isinstance(error, RetryableError) else 0.0
    return max(requested_s, _exponential_wait_s(state))
