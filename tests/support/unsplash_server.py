"""A local server with the Unsplash API and its faults, bound to 127.0.0.1 within its `with` block.

Its responses follow the official description, unsplash_openapi.json; test_unsplash_server.py checks
them against it. The same server delivers the images under /img/, in place of images.unsplash.com.
"""

from __future__ import annotations

import io
import json
import random
import re
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

from PIL import Image, ImageDraw

KEY = "test-key-9f8e7d"
ENDLESS_WINDOW_S = 1e9
"""Length of an "hour" that does not end while the tests run."""
LIMIT_BODY = b"Rate Limit Exceeded"


@dataclass
class Photo:
    """A photograph of the server."""

    id: str
    data: bytes
    width: int
    height: int
    content_type: str = "image/jpeg"
    faults: list[str] = field(default_factory=list)
    """What happens to the first requests for the image: an HTTP status, truncate, slow or drop."""
    is_plus: bool = False
    """It belongs to Unsplash+."""
    is_deleted: bool = False
    """Its page and its image do not exist."""
    redirect_to: str = ""
    """Where requests for the image are redirected."""
    raw_url: str = ""
    """The URL of the image in the API's responses, instead of the server's own."""
    last_name: str | None = "Doe"


def make_jpeg(
    number: int, size: tuple[int, int] = (96, 72), base: Image.Image | None = None
) -> bytes:
    """A JPEG that differs clearly from those of other numbers, or `base` as a JPEG."""
    image = _random_image(number, size) if base is None else base
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _random_image(number: int, size: tuple[int, int]) -> Image.Image:
    """Twelve rectangles of random colours on a random background."""
    rng = random.Random(number)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, right = sorted(rng.randrange(size[0]) for _ in range(2))
        top, bottom = sorted(rng.randrange(size[1]) for _ in range(2))
        fill = tuple(rng.randrange(256) for _ in range(3))
        draw.rectangle((left, top, right, bottom), fill=fill)
    return image


