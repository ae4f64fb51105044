"""A local server for OpenAI's chat completions API that can simulate the faults of real servers."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

KEY = "sk-test-5b1c"
SEMANTIC_ANSWER = '{"tags": ["woman", "black hair", "red dress"]}'
PHOTOGRAPHIC_ANSWER = '{"tags": ["smile", "soft light", "blurred background"]}'


class CaptionServer:
    """Context manager that serves on a free port of 127.0.0.1.

    Args:
        delay_s: Time before each response.
        needs_key: Whether requests without the key are refused.

    Attributes:
        faults: Faults of the next requests, one per request: a status code, "slow", "drop",
            "broken", "empty", "cut" or "html".
        permanent_fault: Fault of all requests once `faults` is empty.
        supports_schemas: Whether `response_format` is accepted.
        models: Names of the served models.
        semantic: Answer to the semantic question.
        photographic: Answer to the photographic question.
        retry_after: Value of the header Retry-After in responses with status 429.
        requests: Bodies of all requests.
        keys: Authorization headers of all requests.
        answered: Number of answers sent.
        max_concurrent: Largest number of concurrent requests.
    """

    def __init__(self, delay_s: float = 0.0, needs_key: bool = False) -> None:
        self.delay_s = delay_s
        self.needs_key = needs_key
        self.faults: list[int | str] = []
        self.permanent_fault: int | str | None = None
        self.supports_schemas = True
        self.models = ["tiny-vlm"]
        self.semantic = SEMANTIC_ANSWER
        self.photographic = PHOTOGRAPHIC_ANSWER
        self.retry_after = ""
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.answered = 0
        self.max_concurrent = 0
        self._concurrent = 0
        self._lock = threading.Lock()

    def __enter__(self) -> CaptionServer:
        caption_server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                return

            def do_GET(self):
                caption_server.list_models(self)

            def do_POST(self):
                caption_server.complete(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def list_models(self, request: BaseHTTPRequestHandler) -> None:
        """Respond to GET /models."""
        models = [{"id": name, "object": "model"} for name in self.models]
        self._send(request, 200, {"object": "list", "data": models})

    def complete(self, request: BaseHTTPRequestHandler) -> None:
        """Respond to POST /chat/completions."""
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        with self._lock:
            self._concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self._concurrent)
            self.requests.append(body)
            self.keys.append(request.headers.get("authorization", ""))
            fault = self.faults.pop(0) if self.faults else self.permanent_fault
        try:
            time.sleep(self.delay_s + (0.5 if fault == "slow" else 0))
            self._respond(request, body, fault)
        finally:
            with self._lock:
                self._concurrent -= 1

    def _respond(
        self, request: BaseHTTPRequestHandler, body: dict, fault: int | str | None
    ) -> None:
        if self.needs_key and request.headers.get("authorization") != f"Bearer {KEY}":
            return self._send_error(request, 401, "Incorrect API key provided")
        if body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist."
            return self._send_error(request, 404, message)
        if "response_format" in body and not self.supports_schemas:
            return self._send_error(request, 400, "response_format is not supported")
        if isinstance(fault, int):
            return self._send_error(request, fault, "try later")
        if fault == "drop":
            return request.connection.close()
        if fault == "html":
            return self._send(request, 200, b"<html>proxy</html>")

        completion = {
            "id": "x",
            "system_fingerprint": "fp_1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self._answer(body, fault)},
                }
            ],
        }
        if fault == "cut":
            return self._send(request, 200, json.dumps(completion).encode()[:-20])
        self._send(request, 200, completion)
        with self._lock:
            self.answered += 1

    def _answer(self, body: dict, fault: int | str | None) -> str:
        """The answer to the question of a request, after checking the request's image."""
        image, text = body["messages"][0]["content"]
        data = base64.b64decode(image["image_url"]["url"].split(",")[1])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) <= 1024

        answer = self.semantic if "kind of person" in text["text"] else self.photographic
        if "response_format" not in body:
            answer = ", ".join(json.loads(answer)["tags"])
        if fault == "broken":
            return answer[:-9]
        if fault == "empty":
            return "  "
        return answer

    def _send_error(self, request: BaseHTTPRequestHandler, status: int, message: str) -> None:
        self._send(request, status, {"error": {"message": message}})

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: dict | bytes) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        if status == 429 and self.retry_after:
            request.send_header("retry-after", self.retry_after)
        request.end_headers()
        request.wfile.write(data)
