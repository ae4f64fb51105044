"""Measured tags: each rule on synthetic crops, and their accuracy on real faces."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from captions import compare_with_labels, read_labels
from public_faces import detected_faces

from authface_data.captions.compose import count_tokens
from authface_data.captions.measured.focus import edge_blur_px
from authface_data.captions.measured.measurement import (
    HIGH_CONFIDENCE,
    MIN_CONFIDENCE,
    FaceCrop,
    face_oval,
)
from authface_data.captions.measured.networks import MARGIN_PX, CropNetworks
from authface_data.captions.measured.stage import measure_face, read_face
from manifests.schema import CAPTIONS
from manifests.store import Store
from manifests.workspace import Workspace

LANDMARKS5 = [(190, 240), (322, 240), (256, 310), (200, 380), (312, 380)]


def make_landmarks68():
    """The landmarks of a frontal face at their places in an FFHQ crop of 512 px."""
    points = np.zeros((68, 2))
    angle = np.linspace(0, np.pi, 17)
    points[:17] = np.stack([256 - 140 * np.cos(angle), 260 + 170 * np.sin(angle)], axis=1)
    points[17:22] = np.stack([np.linspace(150, 225, 5), np.full(5, 205)], axis=1)
    points[22:27] = np.stack([np.linspace(287, 362, 5), np.full(5, 205)], axis=1)
    points[27:31] = np.stack([np.full(4, 256), np.linspace(245, 310, 4)], axis=1)
    points[31:36] = np.stack([np.linspace(235, 277, 5), np.full(5, 320)], axis=1)
    eye = np.array([(-22, 0), (-8, -9), (8, -9), (22, 0), (8, 9), (-8, 9)])
    points[36:42] = (190, 240) + eye
    points[42:48] = (322, 240) + eye
    outer_lips = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack([256 - 56 * np.cos(outer_lips), 380 - 18 * np.sin(outer_lips)], axis=1)
    inner_lips = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points[60:68] = np.stack([256 - 40 * np.cos(inner_lips), np.full(8, 380)], axis=1)
    return points.tolist()


def make_row(**changes):
    """A row of a frontal face, without camera data."""
    face = {
        "box_px": [100.0, 50.0, 450.0, 450.0],
        "qsize_px": 500.0,
        "yaw_deg": 0.0,
        "pitch_deg": 0.0,
        "landmarks_crop_px": make_landmarks68(),
        "left_eye_visible": True,
        "right_eye_visible": True,
        "mouth_visible": True,
        "focal_length_mm": None,
        "aperture": None,
        "iso": None,
    }
    return {**face, **changes}


def skin_crop(level=150.0, noise=3.0):
    """A crop of one skin tone with noise; clothes of another colour begin below the chin."""
    rng = np.random.default_rng(0)
    tone = np.full((512, 512, 3), (level * 1.15, level, level * 0.85))
    tone[445:] = (level * 0.7, level * 1.07, level * 1.1)
    noisy = tone + rng.normal(0, noise, (512, 512, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def light_from_left(crop):
    """A crop whose right half falls into shadow, most steeply at the nose."""
    gain = 0.75 - 0.4 * np.tanh(np.linspace(-4, 4, 512))[None, :, None]
    return (crop * gain).clip(0, 255).astype(np.uint8)


def grey_crop(level=120):
    return np.repeat(skin_crop(level)[..., 1:2], 3, axis=2)


def make_face(crop, *, iris_positions=(0.0, 0.0), iris_drop=-0.13, **changes):
    """A crop whose person leaves 80 px free at both sides; the eyes look ahead."""
    face = FaceCrop.from_row(make_row(**changes), crop)
    background = np.zeros((512, 512), bool)
    background[:, :70] = background[:, -70:] = True
    positions = np.array([(across, iris_drop) for across in iris_positions])
    return replace(face, background=background, iris_positions=positions)


def measured_tags(crop, **changes):
    return {measurement.tag for measurement in measure_face(make_face(crop, **changes))}


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        ({"box_px": [0, 0, 300, 340]}, "close-up"),
        ({"yaw_deg": -4.0}, "front view"),
        ({"yaw_deg": -35.0}, "three-quarter view"),
        ({"yaw_deg": 70.0}, "profile view"),
        ({"yaw_deg": 70.0}, "looking away"),
        ({"pitch_deg": 30.0}, "chin up"),
        ({"pitch_deg": -30.0}, "chin down"),
        ({"aperture": 1.8}, "f/1.8"),
        ({"focal_length_mm": 85.0}, "85mm lens"),
        ({"iso": 400}, "ISO 400"),
    ],
)
def test_metadata_tags(changes, tag):
    assert tag in measured_tags(skin_crop(), **changes)
    assert tag not in measured_tags(skin_crop(), box_px=[0, 0, 300, 200], yaw_deg=17.0)


@pytest.mark.parametrize(
    ("yaw", "tag"),
    [
        (17.0, "front view"),
        (17.0, "three-quarter view"),
        (60.0, "three-quarter view"),
        (60.0, "profile view"),
    ],
)
def test_values_between_two_views_give_no_tag(yaw, tag):
    assert tag not in measured_tags(skin_crop(), yaw_deg=yaw)


@pytest.mark.parametrize(
    "changes", [{"pitch_deg": 20.0}, {"pitch_deg": 30.0, "mouth_visible": False}]
)
def test_small_pitch_and_guessed_landmarks_give_no_tilt(changes):
    assert not {"chin up", "chin down"} & measured_tags(skin_crop(), **changes)


def test_confidence_is_half_at_the_bound_and_grows_beyond_it():
    def front_view_confidence(yaw):
        measurements = measure_face(make_face(skin_crop(), yaw_deg=yaw))
        confidences = [item.confidence for item in measurements if item.tag == "front view"]
        return confidences[0] if confidences else 0.0

    assert front_view_confidence(12.0) == pytest.approx(0.5)
    assert front_view_confidence(0.0) > front_view_confidence(8.0) > HIGH_CONFIDENCE
    assert HIGH_CONFIDENCE > front_view_confidence(11.0) >= MIN_CONFIDENCE
    assert front_view_confidence(12.1) == 0.0


def test_light_tags():
    side_lit = light_from_left(skin_crop())
    assert "key light left" in measured_tags(side_lit)
    assert "key light right" in measured_tags(np.ascontiguousarray(side_lit[:, ::-1]))
    assert "even light" in measured_tags(skin_crop())
    assert "soft light" in measured_tags(skin_crop(noise=0.5))
    # One cheek of a turned head faces away from the camera: the direction is not measured.
    assert not {"key light left", "even light"} & measured_tags(side_lit, yaw_deg=30.0)

    left_half = np.arange(512)[None, :, None] < 256
    hard_edge = np.where(left_half, skin_crop(200), skin_crop(40)).astype(np.uint8)
    assert not {"soft light", "even light"} & measured_tags(hard_edge)


@pytest.mark.parametrize(
    "area",
    [
        (slice(270, 330), slice(110, 220)),  # a strand of hair or face paint on the left cheek
        (slice(330, 430), slice(110, 220)),  # half a beard
        (slice(250, 320), slice(225, 250)),  # the shadow of the nose
    ],
)
def test_one_dark_area_of_the_skin_is_no_direction(area):
    crop = skin_crop()
    crop[area] //= 3
    assert not {"key light left", "key light right", "even light"} & measured_tags(crop)


def test_low_key_and_high_key():
    assert "low-key" in measured_tags(skin_crop(30))
    assert "high-key" in measured_tags(skin_crop(215))
    # Dark skin with bright highlights is in normal light.
    dark_skin = skin_crop(50)
    dark_skin[260:300, 150:360] = skin_crop(190)[260:300, 150:360]
    assert "low-key" not in measured_tags(dark_skin)
    # A bright face, of which a part is in the shade, is in normal light.
    shaded = skin_crop(215)
    shaded[330:430, 110:400] = skin_crop(90)[330:430, 110:400]
    assert "high-key" not in measured_tags(shaded)
    # A face in normal light before a white or a black wall is neither.
    face = (slice(100, 470), slice(110, 400))
    for wall in (250, 5):
        crop = np.full((512, 512, 3), wall, np.uint8)
        crop[face] = skin_crop(140)[face]
        assert not {"high-key", "low-key"} & measured_tags(crop)


def test_what_cannot_be_measured_gives_no_tag():
    """Beards, dark skin and teeth have as much contrast as hard light has."""
    dark_and_bright = np.concatenate([skin_crop(10)[:280], skin_crop(230)[280:]])
    for crop in (skin_crop(), dark_and_bright):
        tags = measured_tags(crop, box_px=[0, 0, 300, 200])
        assert not {"high contrast", "low contrast", "hard light", "head and shoulders"} & tags


def test_colour_tags():
    colour_tags = {"black and white", "colour photograph", "warm colours", "muted colours"}
    assert measured_tags(grey_crop()) & colour_tags == {"black and white"}
    assert "colour photograph" in measured_tags(skin_crop())
    warm = np.clip(skin_crop().astype(int) + [35, 5, -80], 0, 255).astype(np.uint8)
    assert "warm colours" in measured_tags(warm)
    assert "cool colours" in measured_tags(np.ascontiguousarray(warm[..., ::-1]))
    red_and_blue = np.empty((512, 512, 3))
    red_and_blue[:256] = (220, 40, 40)
    red_and_blue[256:] = (40, 60, 220)
    red_and_blue *= np.linspace(0.6, 1.1, 512)[None, :, None]  # of the same range of brightness
    assert "vivid colours" in measured_tags(red_and_blue.astype(np.uint8))
    assert "vivid colours" not in measured_tags(skin_crop())


def test_a_toned_monochrome_print_has_no_colour_tags():
    rng = np.random.default_rng(0)
    grey = rng.integers(20, 230, (64, 64, 1)).repeat(8, 0).repeat(8, 1)
    sepia = (grey * np.array([1.1, 0.95, 0.7])).clip(0, 255).astype(np.uint8)
    assert not [item.tag for item in measure_face(make_face(sepia)) if item.facet == "colour"]


def test_a_red_face_alone_is_not_warm():
    crop = np.full((512, 512, 3), 120, np.uint8)
    oval = face_oval()
    crop[oval] = (230, 120, 20)
    crop[445:] = (90, 128, 140)
    assert "colour photograph" in measured_tags(crop)
    assert "warm colours" not in measured_tags(crop)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 3.0, 5.0])
def test_edge_blur_is_the_sigma_of_the_blur(sigma):
    import cv2

    step = np.where(np.arange(512)[None, :] < 60, 40.0, 200.0).astype(np.float32)
    step = step * np.ones((512, 1), np.float32)
    region = np.zeros((512, 512), bool)
    region[100:400, 20:120] = True
    blur = edge_blur_px(cv2.GaussianBlur(step, (0, 0), sigma), region, 4.0)
    assert blur == pytest.approx(sigma, abs=0.35 + 0.1 * sigma)
    assert edge_blur_px(np.full((512, 512), 90, np.float32), region, 4.0) is None


def test_focus_tags_of_background_and_eyes():
    import cv2

    rng = np.random.default_rng(0)
    crop = skin_crop(noise=1.0)
    blocks = np.kron(rng.integers(30, 220, (32, 32, 1)), np.ones((16, 16, 3))).astype(np.uint8)
    crop[180:300, 140:370] = blocks[180:300, 140:370]
    sharp = crop.copy()
    sharp[:, :80] = blocks[:, :80]
    sharp[:, -80:] = blocks[:, -80:]
    blurred_blocks = cv2.GaussianBlur(blocks, (0, 0), 5)
    blurred = crop.copy()
    blurred[:, :80] = blurred_blocks[:, :80]
    blurred[:, -80:] = blurred_blocks[:, -80:]

    assert "sharp background" in measured_tags(sharp)
    assert "blurred background" in measured_tags(blurred)
    # A background without edges is not measured.
    assert not {"sharp background", "blurred background"} & measured_tags(crop)
    assert "soft focus" in measured_tags(cv2.GaussianBlur(sharp, (0, 0), 4))
    assert not {"sharp eyes", "soft focus"} & measured_tags(sharp, left_eye_visible=False)


def test_gaze_follows_from_head_and_eyes():
    def tags(position, **changes):
        return measured_tags(skin_crop(), iris_positions=(position, position), **changes)

    gaze_tags = {"direct gaze", "looking away"}
    assert tags(0) & gaze_tags == {"direct gaze"}
    assert tags(0, yaw_deg=40.0) & gaze_tags == {"looking away"}
    # The head is turned and the eyes look back into the camera.
    assert tags(-0.5, yaw_deg=30.0) & gaze_tags == {"direct gaze"}
    assert not tags(0, right_eye_visible=False) & gaze_tags
    for pitch_deg in (-20.0, 15.0):
        assert "direct gaze" not in tags(0, pitch_deg=pitch_deg)
    for iris_drop in (-0.33, 0.1):  # the eyes look up or down while the head is level
        assert "direct gaze" not in tags(0, iris_drop=iris_drop)
    contradiction = measured_tags(skin_crop(), iris_positions=(-0.4, 0.4))
    assert not contradiction & gaze_tags


@pytest.fixture(scope="module")
def networks(weights):
    networks = CropNetworks()
    networks.setup(None)
    return networks


def test_irises_are_mirrored_with_the_face(networks, photos):
    faces = [face for face in detected_faces() if face.photo in ("obama.jpg", "obama2.jpg")]
    for face in faces:
        positions = networks.locate_irises(face.crop)
        mirrored = networks.locate_irises(np.ascontiguousarray(face.crop[:, ::-1]))
        mean = positions.mean(0) * (-1, 1)
        assert mirrored.mean(0) == pytest.approx(mean, abs=0.1)


@pytest.fixture(scope="module")
def portrait(photos):
    """NASA's portrait of an astronaut: (512, 512, 3) uint8 sRGB, and its row."""
    face = next(face for face in detected_faces() if face.photo == "astronaut-nasa.png")
    width, height = face.photo_px
    return face.crop, {**face.row, "width": width, "height": height}


