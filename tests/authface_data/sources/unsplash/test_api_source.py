"""`authface collect --source unsplash` against the local server: what is collected, and when."""

import json
import os
import random
import re
import signal
from pathlib import Path

import pytest
from killable import run_killable
from unsplash_server import KEY, Photo, UnsplashServer, make_jpeg
from unsplash_workspace import ENV, make_workspace, read_manifest, verdicts_by_id

pytestmark = pytest.mark.slow
PERMISSION = 'Jane Doe, by letter of 2 May; "for research"'
SIZE_PX = (6000, 4000)


def good_and_bad_photos() -> list[Photo]:
    """Thirty-eight good photographs, some with passing faults, and one of each bad kind."""
    photos = [Photo(f"good_{n:03d}", make_jpeg(n), *SIZE_PX) for n in range(34)]
    photos[1].faults = ["503", "429"]
    photos[2].faults = ["truncate", "truncate"]
    photos[3].faults = ["drop"]
    photos[4].last_name = None
    for photo_id in ("-dash", "1e5", "CaSe", "cAsE"):
        data = make_jpeg(sum(map(ord, photo_id)) + len(photos))
        photos.append(Photo(photo_id, data, *SIZE_PX))

    def bad(photo_id: str, number: int, **options) -> Photo:
        return Photo(photo_id, make_jpeg(number), *SIZE_PX, **options)

    photos += [
        bad("plus", 200, is_plus=True),
        bad("deleted", 201, is_deleted=True),
        Photo("tiny", make_jpeg(202), 800, 600),
        bad("foreign", 203, redirect_to="https://evil.example/x.jpg"),
        bad("private", 204, redirect_to="http://10.0.0.1/x.jpg"),
        bad("localhost", 205, redirect_to="http://localhost:80/x.jpg"),
        bad("metadata", 206, redirect_to="http://169.254.169.254/latest/meta-data"),
        bad("elsewhere", 207, raw_url="https://evil.example/photo.jpg"),
        Photo("html", b"<html>no picture</html>", *SIZE_PX, content_type="text/html"),
        Photo("broken", b"\xff\xd8\xff\xe0 no picture", *SIZE_PX),
        Photo("half", make_jpeg(208)[:1200], *SIZE_PX),
        Photo("huge", os.urandom(1_100_000), *SIZE_PX),
        bad("snail", 209, faults=["slow"] * 50),
        bad("always503", 210, faults=["503"] * 500),
        bad("../../up", 211),
    ]
    random.Random(3).shuffle(photos)
    return photos


EXPECTED_VERDICTS = {
    "us_plus": r"collect:metadata\|dropped\|unsplash_plus",
    "us_deleted": r"collect\|dropped\|gone: HTTP 404",
    "us_tiny": r"collect:metadata\|dropped\|megapixels < min_megapixels",
    "us_foreign": r"collect\|dropped\|host_not_allowed: evil.example",
    "us_private": r"collect\|dropped\|host_not_allowed: 10.0.0.1",
    "us_localhost": r"collect\|dropped\|host_not_allowed: localhost",
    "us_metadata": r"collect\|dropped\|host_not_allowed: 169.254.169.254",
    "us_elsewhere": r"collect:metadata\|dropped\|host_not_allowed: evil.example",
    "us_html": r"collect\|dropped\|content_type: text/html",
    "us_broken": r"collect\|dropped\|undecodable",
    "us_half": r"collect\|dropped\|undecodable",
    "us_huge": r"collect\|dropped\|too_large",
    "us_snail": r"collect\|failed\|.*not done after 3 s",
    "us_always503": r"collect\|failed\|.*HTTP 503",
    "us_______up": r"collect:metadata\|dropped\|unreadable",
}

SEARCHES = ["--source", "unsplash", "--query", "portrait", "--query", "face"]
SEARCHES += ["--min-megapixels", 5]


