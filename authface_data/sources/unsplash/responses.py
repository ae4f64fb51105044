"""The parts of the Unsplash API's responses that are used. Unknown fields are ignored.

Source: https://unsplash.com/documentation
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore")


class UserLinks(_Response):
    """Links of a user."""

    html: str


class User(_Response):
    """The photographer."""

    username: str
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    links: UserLinks | None = None

    @property
    def full_name(self) -> str:
        """The display name, otherwise first and last name, otherwise the username."""
        first_and_last = " ".join(part for part in (self.first_name, self.last_name) if part)
        return self.name or first_and_last or self.username


class Urls(_Response):
    """URLs of the image file."""

    raw: str


class Links(_Response):
    """Links of a photograph."""

    html: str
    download_location: str


class Photo(_Response):
    """A photograph in a listing."""

    id: str
    width: int
    height: int
    description: str | None = None
    alt_description: str | None = None
    urls: Urls
    links: Links
    user: User


class Exif(_Response):
    """Camera data. Numbers may be texts, and fractions such as "1/125"."""

    make: str | None = None
    model: str | None = None
    exposure_time: str | float | None = None
    aperture: str | float | None = None
    focal_length: str | float | None = None
    iso: float | str | None = None


class Position(_Response):
    """Coordinates in degrees."""

    latitude: float | None = None
    longitude: float | None = None


class Location(_Response):
    """Where a photograph was taken."""

    name: str | None = None
    position: Position | None = None


class Tag(_Response):
    """A keyword."""

    title: str | None = None


class Details(_Response):
    """What the page of a single photograph has beyond its entry in a listing."""

    exif: Exif | None = None
    location: Location | None = None
    tags: list[Tag] | None = None


MAX_NUMBER = 1e12


def parse_number(value: str | float | None) -> float | None:
    """A number, or a text with a number or a fraction such as "1/125".

    Args:
        value: The value of a field.

    Returns:
        The number, or None if the value is missing, malformed or absurdly large.
    """
    try:
        numerator, _, denominator = str(value).partition("/")
        number = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return number if abs(number) < MAX_NUMBER else None
