"""What a degraded face costs on one core, beside the recipe written out plainly; and how near the two are.

    python benchmarks/degrade.py        about a minute

The plain recipe is GFPGAN's as BasicSR's FFHQ degradation does it: the whole 41 x 41 filter, then the resize, float64 noise,
JPEG, resize back, jitter by torchvision on tensors. Both get the same draws on the same 512 px photograph (NASA's astronaut).
Where BasicSR itself can be imported (its 1.4.2 cannot beside today's torchvision), its own functions are timed too.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path[:0] = [str(Path(__file__).parents[1])]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from skimage import data  # noqa: E402
from torchvision.transforms import functional as jitter  # noqa: E402

from authface_train.data.blur import blur_and_resize, gaussian_kernel  # noqa: E402
from authface_train.data.degradation import PRESETS, DegradationParams, degrade, draw  # noqa: E402

DRAWS = 100


def shrunk(image: np.ndarray, drawn: DegradationParams) -> np.ndarray:
    """The recipe up to the noise."""
    blurred = cv2.filter2D(
        image,
        -1,
        gaussian_kernel(drawn.sigmas_px, drawn.turn_rad),
        borderType=cv2.BORDER_REFLECT_101,
    )
    height, width = image.shape[:2]
    return np.asarray(
        cv2.resize(
            blurred, (int(width // drawn.down), int(height // drawn.down)), interpolation=cv2.INTER_LINEAR
        )
    )  # fmt: skip


def plain(picture: np.ndarray, drawn: DegradationParams) -> np.ndarray:
    """The recipe, step by step."""
    image = shrunk(picture.astype(np.float32) / 255, drawn)
    noise = (
        np.random.default_rng(drawn.noise_seed)
        .standard_normal(image.shape, np.float32)
        .astype(np.float64)
    )
    image = np.clip(image + noise * drawn.noise / 255, 0, 1)
    _, coded = cv2.imencode(
        ".jpg",
        np.rint(image[..., ::-1] * 255).astype(np.uint8),
        [cv2.IMWRITE_JPEG_QUALITY, drawn.jpeg],
    )
    image = np.float32(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]) / 255
    image = cv2.resize(image, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    if drawn.shift:
        image = np.clip(image + np.array(drawn.shift, np.float32), 0, 1)
    if drawn.grey:
        image = np.tile(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], [1, 1, 3])
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if drawn.jitter:
        steps = (
            jitter.adjust_brightness,
            jitter.adjust_contrast,
            jitter.adjust_saturation,
            jitter.adjust_hue,
        )
        for number in drawn.jitter_order:
            tensor = steps[number](tensor, drawn.jitter[number])
    return (torch.clamp((tensor * 255).round(), 0, 255) / 255).permute(1, 2, 0).numpy()


def milliseconds(
    work: Callable[[DegradationParams], object], draws: list[DegradationParams]
) -> float:
    began = time.perf_counter()
    for drawn in draws:
        work(drawn)
    return (time.perf_counter() - began) / len(draws) * 1000


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(
        10 * np.log10(1 / max(float(np.mean((one.astype(np.float64) - other) ** 2)), 1e-12))
    )


def basicsr_line(image: np.ndarray) -> str:
    try:
        from basicsr.data import degradations
        from basicsr.utils.img_process_util import filter2D  # noqa: F401
    except Exception as error:
        return f"BasicSR's own functions: not timed, they do not import here ({type(error).__name__}: {error})"
    rng_draws = 30
    began = time.perf_counter()
    for _ in range(rng_draws):
        kernel = degradations.random_mixed_kernels(
            ["iso", "aniso"], [0.5, 0.5], 41, [0.1, 10], [0.1, 10], [-np.pi, np.pi]
        )
        made = cv2.filter2D(image, -1, kernel)
        factor = np.random.uniform(0.8, 8)
        made = cv2.resize(
            made, (int(512 // factor), int(512 // factor)), interpolation=cv2.INTER_LINEAR
        )
        made = degradations.random_add_gaussian_noise(made, [0, 20])
        made = degradations.random_add_jpg_compression(made, [60, 100])
        cv2.resize(made, (512, 512), interpolation=cv2.INTER_LINEAR)
    return f"BasicSR's own functions, without colour: {(time.perf_counter() - began) / rng_draws * 1000:.1f} ms"


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    picture = data.astronaut()
    image = picture.astype(np.float32) / 255
    print(
        f"{platform.processor() or platform.machine()}, one core, OpenCV {cv2.__version__}, numpy {np.__version__}"
    )
    print("preset             plain     ours   ratio   least dB before noise   least dB after JPEG")
    for name, ranges in PRESETS.items():
        rng = np.random.default_rng(0)
        draws = [draw(ranges, rng) for _ in range(DRAWS)]
        rounds = []
        for part in range(4):  # in turns, so that what else the machine does meets both
            own = draws[part::4]
            rounds.append(
                (
                    milliseconds(lambda one: plain(picture, one), own),
                    milliseconds(lambda one: degrade(picture, one), own),
                )
            )
        slow, fast = (sum(one[which] for one in rounds) / len(rounds) for which in (0, 1))
        before, after = [], []
        for drawn in draws:
            whole = shrunk(image, drawn)
            kernel = gaussian_kernel(drawn.sigmas_px, drawn.turn_rad)
            before.append(decibels(blur_and_resize(image, kernel, *whole.shape[1::-1]), whole))
            no_colour = replace(drawn, shift=None, jitter=None, grey=False, rounded=True)
            after.append(decibels(degrade(picture, no_colour), plain(picture, no_colour)))
        print(
            f"{name:16} {slow:5.1f} ms {fast:5.1f} ms  {slow / fast:5.2f}   {min(before):21.1f}   {min(after):19.1f}"
        )
    print(basicsr_line(image))


if __name__ == "__main__":
    main()