def check_complete(root: Path, server: UnsplashServer) -> None:
    """Each good photograph is collected and reported once, each bad one has its verdict."""
    photos = read_manifest(root, "photos")
    all_ids = {f"us_{photo.id}" for photo in server.photos}
    good_ids = all_ids - set(EXPECTED_VERDICTS) - {"us_../../up"}
    assert len(good_ids) == 38
    assert set(photos["photo_id"]) == good_ids
    assert photos["photo_id"].is_unique
    assert server.reports == {photo_id.removeprefix("us_"): 1 for photo_id in good_ids}
    assert photos["download_reported_at"].notna().all()

    verdicts = verdicts_by_id(root)
    assert set(verdicts) == set(EXPECTED_VERDICTS)
    for photo_id, pattern in EXPECTED_VERDICTS.items():
        assert re.match(pattern, verdicts[photo_id]), (photo_id, verdicts[photo_id])

    assert set(photos["licence_basis"]) == {f"unsplash-api+permission:{PERMISSION}"}
    assert photos["photographer_name"].str.startswith("Jane").all()
    row = photos.set_index("photo_id").loc["us_good_004"]
    assert row["photographer_name"] == "Jane"
    assert row["photographer_url"] == "https://unsplash.com/@user_good_004"
    assert row["source_url"] == "https://unsplash.com/photos/a-face-good_004"
    assert photos["place"].isna().all()
    assert photos["latitude"].isna().all()

    for row in photos.itertuples():
        original = server.by_id(row.photo_id.removeprefix("us_"))
        assert (root / row.path).read_bytes() == original.data
    # Names differ by more than case, for file systems that ignore it.
    assert len({name.lower() for name in os.listdir(root / "photos")}) == len(good_ids)
    for name in os.listdir(root / "cache/downloads"):
        assert name.endswith((".part", ".json"))


def test_each_good_photo_is_collected_once_and_each_bad_one_has_a_reason(tmp_path, authface_here):
    with UnsplashServer(good_and_bad_photos()) as server:
        server.api_faults = [500, 503]
        root = make_workspace(tmp_path / "ws", authface_here, server, "attempts = 4")
        collect = ("collect", "-w", root, *SEARCHES)
        first = authface_here(*collect, "--i-have-permission", PERMISSION, env=ENV)
        assert first.returncode == 4, first.stdout + first.stderr
        assert "2 photographs could not be collected" in first.stderr
        check_complete(root, server)
        assert server.max_concurrent <= 4
        assert server.range_requests["good_002"] == 2  # truncated twice, resumed twice

        num_requests = len(server.requests)
        num_images = server.image_requests.total()
        second = authface_here(*collect, env=ENV)  # the permission is stored
        assert second.returncode == 0, second.stdout + second.stderr
        check_complete(root, server)
        assert server.image_requests.total() == num_images  # nothing is downloaded again
        assert len(server.requests) - num_requests == 4  # two pages of two listings

        server.by_id("always503").faults = []
        server.by_id("snail").faults = []
        retried = authface_here(*collect, "--retry", "failed", env=ENV)
        assert retried.returncode == 0, retried.stdout + retried.stderr
        assert {"us_always503", "us_snail"} <= set(read_manifest(root, "photos")["photo_id"])
        assert server.reports["snail"] == 1

        for path in root.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes()
        assert KEY not in first.stdout + first.stderr


def test_collection_killed_ten_times_gives_the_same_result(tmp_path, authface_here, monkeypatch):
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", KEY)
    rng = random.Random(4)
    with UnsplashServer(good_and_bad_photos(), delay_s=0.15) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, "attempts = 3")
        collect = ["collect", "-w", root, *SEARCHES, "--i-have-permission", PERMISSION]
        killed = [run_killable(collect, kill_after_s=rng.uniform(0.2, 1.5)) for _ in range(10)]
        assert sum(run.returncode == -signal.SIGKILL for run in killed) >= 5

        last = authface_here("collect", "-w", root, *SEARCHES, env=ENV)
        assert last.returncode in (0, 4), last.stdout + last.stderr
        check_complete(root, server)


def test_collection_waits_for_the_next_hour_and_fetches_no_page_twice(tmp_path, authface_here):
    photos = [Photo(f"p{n}", make_jpeg(n), *SIZE_PX) for n in range(70)]
    with UnsplashServer(photos, limit=20, window_s=4) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, window_s=4)
        collect = ["collect", "-w", root, "--source", "unsplash", "--topic", "people"]
        collect += ["--i-have-permission", "all"]
        stopped = authface_here(*collect, "--no-wait", env=ENV)
        assert stopped.returncode == 4
        assert "the hourly limit of requests to Unsplash (20) is reached" in stopped.stderr
        assert 0 < len(read_manifest(root, "photos")) <= 70

        waited = authface_here(*collect, env=ENV)
        assert waited.returncode == 0, waited.stdout + waited.stderr
        assert "waiting until" in waited.stderr
        assert len(read_manifest(root, "photos")) == 70
        assert set(server.reports.values()) == {1}
        assert len(server.reports) == 70
        pages = [path for path in server.requests if "/topics/" in path]
        assert len(pages) == len(set(pages)) == 3


