"""A person's decision holds for the picture: in copies, under other names, from other sources."""

import csv
import json
import shutil
from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pytest
from commands import collect_files, collect_folder, init_workspace
from PIL import Image

from manifests.decisions import face_decisions, record_decisions
from manifests.schema import DECISIONS, FACES, PHOTOS
from manifests.store import Store
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow

PORTRAIT = "obama.jpg"


@pytest.fixture
def run(authface_here):
    """Run a command that must succeed; returns its output."""

    def run(*arguments) -> str:
        result = authface_here(*arguments)
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout + result.stderr

    return run


@pytest.fixture(scope="module")
def filtered(tmp_path_factory, photos, weights, authface_here):
    """A folder with one portrait as a.jpg, and a filtered workspace of it; tests copy both."""
    base = tmp_path_factory.mktemp("decisions")
    (base / "photos").mkdir()
    shutil.copy(photos[PORTRAIT], base / "photos" / "a.jpg")
    for command in (
        init_workspace(base / "ws"),
        collect_folder(base / "ws", base / "photos"),
        ["filter", "-w", base / "ws"],
    ):
        assert authface_here(*command).returncode == 0
    return base


@pytest.fixture
def base(filtered, tmp_path):
    return shutil.copytree(filtered, tmp_path / "base")


def kept_ids(root) -> list[str]:
    return sorted(kept_faces(Workspace(root))["face_id"])


def face_ids(root) -> list[str]:
    return sorted(Store(Workspace(root), FACES).read(["face_id"])["face_id"].to_pylist())


def decide(run, root, face_id, **answers) -> str:
    """Export a table, fill in the row of a face as the reviewer anna, and import it."""
    table = root.parent / f"review-{datetime.now(UTC):%f}.csv"
    run("review", "export", "-w", root, "--csv", table)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [row for row in rows if row["id"] == face_id]
    row.update(answers)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return run("review", "import", table, "-w", root, "--reviewer", "anna", "--yes")


def decided_cells(run, root) -> dict[str, str]:
    """face_id -> the column `decided` of a new table."""
    table = root.parent / f"decided-{datetime.now(UTC):%f}.csv"
    run("review", "export", "-w", root, "--csv", table)
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row["decided"] for row in csv.DictReader(file)}


def drop_rows_of(root, face_id) -> None:
    """Remove a face and its photograph from the manifests, but not from `decisions`."""
    workspace = Workspace(root)
    photo_id = face_id.rsplit("_", 1)[0]
    for manifest in (FACES, PHOTOS):
        Store(workspace, manifest).compact(lambda part: pc.equal(part["photo_id"], photo_id))


def test_twin_of_a_dropped_face_is_not_put_in(base, run):
    root = base / "ws"
    shutil.copy(base / "photos" / "a.jpg", base / "photos" / "a (1).jpg")
    run(*collect_folder(root, base / "photos"))
    run("filter", "-w", root)
    (dropped,) = kept_ids(root)
    (twin,) = set(face_ids(root)) - {dropped}
    decide(run, root, dropped, decision="drop", semantic_tags="a man")
    assert kept_ids(root) == []
    output = run("filter", "-w", root, "--regate")
    assert "0 of 2 faces kept" in output
    assert kept_ids(root) == []

    # A keep of the twin does not bring the picture back.
    decide(run, root, twin, decision="keep")
    run("filter", "-w", root, "--regate")
    assert kept_ids(root) == []
    explanation = run("explain", twin, "-w", root)
    assert f"Face {twin}: dropped" in explanation
    assert "decision in force: drop · equal pixels · by anna, " in explanation
    assert f"face {dropped} · photograph {dropped.rsplit('_', 1)[0]}" in explanation
    assert "semantic tags in force: edited · equal pixels" in explanation
    assert decided_cells(run, root)[twin] == f"drop by anna (equal pixels: {dropped})"

    # The reviewer corrects the drop where it was made.
    decide(run, root, dropped, decision="keep")
    assert kept_ids(root) == sorted([dropped, twin])