def portrait_tags(crop, row, networks):
    return {measurement.tag for measurement in measure_face(read_face(row, crop, networks))}


def test_light_from_the_side_of_a_portrait(portrait, networks):
    crop, row = portrait
    right = np.ascontiguousarray(light_from_left(crop[:, ::-1])[:, ::-1])
    directions = {"key light left", "key light right", "even light"}
    for lit, tag in ((light_from_left(crop), "key light left"), (right, "key light right")):
        assert portrait_tags(lit, row, networks) & directions == {tag}


def test_backgrounds_of_a_portrait(portrait, networks):
    """The hair is sharp; the background is replaced by blurred blocks, and by white."""
    import cv2

    crop, row = portrait
    background = networks.find_background(crop, row)
    weight = cv2.GaussianBlur(background.astype(np.float32), (0, 0), 3)[..., None]
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(60, 200, (16, 16, 1)), np.ones((32, 32, 3)))
    blurred = cv2.GaussianBlur(blocks, (0, 0), 9)
    tags = {}
    for name, wall in (("blurred", blurred), ("white", np.full(crop.shape, 250.0))):
        mixed = (weight * wall + (1 - weight) * crop).astype(np.uint8)
        tags[name] = portrait_tags(mixed, row, networks)
    assert "blurred background" in tags["blurred"]
    assert not {"blurred background", "sharp background", "high-key"} & tags["white"]


