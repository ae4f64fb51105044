"""Detection, landmarks and pose on real photographs."""

from functools import partial

import numpy as np
import pytest
from public_faces import FRAME_PX, place_in_frame

from authface_data.faces.detect import detect_faces
from authface_data.faces.detectors import make_detector
from authface_data.faces.detectors.anchors import anchor_grid
from authface_data.faces.landmarks import alignment_points, make_landmarker, predictor_square
from authface_data.faces.pose import head_pose
from authface_data.images.open import Photo
from manifests.support.errors import UserError


@pytest.fixture(scope="module")
def detector(weights):
    detector = make_detector("retinaface-mobile")
    detector.setup("cpu", None)
    return detector


def read_pixels(path):
    return Photo(path.read_bytes).pixels(1280)


def test_detector_finds_the_one_face(detector, photos):
    faces = detector.detect([read_pixels(photos["astronaut-nasa.png"])], 0.7)[0]
    assert len(faces) == 1
    assert faces[0].score > 0.99

    face_box_by_eye = [176, 65, 272, 188]
    assert np.abs(faces[0].box_px - face_box_by_eye).max() < 12
    left_eye, right_eye, nose, mouth_left, mouth_right = faces[0].landmarks5_px
    assert left_eye[0] < nose[0] < right_eye[0]
    assert mouth_left[1] > nose[1] > left_eye[1]
    assert mouth_left[0] < mouth_right[0]


@pytest.mark.parametrize("name", ["biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"])
def test_detector_finds_the_face_of_every_portrait(detector, photos, name):
    best = detector.detect([read_pixels(photos[name])], 0.7)[0][0]
    assert best.score > 0.95


def test_detector_finds_nothing_in_noise(detector):
    rng = np.random.default_rng(0)
    assert detector.detect([rng.integers(0, 255, (300, 400, 3), np.uint8)], 0.7) == [[]]


def test_mirrored_photograph_gives_the_mirrored_box(detector, photos):
    picture = read_pixels(photos["obama.jpg"])
    original = detector.detect([picture], 0.7)[0][0]
    mirrored = detector.detect([np.ascontiguousarray(picture[:, ::-1])], 0.7)[0][0]
    x0, y0, x1, y1 = mirrored.box_px
    width = picture.shape[1]
    mirrored_back = np.array([width - x1, y0, width - x0, y1])
    assert np.abs(mirrored_back - original.box_px).max() < 4


def test_anchor_grid_has_two_anchors_per_cell_of_every_stride():
    anchors = anchor_grid(64, 40)
    assert len(anchors) == 2 * (8 * 5 + 4 * 3 + 2 * 2)
    assert anchors[:3].tolist() == [[4, 4, 16], [4, 4, 32], [12, 4, 16]]


@pytest.mark.parametrize("backend", ["dlib", "mediapipe"])
def test_landmarks_agree_with_those_of_the_detector(detector, photos, weights, backend):
    landmarker = make_landmarker(backend)
    landmarker.setup(None)
    picture = read_pixels(photos["obama.jpg"])
    landmarks5 = detector.detect([picture], 0.7)[0][0].landmarks5_px

    landmarks68 = landmarker.locate(picture, landmarks5)

    assert landmarks68.shape == (68, 2)
    eye_distance = np.linalg.norm(landmarks5[1] - landmarks5[0])
    differences = alignment_points(landmarks68) - alignment_points(landmarks5)
    assert np.linalg.norm(differences, axis=1).max() < 0.12 * eye_distance


def test_predictor_square_surrounds_the_five_landmarks():
    landmarks5 = np.array([(0, 0), (10, 0), (5, 5), (1, 10), (9, 10)], float)
    assert np.allclose(predictor_square(landmarks5), [5 - 12.1, 5 - 12.1, 5 + 12.1, 5 + 12.1])


