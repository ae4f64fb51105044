"""The client of the Unsplash API against broken and hostile servers, and damaged cached state."""

import copy
import itertools
import json
import time

import pytest
from broken_server import (
    TYPICAL_ANSWERS,
    TYPICAL_REPLIES,
    WRONG_VALUES,
    BrokenServer,
    body,
    broken_answers,
    broken_replies,
    head,
)
from unsplash_server import KEY, Photo, UnsplashServer

from authface_data.http.hosts import AllowedHosts
from authface_data.sources.remote import SizeFilter
from authface_data.sources.unsplash.client import (
    LimitReached,
    Listing,
    ListingRefused,
    NotReportable,
    UnsplashApi,
)
from authface_data.sources.unsplash.listings import ListingReader
from authface_data.sources.unsplash.rate_limiter import STATE_FILE, RateLimiter
from authface_data.sources.unsplash.reporting import REFRESHED_FILE, _parse_ids, find_vanished
from manifests.settings import Collect, Unsplash
from manifests.support.errors import AuthfaceError, PartialFailureError, UserError

LISTING = Listing("query", "portrait")
REFUSALS = (AuthfaceError, LimitReached, ListingRefused, NotReportable, ValueError)


@pytest.fixture
def open_api(workspace, monkeypatch):
    """Opens a client of a server that waits 0.4 s for an answer and makes one attempt."""
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", KEY)

    def make(server, attempts=1, total_timeout_s=0.4):
        settings = Collect(
            allowed_hosts=["127.0.0.1"],
            attempts=attempts,
            total_timeout_s=total_timeout_s,
            unsplash=Unsplash(base_url=server.url),
        )
        return UnsplashApi(settings, RateLimiter(workspace, 3600.0, wait=False))

    return make


def calls(api):
    """The requests of a client, by name."""
    location = f"{api.base_url}/photos/a/download"
    return {
        "page": lambda: api.fetch_page(LISTING, 1),
        "details": lambda: api.fetch_details("a"),
        "exists": lambda: api.exists("a"),
        "report": lambda: api.report_download(location),
    }


@pytest.mark.parametrize("name", TYPICAL_REPLIES)
def test_broken_reply_ends_every_request(open_api, name):
    start_s = time.monotonic()
    with BrokenServer(broken_replies("application/json")[name]) as server, open_api(server) as api:
        with pytest.raises(PartialFailureError, match="Unsplash does not answer") as error:
            api.fetch_page(LISTING, 1)
        assert str(error.value).isprintable()
        # Unsplash may have counted the report, so that it must not be sent again.
        calls(api)["report"]()
        assert server.num_requests == 2
    assert time.monotonic() - start_s < 3


@pytest.mark.parametrize("name", TYPICAL_ANSWERS)
def test_broken_answer_is_one_line(open_api, name):
    with (
        BrokenServer(broken_answers()[name]) as server,
        open_api(server, total_timeout_s=5) as api,
        pytest.raises(PartialFailureError) as error,
    ):
        api.fetch_page(LISTING, 1)
    assert str(error.value).isprintable()


def message_of(call):
    """The message of the expected error that a call raises, or "" if it raises none."""
    try:
        call()
    except REFUSALS as error:
        return str(error)
    return ""


@pytest.mark.parametrize("status", [200, 400, 403, 404, 410])
def test_answer_of_another_form_is_one_line(open_api, status):
    replies = iter([])
    with BrokenServer(lambda: next(replies)) as server, open_api(server) as api:
        for value, call in itertools.product(WRONG_VALUES, calls(api).values()):
            replies = iter([[head(status, content_length=len(value)), value]])
            api.rate_limiter.remaining = None
            assert message_of(call).isprintable()


def test_errors_of_the_server_are_short_and_have_no_escape_codes(open_api):
    errors = {"errors": ["\x1b[31mno\x07", {"a": "x" * 10_000}]}
    answer = json.dumps(errors).encode()
    reply = lambda: [head(400, content_length=len(answer)), answer]  # noqa: E731
    with (
        BrokenServer(reply) as server,
        open_api(server) as api,
        pytest.raises(UserError, match=r"refused /search/photos with HTTP 400 \(\\x1b") as error,
    ):
        api.fetch_page(LISTING, 1)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("count", ["9" * 5000, "-1", "1e3", "\xb2", ""])
