"""The captioner `server`: any OpenAI-compatible endpoint, such as vLLM, SGLang or a hosted model.

Several requests run at the same time (`captions.server.concurrency`). Every answer is stored in the
workspace as soon as it arrives, under cache/answers with the hashes of crop and request, so that a
killed run does not pay for an answer twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import httpx
from PIL import Image
from pydantic import BaseModel, ValidationError

from authface_data.captions import prompts
from authface_data.captions.compose import NoTags, caption_columns
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.http.answer import Answer, request_answer
from authface_data.http.hosts import is_public
from authface_data.http.retry import (
    RetryableError,
    call_with_retries,
    is_retryable_status,
    retry_after_s,
)
from authface_data.http.transport import DeadlineBackend, PooledTransport, parse_url
from authface_data.images.encode import data_uri
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.parsing import parse_json
from manifests.support.text import excerpt, to_utf8
from manifests.verdicts import Subject
from manifests.workspace import Workspace

API_KEY_VARIABLE = "AUTHFACE_API_KEY"
ANSWERS_FOLDER = "cache/answers"
MAX_TOKENS = 160
MAX_CONTENT_LENGTH = 8000
"""Characters that no answer of `MAX_TOKENS` tokens has."""
JPEG_QUALITY = 95
MAX_SIDE_PX = 1024
TAGS_SCHEMA = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 24}
    },
    "required": ["tags"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "tags", "strict": True, "schema": TAGS_SCHEMA},
}


class _Message(BaseModel):
    content: str | None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """The part of a chat completion that is used."""

    choices: list[_Choice]
    system_fingerprint: str | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    """The part of a list of models that is used."""

    data: list[_Model]


class StoredAnswer(BaseModel):
    """An answer as stored in the workspace: its text, and the server's revision of the model."""

    content: str
    revision: str | None


