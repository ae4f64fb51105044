"""Downloads from a server with faults."""

import gzip
import json
import time

import pytest
from broken_server import BrokenServer, body, broken_replies, head
from unsplash_server import Photo, UnsplashServer, make_jpeg

from authface_data.http.download import (
    Downloaded,
    Downloader,
    DownloadFailed,
    DownloadJob,
    DownloadRefused,
)
from authface_data.http.hosts import AllowedHosts
from manifests.settings import Collect

SETTINGS = Collect(attempts=3, read_timeout_s=2, total_timeout_s=5, max_megabytes=1)


@pytest.fixture
def fetch(tmp_path):
    """Downloads a photograph from a server; returns the result and the target."""

    def run(server, name, settings=SETTINGS):
        url = f"{server.url}/img/photo-{name}?ixid=1"
        job = DownloadJob(name, url, tmp_path / name)
        with Downloader(settings, AllowedHosts(set(), ["127.0.0.1"])) as downloader:
            return downloader.fetch(job), job.target

    return run


def make_photo(**options) -> Photo:
    return Photo("a", make_jpeg(1), 1, 1, **options)


def write_partial(folder, server, data: bytes, version: str) -> None:
    """Write the files of an interrupted download."""
    (folder / "a.part").write_bytes(data)
    state = {"url": f"{server.url}/img/photo-a?ixid=1", "version": version}
    (folder / "a.json").write_text(json.dumps(state))


def test_download_is_complete_and_leaves_no_other_file(fetch, tmp_path):
    with UnsplashServer([make_photo()]) as server:
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

        repeated, _ = fetch(server, "a")
        assert isinstance(repeated, Downloaded)
        assert server.image_requests["a"] == 1


def test_interrupted_download_is_resumed(fetch, tmp_path):
    with UnsplashServer([make_photo(faults=["truncate"])]) as server:
        one_attempt = SETTINGS.model_copy(update={"attempts": 1})
        result, target = fetch(server, "a", one_attempt)
        assert isinstance(result, DownloadFailed)
        received = (tmp_path / "a.part").stat().st_size
        assert 0 < received < len(server.photos[0].data)

        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert server.range_requests["a"] == 1
        assert target.read_bytes() == server.photos[0].data


def test_part_of_another_version_is_discarded(fetch, tmp_path):
    with UnsplashServer([make_photo()]) as server:
        write_partial(tmp_path, server, b"x" * 100, '"older"')
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data


def test_part_that_is_longer_than_the_file_is_discarded(fetch, tmp_path):
    with UnsplashServer([make_photo()]) as server:
        data = server.photos[0].data
        write_partial(tmp_path, server, data + b"more", f'"a-{len(data)}"')
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == data


@pytest.mark.parametrize("fault", ["another version", "incomplete part", "another total"])
def test_partial_response_that_does_not_continue_the_file_is_not_appended(fetch, fault):
    with UnsplashServer([make_photo(faults=["truncate"])]) as server:
        server.range_faults = [fault]
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data


def test_etag_that_cannot_be_sent_back_is_not_used(fetch):
    with UnsplashServer([make_photo(faults=["truncate", "truncate"])]) as server:
        server.etag = '"caf\xe9"'
        result, _ = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert not server.range_requests


def test_download_restarts_if_the_server_has_no_ranges(fetch):
    with UnsplashServer([make_photo(faults=["truncate", "truncate"])]) as server:
        server.allows_ranges = False
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert not server.range_requests
        assert target.read_bytes() == server.photos[0].data


@pytest.mark.parametrize(
    ("photo_options", "reason"),
    [
        ({"is_deleted": True}, "gone: HTTP 404"),
        ({"content_type": "text/html"}, "content_type: text/html"),
        ({"redirect_to": "https://evil.example/x"}, "host_not_allowed: evil.example"),
        ({"redirect_to": "http://[::ffff:10.0.0.1]/x"}, "host_not_allowed"),
        ({"redirect_to": "file:///etc/passwd"}, "malformed_url"),
        ({"redirect_to": "/img/photo-a?again"}, "too_many_redirects"),
        ({"faults": ["403"]}, "refused: HTTP 403"),
    ],
)
def test_final_refusal_leaves_no_file(fetch, tmp_path, photo_options, reason):
    with UnsplashServer([make_photo(**photo_options)]) as server:
        result, _ = fetch(server, "a")
        assert isinstance(result, DownloadRefused)
        assert result.reason.startswith(reason)
        assert not list(tmp_path.iterdir())


