"""What of the Unsplash API's answers is used, typed. Fields that are not known are ignored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


class UserLinks(_Answer):
    html: str


class User(_Answer):
    username: str
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    links: UserLinks | None = None

    @property
    def full_name(self) -> str:
        return (
            self.name
            or " ".join(part for part in (self.first_name, self.last_name) if part)
            or self.username
        )


class Urls(_Answer):
    raw: str


class Links(_Answer):
    html: str
    download_location: str


class Photo(_Answer):
    """A photograph as pages list it."""

    id: str
    width: int
    height: int
    description: str | None = None
    alt_description: str | None = None
    urls: Urls
    links: Links
    user: User


class Exif(_Answer):
    make: str | None = None
    model: str | None = None
    exposure_time: str | float | None = None
    aperture: str | float | None = None
    focal_length: str | float | None = None
    iso: float | str | None = None


class Position(_Answer):
    latitude: float | None = None
    longitude: float | None = None


class Location(_Answer):
    name: str | None = None
    position: Position | None = None


class Tag(_Answer):
    title: str | None = None


class Details(_Answer):
    """What only a photograph's own page tells."""

    exif: Exif | None = None
    location: Location | None = None
    tags: list[Tag] | None = None