class UnsplashServer:
    """The server. Use as a context manager; `url` is known inside the block.

    Args:
        photos: The photographs of every listing.
        limit: API requests per window.
        window_s: Length of the window, in seconds.
        delay_s: Time before each image is sent, in seconds.

    Attributes:
        api_faults: Statuses of the next API requests, or "json403".
        new_photos: One of them appears at the top of the listing after each page.
        spam: Queries that are refused as spam.
        range_faults: What is wrong with the next partial responses.
        etag: ETag of all images; by default each image has another.
        report_statuses: Statuses of reports that are refused, by photograph.
        locations: Download locations in the API's responses, by photograph.
        has_null_details: The details of every photograph are null.
        repeats_first_page: Every page is the first.
        reports: Number of reported downloads by photograph.
        requests: Paths of all API requests.
        image_requests: Number of image requests by photograph.
        range_requests: Number of image requests for a part, by photograph.
        max_concurrent: Largest number of image requests at the same time.
        used_requests: Number of counted API requests by window.
    """

    def __init__(
        self,
        photos: list[Photo],
        limit: int = 5000,
        window_s: float = ENDLESS_WINDOW_S,
        delay_s: float = 0.0,
    ) -> None:
        self.photos = list(photos)
        self.limit = limit
        self.window_s = window_s
        self.delay_s = delay_s
        self.api_faults: list[int | str] = []
        self.new_photos: list[Photo] = []
        self.spam: set[str] = set()
        self.allows_ranges = True
        self.range_faults: list[str] = []
        self.etag = ""
        self.report_statuses: dict[str, int] = {}
        self.locations: dict[str, str] = {}
        self.has_null_details = False
        self.repeats_first_page = False

        self.reports: Counter[str] = Counter()
        self.requests: list[str] = []
        self.image_requests: Counter[str] = Counter()
        self.range_requests: Counter[str] = Counter()
        self.concurrent = 0
        self.max_concurrent = 0
        self.used_requests: dict[int, int] = defaultdict(int)
        self.lock = threading.Lock()

    def __enter__(self) -> UnsplashServer:
        outer = self

        class Handler(_Handler):
            state = outer

        self._http_server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http_server.server_address[1]}"
        serve = self._http_server.serve_forever
        threading.Thread(target=serve, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http_server.shutdown()
        self._http_server.server_close()

    def by_id(self, photo_id: str) -> Photo | None:
        return next((photo for photo in self.photos if photo.id == photo_id), None)

    def current_window(self) -> int:
        return int(time.time() // self.window_s)

    # Response bodies, in the form of the official description

    def basic_asset(self, photo: Photo) -> dict:
        """`Asset.Basic` of the description: a photograph in a listing."""
        image_url = photo.raw_url
        if not image_url:
            query = f"ixid=M3w{photo.id}&ixlib=rb-4.1.0"
            image_url = f"{self.url}/img/photo-{quote(photo.id)}?{query}"
        if photo.is_plus:
            image_url = f"https://plus.unsplash.com/premium_photo-{photo.id}?ixid=M3w{photo.id}"
        sizes = ("full", "regular", "small", "thumb")
        location = f"{self.url}/photos/{photo.id}/download?ixid=M3w{photo.id}"
        return {
            "id": photo.id,
            "slug": f"a-face-{photo.id}",
            "created_at": "2025-03-01T12:00:00Z",
            "updated_at": "2025-03-01T12:00:00Z",
            "promoted_at": None,
            "width": photo.width,
            "height": photo.height,
            "color": "#262626",
            "blur_hash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
            "description": None,
            "alt_description": f"a face, number {photo.id}",
            "urls": {"raw": image_url, **{size: f"{image_url}&{size}" for size in sizes}},
            "links": {
                "self": f"{self.url}/photos/{photo.id}",
                "html": f"https://unsplash.com/photos/a-face-{photo.id}",
                "download": f"https://unsplash.com/photos/{photo.id}/download?ixid=M3w",
                "download_location": self.locations.get(photo.id, location),
            },
            "current_user_collections": [],
            "likes": 3,
            "user": self.basic_user(photo),
        }

    def basic_user(self, photo: Photo) -> dict:
        """`User.Basic` of the description."""
        username = f"user_{photo.id.strip('-_').lower()}"
        avatar_url = "https://images.unsplash.com/placeholder-avatars"
        return {
            "id": f"U{photo.id}",
            "updated_at": "2025-03-01T12:00:00Z",
            "username": username,
            "name": " ".join(part for part in ("Jane", photo.last_name) if part),
            "first_name": "Jane",
            "last_name": photo.last_name,
            "bio": None,
            "location": None,
            "links": {
                "self": f"{self.url}/users/{username}",
                "html": f"https://unsplash.com/@{username}",
                "photos": f"{self.url}/users/{username}/photos",
            },
            "profile_image": dict.fromkeys(("small", "medium", "large"), avatar_url),
            "total_collections": 0,
            "social": {"instagram_username": None, "portfolio_url": None, "twitter_username": None},
        }

    def full_asset(self, photo: Photo) -> dict:
        """`Asset.Full` of the description: the page of a photograph."""
        return {
            **self.basic_asset(photo),
            "exif": {
                "name": "Canon, EOS R5",
                "make": "Canon",
                "model": "EOS R5",
                "exposure_time": "1/125",
                "aperture": "2.8",
                "focal_length": "85.0",
                "iso": 200,
            },
            "location": {
                "city": "Berlin",
                "country": "Germany",
                "name": "Berlin, Germany",
                "position": {"latitude": 52.52, "longitude": 13.4},
            },
            "downloads": 17,
            "tags": [{"type": "search", "title": "portrait"}, {"type": "search", "title": "woman"}],
            "public_domain": False,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        return  # a client was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: UnsplashServer

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        params = {name: values[0] for name, values in query.items()}
        try:
            if parts.path.startswith("/img/"):
                self._handle_image(parts.path, params)
            else:
                self._handle_api(parts.path, params)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # The API

    def _handle_api(self, path: str, params: dict[str, str]) -> None:
        if self.headers.get("Authorization") != f"Client-ID {KEY}":
            return self._send_errors(401, "OAuth error: The access token is invalid")
        with self.state.lock:
            self.state.requests.append(self.path)
            window = self.state.current_window()
            if self.state.used_requests[window] >= self.state.limit:
                limit = str(self.state.limit)
                headers = {"X-Ratelimit-Limit": limit, "X-Ratelimit-Remaining": "0"}
                return self._send(403, LIMIT_BODY, "text/plain", headers)
            self.state.used_requests[window] += 1
            fault = self.state.api_faults.pop(0) if self.state.api_faults else None
        if fault == "json403":
            return self._send_errors(403, "You do not have permission to access this resource")
        if isinstance(fault, int):
            return self._send_errors(fault, "Something went wrong")

        if match := re.fullmatch(r"/photos/([^/]+)/download", path):
            return self._handle_report(match[1])
        if match := re.fullmatch(r"/photos/([^/]+)", path):
            return self._handle_details(match[1])
        if path == "/search/photos":
            if params.get("query") in self.state.spam:
                return self._send_errors(410, "Query flagged as spam")
            return self._handle_page(path, params, is_search=True)
        if re.fullmatch(r"/(topics|collections|users)/[^/]+/photos", path):
            return self._handle_page(path, params, is_search=False)
        return self._send_errors(404, "Not found")

    def _handle_details(self, photo_id: str) -> None:
        photo = self.state.by_id(photo_id)
        if photo is None or photo.is_deleted:
            return self._send_errors(404, "Couldn't find Photo")
        body = self.state.full_asset(photo)
        if self.state.has_null_details:
            body |= {"exif": None, "location": None, "tags": None}
        return self._send_json(200, body)

    def _handle_page(self, path: str, params: dict[str, str], is_search: bool) -> None:
        state = self.state
        number = int(params.get("page", 1))
        page_size = min(int(params.get("per_page", 10)), 30)
        if state.repeats_first_page:
            return self._send_json(200, [state.basic_asset(photo) for photo in state.photos])

        with state.lock:
            photos = list(state.photos)
            if params.get("order_by") == "latest" and state.new_photos:
                state.photos.insert(0, state.new_photos.pop(0))
        page = photos[(number - 1) * page_size : number * page_size]
        items = [state.basic_asset(photo) for photo in page]
        num_pages = -(-len(photos) // page_size)
        links = self._page_links(path, params, number, num_pages)
        headers = {"Link": ", ".join(links)} if links else {}
        if is_search:
            body = {"total": len(photos), "total_pages": num_pages, "results": items}
            return self._send_json(200, body, headers)
        headers["X-Total"] = str(len(photos))
        return self._send_json(200, items, headers)

    def _page_links(
        self, path: str, params: dict[str, str], number: int, num_pages: int
    ) -> list[str]:
        """The parts of the Link header."""
        pages = {"prev": number - 1, "next": number + 1}
        if number != 1:
            pages["first"] = 1
        if number < num_pages:
            pages["last"] = num_pages
        query = "".join(
            f"{name}={quote(value)}&" for name, value in params.items() if name != "page"
        )
        return [
            f'<{self.state.url}{path}?{query}page={page}>; rel="{relation}"'
            for relation, page in pages.items()
            if 1 <= page <= num_pages
        ]

    def _handle_report(self, photo_id: str) -> None:
        if photo_id in self.state.report_statuses:
            status = self.state.report_statuses[photo_id]
            return self._send_errors(status, "Something is wrong with this photo")
        with self.state.lock:
            self.state.reports[photo_id] += 1
        return self._send_json(200, {"url": f"{self.state.url}/img/photo-{photo_id}"})

    def _send_errors(self, status: int, message: str) -> None:
        self._send_json(status, {"errors": [message]})

    def _send_json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        state = self.state
        remaining = max(state.limit - state.used_requests[state.current_window()], 0)
        all_headers = {
            "X-Ratelimit-Limit": str(state.limit),
            "X-Ratelimit-Remaining": str(remaining),
            **(headers or {}),
        }
        self._send(status, json.dumps(body).encode(), "application/json", all_headers)

    # Images

    def _handle_image(self, path: str, params: dict[str, str]) -> None:
        state = self.state
        photo = state.by_id(path.removeprefix("/img/photo-"))
        with state.lock:
            state.concurrent += 1
            state.max_concurrent = max(state.concurrent, state.max_concurrent)
        try:
            if state.delay_s:
                time.sleep(state.delay_s)
            self._send_image(photo, params)
        finally:
            with state.lock:
                state.concurrent -= 1

    def _send_image(self, photo: Photo | None, params: dict[str, str]) -> None:
        state = self.state
        if photo is None or photo.is_deleted:
            return self._send(404, b"Not Found", "text/plain")
        with state.lock:
            state.image_requests[photo.id] += 1
            fault = photo.faults.pop(0) if photo.faults else ""
        if photo.redirect_to:
            return self._send(302, b"", "text/plain", {"Location": photo.redirect_to})
        if fault.isdigit():
            return self._send(int(fault), b"busy", "text/plain")

        data = photo.data
        if "w" in params and photo.content_type == "image/jpeg":
            data = _resized_jpeg(data, int(params["w"]))
        etag = state.etag or f'"{photo.id}-{len(data)}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes" if state.allows_ranges else "none"}
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        is_same_version = self.headers.get("If-Range", etag) == etag
        if requested is None or not state.allows_ranges or not is_same_version:
            return self._send(200, data, photo.content_type, headers, fault)

        with state.lock:
            state.range_requests[photo.id] += 1
        start = int(requested[1])
        if start >= len(data):
            content_range = {"Content-Range": f"bytes */{len(data)}"}
            return self._send(416, b"", "text/plain", content_range)
        last = int(requested[2]) if requested[2] else len(data) - 1
        part = data[start : last + 1]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        if state.range_faults:
            range_fault = state.range_faults.pop(0)
            part, headers = _spoil_part(part, headers, len(data), range_fault)
        return self._send(206, part, photo.content_type, headers, fault)

    def _send(
        self,
        status: int,
        body: bytes,
        content_type: str,
        headers: dict[str, str] | None = None,
        fault: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "drop":
            self.close_connection = True
        elif fault == "truncate":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "slow":
            step = max(len(body) // 20, 1)
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
                time.sleep(0.25)
        else:
            self.wfile.write(body)


def _resized_jpeg(data: bytes, width: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((width, 10**6))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _spoil_part(
    part: bytes, headers: dict[str, str], total: int, fault: str
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a partial response with a fault."""
    if fault == "another version":
        return b"x" * len(part), {**headers, "ETag": '"newer"'}
    if fault == "incomplete part":
        return part[: len(part) // 2], headers
    if fault == "another total":
        content_range = headers["Content-Range"].replace(f"/{total}", f"/{total + 99}")
        return part, {**headers, "Content-Range": content_range}
    raise ValueError(f"unknown fault {fault!r}")
