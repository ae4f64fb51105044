"""The hour's requests: how many are left, kept across restarts, and what happens when none is."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

from manifests.support.console import console
from manifests.support.errors import PartialFailureError
from manifests.workspace import Workspace

FILE = "cache/unsplash/budget.json"
AFTER_THE_TURN_S = 2.0
LOOK_EVERY_S, SAY_EVERY_S = 0.5, 300


class RateLimitReached(PartialFailureError):
    """No request is left in this hour, and the user will not wait."""


class RateLimiter:
    """What the API said last of its limit. The API tells no time of reset: the hour is taken to turn with the clock.

    window_s: how long the API's limit runs. wait: whether to wait for the next one or raise BudgetSpent.
    """

    def __init__(self, workspace: Workspace, window_s: float, wait: bool):
        self.ws, self.window_s, self.wait = workspace, window_s, wait
        self.limit: int | None = None
        self.remaining: int | None = None
        self.window = self._asked_in = self._window()
        self.requests = 0
        if workspace.exists(FILE):
            self._load()

    def _load(self) -> None:
        try:
            said = json.loads(self.ws.read_bytes(FILE))
            self.limit = said["limit"]
            if said["window"] == self.window and said["window_s"] == self.window_s:
                self.remaining = said["remaining"]
        except (ValueError, KeyError, TypeError):
            return

    def _window(self) -> int:
        return int(time.time() // self.window_s)

    @property
    def is_spent(self) -> bool:
        """Whether the next request would have to wait."""
        return self.remaining is not None and self.remaining <= 0 and self._window() == self.window

    def before_request(self) -> None:
        """Returns when a request may be made. Raises BudgetSpent where that is not now and waiting was not wanted."""
        if self._window() != self.window:
            self.window, self.remaining = self._window(), None
        if self.is_spent:
            self._until_it_turns()
        self._asked_in = self._window()

    def after_request(self, limit: str | None, remaining: str | None) -> None:
        """Take in what the answer's headers say."""
        self.requests += 1
        if limit and limit.isascii() and limit.isdecimal():
            self.limit = int(limit)
        if remaining and remaining.isascii() and remaining.isdecimal():
            self.remaining, self.window = (
                int(remaining),
                self._asked_in,
            )  # the answer is about the hour of the request
        elif self.remaining is not None:
            self.remaining -= 1
        self._save()

    def refused(self) -> None:
        """The API said that the limit is reached."""
        self.remaining, self.window = 0, self._asked_in
        self._save()

    def _save(self) -> None:
        said = {
            "window": self.window,
            "window_s": self.window_s,
            "limit": self.limit,
            "remaining": self.remaining,
        }
        self.ws.write_bytes(FILE, json.dumps(said).encode())

    def turns_at(self) -> float:
        """When the present hour ends, seconds since the epoch."""
        return (self._window() + 1) * self.window_s + min(AFTER_THE_TURN_S, self.window_s / 10)

    def _until_it_turns(self) -> None:
        until = self.turns_at()
        clock = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
        limit = "the hour's requests" if self.limit is None else f"the hour's {self.limit} requests"
        if not self.wait:
            raise RateLimitReached(
                f"{limit} to Unsplash are spent; what was collected is kept: run the same again after {clock}"
            )
        said = float("inf")
        while (left := until - time.time()) > 0:
            if said - left > SAY_EVERY_S:
                said = left
                words = f"{left / 60:.0f} minutes" if left > 120 else f"{left:.0f} s"
                console.print(
                    f"{limit.capitalize()} to Unsplash are spent: waiting until {clock}, {words} more (Ctrl-C keeps all)"
                )
            time.sleep(min(LOOK_EVERY_S, left))
        self.window, self.remaining = self._window(), None
