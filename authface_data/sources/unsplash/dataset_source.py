"""Collection from the Unsplash data set: its rows are filtered before any photograph is downloaded.

A row that cannot be parsed is recorded as rejected; rows that a filter removes are only counted.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from authface_data.http.hosts import AllowedHosts
from authface_data.sources.protocol import (
    CollectReport,
    LicensedOptions,
    Offer,
    PhotoInput,
    RefreshReport,
    RejectedPhoto,
    RunOptions,
    SourceOptions,
    Text,
)
from authface_data.sources.refresh import find_vanished_urls, record_vanished
from authface_data.sources.remote import (
    DEFAULT_BYTES_PER_PX,
    RemoteOptions,
    SizeFilter,
)
from authface_data.sources.unsplash.dataset import FULL, LITE, BadRowHandler, Dataset
from authface_data.sources.unsplash.metadata_gate import (
    UNSPLASH_ID,
    image_hosts,
    reject_by_metadata,
)
from authface_data.sources.unsplash.preview import make_collector
from authface_data.sources.unsplash.responses import parse_number
from authface_data.sources.unsplash.stored_names import PHOTO_ID_PREFIX
from authface_data.sources.unsplash.tsv import Row
from manifests.support.errors import UserError
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

SOURCE = "unsplash-dataset"
REQUIRED_COLUMNS = ("photo_id", "photo_image_url", "photo_width", "photo_height")
BAD_ROW = "bad row"


class UnsplashDatasetOptions(RemoteOptions, LicensedOptions):
    """Options of the Unsplash data set."""

    path: Path
    """The unpacked data set or its zip."""
    keyword: tuple[Text, ...] = ()
    """Accept only photographs with one of these keywords."""
    camera: Text | None = None
    """Accept only photographs whose camera maker or model contains this text."""
    min_aspect: float | None = None
    """Smallest width / height."""
    max_aspect: float | None = None
    """Largest width / height."""


@dataclass(frozen=True)
class RowFilter:
    """Which rows of the data set are offered for download."""

    size: SizeFilter
    keywords: frozenset[str] = frozenset()
    """Keywords in lower case, of which a photograph must have one; empty accepts all."""
    camera: str | None = None
    """Text in lower case that the camera's maker or model must contain."""
    min_aspect: float = 0.0
    max_aspect: float = math.inf

    @classmethod
    def from_options(cls, options: UnsplashDatasetOptions, size: SizeFilter) -> RowFilter:
        """The filter of the command line's options.

        Args:
            options: The options.
            size: The smallest photographs to accept.
        """
        return cls(
            size=size,
            keywords=frozenset(keyword.lower() for keyword in options.keyword),
            camera=options.camera.lower() if options.camera else None,
            min_aspect=options.min_aspect or 0.0,
            max_aspect=math.inf if options.max_aspect is None else options.max_aspect,
        )


