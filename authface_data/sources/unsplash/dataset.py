"""The Unsplash data set, Lite or Full: tab-separated tables of photographs, read as a stream and sieved before a pixel moves.

The tables may lie in a folder or in the zip as it is downloaded, in one file or in shards (`photos.tsv000` …). A row that
cannot be read is recorded and passed over.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from authface_data.sources.remote import (
    USUAL_BYTES_PER_PX,
    Candidate,
    Offer,
    Rejected,
    RemoteCollector,
    Tally,
)
from authface_data.sources.unsplash.listings import ID, PREFIX, SizeFilter, hosts_of, turned
from authface_data.sources.unsplash.tsv import Row, read_rows
from manifests.support.console import console
from manifests.support.errors import UserError
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

SOURCE = "unsplash-dataset"
LITE, FULL = "unsplash-lite-1.4.0", "unsplash-full-1.4.0"
NEEDED = ("photo_id", "photo_image_url", "photo_width", "photo_height")


@dataclass(frozen=True)
class RowFilter:
    """What a row must show to be asked for. keywords: at least one of them, each a whole keyword, in lower case. camera: in the
    maker's or model's name. aspect: least and greatest width / height."""

    wanted: SizeFilter
    keywords: frozenset[str] = frozenset()
    camera: str | None = None
    aspect: tuple[float, float] = (0.0, float("inf"))


@dataclass
class FilterCounts:
    """Counts: rows read, passed, and turned away by reason."""

    rows: int = 0
    passed: int = 0
    away: Counter[str] = field(default_factory=Counter)
    pixels: int = 0


class Dataset:
    """The tables of the data set. path: the folder, or the zip. Raises UserError where there are no photographs' tables."""

    def __init__(self, path: Path):
        self.path = path
        if path.is_dir():
            self._names = sorted(
                str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()
            )
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                self._names = sorted(archive.namelist())
        else:
            raise UserError(
                f"{path} is neither a folder nor a zip: --path takes the Unsplash data set, unpacked or not"
            )
        if not self.tables("photos"):
            raise UserError(
                f"no photos.tsv… in {path}: --path takes the Unsplash data set, unpacked or not"
            )

    def tables(self, name: str) -> list[str]:
        """The shards of a table, in order."""
        pattern = re.compile(rf"(?:.*/)?{name}\.(?:tsv|csv)\d*", re.DOTALL)
        return [file for file in self._names if pattern.fullmatch(file)]

    @property
    def licence_basis(self) -> str | None:
        """The grant that the folder's or zip's name tells of; None where it tells none."""
        words = re.split(r"[^a-z]+", self.path.resolve().name.lower())
        return FULL if "full" in words else LITE if "lite" in words else None

    def rows(self, name: str, bad: Callable[[str, int, str], None]) -> Iterator[Row]:
        """Rows of a table, as texts. bad(file, line, why): called for those that cannot be read."""
        for file in self.tables(name):
            with self._open(file) as stream:
                yield from read_rows(stream, partial(bad, file))

    @contextmanager
    def _open(self, file: str) -> Iterator[IO[str]]:
        if self.path.is_dir():
            with (self.path / file).open(
                encoding="utf-8-sig", errors="replace", newline="\n"
            ) as stream:
                yield stream
            return
        advice = f"{file} in {self.path} cannot be unpacked"
        with zipfile.ZipFile(self.path) as archive:
            try:
                raw = archive.open(file)
            except (
                RuntimeError
            ) as error:  # encrypted, or packed in a way that zipfile does not know
                raise UserError(f"{advice} ({error}): unpack it and name the folder") from error
            try:
                with raw:
                    yield io.TextIOWrapper(
                        raw, encoding="utf-8-sig", errors="replace", newline="\n"
                    )
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise UserError(f"{advice} ({error}): download it again") from error


def photographs_with(
    dataset: Dataset, keywords: frozenset[str], bad: Callable[[str, int, str], None]
) -> set[str]:
    """Ids of the photographs that have one of the keywords. Raises UserError where the table is not there."""
    if not dataset.tables("keywords"):
        raise UserError(f"no keywords.tsv… in {dataset.path}: --keyword needs it")
    found = set()
    for row in dataset.rows("keywords", bad):
        if "photo_id" not in row or "keyword" not in row:
            raise UserError(
                f"the keywords' table in {dataset.path} has no photo_id or no keyword: is it Unsplash's?"
            )
        if row["keyword"].strip().lower() in keywords:
            found.add(row["photo_id"])
    return found


