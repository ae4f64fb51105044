"""Detection, landmarks and pose on real photographs."""

import io

import numpy as np
import pytest
from PIL import Image

from authface_data.faces.detect import detect_faces
from authface_data.faces.detectors import make_detector
from authface_data.faces.detectors.anchors import anchors
from authface_data.faces.landmarks import alignment_points, make_landmarker, predictor_square
from authface_data.faces.pose import head_pose
from authface_data.images.open import Photo
from manifests.support.errors import UserError


@pytest.fixture(scope="module")
def detector(weights):
    made = make_detector("retinaface-mobile")
    made.setup("cpu", None)
    return made


def pixels(path):
    return Photo(path.read_bytes).pixels(1280)


def test_one_face_where_it_is(detector, photos):
    found = detector.detect([pixels(photos["astronaut-nasa.png"])], 0.7)[0]
    assert len(found) == 1
    assert found[0].score > 0.99
    x0, y0, x1, y1 = found[0].box_px  # the face of NASA's portrait, by eye
    assert np.abs(np.array([x0, y0, x1, y1]) - [176, 65, 272, 188]).max() < 12
    left, right, nose, mouth_left, mouth_right = found[0].landmarks5_px
    assert left[0] < nose[0] < right[0]
    assert mouth_left[1] > nose[1] > left[1]
    assert mouth_left[0] < mouth_right[0]


@pytest.mark.parametrize("name", ["biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"])
def test_every_portrait_has_its_face(detector, photos, name):
    best = detector.detect([pixels(photos[name])], 0.7)[0][0]
    assert best.score > 0.95


def test_no_face_no_detection(detector):
    rng = np.random.default_rng(0)
    assert detector.detect([rng.integers(0, 255, (300, 400, 3), np.uint8)], 0.7) == [[]]


def test_a_mirrored_photograph_gives_the_mirrored_face(detector, photos):
    picture = pixels(photos["obama.jpg"])
    straight = detector.detect([picture], 0.7)[0][0]
    mirrored = detector.detect([np.ascontiguousarray(picture[:, ::-1])], 0.7)[0][0]
    x0, y0, x1, y1 = mirrored.box_px
    back = np.array([picture.shape[1] - x1, y0, picture.shape[1] - x0, y1])
    assert np.abs(back - straight.box_px).max() < 4


def test_anchors_are_cells_by_stride():
    made = anchors(64, 40)
    assert len(made) == 2 * (8 * 5 + 4 * 3 + 2 * 2)
    assert made[:3].tolist() == [[4, 4, 16], [4, 4, 32], [12, 4, 16]]


def test_dlib_agrees_with_the_detectors_points(detector, photos):
    landmarker = make_landmarker("dlib")
    landmarker.setup(None)
    picture = pixels(photos["obama.jpg"])
    five = detector.detect([picture], 0.7)[0][0].landmarks5_px
    sixty_eight = landmarker.locate(picture, five)
    assert sixty_eight.shape == (68, 2)
    distance = np.linalg.norm(five[1] - five[0])
    assert (
        np.linalg.norm(alignment_points(sixty_eight) - alignment_points(five), axis=1).max()
        < 0.12 * distance
    )


def test_the_predictors_square():
    five = np.array([(0, 0), (10, 0), (5, 5), (1, 10), (9, 10)], float)
    assert np.allclose(predictor_square(five), [5 - 12.1, 5 - 12.1, 5 + 12.1, 5 + 12.1])


def test_pose_signs(detector, photos):
    landmarker = make_landmarker("dlib")
    landmarker.setup(None)

    def pose(picture):
        face = detector.detect([picture], 0.7)[0][0]
        return head_pose(landmarker.locate(picture, face.landmarks5_px), face.landmarks5_px)

    looking_left = pixels(photos["obama2.jpg"])
    straight = pose(looking_left)
    mirrored = pose(np.ascontiguousarray(looking_left[:, ::-1]))
    assert straight.yaw_deg < -15
    assert mirrored.yaw_deg == pytest.approx(-straight.yaw_deg, abs=8)
    assert mirrored.roll_deg == pytest.approx(-straight.roll_deg, abs=5)
    assert abs(pose(pixels(photos["obama.jpg"])).yaw_deg) < 12


