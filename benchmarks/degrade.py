"""Measures the cost of degrading a face on one core, against a plain version of the same recipe.

    python benchmarks/degrade.py        takes about a minute

The plain version follows BasicSR's FFHQ degradation for GFPGAN: the full 41 x 41 filter, then the
resize, float64 noise, JPEG, resize back, and jitter by torchvision on tensors. Both versions get
the same parameters and the same 512 px photograph (NASA's astronaut), and the PSNR between their
results is printed. BasicSR's own functions are timed too if BasicSR can be imported (its version
1.4.2 does not work with present versions of torchvision).
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
from authface_train.data.degradation import (  # noqa: E402
    PRESETS,
    DegradationParams,
    DegradationRanges,
    degrade,
    draw_params,
)

NUM_DEGRADATIONS = 100
NUM_ROUNDS = 4
JITTER_FUNCTIONS = (
    jitter.adjust_brightness,
    jitter.adjust_contrast,
    jitter.adjust_saturation,
    jitter.adjust_hue,
)


def plain_blur_and_resize(image: np.ndarray, params: DegradationParams) -> np.ndarray:
    """Blur and downscale a picture in two steps.

    Args:
        image: (height, width, 3) float32.
        params: The degradation.

    Returns:
        (height // down, width // down, 3) float32.
    """
    kernel = gaussian_kernel(params.sigmas_px, params.turn_rad)
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    height, width = image.shape[:2]
    size = (int(width // params.down), int(height // params.down))
    return np.asarray(cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR))


def plain_degrade(image: np.ndarray, params: DegradationParams) -> np.ndarray:
    """Degrade a picture step by step.

    Args:
        image: (height, width, 3) uint8.
        params: The degradation.

    Returns:
        (height, width, 3) float32 in [0, 1].
    """
    degraded = plain_blur_and_resize(image.astype(np.float32) / 255, params)
    generator = np.random.default_rng(params.noise_seed)
    noise = generator.standard_normal(degraded.shape, np.float32).astype(np.float64)
    degraded = np.clip(degraded + noise * params.noise / 255, 0, 1)
    bgr = np.rint(degraded[..., ::-1] * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, params.jpeg])
    degraded = np.float32(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]) / 255
    degraded = cv2.resize(degraded, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    if params.shift:
        degraded = np.clip(degraded + np.array(params.shift, np.float32), 0, 1)
    if params.grey:
        degraded = np.tile(cv2.cvtColor(degraded, cv2.COLOR_RGB2GRAY)[..., None], [1, 1, 3])

    tensor = torch.from_numpy(np.ascontiguousarray(degraded)).permute(2, 0, 1)
    if params.jitter:
        for operation in params.jitter_order:
            tensor = JITTER_FUNCTIONS[operation](tensor, params.jitter[operation])
    tensor = torch.clamp((tensor * 255).round(), 0, 255) / 255
    return tensor.permute(1, 2, 0).numpy()


def mean_milliseconds(
    function: Callable[[DegradationParams], object], params_list: list[DegradationParams]
) -> float:
    """Mean CPU time of a function over a list of degradations."""
    started = time.process_time()
    for params in params_list:
        function(params)
    return (time.process_time() - started) / len(params_list) * 1000


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR in dB of pictures in [0, 1]."""
    squared_error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return float(10 * np.log10(1 / max(squared_error, 1e-12)))


def benchmark_preset(image: np.ndarray, ranges: DegradationRanges) -> str:
    """Time one preset and compare the results: one line of the table."""
    rng = np.random.default_rng(0)
    params_list = [draw_params(ranges, rng) for _ in range(NUM_DEGRADATIONS)]

    plain_times = []
    our_times = []
    for round_index in range(NUM_ROUNDS):
        # The versions take turns, so that other load of the machine affects both.
        subset = params_list[round_index::NUM_ROUNDS]
        plain_times.append(mean_milliseconds(lambda params: plain_degrade(image, params), subset))
        our_times.append(mean_milliseconds(lambda params: degrade(image, params), subset))
    plain_ms = sum(plain_times) / NUM_ROUNDS
    our_ms = sum(our_times) / NUM_ROUNDS

    psnr_before_noise = []
    psnr_after_jpeg = []
    for params in params_list:
        expected = plain_blur_and_resize(image.astype(np.float32) / 255, params)
        height, width = expected.shape[:2]
        kernel = gaussian_kernel(params.sigmas_px, params.turn_rad)
        resized = blur_and_resize(image.astype(np.float32) / 255, kernel, width, height)
        psnr_before_noise.append(psnr(resized, expected))
        no_colour = replace(params, shift=None, jitter=None, grey=False, rounded=True)
        psnr_after_jpeg.append(psnr(degrade(image, no_colour), plain_degrade(image, no_colour)))
    return (
        f"{plain_ms:5.1f} ms {our_ms:5.1f} ms  {plain_ms / our_ms:5.2f}   "
        f"{min(psnr_before_noise):20.1f}   {min(psnr_after_jpeg):19.1f}"
    )


def benchmark_basicsr(image: np.ndarray) -> str:
    """Time BasicSR's own functions, or say why they cannot be timed."""
    try:
        from basicsr.data import degradations
        from basicsr.utils.img_process_util import filter2D  # noqa: F401
    except Exception as error:
        return (
            f"BasicSR's own functions: not timed, import failed ({type(error).__name__}: {error})"
        )

    repetitions = 30
    started = time.process_time()
    for _ in range(repetitions):
        kernel = degradations.random_mixed_kernels(
            ["iso", "aniso"], [0.5, 0.5], 41, [0.1, 10], [0.1, 10], [-np.pi, np.pi]
        )
        degraded = cv2.filter2D(image, -1, kernel)
        factor = np.random.uniform(0.8, 8)
        size = (int(512 // factor), int(512 // factor))
        degraded = cv2.resize(degraded, size, interpolation=cv2.INTER_LINEAR)
        degraded = degradations.random_add_gaussian_noise(degraded, [0, 20])
        degraded = degradations.random_add_jpg_compression(degraded, [60, 100])
        cv2.resize(degraded, (512, 512), interpolation=cv2.INTER_LINEAR)
    milliseconds = (time.process_time() - started) / repetitions * 1000
    return f"BasicSR's own functions, without colour: {milliseconds:.1f} ms"


def main() -> None:
    """Print a table with one row per preset."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    image = data.astronaut()
    processor = platform.processor() or platform.machine()
    print(f"{processor}, one core, OpenCV {cv2.__version__}, numpy {np.__version__}")
    print("preset             plain     ours   ratio   min dB before noise   min dB after JPEG")
    for name, ranges in PRESETS.items():
        print(f"{name:16} {benchmark_preset(image, ranges)}")
    print(benchmark_basicsr(image.astype(np.float32) / 255))


if __name__ == "__main__":
    main()
