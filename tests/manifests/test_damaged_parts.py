"""Damaged parts of manifests end every command with one line that names the part."""

import random

import captioned_workspace
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import collect_folder
from PIL import Image

from manifests.schema import DECISIONS, FACES, PHOTOS, SCORES
from manifests.store import Store, encode_part
from manifests.support.errors import UserError

NUM_FLIPS = 300


def make_faces(count):
    return [
        {
            "face_id": f"fs_{number}_x",
            "photo_id": f"fs_{number % 3}",
            "box_px": [1.0, 2.0, 3.0, float(number)],
            "landmarks5_px": [[0.0, float(number)]] * 5,
            "upscaled": number % 2 == 0,
            "crop_path": f"faces/fs_{number}.png",
            "fingerprint": "f",
        }
        for number in range(count)
    ]


@pytest.fixture
def store(workspace):
    """A manifest of one part, compacted from two."""
    store = Store(workspace, FACES)
    store.append(make_faces(20))
    store.append(make_faces(30))
    store.compact()
    return store


def part_file(store):
    (path,) = store.parts()
    return store.workspace.local_path(path)


def read_again(store):
    return Store(store.workspace, store.manifest).read()


def rewrite(store, change):
    """Write the part again with a changed table, as another program would."""
    file = part_file(store)
    pq.write_table(change(pq.read_table(file)), file)


def with_metadata(**changes):
    """A change of the Parquet metadata; the keys start with `authface.`."""

    def change(table):
        added = {f"authface.{name}".encode(): value for name, value in changes.items()}
        return table.replace_schema_metadata({**table.schema.metadata, **added})

    return change


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_broken_link(file):
    file.unlink()
    file.symlink_to(file.with_name("elsewhere.parquet"))


def test_flipped_and_overwritten_bytes_give_a_named_error_or_the_same_rows(store):
    """Also where the damage is in a page, which only its checksum shows."""
    file = part_file(store)
    content = file.read_bytes()
    rows = store.read()
    rng = random.Random(7)
    num_errors = 0
    for number in range(NUM_FLIPS):
        position = number * len(content) // NUM_FLIPS
        damaged = bytearray(content)
        if number % 3:
            damaged[position] ^= rng.randrange(1, 256)
        else:
            damaged[position : position + 16] = rng.randbytes(16)
        file.write_bytes(damaged[: len(content)])
        try:
            read = read_again(store)
        except UserError as error:
            is_right = file.name in str(error)
            num_errors += 1
        else:
            is_right = read.equals(rows)
        assert is_right, f"byte {position}"
    assert num_errors > NUM_FLIPS // 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_part(store, share):
    file = part_file(store)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=rf"{file.name} is damaged .*run `authface filter`"):
        read_again(store)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda table: table.drop_columns("crop_path"), "column crop_path is missing"),
        (lambda table: table.append_column("mine", [["x"] * 30]), "mine does not belong"),
        (lambda table: table.append_column("score", [[0.5] * 30]), "has a column twice"),
        (
            lambda table: table.set_column(4, "score", pa.array(["0.5"] * 30)),
            "column score has the type string, expected double",
        ),
        (with_metadata(version=b"two"), "damaged"),
        (with_metadata(version=b"\xff\xfe"), "damaged"),
        (with_metadata(replaces=b"not json"), "damaged"),
        (with_metadata(replaces=b"7"), "damaged"),
        (with_metadata(siblings=b'["../../authface.toml"]'), "damaged"),
        (with_metadata(replaces=b'[["part-00000001-01234567.parquet"]]'), "damaged"),
        (with_metadata(rows=b"29"), "has 30 rows, expected 29"),
    ],
)
def test_other_columns_types_or_metadata(store, change, detail):
    file = part_file(store)
    rewrite(store, change)
    with pytest.raises(UserError, match=detail) as error:
        read_again(store)
    assert file.name in str(error.value)
    assert store.workspace.exists("authface.toml")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace_by_folder, "is damaged"),
        (replace_by_broken_link, "is a link to a file that is missing"),
        (lambda file: file.write_bytes(b"PAR1"), "is damaged"),
        (lambda file: file.write_text("face_id,score\n"), "is damaged"),
    ],
)
def test_something_else_in_the_place_of_a_part(store, damage, message):
    file = part_file(store)
    damage(file)
    with pytest.raises(UserError, match=f"{file.name} {message}"):
        read_again(store)


def test_part_of_another_manifest(store):
    file = part_file(store)
    table = Store(store.workspace, SCORES).table([{"face_id": "a", "metric": "niqe"}])
    file.write_bytes(encode_part(SCORES, table, {}))
    with pytest.raises(UserError, match=r"is damaged .*it is a part of scores"):
        read_again(store)


def test_decisions_cannot_be_made_again(workspace):
    store = Store(workspace, DECISIONS)
    store.append([{"id": "a", "reviewer": "r", "decision": "keep"}])
    file = part_file(store)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="restore it from a backup: it holds decisions"):
        read_again(store)


@pytest.mark.slow
def test_every_command_names_the_damaged_part(workspace, tmp_path, authface_here):
    captioned_workspace.fill(workspace)
    file = part_file(Store(workspace, FACES))
    content = bytearray(file.read_bytes())
    content[60] ^= 255  # in the first page of face_id
    file.write_bytes(content)
    for command in (
        ["status"],
        ["report"],
        ["explain", "fs_a"],
        ["filter", "--metrics", ""],
        ["review", "export", "--all", "--csv", tmp_path / "review.csv"],
        ["review", "sheet"],
        ["caption"],
        ["export-captions", "--format", "kohya", "--output", tmp_path / "export"],
        ["train-prior", "--preset", "tiny", "--steps", 1],
        ["forget", "fs_a", "--yes"],
    ):
        completed = authface_here(*command, "-w", workspace.root)
        output = completed.stdout + completed.stderr
        assert completed.returncode == 2, (command, output)
        assert f"{file.name} is damaged" in completed.stderr, (command, output)
    assert not (tmp_path / "export").exists()
    assert not (tmp_path / "review.csv").exists()


def test_collect_names_the_damaged_part(workspace, tmp_path, authface_here):
    captioned_workspace.fill(workspace)
    file = part_file(Store(workspace, PHOTOS))
    file.write_bytes(file.read_bytes()[:-9])
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    for command in (collect_folder(workspace.root, tmp_path), ["licences", "-w", workspace.root]):
        completed = authface_here(*command)
        assert completed.returncode == 2, completed.stdout + completed.stderr
        assert f"{file.name} is damaged" in completed.stderr


def test_migrate_names_a_damaged_old_part(workspace, authface_here):
    store = Store(workspace, SCORES)
    store.append([{"face_id": "a", "metric": "niqe", "value": 1.0}])
    rewrite(store, with_metadata(version=str(SCORES.version - 1).encode()))
    file = part_file(store)
    assert authface_here("status", "-w", workspace.root).returncode == 2
    content = file.read_bytes()
    file.write_bytes(content.replace(b"niqe", b"niqe\xff"))
    completed = authface_here("migrate", "-w", workspace.root, "--yes")
    assert completed.returncode == 2, completed.stdout + completed.stderr
    assert f"{file.name} is damaged" in completed.stderr
