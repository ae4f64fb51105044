"""Broken and hostile files in place of the Unsplash data set: one line each, nothing unpacked."""

import io
import os
import random
import struct
import tracemalloc
import zipfile

import pytest

from authface_data.http.hosts import AllowedHosts
from authface_data.sources.remote import SizeFilter
from authface_data.sources.unsplash.dataset import MAX_BAD_ROWS, Dataset
from authface_data.sources.unsplash.dataset_source import FilterCounts, RowFilter, read_offers
from authface_data.sources.unsplash.tsv import MAX_ROW_LENGTH, read_rows
from manifests.support.errors import UserError

COLUMNS = ["photo_id", "photo_image_url", "photo_width", "photo_height", "photographer_username"]
HEADER = "\t".join(COLUMNS)
LINE = "abc\thttps://images.unsplash.com/photo\t6000\t4000\tJane"
TABLE = "\n".join([HEADER, *[LINE] * 500]) + "\n"


def make_zip(member="photos.tsv000", content=TABLE, compression=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


def directory_of(data: bytes) -> int:
    """Offset of the first entry of the central directory."""
    return data.index(b"PK\x01\x02")


def change(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def change_both_headers(data: bytes, local: int, central: int, new: bytes) -> bytes:
    """Change a field of the local header and of the central directory."""
    return change(change(data, local, new), directory_of(data) + central, new)


def broken_zips() -> dict[str, bytes]:
    good = make_zip()
    stored = make_zip(compression=zipfile.ZIP_STORED)
    directory = directory_of(good)
    sizes = struct.pack("<I", 2**31)
    return {
        "cut off": good[: len(good) // 2],
        "no directory": good[:directory] + good[-22:],
        "directory cut off": good[: directory + 20] + good[-22:],
        "flipped bytes": change(good, 60, b"\xff" * 200),
        "wrong checksum": change_both_headers(stored, 14, 16, b"\0\0\0\0"),
        "flipped byte, stored": change(stored, 500, b"\xff"),
        "encrypted": change_both_headers(good, 6, 8, b"\x01\x00"),
        "unknown compression": change_both_headers(good, 8, 10, b"\x63\x00"),
        "lzma": make_zip(compression=zipfile.ZIP_LZMA),
        "other name in the local header": change(good, 30, b"x"),
        "local header elsewhere": change(good, directory + 42, b"\xff\xff\xff\x7f"),
        "newer version": change(good, directory + 6, b"\xff\xff"),
        "size too large": change(good, directory + 24, sizes),
        "name not UTF-8": change(change(good, directory + 8, b"\0\x08"), directory + 46, b"\xff"),
        "entries out of place": change(good, len(good) - 6, b"\xff\xff\xff\x7f"),
        "64-bit fields without content": change(good, directory + 24, b"\xff\xff\xff\xff"),
        "bomb": make_zip(content="0" * 5_000_000),
    }


def offers(dataset):
    counts = FilterCounts()
    row_filter = RowFilter(size=SizeFilter(0, 0))
    hosts = AllowedHosts({"images.unsplash.com"}, [])
    found = list(read_offers(dataset, row_filter, hosts=hosts, counts=counts, licence_basis="x"))
    return found, counts


@pytest.mark.parametrize("name", broken_zips())
def test_broken_zip_is_one_line(tmp_path, name):
    path = tmp_path / "lite.zip"
    path.write_bytes(broken_zips()[name])
    with pytest.raises(UserError) as error:
        offers(Dataset(path))
    message = str(error.value)
    assert str(path) in message
    assert message.isprintable()
    advice = ("download it again", "use --path with the folder", "or its zip")
    assert message.endswith(advice)


@pytest.mark.parametrize("seed", range(40))
def test_zip_with_changed_bytes_never_ends_with_another_error(tmp_path, seed):
    """Changes of the headers and of the directory, where nothing has a checksum."""
    rng = random.Random(seed)
    data = bytearray(make_zip())
    positions = [*range(30), *range(directory_of(bytes(data)), len(data))]
    for position in rng.sample(positions, 3):
        data[position] = rng.randrange(256)
    path = tmp_path / "lite.zip"
    path.write_bytes(bytes(data))
    try:
        offers(Dataset(path))
    except UserError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()


def test_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "lite.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("photos.tsv", "w") as member,
    ):
        for _ in range(20):
            member.write(b"\0" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"would unpack to 0\.2 GB"):
        offers(Dataset(path))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_odd_names_in_a_zip_are_read_in_place(tmp_path):
    path = tmp_path / "lite.zip"
    names = ["../../photos.tsv000", "/etc/photos.tsv001", "a\x1b[31m/photos.tsv2", "photos.tsv3/"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, TABLE)
    before = sorted(os.listdir(tmp_path.parent))
    found, counts = offers(Dataset(path))
    assert counts.rows == 3 * 500
    assert {offer.photo_id for offer in found} == {"us_abc"}
    assert sorted(os.listdir(tmp_path.parent)) == before


def test_unreadable_table_in_a_folder_is_one_line(tmp_path):
    (tmp_path / "photos.tsv").write_text(TABLE)
    dataset = Dataset(tmp_path)
    (tmp_path / "photos.tsv").unlink()
    with pytest.raises(UserError, match=r"photos\.tsv cannot be read \(No such file"):
        offers(dataset)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"\xff\xfe" + TABLE.encode("utf-16-le"),
        HEADER.encode(),
        b"photo_id\tphoto_url\nabc\tx\n",
        b"<html>\n\x1b[31m</html>\n",
        b"\n\n\n",
        (HEADER + "\n" + "\0\t" * 30 + "\0\n").encode(),
        TABLE.encode("latin-1").replace(b"Jane", b"J\xe4ne"),
    ],
    ids=range(9),
)
def test_table_of_another_form_is_one_line_or_bad_rows(tmp_path, content):
    (tmp_path / "photos.tsv000").write_bytes(content)
    dataset = Dataset(tmp_path)
    if content.strip().count(b"\n") == 0 or b"photo_width" in content:
        found, counts = offers(dataset)
        assert len(found) == counts.passed + counts.rejected["bad row"]
        return
    with pytest.raises(UserError, match="lacks the columns") as error:
        offers(dataset)
    assert str(error.value).isprintable()


def test_row_without_end_is_one_bad_row_in_bounded_memory(tmp_path):
    path = tmp_path / "photos.tsv"
    with path.open("w") as file:
        file.write(f"{HEADER}\n{LINE}\n")
        for _ in range(30):
            file.write("x\t" * 500_000)
        file.write(f"\n{LINE}\n")
    tracemalloc.start()
    found, counts = offers(Dataset(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert [offer.photo_id for offer in found][-1] == "us_abc"
    assert counts.passed == 2
    assert counts.rejected == {"bad row": 1}


def test_field_above_the_limit_of_csv_is_a_bad_row():
    long_field = "x" * (MAX_ROW_LENGTH - 10)
    bad_rows = []
    text = f'a\tb\n1\t"{long_field}"\n2\t"{long_field * 2}"\n3\t4\n'
    rows = list(read_rows(io.StringIO(text), lambda *bad: bad_rows.append(bad)))
    assert [row["a"] for row in rows] == ["1", "3"]
    assert bad_rows == [(3, "it is longer than 131,072 characters")]


def test_table_of_malformed_rows_only_is_refused_in_bounded_time(tmp_path):
    (tmp_path / "photos.tsv").write_text(f"{HEADER}\n" + 'a"\n' * (MAX_BAD_ROWS + 10))
    with pytest.raises(UserError, match=r"more than 10,000 lines up to line 10,002 are malformed"):
        offers(Dataset(tmp_path))
