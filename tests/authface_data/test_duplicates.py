"""Near-duplicates: exact to brute force; who is kept; what is excluded."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data import gates
from authface_data.duplicates import Exclusions, find_duplicates, keep_exclusions
from authface_data.images.hashes import hash_of_pixels, perceptual_hash
from manifests.hamming import pairs_within_radius
from manifests.schema import DECISIONS, FACES, PHOTOS, SCORES, VERDICTS
from manifests.settings import Gate, Splits
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import splits, training_view
from manifests.verdicts import kept_faces


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << int(bit)
    return value


@pytest.mark.parametrize("radius", [0, 1, 6, 10, 16])
def test_every_pair_once_as_by_brute_force(radius):
    rng = np.random.default_rng(radius)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64)
    near = [
        flipped(int(value), list(rng.choice(64, rng.integers(0, 20), replace=False)))
        for value in base
    ]
    a, b = np.concatenate([base, base[:5]]), np.array(near, np.uint64)
    i, j, distance = pairs_within_radius(a, b, radius)
    full = np.bitwise_count(a[:, None] ^ b[None, :])
    expected = {
        (int(x), int(y)): int(full[x, y]) for x, y in zip(*np.nonzero(full <= radius), strict=True)
    }
    assert {(int(x), int(y)): int(d) for x, y, d in zip(i, j, distance, strict=True)} == expected
    assert len(i) == len(expected)


def test_nothing_near_nothing():
    none = np.empty(0, np.uint64)
    assert [len(column) for column in pairs_within_radius(none, np.array([1], np.uint64), 6)] == [
        0,
        0,
        0,
    ]


def frame(hashes: list[int], pixels: list[str] | None = None) -> pd.DataFrame:
    ids = [f"fs_{n}" for n in range(len(hashes))]
    return pd.DataFrame(
        {
            "photo_id": ids,
            "phash": [f"{value:016x}" for value in hashes],
            "pixel_hash": pixels or [None] * len(ids),
        }
    )


def test_a_photo_is_dropped_only_for_one_that_is_kept():
    """A chain of small steps: the third is near the second, which is gone, and far from the first."""
    chain = [0, flipped(0, [0, 1, 2, 3, 4, 5]), flipped(0, list(range(12)))]
    found = find_duplicates(frame(chain), 6)
    assert {key: (same.reason, same.distance) for key, same in found.items()} == {
        "fs_1": ("duplicate_of:fs_0", 6.0)
    }
    assert find_duplicates(frame(chain), 5) == {}


def test_the_nearest_kept_one_is_named_and_equal_pixels_count_whatever_the_hash():
    hashes = [0, flipped(0, list(range(20))), flipped(0, list(range(15))), 2**63]
    found = find_duplicates(frame(hashes, ["a", "b", "c", "b"]), 15)
    assert found["fs_2"].reason == "duplicate_of:fs_1"
    assert found["fs_2"].distance == 5
    assert found["fs_3"].reason.startswith("duplicate_of:")


def test_hashes_of_pictures():
    rng = np.random.default_rng(1)
    picture = np.asarray(
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((1200, 900), 3)
    )
    smaller = np.asarray(Image.fromarray(picture).resize((700, 525), 1))
    other = np.ascontiguousarray(picture[::-1])

    def apart(a, b) -> int:
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    assert apart(picture, smaller) <= 4
    assert apart(picture, other) > 12
    assert hash_of_pixels(picture) == hash_of_pixels(picture.copy()) != hash_of_pixels(smaller)
    tall = picture.reshape(1200, 900, 3)
    assert hash_of_pixels(tall) != hash_of_pixels(picture)  # the same bytes in another shape


@pytest.fixture
def twins(workspace):
    """a, b, c look the same (c largest but its face is too small); d is apart; e has no face and looks like d."""
    same = "00ff00ff00ff00ff"
    looks = {
        "a": (same, 100),
        "b": (same, 200),
        "c": (same, 900),
        "d": ("ffff0000ffff0000", 100),
        "e": ("ffff0000ffff0001", 100),
    }
    Store(workspace, PHOTOS).append(
        [
            {"photo_id": f"fs_{name}", "phash": phash, "sha256": name * 64, "width": side, "height": side,
             "licence_basis": "own", "fingerprint": "f"}
            for name, (phash, side) in looks.items()
        ]
    )  # fmt: skip
    sizes = {"a": 500.0, "b": 500.0, "c": 10.0, "d": 500.0}
    Store(workspace, FACES).append(
        [
            {
                "face_id": f"fs_{name}_0",
                "photo_id": f"fs_{name}",
                "qsize_px": size,
                "crop_phash": f"{n:016x}",
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


def told(workspace, gate, subject):
    rows = Store(workspace, VERDICTS).read_pandas()
    rows = rows[(rows["gate"] == gate) & (rows["subject"] == subject)].set_index("id")
    return {name: reason for name, reason in rows["reason"].items() if isinstance(reason, str)}


def test_the_best_that_passes_is_kept(twins):
    """Not the largest, whose face is too small; the largest of those that pass. Every photo is judged, faces or not."""
    gates.decide(twins, SIZE)
    assert told(twins, "duplicates", "photo") == {
        "fs_a": "duplicate_of:fs_b",
        "fs_c": "duplicate_of:fs_b",
        "fs_e": "duplicate_of:fs_d",
    }
    assert sorted(kept_faces(twins)["face_id"]) == ["fs_b_0", "fs_d_0"]
    assert told(twins, "any_face", "photo")["fs_a"] == "duplicate_of:fs_b"


def test_people_have_the_last_word_over_duplicates(twins):
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
    gates.decide(twins, SIZE)
    assert sorted(kept_faces(twins)["face_id"]) == [
        "fs_a_0",
        "fs_d_0",
    ]  # the next best stands in for what a person dropped


def test_duplicates_that_a_person_keeps_share_a_split(twins):
    gates.decide(twins, SIZE)
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


def test_a_chain_of_near_duplicates_is_never_divided():
    """The ends of the chain are far apart, and a person may keep all three."""
    photos = pd.DataFrame({"photo_id": [f"p{n}" for n in range(90)]})
    rng = np.random.default_rng(0)
    ends = [int(value) for value in rng.integers(0, 2**64, 30, dtype=np.uint64)]
    chains = [
        [end, flipped(end, [0, 1, 2, 3, 4, 5]), flipped(end, list(range(12)))] for end in ends
    ]
    photos["phash"] = [f"{value:016x}" for chain in chains for value in chain]
    for column in ("sha256", "photographer_name", "person"):
        photos[column] = None
    half = Splits(val=0.5)
    together = splits(photos, half, 6)
    assert all(len({together[f"p{3 * n + k}"] for k in range(3)}) == 1 for n in range(30))
    assert together.nunique() == 2
    assert splits(photos, half, 5).to_dict() != together.to_dict()


def test_exclusions_of_photographs_and_crops(twins, tmp_path):
    file = tmp_path / "test-set.txt"
    file.write_text("# a test set\n00ff00ff00ff00fe celeba/1.png\n" + "d" * 64 + "\n")
    assert keep_exclusions(twins, file) == 3
    assert keep_exclusions(twins, file) == 0  # remembered
    gates.decide(twins, SIZE)
    excluded = told(twins, "exclusion", "photo")
    assert excluded["fs_b"] == "excluded:celeba/1.png"
    assert excluded["fs_d"] == f"excluded:{'d' * 64}"
    assert kept_faces(twins).empty
    file.write_text("0000000000000001 crop\n")
    (tmp_path / "ws" / "excluded-hashes.txt").write_text(file.read_text())
    gates.decide(twins, SIZE)
    assert set(told(twins, "exclusion", "face")) == {
        f"fs_{name}_0" for name in "abcd"
    }  # crops that are near it


@pytest.mark.parametrize("text", ["nothing here\n", "", "abc\n", "g" * 16])
def test_a_list_that_is_none_is_a_mistake(workspace, tmp_path, text):
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(UserError, match="hash"):
        keep_exclusions(workspace, file)
    assert not Exclusions.of(workspace)


@pytest.mark.slow
def test_a_test_set_is_kept_out_from_its_pictures_to_the_view(filled, tmp_path, authface_here):
    """By its aligned crops alone, at another size and as JPEG: what users have of CelebA-Test."""
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
