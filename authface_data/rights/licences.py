"""By what right each kept photograph is there, and whom to thank for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import pandas as pd
from jinja2 import Environment, PackageLoader

from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.markdown import plain
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

UNSPLASH = "https://unsplash.com/"
UNSAFE = re.compile(
    r"[\s\x00-\x1f<>\"'\\^`{|}]"
)  # what may not stand in a URL, and could end a link
NO_BASIS = "no licence basis"
# Sources that are places to be named in a credit.
SITES = {"unsplash": "Unsplash", "unsplash-dataset": "Unsplash", "ffhq": "Flickr"}


@dataclass(frozen=True)
class Count:
    """How many kept photographs rest on a basis, of a source."""

    licence_basis: str
    source: str
    photos: int
    faces: int


@dataclass(frozen=True)
class Credit:
    """One photograph's attribution; the links carry where they were followed from, as Unsplash asks."""

    photo_id: str
    title: str
    url: str
    photographer: str
    photographer_url: str
    source: str
    licence: str
    licence_basis: str


def kept_photos(ws: Workspace) -> pd.DataFrame:
    """Rows of `photos` with a kept face, and how many (`kept_faces`)."""
    faces = kept_faces(ws, ["photo_id"])["photo_id"].value_counts()
    photos = Store(ws, PHOTOS).read_pandas()
    photos = photos[photos["photo_id"].isin(faces.index)].copy()
    photos["kept_faces"] = photos["photo_id"].map(faces)
    return photos


def counts(ws: Workspace) -> list[Count]:
    """Kept photographs by licence basis and source, most first."""
    photos = kept_photos(ws)
    photos["licence_basis"] = photos["licence_basis"].fillna("").str.strip().replace("", NO_BASIS)
    grouped = photos.groupby(["licence_basis", "source"]).agg(
        photos=("photo_id", "count"), faces=("kept_faces", "sum")
    )
    found = [
        Count(str(basis), str(source), int(row.photos), int(row.faces))
        for (basis, source), row in grouped.iterrows()
    ]
    return sorted(found, key=lambda count: (-count.photos, count.licence_basis, count.source))


def credits(ws: Workspace) -> list[Credit]:
    """Attribution of every kept photograph, in order of photographer."""
    app = ws.settings.collect.unsplash.app_name

    def text(value: object) -> str:
        return value if isinstance(value, str) else ""

    made = [
        Credit(
            photo_id=row["photo_id"],
            title=" ".join(text(row["description"]).split()) or row["photo_id"],
            url=with_utm(text(row["source_url"]), app),
            photographer=" ".join(text(row["photographer_name"]).split())
            or "photographer not stated",
            photographer_url=with_utm(text(row["photographer_url"]), app),
            source=SITES.get(row["source"], ""),
            licence=text(row["licence"]),
            licence_basis=text(row["licence_basis"]) or NO_BASIS,
        )
        for row in kept_photos(ws).to_dict("records")
    ]
    return sorted(made, key=lambda credit: (credit.photographer.lower(), credit.photo_id))


def with_utm(url: str, app: str) -> str:
    """A link to Unsplash with the parameters that its guidelines ask for; any other as it is. Only http(s) links are links."""
    url = UNSAFE.sub(lambda found: quote(found[0]), url.strip())
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    if parts.hostname not in ("unsplash.com", "www.unsplash.com"):
        return url
    query = [
        pair
        for pair in parse_qsl(parts.query, keep_blank_values=True)
        if not pair[0].startswith("utm_")
    ]
    return urlunsplit(
        parts._replace(query=urlencode([*query, ("utm_source", app), ("utm_medium", "referral")]))
    )


def markdown(made: Iterable[Credit]) -> str:
    """A list, one line a photograph, its id in a comment: `forget` takes the line out."""
    lines = ["# Credits", ""]
    for credit in made:
        who = _md_link(plain(credit.photographer), credit.photographer_url)
        where = (
            f" on {_md_link(plain(credit.source), _source_url(credit))}" if credit.source else ""
        )
        licence = f", {plain(credit.licence)}" if credit.licence else ""
        title = _md_link(plain(credit.title), credit.url)
        lines.append(
            f"- {title}: photo by {who}{where}{licence} (basis: {plain(credit.licence_basis)}) <!-- {credit.photo_id} -->"
        )
    return "\n".join(lines) + "\n"


def html(made: Iterable[Credit]) -> str:
    """The same as a page of its own."""
    environment = Environment(
        loader=PackageLoader("authface_data.rights", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [{"credit": credit, "source_url": _source_url(credit)} for credit in made]
    return environment.get_template("credits.html.jinja").render(rows=rows)


def _source_url(credit: Credit) -> str:
    if credit.source != "Unsplash":
        return ""
    query = [pair for pair in urlsplit(credit.url).query.split("&") if pair.startswith("utm_")]
    return UNSPLASH + (f"?{'&'.join(query)}" if query else "")


def _md_link(shown: str, url: str) -> str:
    return f"[{shown}](<{url}>)" if url else shown