def test_malformed_counts_in_headers_are_ignored(open_api, count):
    headers = dict.fromkeys(("x_ratelimit_limit", "x_ratelimit_remaining", "x_total"), count)
    with BrokenServer(body(b"[]", **headers)) as server, open_api(server) as api:
        page = api.fetch_page(Listing("topic", "people"), 1)
        assert page.total is None
        assert api.rate_limiter.limit is None


WRONG_FIELDS = [None, True, -1, 10**200, 1.5, "", "x\x1b[31m", [], [[1]], {}, {"a": [1]}]


def variants(value):
    """Copies of a JSON object in which one value, at any depth, is of another type."""
    for name, member in value.items():
        for wrong in WRONG_FIELDS:
            yield {**value, name: wrong}
        yield {key: item for key, item in value.items() if key != name}
        if isinstance(member, dict):
            yield from ({**value, name: changed} for changed in variants(member))


def test_wrong_type_in_any_field_of_a_photograph_does_not_stop_the_others(workspace, open_api):
    with UnsplashServer([]) as server:
        good = server.basic_asset(Photo("good", b"", 600, 400))
    spoilt = list(variants(good))
    answer = json.dumps({"total": 10**200, "results": [*spoilt, good]}).encode()
    assert len(spoilt) > 300
    with BrokenServer(body(answer)) as server, open_api(server, total_timeout_s=5) as api:
        reader = ListingReader(
            workspace,
            api,
            licence_basis="x",
            size_filter=SizeFilter(0, 0),
            hosts=AllowedHosts(set(), ["127.0.0.1"]),
        )
        offers = list(reader.offers([LISTING]))
    assert "us_good" in {offer.photo_id for offer in offers}
    assert server.num_requests == 2  # the second page repeats the first


def test_wrong_type_in_any_field_of_the_details_is_one_line(open_api):
    with UnsplashServer([]) as server:
        details = server.full_asset(Photo("a", b"", 600, 400))
    fields = {name: details[name] for name in ("exif", "location", "tags")}
    replies = iter([])
    with BrokenServer(lambda: next(replies)) as server, open_api(server) as api:
        for changed in list(variants(copy.deepcopy(fields)))[::5]:
            replies = iter([body(json.dumps(changed).encode())()])
            message = message_of(lambda: api.fetch_details("a"))
            assert not message or "the details of a cannot be parsed" in message


DAMAGED_STATES = [
    b"",
    b"[]",
    b"null",
    b"[" * 100_000,
    b"\xff",
    b'{"limit": "x"}',
    b'{"photos": [1]}',
]
DAMAGED_STATES += [b'{"window": 1, "window_s": 3600, "limit": "many", "remaining": [1]}']


@pytest.mark.parametrize("state", DAMAGED_STATES)
def test_damaged_state_of_the_rate_limiter_is_ignored(workspace, state):
    workspace.write_bytes(STATE_FILE, state)
    limiter = RateLimiter(workspace, 3600.0, wait=False)
    assert limiter.limit is None
    assert not limiter.is_exhausted
    limiter.after_request("50", "49")
    assert RateLimiter(workspace, 3600.0, wait=False).remaining == 49


@pytest.mark.parametrize("state", DAMAGED_STATES)
def test_damaged_page_of_a_listing_is_fetched_again(workspace, open_api, state):
    with UnsplashServer([Photo("a", b"", 600, 400)]) as server, open_api(server) as api:
        hosts = AllowedHosts(set(), ["127.0.0.1"])
        options = {"licence_basis": "x", "size_filter": SizeFilter(0, 0), "hosts": hosts}
        reader = ListingReader(workspace, api, **options)
        assert len(list(reader.offers([LISTING]))) == 1
        (page,) = workspace.local_path("cache/unsplash/listings").rglob("*.json")
        page.write_bytes(state)
        assert [offer.photo_id for offer in reader.offers([LISTING])] == ["us_a"]
        assert len(server.requests) == 2


@pytest.mark.parametrize("state", DAMAGED_STATES)
def test_damaged_list_of_looked_up_photographs_starts_again(workspace, open_api, state):
    assert _parse_ids(state) == set()
    workspace.write_bytes(REFRESHED_FILE, state)
    with UnsplashServer([]) as server, open_api(server) as api:
        assert find_vanished(workspace, api).checked == 0