class ServerStage:
    """Stage that captions faces with a chat model behind an HTTP API.

    Run it in one process: it limits the number of concurrent requests itself.

    Args:
        settings: The section `captions` of the workspace's settings.
        workspace: Stores the answers.
    """

    name = "server"
    version = 1
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "crop_sha256"
    model = None
    libraries = ()

    def __init__(self, settings: Captions, workspace: Workspace) -> None:
        self._captions = settings
        self._server = settings.server
        self._workspace = workspace
        self.batch_size = 4 * self._server.concurrency
        self._supports_schemas = True
        self._failed: dict[str, Exception] = {}

    def settings(self) -> dict[str, Any]:
        """Return what the answers depend on."""
        return {
            "model": self.model_name,
            "prompts": prompts.prompt_hash(),
            "max_tokens": MAX_TOKENS,
        }

    def setup(self, device: str) -> None:
        """Do nothing: the model is loaded on the server."""

    @cached_property
    def model_name(self) -> str:
        """Name of the model in requests: the configured one, or the only one of the server.

        Raises:
            UserError: If no model is configured and the server does not offer exactly one.
        """
        if self._server.model:
            return self._server.model
        try:
            listing = _Models.model_validate(self._request("GET", "models").json())
        except ValidationError as error:
            raise UserError(
                f"{self._host} does not list its models (its answer has another form); choose one "
                "with --model"
            ) from error
        except (ValueError, RetryableError) as error:
            raise UserError(
                f"{self._host} does not list its models ({excerpt(str(error))}); choose one with "
                "--model"
            ) from error
        names = [model.id for model in listing.data]
        if len(names) != 1:
            offered = excerpt(", ".join(names)) or "no model"
            raise UserError(f"{self._host} serves {offered}; choose a model with --model")
        return names[0]

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Caption every crop of the batch, with several requests at a time."""
        # If a row fails, the engine processes the batch again row by row. The failures are known by
        # then, and the answers to the other rows are stored.
        if len(batch) == 1 and batch[0].key in self._failed:
            raise self._failed[batch[0].key]

        with ThreadPoolExecutor(self._server.concurrency) as pool:
            futures = [pool.submit(self._answer_questions, item, write_pixels) for item in batch]
            try:
                rows = [
                    self._collect_row(item, future)
                    for item, future in zip(batch, futures, strict=True)
                ]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

        results: list[Rows | Dropped] = []
        for item, row in zip(batch, rows, strict=True):
            if row is None:
                raise self._failed[item.key]
            results.append(Rows([row]))
        return results

    def _collect_row(self, item: Item, future: Future[list[StoredAnswer]]) -> dict[str, Any] | None:
        """Build the row of a face from its answers, or record the error and return None."""
        try:
            answers = future.result()
            texts = [answer.content for answer in answers]
            columns = caption_columns(texts, item.row.get("measurements"), self._captions)
        except NoTags as error:
            # Without the stored answers, `--retry failed` sends the questions again.
            for question in prompts.QUESTIONS:
                self._workspace.remove(self._answer_path(item, question))
            self._failed[item.key] = error
            return None
        except (RetryableError, ValueError) as error:
            self._failed[item.key] = ValueError(str(error))
            return None
        return {
            "face_id": item.key,
            "captioner": self.name,
            "model": self.model_name,
            "model_revision": answers[0].revision,
            "prompt_hash": prompts.prompt_hash(),
            **columns,
        }

    def _answer_questions(self, item: Item, write_pixels: WritePixels) -> list[StoredAnswer]:
        """Return the answer to each question, from the workspace or from the server."""
        answers: list[StoredAnswer] = []
        image_uri = ""
        for question in prompts.QUESTIONS:
            path = self._answer_path(item, question)
            answer = self._stored_answer(path)
            if answer is None:
                image_uri = image_uri or _crop_uri(item)
                answer = self._complete(image_uri, question)
                write_pixels(path, answer.model_dump_json().encode())
            answers.append(answer)
        return answers

    def _stored_answer(self, path: str) -> StoredAnswer | None:
        """Return an answer of the workspace, or None if it is missing or damaged."""
        if not self._workspace.exists(path):
            return None
        try:
            return StoredAnswer.model_validate(parse_json(self._workspace.read_bytes(path)))
        except ValueError:
            return None

    def _answer_path(self, item: Item, question: str) -> str:
        """Return the path of a stored answer; `authface forget` finds it by the crop's hash."""
        request = fingerprint(model=self.model_name, question=question, max_tokens=MAX_TOKENS)
        return f"{ANSWERS_FOLDER}/{item.row['crop_sha256']}.{request}.json"

    def _complete(self, image_uri: str, question: str) -> StoredAnswer:
        """Request the answer to a question about an image."""
        content = [
            {"type": "image_url", "image_url": {"url": image_uri}},
            {"type": "text", "text": question},
        ]
        body: dict[str, object] = {
            "model": self.model_name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "seed": 0,
        }
        if self._supports_schemas:
            body_with_schema = {**body, "response_format": RESPONSE_FORMAT}
            answer = self._request("POST", "chat/completions", body_with_schema)
            if answer.status in (400, 422):
                self._supports_schemas = False
                answer = self._request("POST", "chat/completions", body)
        else:
            answer = self._request("POST", "chat/completions", body)

        if answer.status != 200:
            raise ValueError(
                f"{self._host} refused the request with HTTP {answer.status}: {answer.excerpt()}"
            )
        return _parse_completion(answer)

    def _request(self, method: str, path: str, body: dict[str, object] | None = None) -> Answer:
        """Send a request, with retries.

        Args:
            method: "GET" or "POST".
            path: Path below the base URL.
            body: JSON body of a POST request.

        Returns:
            The answer. One to "POST" with status 200 is a completion with content.

        Raises:
            PartialFailureError: If the server cannot be reached.
            RetryableError: If every attempt failed otherwise.
            UserError: If the server refuses the API key, or has no such path or model.
        """
        try:
            return call_with_retries(
                lambda: self._request_once(method, path, body), attempts=self._server.attempts
            )
        except httpx.ConnectError as error:
            raise PartialFailureError(
                f"cannot connect to {self._host} ({excerpt(str(error))}); start the server and run "
                "the command again, finished captions are kept"
            ) from error
        except httpx.TransportError as error:
            raise RetryableError(
                f"no response from {self._host}: {type(error).__name__} {excerpt(str(error))}"
            ) from error

    def _request_once(self, method: str, path: str, body: dict[str, object] | None) -> Answer:
        answer = request_answer(
            self._client, method, path, json=body, total_timeout_s=self._server.timeout_s
        )
        status = answer.status
        if is_retryable_status(status):
            raise RetryableError(f"HTTP {status} from {self._host}", retry_after_s(answer.headers))
        if status in (401, 403):
            raise UserError(
                f"{self._host} refuses the key in {API_KEY_VARIABLE} (HTTP {status}); check the key"
            )
        if status == 404:
            raise UserError(
                f"{self._host} has no {path} or no such model (HTTP 404, {answer.excerpt()}); "
                "check --base-url and --model"
            )
        if status == 200 and method == "POST":
            _parse_completion(answer)
        return answer

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {}
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if key:
            is_https = self._base_url.scheme == "https"
            if not is_https and not _is_private_host(self._host):
                raise UserError(
                    f"the key in {API_KEY_VARIABLE} would be sent to {self._host} unencrypted; "
                    "use an https address"
                )
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(
            transport=PooledTransport(DeadlineBackend(), self._server.concurrency),
            base_url=self._base_url,
            headers=headers,
            timeout=self._server.timeout_s,
            trust_env=False,
        )

    @cached_property
    def _base_url(self) -> httpx.URL:
        try:
            return parse_url(self._server.base_url.rstrip("/") + "/")
        except ValueError as error:
            raise UserError(
                f"captions.server.base_url is not a URL: {excerpt(self._server.base_url)}"
            ) from error

    @property
    def _host(self) -> str:
        return self._base_url.host


def _parse_completion(answer: Answer) -> StoredAnswer:
    """Parse a chat completion. Raises RetryableError if it is malformed or empty."""
    try:
        completion = _Completion.model_validate(answer.json())
    except ValueError as error:
        raise RetryableError(f"not a completion: {answer.excerpt(80)}") from error
    content = completion.choices[0].message.content if completion.choices else None
    if not content or not content.strip():
        raise RetryableError("an empty answer")
    if len(content) > MAX_CONTENT_LENGTH:
        raise RetryableError(f"an answer of {len(content):,} characters")
    return StoredAnswer(content=to_utf8(content), revision=completion.system_fingerprint)


def _crop_uri(item: Item) -> str:
    """Return the crop as a JPEG of at most 1,024 px, which is much smaller than the stored file."""
    image = Image.fromarray(item.picture.pixels())
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return data_uri(image, "JPEG", JPEG_QUALITY)


def _is_private_host(host: str) -> bool:
    """Whether a host is this machine or an address of a private network."""
    try:
        return not is_public(host)
    except ValueError:
        return host == "localhost"


def clear_answers(workspace: Workspace) -> None:
    """Remove all stored answers. Call it after their rows are committed."""
    for name in workspace.list_names(ANSWERS_FOLDER):
        workspace.remove(f"{ANSWERS_FOLDER}/{name}")
