"""The web application of `authface serve`: an overview, the review, the report and a restore page.

Every address begins with a secret token, so that neither other users of the computer nor pages of
other sites in the same browser can read photographs or record decisions.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authface_data.report.page import REPORT_FILE, write_report
from authface_data.report.status import collect_status
from authface_data.review.table_file import MAX_FILE_BYTES
from authface_data.serve.restore_jobs import MAX_PHOTO_BYTES, RestoreJob, RestoreJobs
from authface_data.serve.review_desk import ReviewDesk, WorkspaceLockedError
from manifests.support import html_page
from manifests.support.errors import AuthfaceError, UserError
from manifests.workspace import Workspace

PACKAGE = "authface_data.serve"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CACHED = {"Cache-Control": "private, max-age=3600"}
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Headers of every response that does not set them itself."""


class WorkspaceApp:
    """The web application of one workspace.

    Args:
        workspace: The workspace.

    Attributes:
        token: First part of every address.
        jobs: The restorations.
        last_request_at: Monotonic time of the last request in seconds.
        asgi: The application as an ASGI callable.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.token = secrets.token_urlsafe(16)
        self.jobs = RestoreJobs(workspace)
        self.last_request_at = time.monotonic()
        self._workspace = workspace
        self._desk = ReviewDesk(workspace)
        pages = [
            Route("/", self._overview),
            Route("/alive", self._alive),
            Route("/report", self._report),
            Route("/report", self._write_report, methods=["POST"]),
            Route("/review/", self._review),
            Route("/review/pictures/{face_id}/{kind}", self._picture),
            Route("/review/answers", self._answers),
            Route("/review/decisions", self._save_decisions, methods=["POST"]),
            Route("/restore/", self._restore_page),
            Route("/restore/jobs", self._start_job, methods=["POST"]),
            Route("/restore/jobs/{job_id}", self._job_state),
            Route("/restore/jobs/{job_id}/result", self._job_result),
            Route("/restore/jobs/{job_id}/{which}", self._job_picture),
        ]
        self.asgi: ASGIApp = Starlette(
            routes=[Mount(f"/{self.token}", routes=pages)],
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_HOSTS, "[::1]"]),
                Middleware(_DefaultHeaders, on_request=self._note_request),
            ],
            exception_handlers={
                404: _not_found,
                AuthfaceError: _describe_error,
                WorkspaceLockedError: _describe_error,
            },
        )

    def _note_request(self) -> None:
        self.last_request_at = time.monotonic()

    def _overview(self, request: Request) -> Response:
        workspace = Workspace(self._workspace.root)
        written_at = None
        if workspace.is_local and workspace.exists(REPORT_FILE):
            modified = workspace.local_path(REPORT_FILE).stat().st_mtime
            written_at = f"{datetime.fromtimestamp(modified, UTC):%d %B %Y, %H:%M} UTC"
        return _page(
            "overview.html.jinja",
            status=collect_status(workspace),
            report_written_at=written_at,
            has_report=workspace.exists(REPORT_FILE),
            models=self.jobs.list_models(),
        )

    def _alive(self, request: Request) -> Response:
        return Response(status_code=204)

    def _report(self, request: Request) -> Response:
        if not self._workspace.exists(REPORT_FILE):
            write_report(Workspace(self._workspace.root))
        return HTMLResponse(self._workspace.read_bytes(REPORT_FILE))

    def _write_report(self, request: Request) -> Response:
        write_report(Workspace(self._workspace.root))
        return RedirectResponse("report", status_code=303)

    def _review(self, request: Request) -> Response:
        counts = {
            name: _parse_count(request.query_params.get(name))
            for name in ("near_threshold", "sample")
        }
        return HTMLResponse(self._desk.render(**counts))

    def _picture(self, request: Request) -> Response:
        picture = self._desk.picture(request.path_params["face_id"], request.path_params["kind"])
        return _jpeg(picture, CACHED)

    def _answers(self, request: Request) -> Response:
        return JSONResponse(self._desk.answers(request.query_params.get("reviewer", "")))

    async def _save_decisions(self, request: Request) -> Response:
        table = await _read_body(request, MAX_FILE_BYTES)
        count = await run_in_threadpool(self._desk.save, table)
        return JSONResponse({"saved": count})

    def _restore_page(self, request: Request) -> Response:
        return _page(
            "restore.html.jinja",
            models=self.jobs.list_models(),
            is_local=self._workspace.is_local,
            script=html_page.read_asset(PACKAGE, "restore.js"),
        )

    async def _start_job(self, request: Request) -> Response:
        photo = await _read_body(request, MAX_PHOTO_BYTES)
        query = request.query_params
        job = await run_in_threadpool(
            self.jobs.start,
            photo,
            name=query.get("name", ""),
            model=query.get("model", ""),
            steps=_parse_count(query.get("steps")),
        )
        return JSONResponse({"job": job.id}, status_code=202)

    def _job(self, request: Request) -> RestoreJob:
        job = self.jobs.get(request.path_params["job_id"])
        if job is None:
            raise UserError("unknown photograph; restore it again")
        return job

    def _job_state(self, request: Request) -> Response:
        job = self._job(request)
        seconds = round(time.monotonic() - job.started_at)
        return JSONResponse({"state": job.state, "message": job.message, "seconds": seconds})

    def _job_picture(self, request: Request) -> Response:
        return _jpeg(self.jobs.preview(self._job(request), request.path_params["which"]), {})

    def _job_result(self, request: Request) -> Response:
        result = self._job(request).result
        if result is None:
            raise UserError("the photograph is not restored yet")
        return FileResponse(result, filename=f"restored{result.suffix}")


class _DefaultHeaders:
    """ASGI middleware: adds `HEADERS`, and reports each request that has the token."""

    def __init__(self, app: ASGIApp, on_request: Callable[[], None]) -> None:
        self._app = app
        self._on_request = on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] < 400:
                    self._on_request()
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS if name not in present),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _page(template: str, **values: object) -> HTMLResponse:
    return HTMLResponse(html_page.render_page(PACKAGE, template, is_served=True, **values))


def _jpeg(picture: bytes | None, headers: dict[str, str]) -> Response:
    if picture is None:
        return Response(status_code=404)
    return Response(picture, media_type="image/jpeg", headers=headers)


def _parse_count(text: str | None) -> int | None:
    """A positive number of a query, or None if it is not given.

    Raises:
        UserError: If the text is another one.
    """
    if not text:
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"{text!r} is not a positive number")
    return int(text)


async def _read_body(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        UserError: If it is larger than `limit` bytes.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise UserError(f"the file is larger than {limit / 1e6:.0f} MB")
    return bytes(body)


def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse(
        "Open the whole address that `authface serve` printed. It changes with every start.\n",
        status_code=404,
    )


def _describe_error(request: Request, error: Exception) -> Response:
    """The message of an error: as JSON for scripts, as a page for people."""
    status = 423 if isinstance(error, WorkspaceLockedError) else 422
    if request.method == "POST" or "/jobs/" in request.url.path:
        return JSONResponse({"error": str(error)}, status_code=status)
    token = request.url.path.split("/")[1]
    page = _page("error.html.jinja", message=str(error), overview=f"/{token}/")
    page.status_code = status
    return page