def test_a_portrait_without_colour_and_in_sepia(portrait, networks):
    import cv2

    crop, row = portrait
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    assert "black and white" in portrait_tags(grey, row, networks)
    sepia = (grey * np.array([1.08, 0.97, 0.75])).clip(0, 255).astype(np.uint8)
    assert not {"black and white", "colour photograph", "warm colours"} & portrait_tags(
        sepia, row, networks
    )


def test_background_excludes_the_person_and_the_padding(networks, photos):
    face = next(face for face in detected_faces() if face.photo == "obama.jpg")
    width, height = face.photo_px
    background = networks.find_background(face.crop, {**face.row, "width": width, "height": height})
    assert 0.02 < background.mean() < 0.6
    assert not background[200:512, 180:330].any()  # the face and the chest

    # If only the left half of the crop came from the photograph, the rest would be padding.
    west, east = face.row["quad_px"][0][0], face.row["quad_px"][3][0]
    middle = {**face.row, "width": (west + east) / 2, "height": height}
    half = networks.find_background(face.crop, middle)
    assert half[:, : 256 - 2 * MARGIN_PX].any()
    assert not half[:, 256 + MARGIN_PX :].any()


def test_five_landmarks_suffice_for_most_tags():
    tags = measured_tags(skin_crop(), landmarks_crop_px=LANDMARKS5)
    assert {"front view", "close-up", "colour photograph"} <= tags
    assert not {"even light", "soft light", "low-key", "high-key"} & tags


