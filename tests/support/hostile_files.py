"""Writes a corpus of hostile files: odd contents under odd names, links, pipes and sidecar files.

    python tests/support/hostile_files.py FOLDER [--files 3000] [--seed 1]

The same seed gives the same files. The corpus has three folders: `camera`, for `--source folder`;
`linked`, for the same source with `--files reference`; and `aligned`, for `--source ffhq`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hostile_attacks  # noqa: F401 (registers its kinds)
from hostile_kinds import KINDS, Content, Expected, Materials

from authface_data.sources.demo_photos import PHOTOS
from authface_data.weights import cache_dir

PUBLIC_PHOTOGRAPHS = ("single_face.jpg", "lenna.png", "einstein.jpg", "tongue.jpg")
"""Photographs of one face among those of public_faces.py."""
CAMERA = "camera"
LINKED = "linked"
ALIGNED = "aligned"
PART_FILES = 100
"""Number of files in a folder of a part."""
LINKED_SHARE = 0.08
ALIGNED_SHARE = 0.04


@dataclass(frozen=True)
class HostileFile:
    """A file of the corpus.

    Attributes:
        path: Its path. A name that is not UTF-8 has surrogates, as `os.fsdecode` makes them.
        kind: Name of its kind.
        expected: What must become of it.
    """

    path: Path
    kind: str
    expected: Expected


def base_photographs() -> list[Path]:
    """Photographs of one face in the cache: those of the demo and some of the tests."""
    cache = cache_dir()
    public = [cache / "public-faces" / name for name in PUBLIC_PHOTOGRAPHS]
    demo = [photo.path for photo in PHOTOS]
    missing = [path for path in (*demo, *public) if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing; run `authface demo --fetch` and "
            "`python tests/support/public_faces.py`"
        )
    return [*demo, *public]


def write_hostile_files(
    folder: Path, count: int, seed: int, marker: Path | None = None
) -> list[HostileFile]:
    """Write a corpus.

    Args:
        folder: The folder to create.
        count: Number of files that are offered to the program, at least 60, so that every kind is
            among them. Sidecar files are further files.
        seed: Seed of all choices.
        marker: A path that the PostScript files try to write. Default: `marker` beside the folder.

    Returns:
        The files, in the order in which they were written.
    """
    materials = Materials(base_photographs(), marker or folder.parent / "marker")
    names = list(KINDS)
    corpus = _Corpus(folder, materials, random.Random(seed), names)
    num_linked = int(LINKED_SHARE * count)
    num_aligned = int(ALIGNED_SHARE * count)
    num_camera = count - num_linked - num_aligned

    for make_entry in _ENTRIES:
        make_entry(corpus)
    for name in corpus.kind_names:
        corpus.add(CAMERA, name)
    while len(corpus.files) < num_camera:
        corpus.add(CAMERA)
    for _ in range(num_linked):
        corpus.add(LINKED)
    for number in range(num_aligned):
        corpus.add(ALIGNED, stem=f"{number:05d}")
    _write_sidecars(corpus)
    return corpus.files


class _Corpus:
    """The corpus while it is written."""

    def __init__(
        self, folder: Path, materials: Materials, rng: random.Random, kind_names: list[str]
    ) -> None:
        self.folder = folder
        self.materials = materials
        self.rng = rng
        self.kind_names = kind_names
        self.files: list[HostileFile] = []
        self.num_paths: Counter[str] = Counter()

    def new_path(self, part: str, name: str) -> Path:
        """The path of the next file of a part."""
        folder = self.folder / part
        if part == CAMERA:
            folder = folder / f"part-{self.num_paths[part] // PART_FILES:02d}"
        self.num_paths[part] += 1
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def add(self, part: str, kind_name: str | None = None, stem: str | None = None) -> HostileFile:
        """Write a file of a kind, by default a random one, under a plain or an odd name."""
        rng = self.rng
        if kind_name is None:
            kinds = [
                kind for kind in KINDS.values() if part == CAMERA or kind.expected != "skipped"
            ]
            kind_name = rng.choices(kinds, [kind.weight for kind in kinds])[0].name
        kind = KINDS[kind_name]
        content = kind.make(self.materials, rng)
        number = len(self.files)
        if stem is None:
            stem = f"{kind.name}-{number:04d}"
            if rng.random() < 0.15:
                stem = rng.choice(_ODD_STEMS)(f"{number:04d}")
        # Pictures of the wrong shape are no aligned faces.
        is_row = kind.expected == "row"
        expected = "any" if part == ALIGNED and is_row else kind.expected
        return self.write(part, stem, content, kind.name, expected)

    def write(
        self, part: str, stem: str, content: Content, kind_name: str, expected: Expected
    ) -> HostileFile:
        """Write a file."""
        path = self.new_path(part, stem + content.suffix)
        path.write_bytes(content.data)
        return self.record(path, kind_name, expected)

    def record(self, path: Path, kind_name: str, expected: Expected) -> HostileFile:
        """Note a file that was written."""
        file = HostileFile(path, kind_name, expected)
        self.files.append(file)
        return file


_ODD_STEMS: tuple[Callable[[str], str], ...] = (
    lambda number: "顔" * (83 - len(number)) + number,  # 250 bytes with most suffixes
    lambda number: unicodedata.normalize("NFD", f"Zoë Müller Ångström {number}"),
    lambda number: f"\x1b[31mred\x1b[0m {number}",
    lambda number: f"\x1b]0;title\x07{number}",
    lambda number: f"two\nlines {number}",
    lambda number: f"tab\tand\rreturn\x08{number}",
    lambda number: os.fsdecode(b"\xff\xfe latin\xe9 " + number.encode()),
    lambda number: f"-rf {number}",
    lambda number: f"--help={number}",
    lambda number: f"[bold red]markup[\\] [red]{number}",
    lambda number: f"$(touch x) `id` ; & | {number}",
    lambda number: f"quotes ' \" \\ {number}",
    lambda number: f"right \u202e to left \u200b {number}",
    lambda number: f"%s %n {{0}} {number}",
    lambda number: f" blanks  around {number} ",
    lambda number: f"photo.jpg.{number}",
    lambda number: f"=1+1,;{number}",
    lambda number: f"😀👩‍🚀 {number}",
    lambda number: f"con.{number}",
)
"""Functions that make an odd name, without its suffix, from a number that no other file has."""


# Entries of a folder that are no ordinary files


def _folder_named_as_picture(corpus: _Corpus) -> None:
    path = corpus.new_path(CAMERA, "folder.jpg")
    path.mkdir()
    corpus.record(path, "folder-named-as-picture", "any")


def _pipe(corpus: _Corpus) -> None:
    path = corpus.new_path(CAMERA, "pipe.jpg")
    os.mkfifo(path)
    corpus.record(path, "pipe", "skipped")


def _dangling_link(corpus: _Corpus) -> None:
    path = corpus.new_path(CAMERA, "dangling.jpg")
    path.symlink_to("no such file.jpg")
    corpus.record(path, "dangling-link", "skipped")


def _looping_links(corpus: _Corpus) -> None:
    first = corpus.new_path(CAMERA, "loop-a.jpg")
    second = corpus.new_path(CAMERA, "loop-b.jpg")
    first.symlink_to(second.name)
    second.symlink_to(first.name)
    corpus.record(first, "looping-link", "skipped")
    corpus.record(second, "looping-link", "skipped")


def _endless_device(corpus: _Corpus) -> None:
    path = corpus.new_path(CAMERA, "zero.jpg")
    path.symlink_to("/dev/zero")
    corpus.record(path, "endless-device", "skipped")


def _link_to_own_folder(corpus: _Corpus) -> None:
    path = corpus.new_path(CAMERA, "own-folder.jpg")
    path.symlink_to(".")
    corpus.record(path, "link-to-own-folder", "any")


def _unreadable(corpus: _Corpus) -> None:
    file = corpus.add(CAMERA, "photograph", stem="unreadable")
    file.path.chmod(0)
    corpus.files[-1] = HostileFile(file.path, "unreadable", "any")


def _link_out_of_folder(corpus: _Corpus) -> None:
    outside = corpus.folder / "outside"
    outside.mkdir(parents=True, exist_ok=True)
    content = KINDS["photograph"].make(corpus.materials, corpus.rng)
    (outside / "outside.jpg").write_bytes(content.data)
    path = corpus.new_path(CAMERA, "link.jpg")
    path.symlink_to("../../outside/outside.jpg")
    corpus.record(path, "link-out-of-folder", "row")


_ENTRIES = (
    _folder_named_as_picture,
    _pipe,
    _dangling_link,
    _looping_links,
    _endless_device,
    _link_to_own_folder,
    _unreadable,
    _link_out_of_folder,
)


# Sidecar files of other tools, beside some of the photographs

_TAKEOUT = {
    "title": "IMG_0001.jpg",
    "description": "At the lake",
    "photoTakenTime": {"timestamp": "1700000000", "formatted": "14 Nov 2023"},
    "geoData": {"latitude": 47.4, "longitude": 8.5},
    "people": [{"name": "A. Person"}],
}
_GALLERY_DL = {"category": "flickr", "id": 12, "tags": ["a", "b"], "description": None, "user": {}}
_SIDECARS: tuple[tuple[str, bytes], ...] = (
    ("{name}.json", json.dumps(_TAKEOUT).encode()),
    ("{name}.supplemental-metadata.json", json.dumps(_TAKEOUT).encode()),
    ("{name}.json", json.dumps(_GALLERY_DL).encode()),
    (
        "{stem}.json",
        json.dumps({"caption": "x", "url": "http://x/", "key": "0", "sha256": 1}).encode(),
    ),
    ("{name}.json", b"[" * 100_000),
    ("{stem}.json", b'{"a":' * 100_000),
    ("{name}.json", b'{"description": 1' + b"0" * 10_000 + b"}"),
    ("{name}.json", b'{"description": "\\ud800 \\u001b[31m", "photographer": "\\u0000"}'),
    ("{name}.json", b"\xff\xfe\0\0"),
    ("{name}.json", b""),
    ("{name}.json", b'{"photographer": ["a"], "licence": {"b": 1}, "note": NaN}'),
    ("{name}.json", b'{"photographer": "Anna", "person": "Anna"}'),
)
"""Name and content of sidecar files; `{name}` and `{stem}` are those of a photograph."""

_TABLE = "file,photographer,unknown\r\n{name},=cmd(),\x1b[31m\r\nmissing.jpg,x,y\r\n"
MAX_NAME_BYTES = 255


def _write_sidecars(corpus: _Corpus) -> None:
    """Write sidecar files for every tenth photograph, and a few tables."""
    photographs = [file for file in corpus.files if file.kind == "photograph"]
    photographs = [file for file in photographs if corpus.folder / ALIGNED not in file.path.parents]
    for number, file in enumerate(photographs[::5]):
        pattern, data = _SIDECARS[number % len(_SIDECARS)]
        name = pattern.format(name=file.path.name, stem=file.path.stem)
        if len(os.fsencode(name)) <= MAX_NAME_BYTES:
            file.path.with_name(name).write_bytes(data)
    for number, file in enumerate(photographs[::60]):
        table = _TABLE.format(name=file.path.name).encode("utf-8", "surrogateescape")
        odd = (table, table.decode("utf-8", "replace").encode("utf-16"), table + b"\0" * 99)
        file.path.with_name("credits.csv").write_bytes(odd[number % len(odd)])


def main() -> None:
    """Write a corpus and print its kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    files = write_hostile_files(options.folder, options.files, options.seed)
    for name in sorted({file.kind for file in files}):
        print(f"{sum(file.kind == name for file in files):6d}  {name}")


if __name__ == "__main__":
    main()