def test_mirrored_photograph_inverts_yaw_and_roll(detector, photos):
    landmarker = make_landmarker("dlib")
    landmarker.setup(None)

    def estimate_pose(picture):
        face = detector.detect([picture], 0.7)[0][0]
        return head_pose(landmarker.locate(picture, face.landmarks5_px), face.landmarks5_px)

    looking_left = read_pixels(photos["obama2.jpg"])
    original = estimate_pose(looking_left)
    mirrored = estimate_pose(np.ascontiguousarray(looking_left[:, ::-1]))
    assert original.yaw_deg < -15
    assert mirrored.yaw_deg == pytest.approx(-original.yaw_deg, abs=8)
    assert mirrored.roll_deg == pytest.approx(-original.roll_deg, abs=5)
    assert abs(estimate_pose(read_pixels(photos["obama.jpg"])).yaw_deg) < 12


def test_unknown_name_lists_the_known_names():
    with pytest.raises(UserError, match="choose from: retinaface, retinaface-mobile"):
        make_detector("yolo")
    with pytest.raises(UserError, match="choose from: dlib, mediapipe, retinaface5"):
        make_landmarker("farl")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.6, 1.0])
def test_detect_faces_finds_a_face_of_any_size_once(detector, photos, share):
    for name in ("astronaut-nasa.png", "biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"):
        picture = read_pixels(photos[name])
        frame = place_in_frame(picture, detector.detect([picture], 0.7)[0][0].box_px, share)

        faces = detect_faces(partial(detector.detect, min_score=0.7), [frame], 1920)[0]

        x0, y0, x1, y1 = faces[0].box_px
        inside_best_box = [
            face
            for face in faces[1:]
            if x0 < face.box_px[[0, 2]].mean() < x1 and y0 < face.box_px[[1, 3]].mean() < y1
        ]
        assert not inside_best_box, name
        assert max(x1 - x0, y1 - y0) == pytest.approx(share * FRAME_PX, rel=0.3)
        off_centre_px = abs((x0 + x1 - FRAME_PX) / 2) + abs((y0 + y1 - FRAME_PX) / 2)
        assert off_centre_px < 0.3 * share * FRAME_PX


@pytest.mark.slow
def test_resnet_agrees_with_its_package_alone_and_in_batches(photos, tmp_path, monkeypatch):
    """With random weights, which yield many faces, the boxes equal those of the package's own code.

    The package rounds to whole pixels.
    """
    import torch
    from retinaface.predict_single import Model

    torch.manual_seed(0)
    package_model = Model(max_size=512, device="cpu")
    package_model.eval()
    detector = make_detector("retinaface")
    monkeypatch.setattr(
        "authface_data.faces.detectors.retinaface.find_weights",
        lambda weights, folder: tmp_path / "weights.pth",
    )
    torch.save(package_model.model.state_dict(), tmp_path / "weights.pth")
    detector.setup("cpu", None)
    astronaut = read_pixels(photos["astronaut-nasa.png"])
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])

    faces, mirrored_faces = detector.detect([astronaut, mirrored], 0.5)
    package_faces = package_model.predict_jsons(astronaut, confidence_threshold=0.5)

    landmarks = np.array([face.landmarks5_px for face in faces])
    boxes = np.clip([face.box_px for face in faces], 0, 511)
    assert len(package_faces) > 20
    for package_face in package_faces:
        landmarks_off = np.abs(landmarks - np.array(package_face["landmarks"])).max((1, 2))
        boxes_off = np.abs(boxes - np.clip(package_face["bbox"], 0, 511)).max(1)
        assert np.maximum(landmarks_off, boxes_off).min() <= 1.01

    alone = detector.detect([mirrored], 0.5)[0]
    assert len(alone) == len(mirrored_faces)
    alone_boxes = np.array([face.box_px for face in alone])
    batch_boxes = np.array([face.box_px for face in mirrored_faces])
    assert np.abs(alone_boxes - batch_boxes).max() < 0.01