def test_tags_do_not_depend_on_the_size_of_the_crop():
    import cv2

    crop = skin_crop(noise=0.5)
    large = cv2.resize(crop, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    points = [[2 * x + 0.5, 2 * y + 0.5] for x, y in make_landmarks68()]
    assert measured_tags(large, landmarks_crop_px=points) == measured_tags(crop)
    scaled = FaceCrop.from_row(make_row(landmarks_crop_px=points), large)
    assert scaled.landmarks == pytest.approx(np.array(make_landmarks68()))


@pytest.mark.slow
def test_accuracy_on_labelled_faces(photos, weights):
    """47 faces of public packages; docs/captions.md states the accuracy of the held-out 25."""
    face_counts = Counter(row["half"] for row in read_labels())
    assert face_counts == {"tuned": 22, "held out": 25}

    results = list(compare_with_labels())
    held_out = [result for result in results if result.half == "held out"]
    tuned = [result for result in results if result.half == "tuned"]
    assert len(held_out) >= 100
    assert share_correct(held_out) >= 0.95
    assert share_correct(tuned) >= 0.98
    assert share_correct([result for result in held_out if result.is_confident]) >= 0.95
    for column in ("framing", "gaze", "colour", "background", "key", "warmth"):
        assert all(result.is_correct for result in held_out if result.column == column), column


def share_correct(results):
    return sum(result.is_correct for result in results) / len(results)


def test_every_kept_face_has_a_measured_caption(filled):
    captions = Store(Workspace(filled), CAPTIONS).read().to_pylist()
    assert len(captions) == 4
    for caption in captions:
        assert caption["caption"] == ", ".join(caption["measured_tags"]) != ""
        tags = [measurement["tag"] for measurement in caption["measurements"]]
        assert sorted(caption["measured_tags"]) == sorted(
            tag for tag in tags if tag != "colour photograph"
        )
        assert caption["token_count"] == count_tokens(caption["caption"]) <= 77
        assert caption["semantic_tags"] == []
