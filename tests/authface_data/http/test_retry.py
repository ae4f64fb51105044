"""Retries of HTTP requests."""

import threading

import httpx
import pytest

from authface_data.http.retry import (
    RetryableError,
    call_with_retries,
    is_retryable_status,
    retry_after_s,
)


@pytest.fixture
def waits_s(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.sleep", waits.append)
    return waits


def make_function(*errors):
    """A function that raises the errors in turn and then returns "done"."""
    remaining = list(errors)

    def function():
        if remaining:
            raise remaining.pop(0)
        return "done"

    return function


def test_retryable_errors_are_retried_with_growing_waits(waits_s):
    errors = [RetryableError("busy"), httpx.ConnectError("refused"), RetryableError("busy")]
    assert call_with_retries(make_function(*errors), attempts=4) == "done"
    assert 0.5 <= waits_s[0] <= 1.0
    assert 1.0 <= waits_s[1] <= 1.5
    assert 2.0 <= waits_s[2] <= 2.5


def test_last_error_is_raised_after_all_attempts(waits_s):
    errors = [RetryableError("first"), RetryableError("second"), RetryableError("third")]
    with pytest.raises(RetryableError, match="second"):
        call_with_retries(make_function(*errors), attempts=2)
    assert len(waits_s) == 1


def test_other_errors_are_raised_at_once(waits_s):
    with pytest.raises(KeyError):
        call_with_retries(make_function(KeyError("x")), attempts=3)
    assert not waits_s


def test_wait_is_at_least_what_the_server_asks_for(waits_s):
    busy = RetryableError("busy", retry_after_s=7.0)
    assert call_with_retries(make_function(busy), attempts=2) == "done"
    assert waits_s[0] >= 7.0


def test_stop_event_ends_the_attempts(waits_s):
    stop_event = threading.Event()
    stop_event.set()
    errors = [RetryableError("first"), RetryableError("second")]
    with pytest.raises(RetryableError, match="first"):
        call_with_retries(make_function(*errors), attempts=5, stop_event=stop_event)


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [({}, 0.0), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "9999"}, 120.0)]
    + [({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0)],
)
def test_retry_after_header_is_read_up_to_two_minutes(header, expected_s):
    assert retry_after_s(httpx.Headers(header)) == expected_s


@pytest.mark.parametrize(
    ("status", "expected"), [(200, False), (404, False), (408, True), (429, True), (503, True)]
)
def test_busy_statuses_are_retryable(status, expected):
    assert is_retryable_status(status) == expected