def test_unknown_names_list_the_known():
    with pytest.raises(UserError, match="retinaface, retinaface-mobile"):
        make_detector("yolo")
    with pytest.raises(UserError, match="dlib, retinaface5"):
        make_landmarker("farl")


def in_a_frame(picture, face, share, size_px=1600):
    """A square frame in which a face's longer side is `share` of it, around it what the photograph has or grey."""
    import cv2

    side = float((face.box_px[2:] - face.box_px[:2]).max()) / share
    scale, centre = size_px / side, (face.box_px[:2] + face.box_px[2:]) / 2
    if scale < 1:
        picture, centre = (
            cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
            centre * scale,
        )
        scale = 1.0
    matrix = np.array(
        [[scale, 0, size_px / 2 - centre[0] * scale], [0, scale, size_px / 2 - centre[1] * scale]]
    )
    return cv2.warpAffine(picture, matrix, (size_px, size_px), borderValue=(90, 110, 120))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.6, 1.0])
def test_faces_of_every_size_are_found_once(detector, photos, share):
    for name in ("astronaut-nasa.png", "biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"):
        picture = pixels(photos[name])
        frame = in_a_frame(picture, detector.detect([picture], 0.7)[0][0], share)
        found = detect_faces(detector, [saved(frame)], 1920, 0.7)[0]
        x0, y0, x1, y1 = found[0].box_px
        inside = [
            f
            for f in found[1:]
            if x0 < f.box_px[[0, 2]].mean() < x1 and y0 < f.box_px[[1, 3]].mean() < y1
        ]
        assert not inside, name
        assert max(x1 - x0, y1 - y0) == pytest.approx(share * 1600, rel=0.3)
        assert abs((x0 + x1) / 2 - 800) + abs((y0 + y1) / 2 - 800) < 0.3 * share * 1600


def saved(pixels_) -> Photo:
    out = io.BytesIO()
    Image.fromarray(pixels_).save(out, "JPEG", quality=95)
    return Photo(out.getvalue)


@pytest.mark.slow
def test_resnet_reads_its_network_as_its_package_does_and_in_batches(photos, tmp_path, monkeypatch):
    """With random weights, of which it makes many faces: the same boxes as the package's own code, which rounds to pixels."""
    import torch
    from retinaface.predict_single import Model

    torch.manual_seed(0)
    package = Model(max_size=512, device="cpu")
    package.eval()
    ours = make_detector("retinaface")
    monkeypatch.setattr(
        "authface_data.faces.detectors.retinaface.find_weights",
        lambda weights, folder: tmp_path / "weights.pth",
    )
    torch.save(package.model.state_dict(), tmp_path / "weights.pth")
    ours.setup("cpu", None)
    astronaut = pixels(photos["astronaut-nasa.png"])
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    found = ours.detect([astronaut, mirrored], 0.5)
    theirs = package.predict_jsons(astronaut, confidence_threshold=0.5)
    points = np.array([face.landmarks5_px for face in found[0]])
    boxes = np.clip([face.box_px for face in found[0]], 0, 511)
    assert len(theirs) > 20
    for face in theirs:
        points_off = np.abs(points - np.array(face["landmarks"])).max((1, 2))
        boxes_off = np.abs(boxes - np.clip(face["bbox"], 0, 511)).max(1)
        assert np.maximum(points_off, boxes_off).min() <= 1.01
    alone = ours.detect([mirrored], 0.5)[0]
    assert len(alone) == len(found[1])
    assert (
        np.abs(np.array([f.box_px for f in alone]) - np.array([f.box_px for f in found[1]])).max()
        < 0.01
    )
