"""What Unsplash, the settings or the disk refuse, and photographs that have vanished."""

import os

import pytest
from unsplash_server import Photo, UnsplashServer, make_jpeg
from unsplash_workspace import ENV, make_workspace, read_manifest, verdicts_by_id

pytestmark = pytest.mark.slow
SIZE_PX = (6000, 4000)
SEARCH = ["--source", "unsplash", "--query", "portrait"]
PERMISSION = ["--i-have-permission", "all"]


def test_final_refusals_of_the_api_are_explained_and_not_retried(tmp_path, authface_here):
    with UnsplashServer([Photo("a", make_jpeg(1), *SIZE_PX)]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ("collect", "-w", root, "--source", "unsplash", "--query")
        without_permission = authface_here(*collect, "x", env=ENV)
        assert without_permission.returncode == 2
        assert "--i-have-permission" in without_permission.stderr

        without_key = authface_here(*collect, "x", *PERMISSION)
        assert without_key.returncode == 3
        assert "UNSPLASH_ACCESS_KEY" in without_key.stderr

        wrong_env = {"UNSPLASH_ACCESS_KEY": "wrong-key"}
        wrong_key = authface_here(*collect, "x", *PERMISSION, env=wrong_env)
        assert wrong_key.returncode == 2
        assert "does not know the key" in wrong_key.stderr
        assert "wrong-key" not in wrong_key.stderr

        server.api_faults = ["json403"]
        forbidden = authface_here(*collect, "x", env=ENV)
        assert forbidden.returncode == 2
        assert "permission to access this resource" in forbidden.stderr
        assert len(server.requests) == 1

        server.spam = {"buy"}
        spam = authface_here(*collect, "buy", env=ENV)
        assert spam.returncode == 2
        assert "flagged as spam" in spam.stderr
        spam_and_other = authface_here(*collect, "buy", "--query", "x", env=ENV)
        assert spam_and_other.returncode == 4  # the photographs of the other query are collected
        assert len(read_manifest(root, "photos")) == 1

        for run in (without_permission, without_key, wrong_key, forbidden, spam, spam_and_other):
            assert "Traceback" not in run.stderr


def test_refresh_suggests_to_forget_vanished_photographs(tmp_path, authface_here):
    photos = [Photo(f"p{n}", make_jpeg(n), *SIZE_PX) for n in range(4)]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collected = authface_here("collect", "-w", root, *SEARCH, *PERMISSION, env=ENV)
        assert collected.returncode == 0
        refresh = ("collect", "-w", root, "--source", "unsplash", "--refresh")

        server.by_id("p2").is_deleted = True
        refreshed = authface_here(*refresh, env=ENV)
        assert refreshed.returncode == 0, refreshed.stderr
        assert "authface forget -- us_p2" in refreshed.stdout
        assert "vanished at its source" in authface_here("status", "-w", root).stdout
        assert len(read_manifest(root, "photos")) == 4  # nothing is removed

        server.by_id("p2").is_deleted = False
        assert authface_here(*refresh, env=ENV).returncode == 0
        assert "vanished" not in authface_here("status", "-w", root).stdout


def test_face_gate_rejects_previews_without_a_face(tmp_path, authface_here, weights, photos):
    from PIL import Image

    with Image.open(photos["astronaut-nasa.png"]) as astronaut:
        face_data = make_jpeg(1, base=astronaut.convert("RGB"))
    offered = [
        Photo("face", face_data, *SIZE_PX),
        Photo("no_face", make_jpeg(5, (400, 300)), *SIZE_PX),
    ]
    with UnsplashServer(offered) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ("collect", "-w", root, *SEARCH, "--face-gate", *PERMISSION)
        first = authface_here(*collect, env=ENV)
        assert first.returncode == 0, first.stdout + first.stderr
        assert list(read_manifest(root, "photos")["photo_id"]) == ["us_face"]
        assert verdicts_by_id(root)["us_no_face"].startswith("collect:preview|dropped|no_face")
        assert server.image_requests == {"face": 2, "no_face": 1}
        assert not os.listdir(root / "cache/previews")

        assert authface_here(*collect, env=ENV).returncode == 0
        assert server.image_requests == {"face": 2, "no_face": 1}  # previews are checked once


def test_too_little_disk_space_is_noticed_before_the_download(tmp_path, authface_here):
    with UnsplashServer([Photo("a", make_jpeg(1), *SIZE_PX)]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server, "keep_free_gb = 1000000")
        refused = authface_here("collect", "-w", root, *SEARCH, *PERMISSION, env=ENV)
        assert refused.returncode == 2
        assert "not enough disk" in refused.stderr
        assert not server.image_requests


def test_private_api_host_must_be_in_allowed_hosts(tmp_path, authface_here):
    with UnsplashServer([]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        settings = root / "authface.toml"
        settings.write_text(settings.read_text().replace('allowed_hosts = ["127.0.0.1"]', ""))
        refused = authface_here("collect", "-w", root, *SEARCH, *PERMISSION, env=ENV)
        assert refused.returncode == 2
        assert "allowed_hosts" in refused.stderr
        assert not server.requests


def test_malformed_responses_do_not_stop_the_collection(tmp_path, authface_here):
    """Lone surrogates, absurd sizes, refused reports, wrong download locations and null details."""
    photos = [Photo(f"p{n}", make_jpeg(n), *SIZE_PX) for n in range(6)]
    photos[1].width = 10**30
    photos[2].last_name = "x\ud83d"
    with UnsplashServer(photos) as server:
        server.report_statuses = {"p3": 400}
        server.locations = {"p4": "https://key@evil.example/x", "p5": "http://[::bad"}
        server.has_null_details = True
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ("collect", "-w", root, *SEARCH)
        permission = ("--i-have-permission", "all \udce9")
        first = authface_here(*collect, "--details", *permission, env=ENV)
        assert first.returncode == 0, first.stdout + first.stderr
        rows = read_manifest(root, "photos").set_index("photo_id")
        assert set(rows.index) == {"us_p0", "us_p2", "us_p3", "us_p4", "us_p5"}
        assert rows["details_at"].notna().all()
        unreported = sorted(rows.index[rows["download_reported_at"].isna()])
        assert unreported == ["us_p3", "us_p4", "us_p5"]
        assert server.reports == {"p0": 1, "p2": 1}
        assert verdicts_by_id(root)["us_p1"].endswith("size: none that a photograph has")

        second = authface_here(*collect, env=ENV)
        assert second.returncode == 0, second.stderr
        assert server.reports == {"p0": 1, "p2": 1}


@pytest.mark.parametrize("key", ["abc\ndef", "clé", "two words"])
def test_malformed_key_is_refused_and_not_printed(tmp_path, authface_here, key):
    with UnsplashServer([]) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        env = {"UNSPLASH_ACCESS_KEY": key}
        refused = authface_here("collect", "-w", root, *SEARCH, *PERMISSION, env=env)
        assert refused.returncode == 2
        assert "holds no access key" in refused.stderr
        for part in (key, "def", "two words"):
            assert part not in refused.stderr


def test_listing_that_repeats_its_first_page_ends(tmp_path, authface_here):
    with UnsplashServer([Photo("a", make_jpeg(1), *SIZE_PX)]) as server:
        server.repeats_first_page = True
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collect = ["collect", "-w", root, "--source", "unsplash", "--collection", "7"]
        assert authface_here(*collect, *PERMISSION, env=ENV).returncode == 0
        assert len([path for path in server.requests if "/collections/" in path]) == 2


def test_refresh_continues_where_the_rate_limit_ended_it(tmp_path, authface_here):
    photos = [Photo(f"p{n}", make_jpeg(n), *SIZE_PX) for n in range(5)]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        collected = authface_here("collect", "-w", root, *SEARCH, *PERMISSION, env=ENV)
        assert collected.returncode == 0
        server.by_id("p0").is_deleted = True
        server.limit = sum(server.used_requests.values()) + 3
        (root / "cache/unsplash/budget.json").unlink()
        refresh = ("collect", "-w", root, "--source", "unsplash", "--refresh", "--no-wait")
        stopped = authface_here(*refresh, env=ENV)
        assert stopped.returncode == 4
        assert "authface forget -- us_p0" in stopped.stdout

        server.limit = 5000
        (root / "cache/unsplash/budget.json").unlink()
        num_requests = len(server.requests)
        completed = authface_here(*refresh, env=ENV)
        assert completed.returncode == 0, completed.stderr
        assert len(server.requests) - num_requests == 2  # the others were looked up before
        assert authface_here(*refresh, "--query", "x", env=ENV).returncode == 2


def test_rejection_by_a_setting_is_lifted_with_the_setting(tmp_path, authface_here):
    photos = [Photo("a", make_jpeg(3, (700, 700)), *SIZE_PX), Photo("b", make_jpeg(2), *SIZE_PX)]
    with UnsplashServer(photos) as server:
        root = make_workspace(tmp_path / "ws", authface_here, server)
        settings = root / "authface.toml"
        original = settings.read_text()
        settings.write_text(original.replace("max_megabytes = 1", "max_megabytes = 0.004"))
        collect = ("collect", "-w", root, *SEARCH, *PERMISSION)
        assert authface_here(*collect, env=ENV).returncode == 0
        assert verdicts_by_id(root)["us_a"].startswith("collect|dropped|too_large")

        settings.write_text(original)
        assert authface_here(*collect, env=ENV).returncode == 0
        assert set(read_manifest(root, "photos")["photo_id"]) == {"us_a", "us_b"}
        assert "us_a" not in verdicts_by_id(root)
