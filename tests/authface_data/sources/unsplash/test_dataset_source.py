"""The Unsplash data set: its tables are streamed and filtered, bad rows recorded."""

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from unsplash_server import Photo, UnsplashServer, make_jpeg

from authface_data.sources.unsplash.dataset import Dataset
from authface_data.sources.unsplash.tsv import read_rows
from manifests.support.errors import UserError

COLUMNS = """photo_id photo_url photo_image_url photo_submitted_at photo_featured photo_width
photo_height photo_aspect_ratio photo_description photographer_username photographer_first_name
photographer_last_name exif_camera_make exif_camera_model exif_iso exif_aperture_value
exif_focal_length exif_exposure_time photo_location_name photo_location_latitude
photo_location_longitude photo_location_country photo_location_city stats_views stats_downloads
ai_description ai_primary_landmark_name ai_primary_landmark_latitude ai_primary_landmark_longitude
ai_primary_landmark_confidence blur_hash""".split()  # noqa: SIM905


def make_line(**values) -> str:
    """A row of the photos table."""
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


def write_photos_table(folder: Path, lines: list[str], shards: int = 2) -> Path:
    folder.mkdir(parents=True)
    size = -(-len(lines) // shards)
    header = "\t".join(COLUMNS)
    for number in range(shards):
        shard = lines[number * size : (number + 1) * size]
        suffix = "tsv" if number else "csv"
        text = "\n".join([header, *shard]) + "\n"
        (folder / f"photos.{suffix}{number:03d}").write_text(text)
    return folder


def parse_tsv(text: str) -> tuple[list[dict[str, str]], list[tuple[int, str]]]:
    """The rows of a table, and line and reason of the bad ones."""
    bad_rows: list[tuple[int, str]] = []
    stream = io.StringIO(text, newline="")
    rows = list(read_rows(stream, lambda line, reason: bad_rows.append((line, reason))))
    return rows, bad_rows


def test_quoted_fields_may_contain_tabs_and_line_breaks():
    rows, bad_rows = parse_tsv(
        'a\tb\tc\n1\t"two ""words"" and\ta tab"\t3\n4\t"over\ntwo lines"\t6\n7\t8\t9\n'
    )
    values = [row["b"] for row in rows]
    assert values == ['two "words" and\ta tab', "over\ntwo lines", "8"]
    assert bad_rows == []


def test_unclosed_quote_affects_only_its_own_line():
    rows, bad_rows = parse_tsv(
        'a\tb\tc\n1\t"open\t3\n4\t5\t6\n7\t8\n9\t24" screen\tx\n10\t"open\t\n11\t12\t13\n'
    )
    # Rows with the right number of columns are kept, quotes included.
    assert [row["a"] for row in rows] == ["1", "4", "9", "10", "11"]
    assert bad_rows == [(4, "2 columns instead of 3")]

    rows, bad_rows = parse_tsv('a\tb\n"open\n' + "".join(f"{n}\t{n}\n" for n in range(200)))
    assert len(rows) == 200
    assert bad_rows == [(2, "its quotes do not close")]


def test_dataset_is_read_from_folders_and_zips(tmp_path):
    lite = tmp_path / "unsplash-research-dataset-lite-latest"
    folder = write_photos_table(lite, [make_line(photo_id="abc", photo_image_url="u")])
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


def write_dataset(folder: Path, url: str, downloadable_ids: list[str]) -> Path:
    """A data set with downloadable photographs, and rows that are rejected or malformed."""
    lines = [
        make_line(photo_id=photo_id, photo_image_url=f"{url}/img/photo-{photo_id}")
        for photo_id in downloadable_ids
    ]
    premium_url = "https://plus.unsplash.com/premium_photo-1"
    small = {"photo_width": "640", "photo_height": "480"}
    nikon = {"exif_camera_make": "Nikon", "exif_camera_model": "Z9"}
    wide = {"photo_width": "9000", "photo_height": "1500"}
    lines += [
        make_line(photo_id="plus", photo_image_url=premium_url),
        make_line(photo_id="malformed", photo_image_url="ht!tp:/nowhere"),
        make_line(photo_id="small", photo_image_url=f"{url}/img/photo-small", **small),
        make_line(photo_id="nikon", photo_image_url=f"{url}/img/photo-n", **nikon),
        make_line(photo_id="wide", photo_image_url=f"{url}/img/photo-w", **wide),
        make_line(photo_id="landscape", photo_image_url=f"{url}/img/photo-l"),
        make_line(photo_id="../up", photo_image_url=f"{url}/img/photo-up"),
        "too\tfew\tcolumns",
    ]
    write_photos_table(folder, lines, shards=3)

    keywords = [f"{photo_id}\tPortrait\t99" for photo_id in downloadable_ids]
    for photo_id in ("plus", "malformed", "small", "nikon", "wide"):
        keywords.append(f"{photo_id}\tportrait\t90")
    keywords.append("landscape\tTree\t99")
    header = "photo_id\tkeyword\tai_service_1_confidence"
    (folder / "keywords.tsv000").write_text("\n".join([header, *keywords]) + "\n")
    return folder


def make_workspace(root: Path, authface_here) -> Path:
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    settings = root / "authface.toml"
    other_settings = settings.read_text().split("# weights_dir")[1][12:]
    settings.write_text(f'[collect]\nallowed_hosts = ["127.0.0.1"]\n{other_settings}')
    return root


@pytest.mark.slow
def test_rows_are_filtered_and_every_rejection_is_accounted_for(tmp_path, authface_here):
    good = [Photo(f"good{n}", make_jpeg(n), 6000, 4000) for n in range(6)]
    good[0].faults = ["404"]  # the image server finds some photographs only with a query
    deleted = Photo("gone", make_jpeg(50), 6000, 4000, is_deleted=True)
    with UnsplashServer([*good, deleted]) as server:
        downloadable_ids = [photo.id for photo in [*good, deleted]]
        folder = write_dataset(tmp_path / "lite", server.url, downloadable_ids)
        root = make_workspace(tmp_path / "ws", authface_here)
        collect = ["collect", "-w", root, "--source", "unsplash-dataset", "--path", folder]
        collect += ["--keyword", "portrait", "--camera", "canon"]
        collect += ["--min-megapixels", 5, "--max-aspect", 2]

        plan = json.loads(authface_here(*collect, "--plan", "--json").stdout)
        assert (plan["rows"], plan["passed"], plan["downloads"]) == (14, 7, 7)
        assert plan["turned_away"] == {
            "bad row": 4,
            "size": 1,
            "camera": 1,
            "aspect": 1,
            "keyword": 1,
        }
        assert not server.image_requests

        collected = authface_here(*collect)
        assert collected.returncode == 0, collected.stdout + collected.stderr
        assert "14 rows read, 7 passed the filter" in collected.stdout
        photos = pd.read_parquet(root / "manifests/photos").set_index("photo_id")
        assert set(photos.index) == {f"us_good{n}" for n in range(6)}
        assert set(photos["licence_basis"]) == {"unsplash-lite-1.4.0"}
        row = photos.loc["us_good1"]
        assert row["photographer_name"] == "Jane Doe"
        assert row["photographer_url"] == "https://unsplash.com/@jane"
        assert (row["camera_model"], row["iso"], row["exposure_s"]) == ("EOS R5", 100, 1 / 200)
        assert photos["place"].isna().all()

        verdicts = pd.read_parquet(root / "manifests/verdicts")
        reasons = dict(zip(verdicts["id"], verdicts["reason"], strict=True))
        assert reasons.pop("us_gone").startswith("gone: HTTP 404")
        assert reasons.pop("us_plus").startswith("unsplash_plus")
        assert reasons.pop("us_malformed") == "malformed_url"
        kinds = sorted(reason.split(":")[0] for reason in reasons.values())
        assert kinds == ["bad row", "bad row"]
        assert any("3 columns instead of 31" in reason for reason in reasons.values())

        repeated = authface_here(*collect)
        assert repeated.returncode == 0
        assert "6 already in the workspace" in repeated.stdout
        server.by_id("good3").is_deleted = True
        refresh = ("collect", "-w", root, "--source", "unsplash-dataset", "--refresh")
        assert "authface forget -- us_good3" in authface_here(*refresh).stdout


@pytest.mark.slow
def test_max_photos_holds_over_repeated_runs(tmp_path, authface_here):
    photos = [Photo(f"good{n}", make_jpeg(n), 6000, 4000) for n in range(6)]
    with UnsplashServer(photos) as server:
        folder = write_dataset(tmp_path / "lite", server.url, [photo.id for photo in photos])
        root = make_workspace(tmp_path / "ws", authface_here)
        collect = ["collect", "-w", root, "--source", "unsplash-dataset", "--path", folder]
        for _ in range(2):
            assert authface_here(*collect, "--max-photos", 2).returncode == 0
        assert len(pd.read_parquet(root / "manifests/photos")) == 2


def write_large_table(path: Path, num_rows: int) -> None:
    """A photos table where half of the rows are large photographs and one in 1000 is malformed."""
    template = make_line(
        photo_id="@id",
        photo_image_url="https://images.unsplash.com/photo-@id",
        photo_width="@w",
        photo_description='a "woman" in a hat, ' * 3,
        ai_description="woman wearing a black hat standing in front of a white wall " * 3,
    )
    with path.open("w") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for number in range(num_rows):
            if number % 1000 == 0:
                file.write("bad\n")
                continue
            width = "6000" if number % 2 else "600"
            file.write(template.replace("@id", f"p{number:010d}").replace("@w", width) + "\n")


def measure_peak(folder, root, num_rows):
    """Peak memory of a process that plans a table of so many rows, in MB."""
    folder.mkdir()
    write_large_table(folder / "photos.tsv000", num_rows)
    command = [sys.executable, "-P", "-m", "cli", "collect", "-w", root]
    command += ["--source", "unsplash-dataset", "--path", folder]
    command += ["--min-megapixels", "5", "--min-long-side", "0", "--plan", "--json"]
    with (folder / "out.json").open("w") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out)
    # The peak that wait4 reports would include the memory of the parent before the exec.
    peak_kb = 0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak_kb = max(peak_kb, int(line.split()[1]))
        time.sleep(0.05)

    assert process.returncode == 0
    plan = json.loads((folder / "out.json").read_text())
    assert plan["rows"] == num_rows - num_rows // 1000
    assert plan["passed"] == num_rows // 2
    assert plan["turned_away"]["bad row"] == num_rows // 1000
    return peak_kb / 1024


@pytest.mark.slow
def test_a_million_rows_are_planned_in_under_500_mb(tmp_path, authface_here):
    """Extrapolated from the peaks of fewer rows, since a million rows take half a minute."""
    root = tmp_path / "ws"
    assert authface_here("init", root).returncode == 0
    few_mb = measure_peak(tmp_path / "few", root, 1000)
    many_mb = measure_peak(tmp_path / "many", root, 51_000)
    assert few_mb > 50
    assert few_mb + (many_mb - few_mb) / 50_000 * 999_000 < 500