def offers(
    dataset: Dataset,
    sieve: RowFilter,
    basis: str,
    allowed: Callable[[str], None],
    counts: FilterCounts,
    store_place: bool = False,
) -> Iterator[Offer]:
    """Candidates of all rows that pass the sieve, and the rows that are bad. What is sieved away is only counted."""
    told: deque[Rejected] = deque()

    def bad(file: str, line: int, why: str) -> None:
        counts.away["bad row"] += 1
        told.append(
            Rejected(
                f"{PREFIX}row_{short_hash(file)}_{line}", f"bad row: {file} line {line}: {why}"
            )
        )

    chosen = photographs_with(dataset, sieve.keywords, bad) if sieve.keywords else None
    terms_date = f"{datetime.now(UTC):%Y-%m-%d}"
    for row in dataset.rows("photos", bad):
        counts.rows += 1
        yield from _drain(told)
        unsplash_id = row.get("photo_id", "")
        if any(name not in row for name in NEEDED):
            lacks = ", ".join(name for name in NEEDED if name not in row)
            raise UserError(
                f"the photographs' table in {dataset.path} has no column {lacks}: is it Unsplash's?"
            )
        if not ID.fullmatch(unsplash_id):
            counts.away["bad row"] += 1
            yield Rejected(
                f"{PREFIX}row_{short_hash(str(sorted(row.items())))}",
                f"bad row: no id ({unsplash_id[:40]!r})",
            )
            continue
        if chosen is not None and unsplash_id not in chosen:
            counts.away["keyword"] += 1
            continue
        width, height = _whole(row["photo_width"]), _whole(row["photo_height"])
        url = row["photo_image_url"].strip()
        why = turned(url, width, height, sieve.wanted, allowed)
        if why is not None and why.value is not None:
            counts.away["size"] += 1
        elif why is not None:
            counts.away["bad row"] += 1
            yield Rejected(PREFIX + unsplash_id, why.reason)
        elif (
            sieve.camera
            and sieve.camera
            not in f"{row.get('exif_camera_make')} {row.get('exif_camera_model')}".lower()
        ):
            counts.away["camera"] += 1
        elif not sieve.aspect[0] <= width / height <= sieve.aspect[1]:
            counts.away["aspect"] += 1
        else:
            counts.passed += 1
            counts.pixels += width * height
            columns = {
                **_columns(row, store_place),
                "licence_basis": basis,
                "terms_date": terms_date,
            }
            yield Candidate(PREFIX + unsplash_id, url, width, height, columns)
    yield from _drain(told)


def _drain(told: deque[Rejected]) -> Iterator[Rejected]:
    while told:
        yield told.popleft()


def _whole(text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def _number(text: str | None) -> float | None:
    try:
        top, _, bottom = (text or "").partition("/")
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return value if abs(value) < 1e12 else None


def _columns(row: Row, store_place: bool) -> dict[str, Any]:
    """Columns of `photos`. The file's own EXIF stands over them."""
    user = row.get("photographer_username", "")
    names = [row.get("photographer_first_name"), row.get("photographer_last_name")]
    iso = _number(row.get("exif_iso"))
    columns: dict[str, Any] = {
        "licence": "Unsplash Dataset Terms",
        "source_url": row.get("photo_url") or f"https://unsplash.com/photos/{row['photo_id']}",
        "photographer_name": " ".join(name for name in names if name) or user or None,
        "photographer_url": f"https://unsplash.com/@{quote(user)}" if user else None,
        "description": row.get("photo_description") or row.get("ai_description") or None,
        "download_location": row["photo_image_url"].strip(),
        "camera_make": row.get("exif_camera_make") or None,
        "camera_model": row.get("exif_camera_model") or None,
        "iso": None if iso is None else int(iso),
        "aperture": _number(row.get("exif_aperture_value")),
        "focal_length_mm": _number(row.get("exif_focal_length")),
        "exposure_s": _number(row.get("exif_exposure_time")),
    }
    if store_place:
        columns["place"] = row.get("photo_location_name") or None
        columns["latitude"] = _number(row.get("photo_location_latitude"))
        columns["longitude"] = _number(row.get("photo_location_longitude"))
    return columns


@dataclass(frozen=True)
class Plan:
    """What taking the sieved photographs would mean."""

    rows: int
    passed: int
    turned_away: dict[str, int]
    downloads: int
    bytes: int

    def say(self) -> None:
        console.print(f"{self.rows:,} rows read, {self.passed:,} pass")
        for reason, count in self.turned_away.items():
            console.print(f"  turned away by {reason}: {count:,}")
        console.print(
            f"about {self.downloads:,} downloads of {self.bytes / 1e9:.1f} GB in all; the API's limit does not count them"
        )


def plan(ws: Workspace, dataset: Dataset, sieve: RowFilter, max_photos: int | None) -> Plan:
    """Read everything, keep nothing."""
    counts = FilterCounts()
    for _ in offers(dataset, sieve, "", hosts_of(ws).check, counts):
        pass
    downloads = counts.passed if max_photos is None else min(counts.passed, max_photos)
    each = counts.pixels / counts.passed * USUAL_BYTES_PER_PX if counts.passed else 0.0
    return Plan(
        counts.rows,
        counts.passed,
        dict(counts.away.most_common()),
        downloads,
        round(downloads * each),
    )


def collect(
    ws: Workspace,
    dataset: Dataset,
    sieve: RowFilter,
    basis: str | None,
    max_photos: int | None,
    face_gate: bool,
    retry_failed: bool,
    workers: int | None,
) -> Tally:
    """Fill the workspace. basis: else what the data set's name tells, else Full's, the stricter one."""
    basis = basis or dataset.licence_basis
    if basis is None:
        basis = FULL
        console.print(
            f"Whether this is Lite or Full its name does not tell: taken as [bold]{basis}[/], which is for non-commercial use "
            f"(say otherwise with --licence-basis {LITE})"
        )
    counts, hosts = FilterCounts(), hosts_of(ws)
    collector = RemoteCollector(
        ws,
        SOURCE,
        hosts,
        max_photos=max_photos,
        face_gate=face_gate,
        retry_failed=retry_failed,
        workers=workers,
    )
    tally = collector.take(
        offers(dataset, sieve, basis, hosts.check, counts, ws.settings.collect.store_place)
    )
    away = ", ".join(f"{count:,} by {reason}" for reason, count in counts.away.most_common())
    console.print(
        f"{counts.rows:,} rows read, {counts.passed:,} passed the sieve; turned away: {away or 'none'}"
    )
    console.print(tally.words())
    return tally
