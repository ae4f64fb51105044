"""Images per second of `authface collect` against img2dataset, from the same server on this machine.

    python benchmarks/download.py [--images 1000] [--rounds 3]

img2dataset is installed from the package registry into an environment of its own under benchmarks/.img2dataset. Both fetch the
same JPEGs, decode each in full, hash it with SHA-256 and keep the file as it came; both have 2 processes and 16 connections.
What differs: AuthFace also computes a perceptual hash and a hash of the pixels, syncs every file to the disk, and commits rows
so that it can be killed at any moment. Whole commands are timed, start-up included. Prints the ratio.
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

PROCESSES, CONNECTIONS = 2, 16
HERE = Path(__file__).parent


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def serve(folder: Path, port: multiprocessing.Queue[int]) -> None:
    server = Server(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    port.put(server.server_address[1])
    server.serve_forever()


def make_images(folder: Path, count: int) -> int:
    """JPEGs of 1920 x 1280 with the detail of a photograph. Returns their bytes in all."""
    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        small = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        image = np.asarray(
            Image.fromarray(small).resize((1920, 1280), Image.Resampling.BICUBIC), np.int16
        )
        image = np.clip(image + rng.normal(0, 6, image.shape[:2])[..., None], 0, 255).astype(
            np.uint8
        )
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=85)
        (folder / f"{number:05d}.jpg").write_bytes(out.getvalue())
        total += len(out.getvalue())
    return total


def img2dataset() -> Path:
    """The peer's command, installed once."""
    environment = HERE / ".img2dataset"
    command = environment / "bin" / "img2dataset"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run(
            [environment / "bin" / "pip", "install", "--quiet", "img2dataset"], check=True
        )
    return command


def run_theirs(base: str, count: int, work: Path) -> float:
    urls = work / "urls.txt"
    urls.write_text("".join(f"{base}/{number:05d}.jpg\n" for number in range(count)))
    out = work / "theirs"
    shutil.rmtree(out, ignore_errors=True)
    words = {
        "url_list": urls,
        "output_folder": out,
        "processes_count": PROCESSES,
        "thread_count": CONNECTIONS // PROCESSES,
        "number_sample_per_shard": -(-count // PROCESSES),
        "resize_mode": "no",
        "skip_reencode": True,
        "compute_hash": "sha256",
        "output_format": "files",
    }
    started = time.monotonic()
    command = [img2dataset(), *(f"--{name}={value}" for name, value in words.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    got = len(list(out.rglob("*.jpg")))
    assert got == count, f"img2dataset brought {got} of {count}"
    return count / seconds


def run_ours(base: str, count: int, work: Path) -> float:
    root, table = work / "ours", work / "dataset-lite"
    shutil.rmtree(root, ignore_errors=True)
    table.mkdir(exist_ok=True)
    rows = ["photo_id\tphoto_image_url\tphoto_width\tphoto_height"]
    rows += [f"img{number:08d}\t{base}/{number:05d}.jpg\t1920\t1280" for number in range(count)]
    (table / "photos.tsv000").write_text("\n".join(rows) + "\n")
    authface = [sys.executable, "-P", "-m", "cli"]
    subprocess.run(
        [*authface, "init", root, "--preset", "embedded"], check=True, stdout=subprocess.DEVNULL
    )
    settings = (root / "authface.toml").read_text()
    ours = f'[collect]\nallowed_hosts = ["127.0.0.1"]\nper_host = {CONNECTIONS}\n\n'
    (root / "authface.toml").write_text(settings.replace("[filter]", f"{ours}[filter]", 1))
    started = time.monotonic()
    words = [
        "collect",
        "-w",
        root,
        "--source",
        "unsplash-dataset",
        "--path",
        table,
        "--workers",
        PROCESSES,
    ]
    subprocess.run([*authface, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    got = len(list((root / "photos").iterdir()))
    assert got == count, f"authface brought {got} of {count}"
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        work = Path(temp)
        folder = work / "images"
        folder.mkdir()
        total = make_images(folder, options.images)
        img2dataset()
        port: multiprocessing.Queue[int] = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(folder, port), daemon=True)
        server.start()
        base = f"http://127.0.0.1:{port.get()}"
        print(
            f"{options.images} JPEGs of 1920 x 1280, {total / options.images / 1e3:.0f} kB each; {os.cpu_count()} cores"
        )
        ours, theirs = [], []
        for number in range(
            options.rounds
        ):  # in turn, so that whatever else the machine does falls on both
            theirs.append(run_theirs(base, options.images, work))
            ours.append(run_ours(base, options.images, work))
            print(
                f"round {number + 1}: authface {ours[-1]:.1f} images/s, img2dataset {theirs[-1]:.1f} images/s"
            )
        server.terminate()
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"median: authface {a:.1f} images/s, img2dataset {b:.1f} images/s, ratio {a / b:.2f}")


if __name__ == "__main__":
    main()