def test_reached_limit_is_remembered_by_the_next_run(tmp_path, authface_here):
    with UnsplashServer([Photo("a", make_jpeg(1), *SIZE_PX)], limit=1) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ["collect", "-w", root, "--source", "unsplash", "--query", "x"]
        collect += ["--i-have-permission", "all", "--no-wait"]
        # The first run requests a page and a report that is refused; the second run nothing.
        for max_requests in (2, 2):
            assert authface_here(*collect, env=ENV).returncode == 4
            assert len(server.requests) <= max_requests
        photos = read_manifest(root, "photos")
        assert list(photos["photo_id"]) == ["us_a"]  # image requests do not count
        assert photos["download_reported_at"].isna().all()


def test_photograph_without_a_file_is_downloaded_again(tmp_path, authface_here):
    photos = [Photo(name, make_jpeg(number), *SIZE_PX) for number, name in enumerate("ab")]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ["collect", "-w", root, "--source", "unsplash", "--query", "x"]
        collect += ["--i-have-permission", "all"]
        assert authface_here(*collect, env=ENV).returncode == 0
        rows = read_manifest(root, "photos").set_index("photo_id")
        (root / rows.loc["us_a", "path"]).unlink()
        again = authface_here(*collect, env=ENV)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "1 photograph collected (" in again.stdout
        assert ", 1 already in the workspace" in again.stdout
        for photo_id, row in rows.iterrows():
            name = photo_id.removeprefix("us_")
            assert (root / row["path"]).read_bytes() == server.by_id(name).data
        assert server.image_requests == {"a": 2, "b": 1}
        assert len(read_manifest(root, "photos")) == 2


def test_plan_estimates_the_collection_from_one_request(tmp_path, authface_here):
    photos = []
    for number in range(300):
        size_px = SIZE_PX if number % 2 else (600, 400)
        photos.append(Photo(f"p{number}", make_jpeg(number), *size_px))
    with UnsplashServer(photos, limit=50) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ["collect", "-w", root, "--source", "unsplash", "--query", "portrait"]
        collect += ["--min-megapixels", 5, "--details", "--plan"]
        as_json = authface_here(*collect, "--json", env=ENV)
        assert as_json.returncode == 0, as_json.stderr
        plan = json.loads(as_json.stdout)
        assert plan["found"] == {"query portrait": 300}
        assert plan["downloads"] == 150
        assert plan["pages"] == 10
        assert plan["requests"] == 310  # ten pages; a report and the details of each download
        assert plan["hours"] == pytest.approx(6.2)
        assert plan["bytes"] == pytest.approx(150 * 24e6 * 0.45)
        assert len(server.requests) == 1
        assert not server.image_requests

        as_text = authface_here(*collect, env=ENV)
        assert "310 requests" in as_text.stdout
        assert "6.2 hours" in as_text.stdout
        assert read_manifest(root, "photos").empty


def test_max_photos_details_place_and_listings_that_shift(tmp_path, authface_here):
    photos = [Photo(f"p{n}", make_jpeg(n), *SIZE_PX) for n in range(80)]
    with UnsplashServer(photos) as server:
        server.new_photos = [Photo(f"new{n}", make_jpeg(900 + n), *SIZE_PX) for n in range(5)]
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ["collect", "-w", root, "--source", "unsplash", "--topic", "people"]
        collect += ["--order-by", "latest", "--details", "--i-have-permission", "all"]
        limited = authface_here(*collect, "--max-photos", 7, env=ENV)
        assert limited.returncode == 0, limited.stdout + limited.stderr
        rows = read_manifest(root, "photos")
        assert len(rows) == 7
        assert set(rows["camera_model"]) == {"EOS R5"}
        assert set(rows["exposure_s"]) == {1 / 125}
        assert list(rows["source_tags"].iloc[0]) == ["portrait", "woman"]
        assert rows["place"].isna().all()
        for path in root.rglob("*"):
            assert not path.is_file() or b"Berlin" not in path.read_bytes()

        settings = root / "authface.toml"
        with_place = settings.read_text().replace("[collect]", "[collect]\nstore_place = true")
        settings.write_text(with_place)
        unlimited = authface_here(*collect, env=ENV)
        assert unlimited.returncode == 0, unlimited.stdout + unlimited.stderr
        rows = read_manifest(root, "photos")
        assert rows["photo_id"].is_unique
        assert {f"us_p{n}" for n in range(80)} <= set(rows["photo_id"])
        assert set(server.reports.values()) == {1}
        assert (rows["place"] == "Berlin, Germany").sum() == len(rows) - 7
