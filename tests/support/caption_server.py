"""A local server that speaks OpenAI's chat completions, with the faults of true ones. On 127.0.0.1, stopped by its `with`."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

KEY = "sk-test-5b1c"
SEMANTIC = '{"tags": ["woman", "black hair", "red dress"]}'
PHOTOGRAPHIC = '{"tags": ["smile", "soft light", "blurred background"]}'


class CaptionServer:
    """faults: what happens to the next requests, one each: a status, "slow", "drop", "broken", "empty", "cut", "html".
    knows_schemas: whether response_format is understood. models: that it serves. delay_s: before each answer. needs_key.
    semantic, photographic: what it says. requests: bodies that were asked. most_at_once: requests under way at a time."""

    def __init__(self, delay_s: float = 0.0, needs_key: bool = False):
        self.faults: list[int | str] = []
        self.always: int | str | None = None
        self.knows_schemas = True
        self.models = ["tiny-vlm"]
        self.semantic, self.photographic = SEMANTIC, PHOTOGRAPHIC
        self.delay_s, self.needs_key = delay_s, needs_key
        self.retry_after = ""
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.answered = self.under_way = self.most_at_once = 0
        self._lock = threading.Lock()

    def __enter__(self) -> CaptionServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                return

            def do_GET(self):
                outer.models_of(self)

            def do_POST(self):
                outer.complete(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def models_of(self, request: BaseHTTPRequestHandler) -> None:
        self._send(
            request,
            200,
            {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]},
        )

    def complete(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        with self._lock:
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            self.requests.append(body)
            self.keys.append(request.headers.get("authorization", ""))
            fault = self.faults.pop(0) if self.faults else self.always
        try:
            time.sleep(self.delay_s + (0.5 if fault == "slow" else 0))
            self._answer(request, body, fault)
        finally:
            with self._lock:
                self.under_way -= 1

    def _answer(self, request: BaseHTTPRequestHandler, body: dict, fault: int | str | None) -> None:
        if self.needs_key and request.headers.get("authorization") != f"Bearer {KEY}":
            return self._send(request, 401, {"error": {"message": "Incorrect API key provided"}})
        if body["model"] not in self.models:
            return self._send(
                request, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
            )
        if "response_format" in body and not self.knows_schemas:
            return self._send(
                request, 400, {"error": {"message": "response_format is not supported"}}
            )
        if isinstance(fault, int):
            return self._send(request, fault, {"error": {"message": "try later"}})
        if fault == "drop":
            return request.connection.close()
        if fault == "html":
            return self._send(request, 200, b"<html>proxy</html>")
        image, text = body["messages"][0]["content"]
        data = base64.b64decode(image["image_url"]["url"].split(",")[1])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) <= 1024
        content = self.semantic if "kind of person" in text["text"] else self.photographic
        if "response_format" not in body:
            content = ", ".join(json.loads(content)["tags"])
        if fault == "broken":
            content = content[:-9]
        if fault == "empty":
            content = "  "
        answer = {
            "id": "x",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}],
        }
        if fault == "cut":
            return self._send(request, 200, json.dumps(answer).encode()[:-20])
        self._send(request, 200, answer)
        with self._lock:
            self.answered += 1

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: dict | bytes) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        if status == 429 and self.retry_after:
            request.send_header("retry-after", self.retry_after)
        request.end_headers()
        request.wfile.write(data)