def test_unknown_server_error_is_a_failure_not_a_refusal(fetch):
    with UnsplashServer([make_photo(faults=["520"] * 3)]) as server:
        result, _ = fetch(server, "a")
        assert result == DownloadFailed(result.job, "HTTP 520")


def test_file_above_the_size_limit_is_refused(fetch):
    settings = SETTINGS.model_copy(update={"max_megabytes": 0.001})
    with UnsplashServer([make_photo()]) as server:
        result, _ = fetch(server, "a", settings)
        assert isinstance(result, DownloadRefused)
        assert result.reason.startswith("too_large")


def test_redirect_to_an_allowed_host_is_followed(fetch):
    photos = [make_photo(redirect_to="/img/photo-b"), Photo("b", make_jpeg(2), 1, 1)]
    with UnsplashServer(photos) as server:
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[1].data


def test_busy_server_fails_after_all_attempts_and_can_be_tried_again(fetch):
    with UnsplashServer([make_photo(faults=["503"] * 3)]) as server:
        result, _ = fetch(server, "a")
        assert result == DownloadFailed(result.job, "HTTP 503")
        assert server.image_requests["a"] == 3
        assert isinstance(fetch(server, "a")[0], Downloaded)


def test_connections_per_host_are_limited(tmp_path):
    photos = [Photo(f"p{n}", make_jpeg(n), 1, 1) for n in range(30)]
    settings = SETTINGS.model_copy(update={"per_host": 3})
    with UnsplashServer(photos, delay_s=0.02) as server:
        jobs = [
            DownloadJob(photo.id, f"{server.url}/img/photo-{photo.id}?i", tmp_path / photo.id)
            for photo in photos
        ]
        with Downloader(settings, AllowedHosts(set(), ["127.0.0.1"])) as downloader:
            results = list(downloader.fetch_all(jobs))
        assert {type(result) for result in results} == {Downloaded}
        assert len(results) == 30
        assert 2 <= server.max_concurrent <= 3


IMPATIENT = Collect(attempts=1, read_timeout_s=1, total_timeout_s=0.4, max_megabytes=0.5)


def download_from(server, folder):
    job = DownloadJob("a", f"{server.url}/a.jpg?x", folder / "a")
    with Downloader(IMPATIENT, AllowedHosts(set(), ["127.0.0.1"])) as downloader:
        return downloader.fetch(job)


@pytest.mark.parametrize("name", broken_replies(""))
def test_broken_reply_is_a_failure_or_refusal_in_bounded_time(tmp_path, name):
    start_s = time.monotonic()
    with BrokenServer(broken_replies("image/jpeg")[name]) as server:
        result = download_from(server, tmp_path)
    assert time.monotonic() - start_s < 3
    assert isinstance(result, DownloadFailed | DownloadRefused)
    text = result.message if isinstance(result, DownloadFailed) else result.reason
    assert text.isprintable()
    assert len(text) < 300
    assert not (tmp_path / "a").exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1e6


def test_packed_picture_is_refused(tmp_path):
    with BrokenServer(body(gzip.compress(b"x"), "image/jpeg", content_encoding="gzip")) as server:
        result = download_from(server, tmp_path)
    assert isinstance(result, DownloadRefused)
    assert result.reason == "content_encoding: gzip"


@pytest.mark.parametrize(
    "location",
    [
        "http://xn--/x",
        "http://[::1",
        "http://h:99999/x",
        "http://127.0.0.1:99999/x",
        "http://\x7f/",
        "http:///x",
        "//",
        "",
        "\xff\xfe",
        "javascript:alert(1)",
        "http://h/" + "a" * 70_000,
        "http://user:password@127.0.0.1/x",
    ],
    ids=lambda location: ascii(location[:30]),
)
def test_malformed_redirect_is_refused(tmp_path, location):
    with BrokenServer(lambda: [head(302, location=location)]) as server:
        result = download_from(server, tmp_path)
    assert isinstance(result, DownloadFailed | DownloadRefused)
    text = result.message if isinstance(result, DownloadFailed) else result.reason
    assert text.isprintable()
    assert "password" not in text
    assert server.num_requests <= 6


@pytest.mark.parametrize(
    "state",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"url": 1}', b'{"url": URL, "version": 5}']
    + [b'{"url": URL, "version": "a\\nb"}', b'{"url": URL, "version": "\\u00e9"}'],
)
def test_damaged_state_of_a_download_starts_it_again(fetch, tmp_path, state):
    with UnsplashServer([make_photo()]) as server:
        url = json.dumps(f"{server.url}/img/photo-a?ixid=1").encode()
        (tmp_path / "a.part").write_bytes(b"x" * 100)
        (tmp_path / "a.json").write_bytes(state.replace(b"URL", url))
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data
