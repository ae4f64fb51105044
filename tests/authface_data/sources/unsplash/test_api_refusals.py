"""What Unsplash, the settings or the disk refuse, and what has vanished: told in a line, and asked no more than it helps."""

import os

import pytest
from unsplash_server import Photo, UnsplashServer, picture
from unsplash_workspace import ENV, make_workspace, manifest, reasons

pytestmark = pytest.mark.slow
QUERY = ["--source", "unsplash", "--query", "portrait"]


def test_what_is_not_asked_again(tmp_path, authface_here):
    """A wrong key, a permission that lacks, spam: explained in a line, and asked once."""
    with UnsplashServer([Photo("a", picture(1), 6000, 4000)]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = ("collect", "-w", root, "--source", "unsplash", "--query")
        without = authface_here(*words, "x", env=ENV)
        assert without.returncode == 2
        assert "--i-have-permission" in without.stderr
        no_key = authface_here(*words, "x", "--i-have-permission", "all")
        assert no_key.returncode == 3
        assert "UNSPLASH_ACCESS_KEY" in no_key.stderr
        wrong = authface_here(
            *words, "x", "--i-have-permission", "all", env={"UNSPLASH_ACCESS_KEY": "other"}
        )
        assert wrong.returncode == 2
        assert "does not know the key" in wrong.stderr
        assert "other" not in wrong.stderr.replace("another", "")
        server.api_faults = ["json403"]
        refused = authface_here(*words, "x", env=ENV)
        assert refused.returncode == 2
        assert "permission to access this resource" in refused.stderr
        assert len(server.requests) == 1
        server.spam = {"buy"}
        spam = authface_here(*words, "buy", env=ENV)
        assert spam.returncode == 2
        assert "flagged as spam" in spam.stderr
        both = authface_here(*words, "buy", "--query", "x", env=ENV)
        assert both.returncode == 4  # the other query came
        assert len(manifest(root, "photos")) == 1
        for done in (without, no_key, wrong, refused, spam, both):
            assert "Traceback" not in done.stderr


def test_refresh_suggests_to_forget_what_vanished(tmp_path, authface_here):
    photos = [Photo(f"p{n}", picture(n), 6000, 4000) for n in range(4)]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        assert (
            authface_here(
                "collect", "-w", root, *QUERY, "--i-have-permission", "all", env=ENV
            ).returncode
            == 0
        )
        server.by_id("p2").deleted = True
        done = authface_here("collect", "-w", root, "--source", "unsplash", "--refresh", env=ENV)
        assert done.returncode == 0, done.stderr
        assert "authface forget -- us_p2" in done.stdout
        assert "vanished at its source" in authface_here("status", "-w", root).stdout
        assert len(manifest(root, "photos")) == 4  # a suggestion: nothing is taken out
        server.by_id("p2").deleted = False
        assert (
            authface_here(
                "collect", "-w", root, "--source", "unsplash", "--refresh", env=ENV
            ).returncode
            == 0
        )
        assert "vanished" not in authface_here("status", "-w", root).stdout


def test_the_face_gate_looks_at_previews(tmp_path, authface_here, weights, photos):
    from PIL import Image

    with Image.open(photos["astronaut-nasa.png"]) as face:
        data = picture(1, base=face.convert("RGB"))
    offered = [
        Photo("face", data, 6000, 4000),
        Photo("no_face", picture(5, (400, 300)), 6000, 4000),
    ]
    with UnsplashServer(offered) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = ("collect", "-w", root, *QUERY, "--face-gate", "--i-have-permission", "all")
        done = authface_here(*words, env=ENV)
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(manifest(root, "photos")["photo_id"]) == ["us_face"]
        assert reasons(root)["us_no_face"].startswith("collect:preview|dropped|no_face")
        assert server.image_requests == {"face": 2, "no_face": 1}
        assert not os.listdir(root / "cache/previews")
        assert authface_here(*words, env=ENV).returncode == 0
        assert server.image_requests == {"face": 2, "no_face": 1}  # a preview is looked at once


def test_a_full_disk_is_seen_before_it_is_full(tmp_path, authface_here):
    with UnsplashServer([Photo("a", picture(1), 6000, 4000)]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, "keep_free_gb = 1000000")
        done = authface_here("collect", "-w", root, *QUERY, "--i-have-permission", "all", env=ENV)
        assert done.returncode == 2
        assert "not enough disk" in done.stderr
        assert not server.image_requests


def test_private_hosts_must_be_named(tmp_path, authface_here):
    with UnsplashServer([]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        settings = root / "authface.toml"
        settings.write_text(settings.read_text().replace('allowed_hosts = ["127.0.0.1"]', ""))
        done = authface_here("collect", "-w", root, *QUERY, "--i-have-permission", "all", env=ENV)
        assert done.returncode == 2
        assert "allowed_hosts" in done.stderr
        assert not server.requests


def test_strange_answers_stop_nothing(tmp_path, authface_here):
    """Halves of characters, sizes that none has, a report that is refused, locations that are none, details that are null."""
    photos = [Photo(f"p{n}", picture(n), 6000, 4000) for n in range(6)]
    photos[1].width = 10**30
    photos[2].last_name = "x\ud83d"
    with UnsplashServer(photos) as server:
        server.report_status = {"p3": 400}
        server.locations = {"p4": "https://key@evil.example/x", "p5": "http://[::bad"}
        server.null_details = True
        root = make_workspace(tmp_path / "ws", authface_here, server)
        done = authface_here(
            "collect", "-w", root, *QUERY, "--details", "--i-have-permission", "all \udce9", env=ENV
        )
        assert done.returncode == 0, done.stdout + done.stderr
        frame = manifest(root, "photos").set_index("photo_id")
        assert set(frame.index) == {"us_p0", "us_p2", "us_p3", "us_p4", "us_p5"}
        assert frame["details_at"].notna().all()
        assert sorted(frame.index[frame["download_reported_at"].isna()]) == [
            "us_p3",
            "us_p4",
            "us_p5",
        ]
        assert server.reports == {"p0": 1, "p2": 1}
        assert reasons(root)["us_p1"].endswith("size: none that a photograph has")
        again = authface_here("collect", "-w", root, *QUERY, env=ENV)
        assert again.returncode == 0, again.stderr
        assert server.reports == {"p0": 1, "p2": 1}


def test_a_key_that_is_none_is_not_shown(tmp_path, authface_here):
    with UnsplashServer([]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        for key in ("abc\ndef", "clé", "two words"):
            done = authface_here(
                "collect",
                "-w",
                root,
                *QUERY,
                "--i-have-permission",
                "x",
                env={"UNSPLASH_ACCESS_KEY": key},
            )
            assert done.returncode == 2
            assert "holds no access key" in done.stderr
            assert "def" not in done.stderr
            assert "clé" not in done.stderr


def test_a_server_that_repeats_itself_is_left(tmp_path, authface_here):
    with UnsplashServer([Photo("a", picture(1), 6000, 4000)]) as server:
        server.repeats = True
        root = make_workspace(tmp_path / "ws", authface_here, server)
        words = (
            "collect",
            "-w",
            root,
            "--source",
            "unsplash",
            "--collection",
            "7",
            "--i-have-permission",
            "x",
        )
        assert authface_here(*words, env=ENV).returncode == 0
        assert len([path for path in server.requests if "/collections/" in path]) == 2


def test_refresh_goes_on_where_the_hour_ended(tmp_path, authface_here):
    photos = [Photo(f"p{n}", picture(n), 6000, 4000) for n in range(5)]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        assert (
            authface_here(
                "collect", "-w", root, *QUERY, "--i-have-permission", "all", env=ENV
            ).returncode
            == 0
        )
        server.by_id("p0").deleted = True
        server.limit = sum(server.used.values()) + 3
        (root / "cache/unsplash/budget.json").unlink()
        words = ("collect", "-w", root, "--source", "unsplash", "--refresh", "--no-wait")
        stopped = authface_here(*words, env=ENV)
        assert stopped.returncode == 4
        assert "authface forget -- us_p0" in stopped.stdout  # what was learnt is kept
        server.limit = 5000
        (root / "cache/unsplash/budget.json").unlink()
        before = len(server.requests)
        rest = authface_here(*words, env=ENV)
        assert rest.returncode == 0, rest.stderr
        assert len(server.requests) - before == 2  # the others were asked already
        assert authface_here(*words, "--query", "x", env=ENV).returncode == 2


def test_a_refusal_that_a_setting_lifts_is_lifted(tmp_path, authface_here):
    with UnsplashServer(
        [Photo("a", os.urandom(10) + picture(1), 6000, 4000), Photo("b", picture(2), 6000, 4000)]
    ) as server:
        server.by_id("a").data = picture(3, (700, 700))
        root = make_workspace(tmp_path / "ws", authface_here, server)
        settings = root / "authface.toml"
        settings.write_text(
            settings.read_text().replace("max_megabytes = 1", "max_megabytes = 0.004")
        )
        words = ("collect", "-w", root, *QUERY, "--i-have-permission", "x")
        assert authface_here(*words, env=ENV).returncode == 0
        assert reasons(root)["us_a"].startswith("collect|dropped|too_large")
        settings.write_text(
            settings.read_text().replace("max_megabytes = 0.004", "max_megabytes = 1")
        )
        assert authface_here(*words, env=ENV).returncode == 0
        assert set(manifest(root, "photos")["photo_id"]) == {"us_a", "us_b"}
        assert "us_a" not in reasons(root)
