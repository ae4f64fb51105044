"""Tags by any OpenAI-compatible endpoint: vLLM, SGLang, a hosted one.

Requests are under way side by side, as many as the setting says. Every answer is kept in the workspace as soon as it is there
(cache/answers, by the crop's hash and the request's), so that a run that was killed pays for nothing twice.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image
from pydantic import BaseModel, ValidationError

from authface_data.captions import prompts
from authface_data.captions.compose import NoTags, caption_columns
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.http.hosts import is_public
from authface_data.http.retry import (
    RetryableError,
    call_with_retries,
    is_retryable_status,
    retry_after_s,
)
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import Subject
from manifests.workspace import Workspace

KEY_VARIABLE = "AUTHFACE_API_KEY"
ANSWERS = "cache/answers"
MAX_TOKENS, JPEG_QUALITY, LONGEST_SIDE_PX = 160, 95, 1024
SHAPE = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 24}
    },
    "required": ["tags"],
    "additionalProperties": False,
}


class _Message(BaseModel):
    content: str | None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """What of an answer is looked at."""

    choices: list[_Choice]
    system_fingerprint: str | None = None


class ServerStage:
    """Not to be run in several processes: the number of requests under way is this object's to keep."""

    name = "server"
    version = 1
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "crop_sha256"
    uses_gpu = False

    def __init__(self, settings: Captions, workspace: Workspace):
        self._captions, self._server, self._workspace = settings, settings.server, workspace
        self.batch_size = 4 * self._server.concurrency
        self._guided = True
        self._failed: dict[str, Exception] = {}

    def settings(self) -> dict[str, Any]:
        return {"model": self.model, "prompts": prompts.prompt_hash(), "max_tokens": MAX_TOKENS}

    def setup(self, device: str) -> None:
        return

    @cached_property
    def model(self) -> str:
        """The model that is asked. Raises UserError where the server has several and none is named."""
        if self._server.model:
            return self._server.model
        try:
            told = self._tried("GET", "models", None).json()
            names = [str(one["id"]) for one in told["data"]]
        except (ValueError, KeyError, TypeError, RetryableError) as error:
            raise UserError(
                f"{self._where} does not say which models it has ({error}): name one with --model"
            ) from error
        if len(names) != 1:
            raise UserError(
                f"{self._where} serves {', '.join(names) or 'no model'}: name one with --model"
            )
        return names[0]

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        # Where one fails the engine runs the batch again row by row: what failed is known by then, the rest is kept.
        if len(batch) == 1 and batch[0].key in self._failed:
            raise self._failed[batch[0].key]
        with ThreadPoolExecutor(self._server.concurrency) as pool:
            asked = [pool.submit(self._answers, item, write_pixels) for item in batch]
            try:
                rows = [
                    self._row(item, answers) for item, answers in zip(batch, asked, strict=True)
                ]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if any(row is None for row in rows):
            raise next(self._failed[item.key] for item in batch if item.key in self._failed)
        return [Rows([row]) for row in rows if row is not None]

    def _row(self, item: Item, answers: Future[list[dict[str, Any]]]) -> dict[str, Any] | None:
        try:
            said = answers.result()
            made = caption_columns(
                [one["content"] for one in said], item.row.get("measurements"), self._captions
            )
        except NoTags as error:
            for question in prompts.QUESTIONS:  # to be asked again, should it be retried
                self._workspace.remove(self._place(item, question))
            self._failed[item.key] = error
            return None
        except (RetryableError, ValueError) as error:
            self._failed[item.key] = ValueError(str(error))
            return None
        return {
            "face_id": item.key,
            "captioner": self.name,
            "model": self.model,
            "model_revision": said[0]["revision"],
            "prompt_hash": prompts.prompt_hash(),
            **made,
        }

    def _answers(self, item: Item, write_pixels: WritePixels) -> list[dict[str, Any]]:
        """content, revision: what the server says of a crop to each question, now or before a restart."""
        said, picture = [], ""
        for question in prompts.QUESTIONS:
            path = self._place(item, question)
            if self._workspace.exists(path):
                said.append(json.loads(self._workspace.read_bytes(path)))
                continue
            picture = picture or _data_uri(item)
            said.append(self._ask(picture, question))
            write_pixels(path, json.dumps(said[-1]).encode())
        return said

    def _place(self, item: Item, question: str) -> str:
        """Where the answer to a question about a crop is kept; `forget` knows it by the crop's hash."""
        mark = fingerprint(model=self.model, question=question, max_tokens=MAX_TOKENS)
        return f"{ANSWERS}/{item.row['crop_sha256']}.{mark}.json"

    def _ask(self, picture: str, question: str) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": question},
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "seed": 0,
        }
        guide = {
            "type": "json_schema",
            "json_schema": {"name": "tags", "strict": True, "schema": SHAPE},
        }
        guided = self._guided
        answer = self._tried(
            "POST", "chat/completions", {**body, "response_format": guide} if guided else body
        )
        if guided and answer.status_code in (400, 422):
            self._guided = False  # this server knows no schemas
            answer = self._tried("POST", "chat/completions", body)
        if answer.status_code != 200:
            raise ValueError(
                f"{self._where} refused the request with HTTP {answer.status_code}: {_words(answer)}"
            )
        told = _Completion.model_validate_json(answer.content)
        return {"content": told.choices[0].message.content, "revision": told.system_fingerprint}

    def _tried(self, way: str, what: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            return call_with_retries(
                lambda: self._once(way, what, body), attempts=self._server.attempts
            )
        except httpx.ConnectError as error:
            raise PartialFailureError(
                f"{self._where} does not answer ({error}): is it up? What was captioned is kept: run the same again"
            ) from error
        except httpx.TransportError as error:
            raise RetryableError(
                f"{self._where} gave no answer: {type(error).__name__} {error}"
            ) from error

    def _once(self, way: str, what: str, body: dict[str, Any] | None) -> httpx.Response:
        answer = self._client.request(way, what, json=body)
        if is_retryable_status(answer.status_code):
            raise RetryableError(
                f"HTTP {answer.status_code} of {self._where}", retry_after_s(answer)
            )
        if answer.status_code in (401, 403):
            raise UserError(
                f"{self._where} refuses the key in {KEY_VARIABLE} (HTTP {answer.status_code}): check it"
            )
        if answer.status_code == 404:
            raise UserError(
                f"{self._where} has no {what} or no such model (HTTP 404, {_words(answer)}): check --base-url, --model"
            )
        if answer.status_code == 200 and way == "POST":
            _check(answer)
        return answer

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {}
        if key := os.environ.get(KEY_VARIABLE, "").strip():
            if urlsplit(self._server.base_url).scheme != "https" and not _is_near(self._where):
                raise UserError(
                    f"the key in {KEY_VARIABLE} would travel to {self._where} in the clear: use https"
                )
            headers["Authorization"] = f"Bearer {key}"
        base = self._server.base_url.rstrip("/") + "/"
        return httpx.Client(
            base_url=base, headers=headers, timeout=self._server.timeout_s, trust_env=False
        )

    @property
    def _where(self) -> str:
        return urlsplit(self._server.base_url).hostname or self._server.base_url


def _check(answer: httpx.Response) -> None:
    """Raises TryAgain for an answer that is none."""
    try:
        told = _Completion.model_validate_json(answer.content)
    except ValidationError as error:
        raise RetryableError(f"not a completion: {answer.text[:80]!r}") from error
    if not told.choices or not (told.choices[0].message.content or "").strip():
        raise RetryableError("an empty answer")


def _data_uri(item: Item) -> str:
    """The crop as a JPEG, at most 1,024 px: several times smaller than the lossless file, and models look at less."""
    image, out = Image.fromarray(item.picture.pixels()), io.BytesIO()
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _is_near(host: str) -> bool:
    """Whether a host is this machine or of a private network."""
    try:
        return not is_public(host)
    except ValueError:
        return host == "localhost"


def _words(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:200]


def forget_answers(workspace: Workspace) -> None:
    """The answers have become rows: the cache is empty again."""
    for name in workspace.list(ANSWERS):
        workspace.remove(f"{ANSWERS}/{name}")
