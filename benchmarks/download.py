"""Images per second of `authface collect` and of img2dataset, from the same server on this machine.

    python benchmarks/download.py [--images 1000] [--rounds 3]

img2dataset is installed from the package registry into benchmarks/.img2dataset. Both programs fetch
the same JPEGs, decode each in full, hash it with SHA-256 and keep the original file; both use 2
processes and 16 connections. AuthFace additionally computes a perceptual hash and a hash of the
pixels, syncs every file to the disk, and commits rows so that it can be killed at any moment. Whole
commands are timed, start-up included.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

PROCESSES = 2
CONNECTIONS = 16
SIZE_PX = (1920, 1280)
AUTHFACE = (sys.executable, "-P", "-m", "cli")
ENVIRONMENT = Path(__file__).parent / ".img2dataset"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""
        return


class FileServer(ThreadingHTTPServer):
    """A server with a queue for many connections at once."""

    request_queue_size = 128


def serve_folder(folder: Path, port: multiprocessing.Queue[int]) -> None:
    """Serve the files of a folder for ever.

    Args:
        folder: The folder.
        port: Receives the port of the server.
    """
    server = FileServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    port.put(server.server_address[1])
    server.serve_forever()


def make_images(folder: Path, count: int) -> int:
    """Write JPEGs with about the detail of photographs.

    Args:
        folder: Where to write them.
        count: How many.

    Returns:
        Their size in bytes, in all.
    """
    rng = np.random.default_rng(0)
    total_bytes = 0
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE_PX, Image.Resampling.BICUBIC), np.int16)
        noise = rng.normal(0, 6, smooth.shape[:2])[..., None]
        image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=85)
        (folder / f"{number:05d}.jpg").write_bytes(buffer.getvalue())
        total_bytes += len(buffer.getvalue())
    return total_bytes


def install_img2dataset() -> Path:
    """The path of the command img2dataset, installed if necessary."""
    command = ENVIRONMENT / "bin" / "img2dataset"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = ENVIRONMENT / "bin" / "pip"
        subprocess.run([pip, "install", "--quiet", "img2dataset"], check=True)
    return command


def time_img2dataset(base_url: str, count: int, work: Path) -> float:
    """Download the images with img2dataset.

    Args:
        base_url: URL of the server.
        count: Number of images.
        work: Folder for temporary files.

    Returns:
        Images per second.
    """
    urls = work / "urls.txt"
    urls.write_text("".join(f"{base_url}/{number:05d}.jpg\n" for number in range(count)))
    output = work / "img2dataset"
    shutil.rmtree(output, ignore_errors=True)
    options = {
        "url_list": urls,
        "output_folder": output,
        "processes_count": PROCESSES,
        "thread_count": CONNECTIONS // PROCESSES,
        "number_sample_per_shard": -(-count // PROCESSES),
        "resize_mode": "no",
        "skip_reencode": True,
        "compute_hash": "sha256",
        "output_format": "files",
    }
    command = [install_img2dataset(), *(f"--{name}={value}" for name, value in options.items())]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    num_files = len(list(output.rglob("*.jpg")))
    assert num_files == count, f"img2dataset downloaded {num_files} of {count} images"
    return count / seconds


def time_authface(base_url: str, count: int, work: Path) -> float:
    """Download the images with `authface collect`.

    Args:
        base_url: URL of the server.
        count: Number of images.
        work: Folder for temporary files.

    Returns:
        Images per second.
    """
    dataset = work / "dataset-lite"
    dataset.mkdir(exist_ok=True)
    header = "photo_id\tphoto_image_url\tphoto_width\tphoto_height"
    size = "\t".join(map(str, SIZE_PX))
    rows = [f"img{number:08d}\t{base_url}/{number:05d}.jpg\t{size}" for number in range(count)]
    (dataset / "photos.tsv000").write_text("\n".join([header, *rows]) + "\n")

    workspace = work / "authface"
    shutil.rmtree(workspace, ignore_errors=True)
    init = [*AUTHFACE, "init", str(workspace), "--preset", "embedded"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    settings = workspace / "authface.toml"
    collect = f'[collect]\nallowed_hosts = ["127.0.0.1"]\nper_host = {CONNECTIONS}\n\n'
    settings.write_text(settings.read_text().replace("[filter]", f"{collect}[filter]", 1))

    command = [*AUTHFACE, "collect", "-w", str(workspace), "--source", "unsplash-dataset"]
    command += ["--path", str(dataset), "--workers", str(PROCESSES)]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    num_files = len(list((workspace / "photos").iterdir()))
    assert num_files == count, f"authface downloaded {num_files} of {count} images"
    return count / seconds


def main() -> None:
    """Time both programs in turns and print their rates and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    install_img2dataset()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = work / "images"
        folder.mkdir()
        mean_kb = make_images(folder, options.images) / options.images / 1e3
        port: multiprocessing.Queue[int] = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve_folder, args=(folder, port), daemon=True)
        server.start()
        base_url = f"http://127.0.0.1:{port.get()}"
        print(f"{options.images} JPEGs of {mean_kb:.0f} kB; {os.cpu_count()} cores")

        authface_rates = []
        img2dataset_rates = []
        for number in range(options.rounds):  # in turns, so that other load affects both
            img2dataset_rates.append(time_img2dataset(base_url, options.images, work))
            authface_rates.append(time_authface(base_url, options.images, work))
            print(
                f"round {number + 1}: authface {authface_rates[-1]:.1f} images/s, "
                f"img2dataset {img2dataset_rates[-1]:.1f} images/s"
            )
        server.terminate()

    authface_rate = statistics.median(authface_rates)
    img2dataset_rate = statistics.median(img2dataset_rates)
    print(
        f"median: authface {authface_rate:.1f} images/s, img2dataset {img2dataset_rate:.1f} "
        f"images/s, ratio {authface_rate / img2dataset_rate:.2f}"
    )


if __name__ == "__main__":
    main()
