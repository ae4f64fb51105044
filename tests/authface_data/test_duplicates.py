"""Near-duplicates: exact search, choice of the kept photograph, and exclusions."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data import gates
from authface_data.duplicates import Exclusions, add_exclusions, find_duplicates
from authface_data.images.hashes import hash_pixels, perceptual_hash
from manifests.hamming import pairs_within_radius
from manifests.schema import DECISIONS, FACES, PHOTOS, SCORES, VERDICTS
from manifests.settings import Gate, Splits
from manifests.splits import assign_splits
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.verdicts import kept_faces


def flip_bits(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << int(bit)
    return value


@pytest.mark.parametrize("radius", [0, 1, 6, 8, 10, 16])
def test_pairs_within_radius_equals_brute_force(radius):
    rng = np.random.default_rng(radius)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64)
    neighbours = [
        flip_bits(int(value), list(rng.choice(64, rng.integers(0, 20), replace=False)))
        for value in base
    ]
    a, b = np.concatenate([base, base[:5]]), np.array(neighbours, np.uint64)
    i, j, distance = pairs_within_radius(a, b, radius)
    full = np.bitwise_count(a[:, None] ^ b[None, :])
    expected = {
        (int(x), int(y)): int(full[x, y]) for x, y in zip(*np.nonzero(full <= radius), strict=True)
    }
    assert {(int(x), int(y)): int(d) for x, y, d in zip(i, j, distance, strict=True)} == expected
    assert len(i) == len(expected)


@pytest.mark.parametrize("radius", [0, 6, 8, 13])
def test_pairs_within_one_set_equal_brute_force(radius):
    """Also with equal hashes, and with parts in which many hashes agree."""
    rng = np.random.default_rng(radius)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64)
    copies = base[:100] ^ (np.uint64(1) << rng.integers(0, 64, 100, dtype=np.uint64))
    alike = rng.integers(0, 2**9, 200, dtype=np.uint64)
    hashes = np.concatenate([base, copies, alike, base[:5]])
    pairs = pairs_within_radius(hashes, hashes, radius)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    found = np.full(distance.shape, 255, np.uint8)
    found[pairs.first, pairs.second] = pairs.distance
    assert len(pairs.first) == (distance <= radius).sum()
    assert (found == np.where(distance <= radius, distance, 255)).all()


def test_pairs_within_radius_of_an_empty_array():
    none = np.empty(0, np.uint64)
    pairs = pairs_within_radius(none, np.array([1], np.uint64), 6)
    assert [len(column) for column in pairs] == [0, 0, 0]


def photo_frame(hashes: list[int], pixels: list[str] | None = None) -> pd.DataFrame:
    ids = [f"fs_{n}" for n in range(len(hashes))]
    return pd.DataFrame(
        {
            "photo_id": ids,
            "phash": [f"{value:016x}" for value in hashes],
            "pixel_hash": pixels or [None] * len(ids),
        }
    )


def test_photo_is_dropped_only_for_a_kept_photo():
    """In a chain, the third is near the second, which is dropped, and far from the first."""
    chain = [0, flip_bits(0, [0, 1, 2, 3, 4, 5]), flip_bits(0, list(range(12)))]
    duplicates = find_duplicates(photo_frame(chain), 6)
    assert {key: (match.reason, match.distance) for key, match in duplicates.items()} == {
        "fs_1": ("duplicate_of:fs_0", 6.0)
    }
    assert find_duplicates(photo_frame(chain), 5) == {}


def test_reason_names_the_nearest_kept_photo_and_equal_pixels_are_duplicates():
    hashes = [0, flip_bits(0, list(range(20))), flip_bits(0, list(range(15))), 2**63]
    duplicates = find_duplicates(photo_frame(hashes, ["a", "b", "c", "b"]), 15)
    assert duplicates["fs_2"].reason == "duplicate_of:fs_1"
    assert duplicates["fs_2"].distance == 5
    assert duplicates["fs_3"].reason.startswith("duplicate_of:")


def test_perceptual_hash_and_pixel_hash():
    rng = np.random.default_rng(1)
    picture = np.asarray(
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((1200, 900), 3)
    )
    smaller = np.asarray(Image.fromarray(picture).resize((700, 525), 1))
    other = np.ascontiguousarray(picture[::-1])

    def distance(a, b) -> int:
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    assert distance(picture, smaller) <= 4
    assert distance(picture, other) > 12
    assert hash_pixels(picture) == hash_pixels(picture.copy()) != hash_pixels(smaller)
    tall = picture.reshape(1200, 900, 3)
    assert hash_pixels(tall) != hash_pixels(picture)  # the same bytes in another shape


@pytest.fixture
def twins(workspace):
    """a, b and c look the same, d differs, e looks like d and has no face.

    c is the largest, but its face is too small.
    """
    same = "00ff00ff00ff00ff"
    photos = {
        "a": (same, 100),
        "b": (same, 200),
        "c": (same, 900),
        "d": ("ffff0000ffff0000", 100),
        "e": ("ffff0000ffff0001", 100),
    }
    Store(workspace, PHOTOS).append(
        [
            {
                "photo_id": f"fs_{name}",
                "phash": phash,
                "sha256": name * 64,
                "width": side,
                "height": side,
                "licence_basis": "own",
                "fingerprint": "f",
            }
            for name, (phash, side) in photos.items()
        ]
    )  # fmt: skip
    sizes = {"a": 500.0, "b": 500.0, "c": 10.0, "d": 500.0}
    Store(workspace, FACES).append(
        [
            {
                "face_id": f"fs_{name}_0",
                "photo_id": f"fs_{name}",
                "qsize_px": size,
                # 10 bits from each other and 5 from 0...01.
                "crop_phash": f"{1 ^ (0x1F << (4 + 5 * n)):016x}",
                "fingerprint": "f",
            }
            for n, (name, size) in enumerate(sizes.items())
        ]
    )
    Store(workspace, SCORES).append(
        [
            {"face_id": f"fs_{name}_0", "metric": "sharpness", "value": 0.5, "fingerprint": "f"}
            for name in sizes
        ]
    )
    return workspace


SIZE = [Gate(name="size", metric="qsize_px", op=">=", threshold=224)]


def reasons_of(workspace, gate, subject):
    rows = Store(workspace, VERDICTS).read_pandas()
    rows = rows[(rows["gate"] == gate) & (rows["subject"] == subject)].set_index("id")
    return {name: reason for name, reason in rows["reason"].items() if isinstance(reason, str)}


def test_largest_photo_with_a_passing_face_is_kept(twins):
    """Photographs without a face get a verdict too."""
    gates.apply_gates(twins, SIZE)
    assert reasons_of(twins, "duplicates", "photo") == {
        "fs_a": "duplicate_of:fs_b",
        "fs_c": "duplicate_of:fs_b",
        "fs_e": "duplicate_of:fs_d",
    }
    assert sorted(kept_faces(twins)["face_id"]) == ["fs_b_0", "fs_d_0"]
    assert reasons_of(twins, "any_face", "photo")["fs_a"] == "duplicate_of:fs_b"


def test_next_best_duplicate_is_kept_if_a_person_drops_the_best(twins):
    """The crops of a and b are not near-duplicates, so the drop of b does not hold for a."""
    Store(twins, DECISIONS).append(
        [
            {
                "id": "fs_b_0",
                "reviewer": "r",
                "decision": "drop",
                "decided_at": pd.Timestamp("2026-01-01", tz="UTC"),
                "fingerprint": "",
            }
        ]
    )
    gates.apply_gates(twins, SIZE)
    assert sorted(kept_faces(twins)["face_id"]) == ["fs_a_0", "fs_d_0"]


def test_duplicates_kept_by_a_person_share_a_split(twins):
    gates.apply_gates(twins, SIZE)
    now = pd.Timestamp("2026-01-01", tz="UTC")
    Store(twins, DECISIONS).append(
        [
            {
                "id": f"fs_{n}_0",
                "reviewer": "r",
                "decision": "keep",
                "decided_at": now,
                "fingerprint": "",
            }
            for n in "ac"
        ]
    )
    view = training_view(twins)
    assert len(view) == 4
    assert len(set(view[view["photo_id"].isin(["fs_a", "fs_b", "fs_c"])]["split"])) == 1


def test_chain_of_near_duplicates_is_never_split():
    """The ends of a chain differ by more than the radius, and a person may keep all three."""
    photos = pd.DataFrame({"photo_id": [f"p{n}" for n in range(90)]})
    rng = np.random.default_rng(0)
    ends = [int(value) for value in rng.integers(0, 2**64, 30, dtype=np.uint64)]
    chains = [
        [end, flip_bits(end, [0, 1, 2, 3, 4, 5]), flip_bits(end, list(range(12)))] for end in ends
    ]
    photos["phash"] = [f"{value:016x}" for chain in chains for value in chain]
    for column in ("sha256", "photographer_name", "person"):
        photos[column] = None
    half = Splits(val=0.5)
    together = assign_splits(photos, half, 6)["split"]
    assert all(len({together[f"p{3 * n + k}"] for k in range(3)}) == 1 for n in range(30))
    assert together.nunique() == 2
    assert assign_splits(photos, half, 5)["split"].to_dict() != together.to_dict()


def test_exclusions_of_photographs_and_crops(twins, tmp_path):
    file = tmp_path / "test-set.txt"
    file.write_text("# a test set\n00ff00ff00ff00fe celeba/1.png\n" + "d" * 64 + "\n")
    assert add_exclusions(twins, file) == 2
    assert add_exclusions(twins, file) == 0  # already known
    gates.apply_gates(twins, SIZE)
    excluded = reasons_of(twins, "exclusion", "photo")
    assert excluded["fs_b"] == "excluded:celeba/1.png"
    assert excluded["fs_d"] == f"excluded:{'d' * 64}"
    assert kept_faces(twins).empty
    file.write_text("0000000000000001 crop\n")
    (tmp_path / "ws" / "excluded-hashes.txt").write_text(file.read_text())
    gates.apply_gates(twins, SIZE)
    # The hashes of all crops are within the radius.
    assert set(reasons_of(twins, "exclusion", "face")) == {f"fs_{name}_0" for name in "abcd"}


@pytest.mark.parametrize("text", ["nothing here\n", "", "abc\n", "g" * 16])
def test_file_without_hashes_is_rejected(workspace, tmp_path, text):
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(UserError, match="hash"):
        add_exclusions(workspace, file)
    assert not Exclusions.load(workspace)


@pytest.mark.slow
def test_excluded_test_set_is_not_in_the_set(filled, tmp_path, authface_here):
    """The test set has the aligned crops only, as JPEG and in another size, like CelebA-Test."""
    import shutil

    root, test_set = tmp_path / "ws", tmp_path / "test"
    shutil.copytree(filled, root)
    test_set.mkdir()
    crop = kept_faces_of(root).iloc[0]
    with Image.open(root / crop["crop_path"]) as image:
        image.resize((256, 256)).save(test_set / "0001.jpg", quality=90)
    done = authface_here("hashes", "--input", test_set, "--output", tmp_path / "list.txt")
    assert done.returncode == 0, done.stderr
    done = authface_here(
        "filter", "-w", root, "--exclude-hashes", tmp_path / "list.txt", "--regate"
    )
    assert done.returncode == 0, done.stderr
    assert crop["face_id"] not in set(kept_faces_of(root)["face_id"])
    verdicts = pd.read_parquet(root / "manifests/verdicts").query(
        "gate == 'exclusion' and reason.notna()"
    )
    assert verdicts["reason"].tolist() == ["excluded:0001.jpg"]


def kept_faces_of(root) -> pd.DataFrame:
    from manifests.workspace import Workspace

    return kept_faces(Workspace(root))
