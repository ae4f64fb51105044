"""The data set's tables: read as a stream, sieved, bad rows recorded, photographs fetched from the local server."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from unsplash_server import Photo, UnsplashServer, picture

from authface_data.sources.unsplash.dataset import Dataset
from authface_data.sources.unsplash.tsv import read_rows
from manifests.support.errors import UserError

COLUMNS = """photo_id photo_url photo_image_url photo_submitted_at photo_featured photo_width photo_height photo_aspect_ratio
photo_description photographer_username photographer_first_name photographer_last_name exif_camera_make exif_camera_model
exif_iso exif_aperture_value exif_focal_length exif_exposure_time photo_location_name photo_location_latitude
photo_location_longitude photo_location_country photo_location_city stats_views stats_downloads ai_description
ai_primary_landmark_name ai_primary_landmark_latitude ai_primary_landmark_longitude ai_primary_landmark_confidence
blur_hash""".split()  # noqa: SIM905


def line(**values) -> str:
    row = {
        "photo_url": f"https://unsplash.com/photos/{values['photo_id']}",
        "photo_width": "6000",
        "photo_height": "4000",
        "photo_aspect_ratio": "1.5",
        "photographer_username": "jane",
        "photographer_first_name": "Jane",
        "photographer_last_name": "Doe",
        "exif_camera_make": "Canon",
        "exif_camera_model": "EOS R5",
        "exif_iso": "100",
        "exif_exposure_time": "1/200",
        "photo_location_name": "Berlin",
        "photo_location_latitude": "52.5",
        **values,
    }
    return "\t".join(row.get(name, "") for name in COLUMNS)


def write(folder: Path, lines: list[str], shards: int = 2) -> Path:
    folder.mkdir(parents=True)
    size = -(-len(lines) // shards)
    for number in range(shards):
        text = "\n".join(["\t".join(COLUMNS), *lines[number * size : (number + 1) * size]]) + "\n"
        (folder / f"photos.{'tsv' if number else 'csv'}{number:03d}").write_text(text)
    return folder


def rows_of(text: str):
    import io

    bad = []
    return list(
        read_rows(io.StringIO(text, newline=""), lambda number, why: bad.append((number, why)))
    ), bad


def test_quotes_tabs_and_line_breaks():
    rows, bad = rows_of(
        'a\tb\tc\n1\t"two ""words"" and\ta tab"\t3\n4\t"over\ntwo lines"\t6\n7\t8\t9\n'
    )
    assert [row["b"] for row in rows] == ['two "words" and\ta tab', "over\ntwo lines", "8"]
    assert bad == []


def test_a_quote_that_never_closes_spoils_its_own_line_and_no_other():
    rows, bad = rows_of(
        'a\tb\tc\n1\t"open\t3\n4\t5\t6\n7\t8\n9\t24" screen\tx\n10\t"open\t\n11\t12\t13\n'
    )
    assert [row["a"] for row in rows] == [
        "1",
        "4",
        "9",
        "10",
        "11",
    ]  # taken as they stand: the columns are right
    assert bad == [(4, "2 columns instead of 3")]
    rows, bad = rows_of('a\tb\n"open\n' + "".join(f"{n}\t{n}\n" for n in range(200)))
    assert len(rows) == 200
    assert bad == [(2, "its quotes do not close")]


def test_folders_and_zips_lite_and_full(tmp_path):
    folder = write(
        tmp_path / "unsplash-research-dataset-lite-latest",
        [line(photo_id="abc", photo_image_url="u")],
    )
    assert Dataset(folder).licence_basis == "unsplash-lite-1.4.0"
    archive = tmp_path / "full.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"data/{file.name}")
    dataset = Dataset(archive)
    assert dataset.licence_basis == "unsplash-full-1.4.0"
    assert [row["photo_id"] for row in dataset.rows("photos", lambda *_: None)] == ["abc"]
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(UserError, match="no photos"):
        Dataset(empty)
    with pytest.raises(UserError, match="neither"):
        Dataset(tmp_path / "missing.zip")


@pytest.mark.slow
def test_sieved_collected_and_accounted_for(tmp_path, authface_here):
    good = [Photo(f"good{n}", picture(n), 6000, 4000) for n in range(6)]
    good[0].faults = ["404"]  # the image server's whim: with a query it is there
    gone = Photo("gone", picture(50), 6000, 4000, deleted=True)
    with UnsplashServer([*good, gone]) as server:
        lines = [
            line(photo_id=photo.id, photo_image_url=f"{server.url}/img/photo-{photo.id}")
            for photo in [*good, gone]
        ]
        lines += [
            line(photo_id="plus", photo_image_url="https://plus.unsplash.com/premium_photo-1"),
            line(photo_id="malformed", photo_image_url="ht!tp:/nowhere"),
            line(
                photo_id="small",
                photo_image_url=f"{server.url}/img/photo-small",
                photo_width="640",
                photo_height="480",
            ),
            line(
                photo_id="nokon",
                photo_image_url=f"{server.url}/img/photo-n",
                exif_camera_make="Nikon",
                exif_camera_model="Z9",
            ),
            line(
                photo_id="wide",
                photo_image_url=f"{server.url}/img/photo-w",
                photo_width="9000",
                photo_height="1500",
            ),
            line(photo_id="landscape", photo_image_url=f"{server.url}/img/photo-l"),
            line(photo_id="../up", photo_image_url=f"{server.url}/img/photo-up"),
            "too\tfew\tcolumns",
        ]
        folder = write(tmp_path / "lite", lines, shards=3)
        words = [f"{photo.id}\tPortrait\t99" for photo in [*good, gone]]
        words += [
            f"{name}\tportrait\t90" for name in ("plus", "malformed", "small", "nokon", "wide")
        ] + ["landscape\tTree\t99"]
        (folder / "keywords.tsv000").write_text(
            "photo_id\tkeyword\tai_service_1_confidence\n" + "\n".join(words) + "\n"
        )
        root = tmp_path / "ws"
        assert authface_here("init", root, "--preset", "embedded").returncode == 0
        settings = (root / "authface.toml").read_text()
        (root / "authface.toml").write_text(
            '[collect]\nallowed_hosts = ["127.0.0.1"]\n' + settings.split("# weights_dir")[1][12:]
        )
        common = [
            "-w",
            root,
            "--source",
            "unsplash-dataset",
            "--path",
            folder,
            "--keyword",
            "portrait",
            "--camera",
            "canon",
        ]
        common += ["--min-megapixels", 5, "--max-aspect", 2]
        said = json.loads(authface_here("collect", *common, "--plan", "--json").stdout)
        assert (said["rows"], said["passed"], said["downloads"]) == (14, 7, 7)
        assert said["turned_away"] == {
            "bad row": 4,
            "size": 1,
            "camera": 1,
            "aspect": 1,
            "keyword": 1,
        }
        assert not server.image_requests
        done = authface_here("collect", *common)
        assert done.returncode == 0, done.stdout + done.stderr
        photos = pd.read_parquet(root / "manifests/photos").set_index("photo_id")
        assert set(photos.index) == {f"us_good{n}" for n in range(6)}
        assert set(photos["licence_basis"]) == {"unsplash-lite-1.4.0"}
        row = photos.loc["us_good1"]
        assert (row["photographer_name"], row["photographer_url"]) == (
            "Jane Doe",
            "https://unsplash.com/@jane",
        )
        assert (row["camera_model"], row["iso"], row["exposure_s"]) == ("EOS R5", 100, 1 / 200)
        assert photos["place"].isna().all()
        verdicts = pd.read_parquet(root / "manifests/verdicts")
        told = dict(zip(verdicts["id"], verdicts["reason"], strict=True))
        assert told.pop("us_gone").startswith("gone: HTTP 404")
        assert told.pop("us_plus").startswith("unsplash_plus")
        assert told.pop("us_malformed") == "malformed_url"
        assert sorted(reason.split(":")[0] for reason in told.values()) == ["bad row", "bad row"]
        assert any("3 columns instead of 31" in reason for reason in told.values())
        again = authface_here("collect", *common)
        assert again.returncode == 0
        assert "6 were there already" in again.stdout
        server.by_id("good3").deleted = True
        refreshed = authface_here(
            "collect", "-w", root, "--source", "unsplash-dataset", "--refresh"
        )
        assert "authface forget -- us_good3" in refreshed.stdout
        limited = tmp_path / "limited"
        assert authface_here("init", limited, "--preset", "embedded").returncode == 0
        (limited / "authface.toml").write_text((root / "authface.toml").read_text())
        words = ["-w", limited, "--source", "unsplash-dataset", "--path", folder, "--max-photos", 2]
        assert authface_here("collect", *words).returncode == 0
        assert authface_here("collect", *words).returncode == 0
        assert len(pd.read_parquet(limited / "manifests/photos")) == 2


@pytest.mark.slow
def test_a_million_rows_in_under_500_mb(tmp_path, authface_here):
    """Peak memory of the whole command, half of the rows passing and some of them bad."""
    folder = tmp_path / "full"
    folder.mkdir()
    with (folder / "photos.tsv000").open("w") as file:
        file.write("\t".join(COLUMNS) + "\n")
        template = line(
            photo_id="@id",
            photo_image_url="https://images.unsplash.com/photo-@id",
            photo_width="@w",
            photo_description='a "woman" in a hat, ' * 3,
            ai_description="woman wearing a black hat standing in front of a white wall " * 3,
        )
        for start in range(0, 1_000_000, 10_000):
            file.write(
                "".join(
                    f"{template.replace('@id', f'p{n:010d}').replace('@w', '6000' if n % 2 else '600')}\n"
                    if n % 1000
                    else "bad\n"
                    for n in range(start, start + 10_000)
                )
            )
    root = tmp_path / "ws"
    assert authface_here("init", root).returncode == 0
    words = [
        sys.executable,
        "-P",
        "-m",
        "cli",
        "collect",
        "-w",
        root,
        "--source",
        "unsplash-dataset",
        "--path",
        folder,
    ]
    words += ["--min-megapixels", "5", "--min-long-side", "0", "--plan", "--json"]
    with (tmp_path / "out.json").open("w") as out:
        process = subprocess.Popen([str(word) for word in words], stdout=out)
    peak_kb = 0
    while (
        process.poll() is None
    ):  # the process's own peak: what wait4 tells begins with that of its parent
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kb = max(
            [
                peak_kb,
                *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")),
            ]
        )
        time.sleep(0.05)
    assert process.returncode == 0
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["rows"] == 999_000
    assert said["passed"] == 500_000
    assert said["turned_away"]["bad row"] == 1000
    assert 50 < peak_kb / 1024 < 500
