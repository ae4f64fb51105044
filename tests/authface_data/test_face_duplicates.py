"""Duplicate faces: pasted, cut out, mirrored, and two photographs in one file."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import collect_folder, init_workspace
from PIL import Image, ImageOps

from authface_data import gates
from authface_data.face_duplicates import FaceHashes, choose_radius, find_face_duplicates
from authface_data.images.hashes import fine_hash, mirrored_perceptual_hash, perceptual_hash
from manifests.fine_hash import FineHashes
from manifests.schema import FACES, PHOTOS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import kept_faces

RADIUS = 8
FINE = "0" * 64


def find(hashes, mirrored=None, fine=None, competing=None) -> dict[str, str]:
    """Duplicates among faces "0", "1" and so on, the earlier ones better: face -> kept face."""
    columns = [
        pa.array([str(number) for number in range(len(hashes))]),
        *(pa.array(column, pa.string()) for column in (hashes, mirrored or [None] * len(hashes))),
        pa.array(fine or [None] * len(hashes), pa.string()),
    ]
    competing = np.ones(len(hashes), bool) if competing is None else np.array(competing)
    matches = find_face_duplicates(FaceHashes(*columns), competing, RADIUS, lambda rows, _: rows)
    return {face: match.reason.partition(":")[2] for face, match in matches.items()}


def test_faces_within_the_radius_are_duplicates_of_the_better_one():
    hashes = ["0" * 16, "00000000000000ff", "00000000000001ff", "ff" * 8, None]
    assert find(hashes) == {"1": "0"}
    assert find(hashes, competing=[False, True, True, True, True]) == {"2": "1"}
    assert find([None, None]) == {}
    assert find([]) == {}


def test_mirror_images_are_duplicates_if_their_hash_is_known():
    hashes = ["00ff00ff00ff00ff", "3333cccc3333cccc"]
    assert find(hashes) == {}
    assert find(hashes, mirrored=["3333cccc3333cccd", "00ff00ff00ff00fe"]) == {"1": "0"}
    assert find(hashes, mirrored=[None, "00ff00ff00ff00fe"]) == {"1": "0"}


def test_fine_hashes_must_agree_where_both_are_known():
    hashes = ["0" * 16] * 3
    other = "f" * 16 + "0" * 48  # 64 bits
    assert find(hashes, fine=[FINE, other, None]) == {"2": "0"}
    assert find(hashes, fine=[FINE, "f" * 13 + "0" * 51, other]) == {"1": "0"}


def test_many_equal_faces_take_no_long_time():
    count = 3000
    assert len(find(["0" * 16] * count, fine=[FINE] * count)) == count - 1


def test_hashes_of_a_mirror_image():
    from skimage.data import astronaut

    picture = astronaut()[:300, 100:400]
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    assert mirrored_perceptual_hash(picture) == perceptual_hash(mirrored)
    hashes, mirrored_hashes = (
        FineHashes.parse([fine_hash(pixels)]) for pixels in (picture, mirrored)
    )
    assert hashes.confirm(mirrored_hashes, is_mirrored=True).all()
    assert not hashes.confirm(mirrored_hashes, is_mirrored=False).any()


@pytest.mark.parametrize(("setting", "num_duplicates"), [("6", 1), ("3", 0), ('"off"', 0)])
def test_setting_of_the_radius(workspace, setting, num_duplicates):
    set_radius(workspace, setting)
    add_faces(workspace, {"a": ("0" * 16, 500.0), "b": ("000000000000000f", 400.0)})
    result = gates.evaluate_gates(workspace, [])
    assert result.count("face", gates.DUPLICATE_FACES, "dropped") == num_duplicates


def test_automatic_radius_depends_on_the_number_of_faces(workspace):
    assert workspace.settings.filter.duplicate_face_radius == "auto"
    assert choose_radius("auto", 200_000) == 8
    assert choose_radius("auto", 200_001) == 6
    assert choose_radius(3, 200_001) == 3
    assert choose_radius("off", 1) is None


@pytest.mark.parametrize("setting", ["64", "-1", "true", '"on"', "2.5"])
def test_wrong_radius_is_refused(workspace, setting):
    set_radius(workspace, setting)
    with pytest.raises(UserError, match="duplicate_face_radius: must be a whole number from 0 to"):
        _ = type(workspace)(workspace.root).settings


def test_face_of_a_duplicate_photograph_has_one_reason(workspace):
    add_faces(workspace, {"a": ("0" * 16, 500.0), "b": ("0" * 16, 400.0)}, phash="00ff" * 4)
    gates.apply_gates(workspace, [])
    verdicts = pd.read_parquet(f"{workspace.root}/manifests/verdicts").set_index(["id", "gate"])
    assert verdicts.loc[("fs_b_0", "all_gates"), "reason"] == "duplicate_of:fs_a"


def set_radius(workspace, setting: str) -> None:
    path = f"{workspace.root}/authface.toml"
    text = workspace.read_bytes("authface.toml").decode()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace("[filter]", f"[filter]\nduplicate_face_radius = {setting}"))
    vars(workspace).pop("settings", None)


def add_faces(workspace, faces, phash=None) -> None:
    """Add a photograph for each face; faces: hash of the crop and size."""
    for name, (crop_phash, size_px) in faces.items():
        photo = {"photo_id": f"fs_{name}", "phash": phash, "width": 900, "height": 900}
        Store(workspace, PHOTOS).append([{**photo, "licence_basis": "own", "fingerprint": "f"}])
        face = {"face_id": f"fs_{name}_0", "photo_id": f"fs_{name}", "crop_phash": crop_phash}
        Store(workspace, FACES).append([{**face, "qsize_px": size_px, "fingerprint": "f"}])


@pytest.mark.slow
def test_one_picture_of_each_face_stays(tmp_path, photos, weights, authface_here):
    """One face nine times, a part, a mirror image, and two photographs in one file."""
    with Image.open(photos["obama.jpg"]) as image:
        man = ImageOps.pad(image.convert("RGB"), (640, 800))
    with Image.open(photos["obama2.jpg"]) as image:
        other = ImageOps.pad(image.convert("RGB"), (480, 800))
    portrait = man.crop((80, 0, 560, 560))
    pasted = Image.new("RGB", (1440, 1680))
    for number in range(9):
        pasted.paste(portrait, (number % 3 * 480, number // 3 * 560))
    pair = Image.new("RGB", (1120, 800))
    pair.paste(man, (0, 0))
    pair.paste(other, (640, 0))
    pictures = {
        "original.png": man,
        "other.png": other,
        "part.jpg": man.crop((19, 24, 621, 776)),
        "mirrored.jpg": ImageOps.mirror(man),
        "pasted.jpg": pasted,
        "pair.jpg": pair,
    }
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, picture in pictures.items():
        file = io.BytesIO()
        picture.save(file, "PNG" if name.endswith("png") else "JPEG", quality=85)
        (folder / name).write_bytes(file.getvalue())

    root = tmp_path / "ws"
    for command in (init_workspace(root), collect_folder(root, folder)):
        assert authface_here(*command).returncode == 0
    settings = (root / "authface.toml").read_text()
    before_gates = settings.partition("[[gates]]")[0]
    (root / "authface.toml").write_text(before_gates.replace('["piqe", "niqe"]', "[]"))
    output = authface_here("filter", "-w", root)
    assert output.returncode == 0, output.stderr

    from manifests.workspace import Workspace

    names = Store(Workspace(root), PHOTOS).read_pandas(["photo_id", "description"])
    names = names.set_index("photo_id")["description"]
    kept = kept_faces(Workspace(root), ["photo_id"])["photo_id"].map(names)
    assert sorted(kept) == ["original.png", "other.png"]
    assert "duplicates of other faces (reason duplicate_face_of:ID)" in output.stdout
    costs = json.loads(authface_here("filter", "-w", root, "--what-if", "all", "--json").stdout)
    dropped = {gate["gate"]: gate["only"] for gate in costs["gates"]}
    assert dropped["duplicates"] + dropped["duplicate_faces"] == 13
