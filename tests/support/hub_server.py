"""A stand-in of the Hugging Face hub's upload API, bound to 127.0.0.1 within its `with` block.

It has what `huggingface_hub` calls to create a repository and to commit files: `repos/create`,
`preupload`, Git LFS and `commit`. Large files arrive through LFS, as on the hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test_token"
LFS_SUFFIXES = (".parquet", ".safetensors")


@dataclass
class Repository:
    """A repository of the server."""

    kind: str
    visibility: str
    files: dict[str, bytes] = field(default_factory=dict)


class HubServer:
    """The server.

    Attributes:
        url: Its address, for HF_ENDPOINT.
        repositories: Name -> repository.
        refuse: Whether uploads are refused, as for a token without write access.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer(401, {"error": "Invalid username or password."})
                return self.answer(*hub.post(self.path.partition("?")[0], body))

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                hub.objects[self.path.rpartition("/")[2]] = data
                self.answer(200, {})

            def answer(self, status: int, value: object) -> None:
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, body: bytes) -> tuple[int, object]:
        """Answer a POST request: its status and its JSON."""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.refuse:
            return 403, {"error": "You don't have the rights to write here."}
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if path == "/api/validate-yaml":  # of the card
            return 200, {"errors": [], "warnings": []}
        name = "/".join(path.split("/")[3:5])
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"error": f"there is no repository {name}: {path}"}
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if "/commit/" in path:
            return self._commit(name, repository, body)
        return 404, {"error": path}

    def _create(self, request: dict[str, str]) -> tuple[int, object]:
        name = f"{request['organization']}/{request['name']}"
        kind = request.get("type", "model")
        prefix = "datasets/" if kind == "dataset" else ""
        url = f"{self.url}/{prefix}{name}"
        if name in self.repositories:
            return 409, {"error": "You already created this repository", "url": url}
        self.repositories[name] = Repository(kind, request.get("visibility", "public"))
        return 200, {"url": url, "name": name}

    def _batch(self, request: dict[str, list]) -> tuple[int, object]:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}
            for item in request["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, name: str, repository: Repository, body: bytes) -> tuple[int, object]:
        for line in body.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                data = self.objects[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                repository.files[value["path"]] = data
        url = f"{self.url}/{name}/commit/abc"
        return 200, {"success": True, "commitOid": "abc", "commitUrl": url, "hookOutput": ""}
