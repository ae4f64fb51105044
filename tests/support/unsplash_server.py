"""A local server that speaks the Unsplash API, with the faults of the true one. Bound to 127.0.0.1, stopped by its `with`.

Its answers follow the official description (unsplash_openapi.json beside this; test_unsplash_server.py holds them against it).
Images come from the same server under /img/, as images.unsplash.com would give them.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

from PIL import Image, ImageDraw

KEY = "test-key-9f8e7d"
NO_TURN_S = 1e9  # an "hour" that does not turn while tests run
LIMIT_TEXT = b"Rate Limit Exceeded"


@dataclass
class Photo:
    """faults: what happens to the first requests for its image, one each: 503, truncate, slow, drop. plus: of Unsplash+.
    deleted: its page and image are gone. moved: where its image redirects to. raw: its URL as it is told, in place of ours."""

    id: str
    data: bytes
    width: int
    height: int
    content_type: str = "image/jpeg"
    faults: list[str] = field(default_factory=list)
    plus: bool = False
    deleted: bool = False
    moved: str = ""
    raw: str = ""
    last_name: str | None = "Doe"


def picture(
    number: int, size: tuple[int, int] = (96, 72), base: Image.Image | None = None
) -> bytes:
    """A JPEG unlike the others by its number: no two are near one another."""
    import random

    rng = random.Random(number)
    image = (
        Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
        if base is None
        else base.copy()
    )
    draw = ImageDraw.Draw(image)
    for _ in range(12 if base is None else 0):
        box = (
            sorted(rng.randrange(size[0]) for _ in range(2)),
            sorted(rng.randrange(size[1]) for _ in range(2)),
        )
        fill = tuple(rng.randrange(256) for _ in range(3))
        draw.rectangle((box[0][0], box[1][0], box[0][1], box[1][1]), fill=fill)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


class UnsplashServer:
    """limit: API requests per window. api_faults: statuses for the next API requests. shift: a photograph that is new appears
    on top after each page. range_lies: what is wrong with the next answers to ranges. tag: every ETag. delay_s: before each
    image. report_status: of reports that are refused, per id. locations: where downloads are said to be reported, per id.
    null_details, repeats: details are null; every page is the first. reports: downloads reported, per id. requests: paths
    asked for."""

    def __init__(
        self,
        photos: list[Photo],
        limit: int = 5000,
        window_s: float = NO_TURN_S,
        delay_s: float = 0.0,
    ):
        self.photos, self.limit, self.window_s, self.delay_s = (
            list(photos),
            limit,
            window_s,
            delay_s,
        )
        self.api_faults: list[int | str] = []
        self.shift: list[Photo] = []
        self.spam: set[str] = set()
        self.ranges_allowed = True
        self.range_lies: list[str] = []
        self.tag = ""
        self.report_status: dict[str, int] = {}
        self.locations: dict[str, str] = {}
        self.null_details = self.repeats = False
        self.reports: Counter[str] = Counter()
        self.requests: list[str] = []
        self.image_requests: Counter[str] = Counter()
        self.range_requests: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.used: dict[int, int] = defaultdict(int)
        self.lock = threading.Lock()

    def __enter__(self) -> UnsplashServer:
        outer = self

        class Handler(_Handler):
            server_state = outer

        self.httpd = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()

    def by_id(self, photo_id: str) -> Photo | None:
        return next((photo for photo in self.photos if photo.id == photo_id), None)

    # Answers, in the form of the official description

    def basic(self, photo: Photo) -> dict:
        """Asset.Basic"""
        image = (
            photo.raw or f"{self.url}/img/photo-{quote(photo.id)}?ixid=M3w{photo.id}&ixlib=rb-4.1.0"
        )
        if photo.plus:
            image = f"https://plus.unsplash.com/premium_photo-{photo.id}?ixid=M3w{photo.id}"
        now = "2025-03-01T12:00:00Z"
        return {
            "id": photo.id,
            "slug": f"a-face-{photo.id}",
            "created_at": now,
            "updated_at": now,
            "promoted_at": None,
            "width": photo.width,
            "height": photo.height,
            "color": "#262626",
            "blur_hash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
            "description": None,
            "alt_description": f"a face, number {photo.id}",
            "urls": {
                name: f"{image}&{name}" if name != "raw" else image
                for name in ("raw", "full", "regular", "small", "thumb")
            },
            "links": {
                "self": f"{self.url}/photos/{photo.id}",
                "html": f"https://unsplash.com/photos/a-face-{photo.id}",
                "download": f"https://unsplash.com/photos/{photo.id}/download?ixid=M3w",
                "download_location": self.locations.get(
                    photo.id, f"{self.url}/photos/{photo.id}/download?ixid=M3w{photo.id}"
                ),
            },
            "current_user_collections": [],
            "likes": 3,
            "user": self.user(photo),
        }

    def user(self, photo: Photo) -> dict:
        """User.Basic"""
        name = f"user_{photo.id.strip('-_').lower()}"
        return {
            "id": f"U{photo.id}",
            "updated_at": "2025-03-01T12:00:00Z",
            "username": name,
            "name": " ".join(part for part in ("Jane", photo.last_name) if part),
            "first_name": "Jane",
            "last_name": photo.last_name,
            "bio": None,
            "location": None,
            "links": {
                "self": f"{self.url}/users/{name}",
                "html": f"https://unsplash.com/@{name}",
                "photos": f"{self.url}/users/{name}/photos",
            },
            "profile_image": dict.fromkeys(
                ("small", "medium", "large"), "https://images.unsplash.com/placeholder-avatars"
            ),
            "total_collections": 0,
            "social": {"instagram_username": None, "portfolio_url": None, "twitter_username": None},
        }

    def full(self, photo: Photo) -> dict:
        """Asset.Full"""
        return {
            **self.basic(photo),
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
        return  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: UnsplashServer

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {
            name: values[0]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        try:
            if parts.path.startswith("/img/"):
                self._image(parts.path, asked)
            else:
                self._api(parts.path, asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # The API

    def _api(self, path: str, asked: dict[str, str]) -> None:
        state = self.server_state
        if self.headers.get("Authorization") != f"Client-ID {KEY}":
            return self._errors(401, "OAuth error: The access token is invalid")
        with state.lock:
            state.requests.append(self.path)
            window = int(time.time() // state.window_s)
            if state.used[window] >= state.limit:
                headers = {"X-Ratelimit-Limit": str(state.limit), "X-Ratelimit-Remaining": "0"}
                return self._send(403, LIMIT_TEXT, "text/plain", headers)
            state.used[window] += 1
            fault = state.api_faults.pop(0) if state.api_faults else None
        if fault == "json403":
            return self._errors(403, "You do not have permission to access this resource")
        if isinstance(fault, int):
            return self._errors(fault, "Something went wrong")
        if found := re.fullmatch(r"/photos/([^/]+)/download", path):
            return self._report(found[1])
        if found := re.fullmatch(r"/photos/([^/]+)", path):
            photo = state.by_id(found[1])
            if photo is None or photo.deleted:
                return self._errors(404, "Couldn't find Photo")
            nothing = {"exif": None, "location": None, "tags": None} if state.null_details else {}
            return self._json(200, {**state.full(photo), **nothing})
        if path == "/search/photos":
            if asked.get("query") in state.spam:
                return self._errors(410, "Query flagged as spam")
            return self._page(path, asked, search=True)
        if re.fullmatch(r"/(topics|collections|users)/[^/]+/photos", path):
            return self._page(path, asked, search=False)
        return self._errors(404, "Not found")

    def _page(self, path: str, asked: dict[str, str], search: bool) -> None:
        state = self.server_state
        number, size = int(asked.get("page", 1)), min(int(asked.get("per_page", 10)), 30)
        if state.repeats:
            return self._json(200, [state.basic(photo) for photo in state.photos])
        with state.lock:
            found = list(state.photos)
            if asked.get("order_by") == "latest" and state.shift:
                state.photos.insert(0, state.shift.pop(0))
        items = [state.basic(photo) for photo in found[(number - 1) * size : number * size]]
        pages = -(-len(found) // size)
        links = []
        others = "&".join(
            f"{name}={quote(value)}" for name, value in asked.items() if name != "page"
        )
        for name, page in (
            ("first", 1),
            ("prev", number - 1),
            ("next", number + 1),
            ("last", pages),
        ):
            if (
                1 <= page <= pages
                and not (name == "first" and number == 1)
                and not (name == "last" and number >= pages)
            ):
                links.append(f'<{state.url}{path}?{others}&page={page}>; rel="{name}"')
        headers = {"Link": ", ".join(links)} if links else {}
        if not search:
            headers["X-Total"] = str(len(found))
        self._json(
            200,
            {"total": len(found), "total_pages": pages, "results": items} if search else items,
            headers,
        )

    def _report(self, photo_id: str) -> None:
        state = self.server_state
        if photo_id in state.report_status:
            return self._errors(state.report_status[photo_id], "Something is wrong with this photo")
        with state.lock:
            state.reports[photo_id] += 1
        self._json(200, {"url": f"{state.url}/img/photo-{photo_id}"})

    def _errors(self, status: int, words: str) -> None:
        self._json(status, {"errors": [words]})

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        state = self.server_state
        left = max(state.limit - state.used[int(time.time() // state.window_s)], 0)
        limits = {"X-Ratelimit-Limit": str(state.limit), "X-Ratelimit-Remaining": str(left)}
        self._send(
            status, json.dumps(body).encode(), "application/json", {**limits, **(headers or {})}
        )

    # Images

    def _image(self, path: str, asked: dict[str, str]) -> None:
        state = self.server_state
        photo = state.by_id(path.removeprefix("/img/photo-"))
        with state.lock:
            state.at_once += 1
            state.most_at_once = max(state.at_once, state.most_at_once)
        try:
            if state.delay_s:
                time.sleep(state.delay_s)
            self._serve(photo, asked)
        finally:
            with state.lock:
                state.at_once -= 1

    def _serve(self, photo: Photo | None, asked: dict[str, str]) -> None:
        state = self.server_state
        if photo is None or photo.deleted:
            return self._send(404, b"Not Found", "text/plain")
        with state.lock:
            state.image_requests[photo.id] += 1
            fault = photo.faults.pop(0) if photo.faults else ""
        if photo.moved:
            return self._send(302, b"", "text/plain", {"Location": photo.moved})
        if fault.isdigit():
            return self._send(int(fault), b"busy", "text/plain")
        data = photo.data
        if "w" in asked and photo.content_type == "image/jpeg":
            with Image.open(io.BytesIO(data)) as image:
                image.thumbnail((int(asked["w"]), 10**6))
                out = io.BytesIO()
                image.convert("RGB").save(out, "JPEG", quality=80)
            data = out.getvalue()
        tag = state.tag or f'"{photo.id}-{len(data)}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes" if state.ranges_allowed else "none"}
        status, start = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and state.ranges_allowed and self.headers.get("If-Range", tag) == tag:
            start = int(wanted[1])
            with state.lock:
                state.range_requests[photo.id] += 1
            if start >= len(data):
                return self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(data)}"})
            end = int(wanted[2]) + 1 if wanted[2] else len(data)
            status, data_sent = 206, data[start:end]
            headers["Content-Range"] = f"bytes {start}-{start + len(data_sent) - 1}/{len(data)}"
            lie = state.range_lies.pop(0) if state.range_lies else ""
            if lie == "another version":
                headers["ETag"], data_sent = '"newer"', b"x" * len(data_sent)
            elif lie == "less than it says":
                data_sent = data_sent[: len(data_sent) // 2]
            elif lie == "another total":
                headers["Content-Range"] = (
                    f"bytes {start}-{start + len(data_sent) - 1}/{len(data) + 99}"
                )
        else:
            data_sent = data
        self._send(status, data_sent, photo.content_type, headers, fault)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        fault: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "truncate":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if fault == "slow":
            for at in range(0, len(body), max(len(body) // 20, 1)):
                self.wfile.write(body[at : at + max(len(body) // 20, 1)])
                self.wfile.flush()
                time.sleep(0.25)
            return
        self.wfile.write(body)
