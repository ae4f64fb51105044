"""Asking a server again: what tells that it may answer another time, and how long to wait before that."""

from __future__ import annotations

import httpx
import tenacity

FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_ASKED_S = 0.5, 30.0, 120.0


class RetryableError(Exception):
    """The server may answer another time. wait_s: how long it asks to be left alone."""

    def __init__(self, words: str, wait_s: float = 0.0):
        super().__init__(words)
        self.wait_s = wait_s


def asked_wait_s(answer: httpx.Response) -> float:
    """The seconds of an answer's Retry-After, at most 120; 0 where it names none."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), LONGEST_ASKED_S) if asked.isascii() and asked.isdecimal() else 0.0


def backoff(state: tenacity.RetryCallState) -> float:
    """Seconds, for tenacity: doubling from half a second, with jitter; longer where the server asks for it."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, RetryableError) else 0.0
    doubling = tenacity.wait_exponential_jitter(
        initial=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=FIRST_WAIT_S
    )
    return max(asked, doubling(state))
