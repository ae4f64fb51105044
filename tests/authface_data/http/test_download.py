"""Downloads against a server with faults."""

import json

import pytest
from unsplash_server import Photo, UnsplashServer, picture

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
    """Fetch a photograph, by the URL that a server gives it: (result, target)."""

    def run(server, name, settings=SETTINGS, query="?ixid=1"):
        job = DownloadJob(name, f"{server.url}/img/photo-{name}{query}", tmp_path / name)
        with Downloader(settings, AllowedHosts(set(), ["127.0.0.1"])) as downloader:
            return downloader.fetch(job), job.target

    return run


def photo(**options) -> Photo:
    return Photo("a", picture(1), 1, 1, **options)


def test_it_comes_whole_and_leaves_nothing_beside(fetch, tmp_path):
    with UnsplashServer([photo()]) as server:
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        again, _ = fetch(server, "a")  # it is there
        assert isinstance(again, Downloaded)
        assert server.image_requests["a"] == 1


def test_a_part_of_another_run_is_gone_on_with(fetch, tmp_path):
    with UnsplashServer([photo(faults=["truncate"])]) as server:
        once = SETTINGS.model_copy(update={"attempts": 1})
        result, target = fetch(server, "a", once)
        assert isinstance(result, DownloadFailed)
        half = (tmp_path / "a.part").stat().st_size
        assert 0 < half < len(server.photos[0].data)
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert server.range_requests["a"] == 1
        assert target.read_bytes() == server.photos[0].data


def test_a_part_of_another_version_is_begun_anew(fetch, tmp_path):
    with UnsplashServer([photo()]) as server:
        (tmp_path / "a.part").write_bytes(b"x" * 100)
        url = f"{server.url}/img/photo-a?ixid=1"
        (tmp_path / "a.json").write_text(json.dumps({"url": url, "version": '"older"'}))
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data


def test_a_part_longer_than_the_file_is_begun_anew(fetch, tmp_path):
    with UnsplashServer([photo()]) as server:
        data = server.photos[0].data
        (tmp_path / "a.part").write_bytes(data + b"more")
        url = f"{server.url}/img/photo-a?ixid=1"
        (tmp_path / "a.json").write_text(json.dumps({"url": url, "version": f'"a-{len(data)}"'}))
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == data


@pytest.mark.parametrize("lie", ["another version", "less than it says", "another total"])
def test_an_answer_that_does_not_go_on_is_not_joined(fetch, lie):
    """A 206 of another version, or one that ends early: never spliced, never taken for whole."""
    with UnsplashServer([photo(faults=["truncate"])]) as server:
        server.range_lies = [lie]
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[0].data


def test_a_mark_that_cannot_be_sent_back_is_not_used(fetch):
    with UnsplashServer([photo(faults=["truncate", "truncate"])]) as server:
        server.tag = '"caf\xe9"'
        result, _ = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert not server.range_requests


def test_without_ranges_it_is_begun_anew(fetch):
    with UnsplashServer([photo(faults=["truncate", "truncate"])]) as server:
        server.ranges_allowed = False
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert not server.range_requests
        assert target.read_bytes() == server.photos[0].data


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ({"deleted": True}, "gone: HTTP 404"),
        ({"content_type": "text/html"}, "content_type: text/html"),
        ({"moved": "https://evil.example/x"}, "host_not_allowed: evil.example"),
        ({"moved": "http://[::ffff:10.0.0.1]/x"}, "host_not_allowed"),
        ({"moved": "file:///etc/passwd"}, "malformed_url"),
        ({"moved": "/img/photo-a?again"}, "too_many_redirects"),
        ({"faults": ["403"]}, "refused: HTTP 403"),
        ({"faults": ["520"] * 3}, "HTTP 520"),
    ],
)
def test_final_refusals(fetch, tmp_path, faulty, reason):
    with UnsplashServer([photo(**faulty)]) as server:
        result, _ = fetch(server, "a")
        if reason.startswith("HTTP 5"):
            assert result == DownloadFailed(result.job, reason)  # may pass
            return
        assert isinstance(result, DownloadRefused)
        assert result.reason.startswith(reason)
        assert not list(tmp_path.iterdir())


def test_too_large_is_refused_before_and_while_it_comes(fetch):
    small = SETTINGS.model_copy(update={"max_megabytes": 0.001})
    with UnsplashServer([photo()]) as server:
        result, _ = fetch(server, "a", small)
        assert isinstance(result, DownloadRefused)
        assert result.reason.startswith("too_large")


def test_a_redirect_within_the_allowed_is_followed(fetch):
    with UnsplashServer([photo(moved="/img/photo-b"), Photo("b", picture(2), 1, 1)]) as server:
        result, target = fetch(server, "a")
        assert isinstance(result, Downloaded)
        assert target.read_bytes() == server.photos[1].data


def test_what_stays_busy_fails_and_may_be_tried_again(fetch):
    with UnsplashServer([photo(faults=["503"] * 3)]) as server:
        result, _ = fetch(server, "a")
        assert result == DownloadFailed(result.job, "HTTP 503")
        assert server.image_requests["a"] == 3
        assert isinstance(fetch(server, "a")[0], Downloaded)


def test_few_from_one_host_at_once(tmp_path):
    photos = [Photo(f"p{n}", picture(n), 1, 1) for n in range(30)]
    with UnsplashServer(photos, delay_s=0.02) as server:
        jobs = [
            DownloadJob(one.id, f"{server.url}/img/photo-{one.id}?i", tmp_path / one.id)
            for one in photos
        ]
        settings = SETTINGS.model_copy(update={"per_host": 3})
        with Downloader(settings, AllowedHosts(set(), ["127.0.0.1"])) as downloader:
            results = list(downloader.fetch_all(jobs))
        assert {type(result) for result in results} == {Downloaded}
        assert len(results) == 30
        assert 2 <= server.most_at_once <= 3
