"""The API's limit of requests per hour: how many are left, and waiting for the next hour."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from authface_data.http.answer import parse_count
from manifests.support.errors import PartialFailureError
from manifests.support.parsing import parse_json
from manifests.support.progress import format_duration
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

STATE_FILE = "cache/unsplash/budget.json"
MARGIN_S = 2.0
"""Waiting ends this long after the window has ended, since clocks differ."""
POLL_INTERVAL_S = 0.5
MESSAGE_INTERVAL_S = 300.0


class _State(BaseModel):
    """What is kept between runs."""

    window: int
    window_s: float
    limit: int | None = Field(ge=0)
    remaining: int | None


class RateLimitReached(PartialFailureError):
    """No request is left in this window, and the user does not want to wait."""


class RateLimiter:
    """Counts the requests that the API still allows, across restarts.

    The API does not report when its limit is reset. Windows are assumed to start at multiples of
    their length since the epoch.

    Args:
        workspace: Keeps the state between runs.
        window_s: Length of the API's window, in seconds.
        wait: Sleep until the next window when no request is left, instead of raising
            `RateLimitReached`.
    """

    def __init__(self, workspace: Workspace, window_s: float, wait: bool) -> None:
        self.workspace = workspace
        self.window_s = window_s
        self.wait = wait
        self.limit: int | None = None
        """Requests per window, if known."""
        self.remaining: int | None = None
        """Requests left in this window, if known."""
        self.requests = 0
        """Requests made by this object."""
        self._window = self._current_window()
        self._request_window = self._window
        if workspace.exists(STATE_FILE):
            self._load()

    def _load(self) -> None:
        """Read the state. A damaged one is ignored: the next answer of the API replaces it."""
        try:
            state = _State.model_validate(parse_json(self.workspace.read_bytes(STATE_FILE)))
        except ValueError:
            return
        self.limit = state.limit
        if state.window == self._window and state.window_s == self.window_s:
            self.remaining = state.remaining

    def _current_window(self) -> int:
        return int(time.time() // self.window_s)

    @property
    def is_exhausted(self) -> bool:
        """Whether the next request must wait."""
        is_same_window = self._current_window() == self._window
        return self.remaining is not None and self.remaining <= 0 and is_same_window

    def before_request(self) -> None:
        """Return when a request may be made.

        Raises:
            RateLimitReached: If no request is left and `wait` is false.
        """
        if self._current_window() != self._window:
            self._start_window()
        if self.is_exhausted:
            self.sleep_until_reset()
        self._request_window = self._current_window()

    def after_request(self, limit: str | None, remaining: str | None) -> None:
        """Record a request that the API has counted.

        Args:
            limit: Header X-Ratelimit-Limit of the response.
            remaining: Header X-Ratelimit-Remaining of the response.
        """
        self.requests += 1
        limit_count = parse_count(limit)
        if limit_count is not None:
            self.limit = limit_count
        remaining_count = parse_count(remaining)
        if remaining_count is not None:
            self.remaining = remaining_count
            self._window = self._request_window  # the response refers to the request's window
        elif self.remaining is not None:
            self.remaining -= 1
        self._save()

    def mark_exhausted(self) -> None:
        """Record that the API refused a request because of its limit."""
        self.remaining = 0
        self._window = self._request_window
        self._save()

    def sleep_until_reset(self) -> None:
        """Sleep until the next window starts.

        Raises:
            RateLimitReached: If `wait` is false.
        """
        reset_s = self.reset_time_s()
        clock = f"{datetime.fromtimestamp(reset_s, UTC):%H:%M:%S} UTC"
        limit = "" if self.limit is None else f" ({self.limit})"
        reached = f"the hourly limit of requests to Unsplash{limit} is reached"
        if not self.wait:
            raise RateLimitReached(
                f"{reached}; everything collected is kept. Run the command again after {clock}"
            )

        last_message_s = float("inf")
        while (left_s := reset_s - time.time()) > 0:
            if last_message_s - left_s > MESSAGE_INTERVAL_S:
                last_message_s = left_s
                logger.info(
                    "%s; waiting until %s (%s left, Ctrl-C is safe)",
                    reached,
                    clock,
                    format_duration(left_s),
                )
            time.sleep(min(POLL_INTERVAL_S, left_s))
        self._start_window()

    def reset_time_s(self) -> float:
        """When the next window starts, with a margin, in seconds since the epoch."""
        margin_s = min(MARGIN_S, self.window_s / 10)
        return (self._current_window() + 1) * self.window_s + margin_s

    def _start_window(self) -> None:
        self._window = self._current_window()
        self.remaining = None

    def _save(self) -> None:
        state = _State(
            window=self._window,
            window_s=self.window_s,
            limit=self.limit,
            remaining=self.remaining,
        )
        self.workspace.write_bytes(STATE_FILE, state.model_dump_json().encode())