@dataclass
class FilterCounts:
    """How many rows were read, passed and rejected."""

    rows: int = 0
    passed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of rejected rows by reason."""
    passed_px: int = 0
    """Pixels of the photographs that passed, in all."""


@dataclass(frozen=True)
class DatasetPlan:
    """An estimate of a collection from the data set."""

    rows: int
    passed: int
    turned_away: dict[str, int]
    """Number of rejected rows by reason."""
    downloads: int
    bytes: int

    def lines(self) -> list[str]:
        """The estimate in plain text."""
        lines = [f"{self.rows:,} rows read, {self.passed:,} pass the filter"]
        lines += [
            f"  rejected by {reason}: {count:,}" for reason, count in self.turned_away.items()
        ]
        lines.append(
            f"about {self.downloads:,} downloads of {self.bytes / 1e9:.1f} GB in all; they do not "
            "count towards the API's limit"
        )
        return lines


class UnsplashDatasetSource:
    """The Unsplash data set, Lite or Full.

    Args:
        workspace: The workspace to fill.
        options: Where the data set is, and which photographs to collect.
    """

    name: ClassVar[str] = SOURCE
    options_model: ClassVar[type[SourceOptions]] = UnsplashDatasetOptions

    def __init__(self, workspace: Workspace, options: UnsplashDatasetOptions) -> None:
        self.workspace = workspace
        self.options = options
        self.settings = workspace.settings.collect
        self.hosts = image_hosts(workspace)
        self.dataset = Dataset(options.path)
        self.filter = RowFilter.from_options(options, options.size_filter(self.settings))
        self.counts = FilterCounts()

    def photos(self) -> Iterator[Offer]:
        """Describe the photographs whose rows pass the filter, and the rows that are malformed."""
        self.counts = FilterCounts()
        basis = self.options.licence_basis or self.dataset.licence_basis or FULL
        return read_offers(
            self.dataset,
            self.filter,
            hosts=self.hosts,
            counts=self.counts,
            licence_basis=basis,
            store_place=self.settings.store_place,
        )

    def collect(self, run: RunOptions) -> CollectReport:
        """Collect the photographs whose rows pass the filter."""
        if self.options.licence_basis is None and self.dataset.licence_basis is None:
            logger.warning(
                "cannot tell Lite from Full by the name of %s; assuming Full (%s), which permits "
                "non-commercial use only. Use --licence-basis %s for Lite",
                self.dataset.path,
                FULL,
                LITE,
            )
        collector = make_collector(self.workspace, self.name, self.hosts, run, self.options)
        report = collector.collect(self.photos())

        note = f"{self.counts.rows:,} rows read, {self.counts.passed:,} passed the filter"
        if self.counts.rejected:
            reasons = self.counts.rejected.most_common()
            rejected = ", ".join(f"{count:,} by {reason}" for reason, count in reasons)
            note += f"; rejected: {rejected}"
        report.notes.append(note)
        return report

    def plan(self) -> DatasetPlan:
        """Estimate the collection by filtering all rows."""
        deque(self.photos(), maxlen=0)  # runs the iterator for its counts
        counts = self.counts
        downloads = counts.passed
        if self.options.max_photos is not None:
            downloads = min(downloads, self.options.max_photos)
        mean_px = counts.passed_px / counts.passed if counts.passed else 0.0
        return DatasetPlan(
            rows=counts.rows,
            passed=counts.passed,
            turned_away=dict(counts.rejected.most_common()),
            downloads=downloads,
            bytes=round(downloads * mean_px * DEFAULT_BYTES_PER_PX),
        )

    @classmethod
    def refresh(cls, workspace: Workspace, wait: bool) -> RefreshReport:
        """Look up every photograph of this source at the image server."""
        checked, vanished = find_vanished_urls(workspace, SOURCE, image_hosts(workspace))
        record_vanished(workspace, vanished, checked)
        return RefreshReport(len(checked), vanished)


def read_offers(
    dataset: Dataset,
    row_filter: RowFilter,
    *,
    hosts: AllowedHosts,
    counts: FilterCounts,
    licence_basis: str,
    store_place: bool = False,
) -> Iterator[Offer]:
    """Read and filter the rows of the data set.

    Args:
        dataset: The data set.
        row_filter: Which rows to accept.
        hosts: The hosts that photographs may come from.
        counts: Counts the rows, in place.
        licence_basis: Licence basis of the photographs.
        store_place: Include the place among the columns.

    Yields:
        A photograph for each row that passes, and a rejection for each malformed row. Rows that the
        filter removes are only counted.

    Raises:
        UserError: If a table or a required column is missing.
    """
    malformed: deque[RejectedPhoto] = deque()

    def on_bad_row(file: str, line: int, reason: str) -> None:
        counts.rejected[BAD_ROW] += 1
        photo_id = f"{PHOTO_ID_PREFIX}row_{short_hash(file)}_{line}"
        malformed.append(RejectedPhoto(photo_id, f"{BAD_ROW}: {file} line {line}: {reason}"))

    with_keyword: set[str] | None = None
    if row_filter.keywords:
        with_keyword = _photos_with_keyword(dataset, row_filter.keywords, on_bad_row)
    terms_date = f"{datetime.now(UTC):%Y-%m-%d}"

    for row in dataset.rows("photos", on_bad_row):
        counts.rows += 1
        yield from _drain(malformed)
        _check_columns(dataset, row)
        unsplash_id = row["photo_id"]
        if not UNSPLASH_ID.fullmatch(unsplash_id):
            counts.rejected[BAD_ROW] += 1
            photo_id = f"{PHOTO_ID_PREFIX}row_{short_hash(str(sorted(row.items())))}"
            yield RejectedPhoto(photo_id, f"{BAD_ROW}: no id ({unsplash_id[:40]!r})")
            continue
        if with_keyword is not None and unsplash_id not in with_keyword:
            counts.rejected["keyword"] += 1
            continue

        photo_id = PHOTO_ID_PREFIX + unsplash_id
        url = row["photo_image_url"].strip()
        width = _parse_int(row["photo_width"])
        height = _parse_int(row["photo_height"])
        rejected = reject_by_metadata(
            photo_id,
            url=url,
            width=width,
            height=height,
            size_filter=row_filter.size,
            hosts=hosts,
        )
        if rejected is not None:
            is_too_small = rejected.value is not None
            counts.rejected["size" if is_too_small else BAD_ROW] += 1
            if not is_too_small:
                yield rejected
            continue
        if not _matches_camera(row, row_filter.camera):
            counts.rejected["camera"] += 1
            continue
        if not row_filter.min_aspect <= width / height <= row_filter.max_aspect:
            counts.rejected["aspect"] += 1
            continue

        counts.passed += 1
        counts.passed_px += width * height
        columns = _photo_columns(row, store_place)
        columns |= {"licence_basis": licence_basis, "terms_date": terms_date}
        yield PhotoInput(photo_id=photo_id, url=url, width=width, height=height, columns=columns)
    yield from _drain(malformed)


def _drain(rejected: deque[RejectedPhoto]) -> Iterator[RejectedPhoto]:
    while rejected:
        yield rejected.popleft()


def _photos_with_keyword(
    dataset: Dataset, keywords: frozenset[str], on_bad_row: BadRowHandler
) -> set[str]:
    """Ids of the photographs that have one of the keywords."""
    if not dataset.tables("keywords"):
        raise UserError(f"no keywords.tsv… in {dataset.path}; --keyword needs that table")
    photo_ids = set()
    for row in dataset.rows("keywords", on_bad_row):
        if "photo_id" not in row or "keyword" not in row:
            raise UserError(
                f"the keywords table in {dataset.path} lacks the column photo_id or keyword; use "
                "the table as Unsplash distributes it"
            )
        if row["keyword"].strip().lower() in keywords:
            photo_ids.add(row["photo_id"])
    return photo_ids


def _check_columns(dataset: Dataset, row: Row) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in row]
    if missing:
        raise UserError(
            f"the photos table in {dataset.path} lacks the columns {', '.join(missing)}; use the "
            "table as Unsplash distributes it"
        )


def _matches_camera(row: Row, camera: str | None) -> bool:
    if camera is None:
        return True
    maker_and_model = f"{row.get('exif_camera_make')} {row.get('exif_camera_model')}"
    return camera in maker_and_model.lower()


def _parse_int(text: str) -> int:
    """The whole number of a text; 0, which no photograph has, if it has none."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def _photo_columns(row: Row, store_place: bool) -> dict[str, object]:
    """Columns of the photos manifest. Camera data of the file itself take precedence later."""
    user = row.get("photographer_username", "")
    names = [row.get("photographer_first_name"), row.get("photographer_last_name")]
    full_name = " ".join(name for name in names if name)
    iso = parse_number(row.get("exif_iso"))
    columns: dict[str, object] = {
        "licence": "Unsplash Dataset Terms",
        "source_url": row.get("photo_url") or f"https://unsplash.com/photos/{row['photo_id']}",
        "photographer_name": full_name or user or None,
        "photographer_url": f"https://unsplash.com/@{quote(user)}" if user else None,
        "description": row.get("photo_description") or row.get("ai_description") or None,
        "download_location": row["photo_image_url"].strip(),
        "camera_make": row.get("exif_camera_make") or None,
        "camera_model": row.get("exif_camera_model") or None,
        "iso": None if iso is None else int(iso),
        "aperture": parse_number(row.get("exif_aperture_value")),
        "focal_length_mm": parse_number(row.get("exif_focal_length")),
        "exposure_s": parse_number(row.get("exif_exposure_time")),
    }
    if store_place:
        columns["place"] = row.get("photo_location_name") or None
        columns["latitude"] = parse_number(row.get("photo_location_latitude"))
        columns["longitude"] = parse_number(row.get("photo_location_longitude"))
    return columns
