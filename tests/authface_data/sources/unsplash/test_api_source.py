"""`authface collect --source unsplash`, the real command, against the local server: what comes, how often, and when."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unsplash_server import KEY, Photo, UnsplashServer, picture
from unsplash_workspace import ENV, make_workspace, manifest, reasons

pytestmark = pytest.mark.slow
PERMISSION = 'Jane Doe, by letter of 2 May; "for research"'


def good_and_bad(server_url: str = "") -> list[Photo]:
    """Thirty-eight good photographs, some with passing faults; and one of each bad kind, by its id."""
    photos = [Photo(f"good_{n:03d}", picture(n), 6000, 4000) for n in range(34)]
    photos[1].faults = ["503", "429"]
    photos[2].faults = ["truncate", "truncate"]
    photos[3].faults = ["drop"]
    photos[4].last_name = None
    for photo_id in ("-dash", "1e5", "CaSe", "cAsE"):
        photos.append(Photo(photo_id, picture(sum(map(ord, photo_id)) + len(photos)), 6000, 4000))
    photos += [
        Photo("plus", picture(200), 6000, 4000, plus=True),
        Photo("deleted", picture(201), 6000, 4000, deleted=True),
        Photo("tiny", picture(202), 800, 600),
        Photo("foreign", picture(203), 6000, 4000, moved="https://evil.example/x.jpg"),
        Photo("private", picture(204), 6000, 4000, moved="http://10.0.0.1/x.jpg"),
        Photo("localhost", picture(205), 6000, 4000, moved="http://localhost:80/x.jpg"),
        Photo(
            "metadata", picture(206), 6000, 4000, moved="http://169.254.169.254/latest/meta-data"
        ),
        Photo("elsewhere", picture(207), 6000, 4000, raw="https://evil.example/photo.jpg"),
        Photo("html", b"<html>no picture</html>", 6000, 4000, content_type="text/html"),
        Photo("broken", b"\xff\xd8\xff\xe0 no picture", 6000, 4000),
        Photo("half", picture(208)[:1200], 6000, 4000),
        Photo("huge", os.urandom(1_100_000), 6000, 4000),
        Photo("snail", picture(209), 6000, 4000, faults=["slow"] * 50),
        Photo("always503", picture(210), 6000, 4000, faults=["503"] * 500),
        Photo("../../up", picture(211), 6000, 4000),
    ]
    random.Random(3).shuffle(photos)
    return photos


EXPECTED = {
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

WORDS = ["--source", "unsplash", "--query", "portrait", "--query", "face", "--min-megapixels", 5]


def check_complete(root: Path, server: UnsplashServer) -> None:
    """Every good photograph once, each download reported once, a reason for each bad one, no more and no less."""
    photos = manifest(root, "photos")
    good = {f"us_{photo.id}" for photo in server.photos} - set(EXPECTED) - {"us_../../up"}
    assert len(good) == 38
    assert set(photos["photo_id"]) == good
    assert photos["photo_id"].is_unique
    assert server.reports == {photo_id.removeprefix("us_"): 1 for photo_id in good}
    assert photos["download_reported_at"].notna().all()
    told = reasons(root)
    assert set(told) == set(EXPECTED)
    for photo_id, pattern in EXPECTED.items():
        assert re.match(pattern, told[photo_id]), (photo_id, told[photo_id])
    assert set(photos["licence_basis"]) == {f"unsplash-api+permission:{PERMISSION}"}
    assert photos["photographer_name"].str.startswith("Jane").all()
    row = photos.set_index("photo_id").loc["us_good_004"]
    assert row["photographer_name"] == "Jane"
    assert row["photographer_url"] == "https://unsplash.com/@user_good_004"
    assert row["source_url"] == "https://unsplash.com/photos/a-face-good_004"
    assert photos["place"].isna().all()
    assert photos["latitude"].isna().all()
    for row in photos.itertuples():
        assert (root / row.path).read_bytes() == server.by_id(row.photo_id.removeprefix("us_")).data
    assert len({name.lower() for name in os.listdir(root / "photos")}) == len(
        good
    )  # ids that differ by case do not collide
    assert not [
        name
        for name in os.listdir(root / "cache/downloads")
        if not name.endswith((".part", ".json"))
    ]


def test_every_good_photo_once_and_a_reason_for_each_bad_one(tmp_path, authface_here):
    with UnsplashServer(good_and_bad()) as server:
        server.api_faults = [500, 503]
        root = make_workspace(tmp_path / "ws", authface_here, server, "attempts = 4")
        done = authface_here(
            "collect", "-w", root, *WORDS, "--i-have-permission", PERMISSION, env=ENV
        )
        assert done.returncode == 4, done.stdout + done.stderr  # two failed
        assert "2 photographs did not come" in done.stderr
        check_complete(root, server)
        assert server.most_at_once <= 4
        assert server.range_requests["good_002"] == 2  # cut off twice, gone on with twice
        asked = len(server.requests)
        images = server.image_requests.total()
        again = authface_here(
            "collect", "-w", root, *WORDS, env=ENV
        )  # the permission is remembered
        assert again.returncode == 0, again.stdout + again.stderr
        check_complete(root, server)
        assert (
            server.image_requests.total() == images
        )  # nothing is downloaded twice, nothing refused is asked for again
        assert len(server.requests) - asked == 4  # two pages of two listings
        server.by_id("always503").faults = []
        server.by_id("snail").faults = []
        retried = authface_here("collect", "-w", root, *WORDS, "--retry", "failed", env=ENV)
        assert retried.returncode == 0, retried.stdout + retried.stderr
        assert {"us_always503", "us_snail"} <= set(manifest(root, "photos")["photo_id"])
        assert server.reports["snail"] == 1
        every_file = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
        assert KEY.encode() not in every_file
        assert KEY not in done.stdout + done.stderr


def test_killed_ten_times(tmp_path, authface_here):
    """At random moments, by SIGKILL: the same photographs, reasons and reports."""
    rng = random.Random(4)
    with UnsplashServer(good_and_bad(), delay_s=0.15) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, "attempts = 3")
        command = [
            sys.executable,
            "-P",
            "-m",
            "cli",
            "collect",
            "-w",
            root,
            *WORDS,
            "--i-have-permission",
            PERMISSION,
        ]
        env = {**os.environ, "UNSPLASH_ACCESS_KEY": KEY}
        for _ in range(10):
            process = subprocess.Popen(
                [str(word) for word in command],
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(rng.uniform(1.0, 3.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
        last = authface_here("collect", "-w", root, *WORDS, env=ENV)
        assert last.returncode in (0, 4), last.stdout + last.stderr
        check_complete(root, server)


def test_the_hour_is_waited_for_and_pages_are_not_asked_twice(tmp_path, authface_here):
    photos = [Photo(f"p{n}", picture(n), 6000, 4000) for n in range(70)]
    with UnsplashServer(photos, limit=20, window_s=4) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, window_s=4)
        words = (
            "collect",
            "-w",
            root,
            "--source",
            "unsplash",
            "--topic",
            "people",
            "--i-have-permission",
            "all",
        )
        stopped = authface_here(*words, "--no-wait", env=ENV)
        assert stopped.returncode == 4
        assert "20 requests to Unsplash are spent" in stopped.stderr
        assert 0 < len(manifest(root, "photos")) <= 70
        waited = authface_here(*words, env=ENV)
        assert waited.returncode == 0, waited.stdout + waited.stderr
        assert "waiting until" in waited.stdout
        assert len(manifest(root, "photos")) == 70
        assert set(server.reports.values()) == {1}
        assert len(server.reports) == 70
        pages = [path for path in server.requests if "/topics/" in path]
        assert len(pages) == len(set(pages)) == 3


def test_a_budget_that_is_spent_is_remembered(tmp_path, authface_here):
    with UnsplashServer([Photo("a", picture(1), 6000, 4000)], limit=1) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = (
            "collect",
            "-w",
            root,
            "--source",
            "unsplash",
            "--query",
            "x",
            "--i-have-permission",
            "all",
            "--no-wait",
        )
        for expected in (2, 2):  # the page, and a report that is refused; then not even one more
            assert authface_here(*words, env=ENV).returncode == 4
            assert len(server.requests) <= expected
        photos = manifest(root, "photos")
        assert list(photos["photo_id"]) == ["us_a"]  # images are not counted
        assert photos["download_reported_at"].isna().all()


def test_plan_says_and_stops(tmp_path, authface_here):
    photos = [
        Photo(f"p{n}", picture(n), 6000 if n % 2 else 600, 4000 if n % 2 else 400)
        for n in range(300)
    ]
    with UnsplashServer(photos, limit=50) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = ("collect", "-w", root, *WORDS[:4], "--min-megapixels", 5, "--details", "--plan")
        done = authface_here(*words, "--json", env=ENV)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["found"] == {"query portrait": 300}
        assert said["downloads"] == 150
        assert said["pages"] == 10
        assert said["requests"] == 310  # ten pages, and a report and the details of each download
        assert said["hours"] == pytest.approx(6.2)
        assert said["bytes"] == pytest.approx(150 * 24e6 * 0.45)
        assert len(server.requests) == 1
        assert not server.image_requests
        read = authface_here(*words, env=ENV)
        assert "310 requests" in read.stdout
        assert "6.2 hours" in read.stdout
        assert manifest(root, "photos").empty


def test_max_photos_details_place_and_shifting_pages(tmp_path, authface_here):
    photos = [Photo(f"p{n}", picture(n), 6000, 4000) for n in range(80)]
    with UnsplashServer(photos) as server:
        server.shift = [Photo(f"new{n}", picture(900 + n), 6000, 4000) for n in range(5)]
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = (
            "collect",
            "-w",
            root,
            "--source",
            "unsplash",
            "--topic",
            "people",
            "--order-by",
            "latest",
        )
        permission = ("--i-have-permission", "all")
        done = authface_here(*words, "--max-photos", 7, "--details", *permission, env=ENV)
        assert done.returncode == 0, done.stdout + done.stderr
        frame = manifest(root, "photos")
        assert len(frame) == 7
        assert set(frame["camera_model"]) == {"EOS R5"}
        assert set(frame["exposure_s"]) == {1 / 125}
        assert list(frame["source_tags"].iloc[0]) == ["portrait", "woman"]
        assert frame["place"].isna().all()
        assert b"Berlin" not in b"".join(
            path.read_bytes() for path in root.rglob("*") if path.is_file()
        )
        settings = root / "authface.toml"
        settings.write_text(
            settings.read_text().replace("[collect]", "[collect]\nstore_place = true")
        )
        rest = authface_here(*words, "--details", *permission, env=ENV)
        assert rest.returncode == 0, rest.stdout + rest.stderr
        frame = manifest(root, "photos")
        assert frame["photo_id"].is_unique
        assert {f"us_p{n}" for n in range(80)} <= set(frame["photo_id"])
        assert set(server.reports.values()) == {1}
        assert (frame["place"] == "Berlin, Germany").sum() == len(frame) - 7