def test_drop_holds_after_renaming_and_encoding_again(base, run):
    root = base / "ws"
    (dropped,) = kept_ids(root)
    decide(run, root, dropped, decision="drop")
    (base / "photos" / "a.jpg").rename(base / "photos" / "renamed.jpg")
    with Image.open(base / "photos" / "renamed.jpg") as image:
        smaller = image.resize((image.width * 9 // 10, image.height * 9 // 10))
        smaller.save(base / "photos" / "smaller.jpg", quality=85)
    run(*collect_folder(root, base / "photos"))
    run("filter", "-w", root)
    copies = sorted(set(face_ids(root)) - {dropped})
    assert len(copies) == 2
    assert kept_ids(root) == []

    drop_rows_of(root, dropped)
    run("filter", "-w", root, "--regate")
    assert kept_ids(root) == []
    relations = set()
    for face_id in copies:
        (face,) = json.loads(run("explain", face_id, "-w", root, "--json"))["faces"]
        assert face["kept"] is False
        assert face["decision"]["decision"] == "drop"
        source = face["decision"]["source"]
        assert (source["face_id"], source["reviewer"]) == (dropped, "anna")
        relations.add(source["relation"])
    assert relations == {"equal_pixels", "crop"}

    # The face that was dropped cannot be reviewed any more, so its copies can be corrected.
    for face_id in copies:
        decide(run, root, face_id, decision="keep")
    assert kept_ids(root) == copies


def test_drop_holds_for_the_crop_from_another_source(base, run):
    root = base / "ws"
    (dropped,) = kept_ids(root)
    decide(run, root, dropped, decision="drop", semantic_tags="a man")
    workspace = Workspace(root)
    crop_path = Store(workspace, FACES).read(["crop_path"])["crop_path"][0].as_py()
    (base / "aligned" / "man").mkdir(parents=True)
    with Image.open(root / crop_path) as image:
        image.convert("RGB").save(base / "aligned" / "man" / "man_1.jpg", quality=85)
    run(*collect_files("authface-hq", root, base / "aligned"))
    run("filter", "-w", root)
    (other,) = set(face_ids(root)) - {dropped}
    assert other.startswith("afhq_")
    assert kept_ids(root) == []
    explanation = run("explain", other, "-w", root)
    assert "decision in force: drop · near-duplicate of the crop, " in explanation

    # The copy does not return when the photograph that the decision was made about is forgotten.
    run("forget", "-w", root, dropped, "--yes")
    assert kept_ids(root) == []
    (decision,) = Store(workspace, DECISIONS).read().to_pylist()
    assert (decision["id"], decision["decision"], decision["reviewer"]) == (other, "drop", "anna")
    assert dropped.rsplit("_", 1)[0] not in str(decision)


def test_other_faces_are_not_hit(filled, tmp_path):
    """The drop of a face holds for no other face of the demo, also none of the same person."""
    root = shutil.copytree(filled, tmp_path / "ws")
    workspace = Workspace(root)
    for face_id in face_ids(root):
        row = {"id": face_id, "reviewer": "anna", "decision": "drop", "fingerprint": ""}
        record_decisions(workspace, [row])
        assert list(face_decisions(workspace)) == [face_id]
        record_decisions(workspace, [{**row, "decision": "unsure"}])


def test_later_import_wins_over_one_with_a_wrong_clock(base, run):
    root = base / "ws"
    (face_id,) = kept_ids(root)
    workspace = Workspace(root)
    future = datetime.now(UTC) + timedelta(days=1000)
    rows = [{"id": face_id, "reviewer": "anna", "decision": "drop", "fingerprint": ""}]
    record_decisions(workspace, rows, now=future)
    assert kept_ids(root) == []

    output = decide(run, root, face_id, decision="keep")
    assert "Check the clock of this computer" in output
    assert kept_ids(root) == [face_id]
    decide(run, root, face_id, decision="drop")
    assert kept_ids(root) == []
    times = Store(workspace, DECISIONS).read_pandas(["decided_at"])["decided_at"].tolist()
    assert times == [future, *(future + timedelta(microseconds=n) for n in (1, 2))]


def test_decisions_about_tags_are_monotonic_too(base, run):
    root = base / "ws"
    (face_id,) = kept_ids(root)
    decide(run, root, face_id, semantic_tags="a man, hat")
    workspace = Workspace(root)
    (edited_at,) = Store(workspace, DECISIONS).read(["decided_at"])["decided_at"].to_pylist()
    rows = [{"id": "tag:cap", "reviewer": "anna", "decision": "drop", "fingerprint": ""}]
    record_decisions(workspace, rows, now=edited_at + timedelta(days=1000))
    output = run("tags", "-w", root, "remove", "hat")
    assert "Check the clock of this computer" in output
    decided_at = Store(workspace, DECISIONS).read_pandas(["decided_at"])["decided_at"]
    assert decided_at.is_monotonic_increasing
    assert "hat" not in json.dumps(json.loads(run("tags", "-w", root, "--json"))["facets"])


def test_decisions_record_the_picture(base, run):
    root = base / "ws"
    (face_id,) = kept_ids(root)
    decide(run, root, face_id, decision="drop")
    workspace = Workspace(root)
    (decision,) = Store(workspace, DECISIONS).read().to_pylist()
    (face,) = Store(workspace, FACES).read().to_pylist()
    (photo,) = Store(workspace, PHOTOS).read().to_pylist()
    assert decision["pixel_hash"] == photo["pixel_hash"]
    assert decision["crop_phash"] == face["crop_phash"]
    assert decision["box_px"] == face["box_px"]
