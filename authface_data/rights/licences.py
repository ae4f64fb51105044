"""Licence bases and credits of the kept photographs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import pandas as pd

from manifests.licence_policy import basis_label, photographer_label
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.html_page import render_page
from manifests.support.text import escape_markdown
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

UNSPLASH_URL = "https://unsplash.com/"
UNSPLASH_HOSTS = ("unsplash.com", "www.unsplash.com")
SITE_NAMES = {"unsplash": "Unsplash", "unsplash-dataset": "Unsplash", "ffhq": "Flickr"}
"""Source -> the name of the website that a credit mentions."""

# Characters that are not allowed in a URL and could end a Markdown or HTML link.
_UNSAFE_IN_URL = re.compile(r"[\s\x00-\x1f<>\"'\\^`{|}]")


@dataclass(frozen=True)
class LicenceCount:
    """Kept photographs of one licence basis and source."""

    licence_basis: str
    source: str
    photos: int
    faces: int


@dataclass(frozen=True)
class Credit:
    """The attribution of one photograph. Links to Unsplash carry the required UTM parameters."""

    photo_id: str
    title: str
    url: str
    """Page of the photograph, or ""."""
    photographer: str
    photographer_url: str
    """Page of the photographer, or ""."""
    site: str
    """Name of the website, or ""."""
    licence: str
    licence_basis: str


def read_kept_photos(workspace: Workspace) -> pd.DataFrame:
    """Read the photographs that have kept faces.

    Returns:
        Rows of `photos` with the additional column `kept_faces`, the number of kept faces.
    """
    face_counts = kept_faces(workspace, ["photo_id"])["photo_id"].value_counts()
    photos = Store(workspace, PHOTOS).read_pandas()
    photos = photos[photos["photo_id"].isin(face_counts.index)].copy()
    photos["kept_faces"] = photos["photo_id"].map(face_counts)
    return photos


def count_licences(workspace: Workspace) -> list[LicenceCount]:
    """Count kept photographs by licence basis and source, the largest count first."""
    photos = read_kept_photos(workspace)
    photos["licence_basis"] = [basis_label(basis) for basis in photos["licence_basis"]]
    grouped = photos.groupby(["licence_basis", "source"]).agg(
        photos=("photo_id", "count"), faces=("kept_faces", "sum")
    )
    counts = [
        LicenceCount(
            licence_basis=str(licence_basis),
            source=str(source),
            photos=int(row.photos),
            faces=int(row.faces),
        )
        for (licence_basis, source), row in grouped.iterrows()
    ]
    return sorted(counts, key=lambda count: (-count.photos, count.licence_basis, count.source))


def list_credits(workspace: Workspace) -> list[Credit]:
    """The attribution of every kept photograph, sorted by photographer."""
    app_name = workspace.settings.collect.unsplash.app_name
    credits = [
        Credit(
            photo_id=row["photo_id"],
            title=" ".join(_text(row["description"]).split()) or row["photo_id"],
            url=credit_url(_text(row["source_url"]), app_name),
            photographer=photographer_label(row["photographer_name"]),
            photographer_url=credit_url(_text(row["photographer_url"]), app_name),
            site=SITE_NAMES.get(row["source"], ""),
            licence=_text(row["licence"]),
            licence_basis=basis_label(row["licence_basis"]),
        )
        for row in read_kept_photos(workspace).to_dict("records")
    ]
    return sorted(credits, key=lambda credit: (credit.photographer.lower(), credit.photo_id))


def _text(value: object) -> str:
    """A cell of a text column; a missing value is ""."""
    return value if isinstance(value, str) else ""


def credit_url(url: str, app_name: str) -> str:
    """Prepare a URL for a credit.

    Args:
        url: The URL as its source gave it.
        app_name: The name of the application, for `utm_source`.

    Returns:
        The URL with unsafe characters encoded; "" if it is not an http or https URL. URLs of
        Unsplash get the parameters that its guidelines require
        (https://help.unsplash.com/en/articles/2511315-guideline-attribution).
    """
    url = _UNSAFE_IN_URL.sub(lambda match: quote(match[0]), url.strip())
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    if parts.hostname not in UNSPLASH_HOSTS:
        return url
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    query = [(name, value) for name, value in parameters if not name.startswith("utm_")]
    query += [("utm_source", app_name), ("utm_medium", "referral")]
    return urlunsplit(parts._replace(query=urlencode(query)))


def credits_markdown(credits: Iterable[Credit]) -> str:
    """Format credits as a Markdown list.

    Each photograph is one line with its id in a comment, so that `authface forget` can remove it.
    """
    lines = ["# Credits", ""]
    for credit in credits:
        title = _markdown_link(credit.title, credit.url)
        photographer = _markdown_link(credit.photographer, credit.photographer_url)
        site = f" on {_markdown_link(credit.site, _site_url(credit))}" if credit.site else ""
        licence = f", {escape_markdown(credit.licence)}" if credit.licence else ""
        basis = escape_markdown(credit.licence_basis)
        lines.append(
            f"- {title}: photo by {photographer}{site}{licence} (basis: {basis}) "
            f"<!-- {credit.photo_id} -->"
        )
    return "\n".join(lines) + "\n"


def credits_html(credits: Iterable[Credit]) -> str:
    """Format credits as an HTML page."""
    rows = [{"credit": credit, "site_url": _site_url(credit)} for credit in credits]
    return render_page("authface_data.rights", "credits.html.jinja", rows=rows)


def _site_url(credit: Credit) -> str:
    """The home page of Unsplash with the UTM parameters of the credit's URL; "" for other sites."""
    if credit.site != "Unsplash":
        return ""
    query = [pair for pair in urlsplit(credit.url).query.split("&") if pair.startswith("utm_")]
    return UNSPLASH_URL + (f"?{'&'.join(query)}" if query else "")


def _markdown_link(text: str, url: str) -> str:
    """A link, or the escaped text alone if the URL is empty."""
    escaped = escape_markdown(text)
    return f"[{escaped}](<{url}>)" if url else escaped
