"""The captioner `server` against a real local server, with the faults of real servers."""

import time

import numpy as np
import pytest
from broken_server import (
    TYPICAL_ANSWERS,
    TYPICAL_REPLIES,
    WRONG_VALUES,
    BrokenServer,
    body,
    broken_answers,
    broken_replies,
)
from caption_server import KEY, CaptionServer

from authface_data.captions.server import ANSWERS_FOLDER, ServerStage, clear_answers
from authface_data.engine.run import Engine, run_chain
from authface_data.engine.stage import Chain, Item
from authface_data.http import retry as http_retry
from authface_data.http.retry import RetryableError
from authface_data.images.encode import encode_lossless
from authface_data.images.open import Photo
from manifests.schema import CAPTIONS, VERDICTS
from manifests.settings import Captions, Server
from manifests.store import Store
from manifests.support.errors import AuthfaceError, PartialFailureError, UserError

FULL_CAPTION = "woman, black hair, red dress, smile, soft light, blurred background"


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(http_retry, "backoff_s", lambda state: 0.01)


@pytest.fixture
def server(monkeypatch, short_waits):
    monkeypatch.delenv("AUTHFACE_API_KEY", raising=False)
    with CaptionServer() as caption_server:
        yield caption_server


def make_inputs(count):
    return [
        (
            f"f{number}",
            {"face_id": f"f{number}", "crop_sha256": f"{number:064x}", "measurements": None},
        )
        for number in range(count)
    ]


def open_crop(row):
    """A crop whose grey level follows from its hash."""
    level = int(row["crop_sha256"], 16)
    data = encode_lossless(np.full((96, 96, 3), level, np.uint8), "png")
    return Photo(lambda: data)


def make_stage(workspace, server, **settings):
    settings = {"base_url": server.url, "attempts": 4, "timeout_s": 5, **settings}
    return ServerStage(Captions(server=Server(**settings)), workspace)


def caption(workspace, server, count=6, retry_failed=False, **settings):
    """Caption faces with the engine; return its outcomes and the stored rows."""
    outcomes = run_chain(
        workspace,
        Chain([make_stage(workspace, server, **settings)], open_crop),
        make_inputs(count),
        title="caption",
        engine=Engine(workers=1),
        retry_failed=retry_failed,
    )
    return outcomes, Store(workspace, CAPTIONS).read().to_pylist()


def test_each_face_is_captioned_with_two_questions(workspace, server):
    outcomes, rows = caption(workspace, server)
    assert outcomes.processed["server"] == len(rows) == 6
    assert len(server.requests) == 12
    row = rows[0]
    assert row["caption"] == FULL_CAPTION
    assert (row["captioner"], row["model"], row["model_revision"]) == ("server", "tiny-vlm", "fp_1")
    assert row["raw_answers"][0].startswith('{"tags"')
    body = server.requests[0]
    assert body["max_tokens"] == 160
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True
    assert server.keys[0] == ""


def test_number_of_concurrent_requests_is_limited(workspace, server):
    server.delay_s = 0.1
    started = time.monotonic()
    caption(workspace, server, count=8, concurrency=4)
    assert 2 <= server.max_concurrent <= 4
    assert time.monotonic() - started < 16 * 0.1 * 0.8  # less than one after another


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "broken", "empty", "cut", "html", "slow"])
def test_temporary_faults_are_retried(workspace, server, fault):
    server.faults = [fault, fault]
    outcomes, rows = caption(workspace, server, count=3)
    assert outcomes.failed["server"] == 0
    captions = {row["caption"] for row in rows}
    assert len(rows) == 3
    assert FULL_CAPTION in captions
    if fault != "broken":  # broken JSON inside an answer is read as far as possible
        assert captions == {FULL_CAPTION}


def test_retry_after_is_respected(workspace, server, monkeypatch):
    monkeypatch.undo()
    waits_s = []
    monkeypatch.setattr("tenacity.nap.sleep", waits_s.append)
    server.faults = [429]
    server.retry_after = "7"
    caption(workspace, server, count=1)
    assert max(waits_s) >= 7


def test_failed_row_does_not_affect_others_and_can_be_retried(workspace, server):
    server.faults = ["empty"] * 4  # all four attempts of the first request
    outcomes, rows = caption(workspace, server, count=4, concurrency=1)
    assert (outcomes.processed["server"], outcomes.failed["server"]) == (3, 1)
    verdicts = Store(workspace, VERDICTS).read().to_pylist()
    failures = [row for row in verdicts if row["verdict"] == "failed"]
    assert [row["reason"] for row in failures] == ["ValueError: an empty answer"]

    requests_before = len(server.requests)
    outcomes, rows = caption(workspace, server, count=4, retry_failed=True)
    assert len(rows) == 4
    assert len(server.requests) - requests_before <= 2  # stored answers are not requested again


def test_retry_requests_answers_without_tags_again(workspace, server):
    server.semantic = server.photographic = '{"tags": ["image", "none"]}'
    outcomes, _ = caption(workspace, server, count=2)
    assert outcomes.failed["server"] == 2
    server.semantic = '{"tags": ["woman"]}'
    server.photographic = '{"tags": ["smile"]}'
    _, rows = caption(workspace, server, count=2, retry_failed=True)
    assert [row["caption"] for row in rows] == ["woman, smile"] * 2


def test_restart_does_not_repeat_answered_requests(workspace, server):
    stage = make_stage(workspace, server)
    items = [Item(key, row, open_crop(row)) for key, row in make_inputs(3)]
    # The process is killed after the answers, before any row is committed.
    stage.process(items, workspace.write_bytes)
    assert len(workspace.list_names(ANSWERS_FOLDER)) == 6
    requests_before = len(server.requests)
    _, rows = caption(workspace, server, count=5)
    assert len(rows) == 5
    assert len(server.requests) - requests_before == 4
    clear_answers(workspace)
    assert workspace.list_names(ANSWERS_FOLDER) == []


def test_stored_answers_are_named_by_crop_hash(workspace, server):
    """`authface forget` finds them by it."""
    caption(workspace, server, count=1)
    assert all(name.startswith(f"{0:064x}.") for name in workspace.list_names(ANSWERS_FOLDER))


def test_server_without_schema_support_gets_plain_questions(workspace, server):
    server.supports_schemas = False
    _, rows = caption(workspace, server, count=5, concurrency=1)
    assert {row["caption"] for row in rows} == {FULL_CAPTION}
    assert sum("response_format" in body for body in server.requests) == 1  # tried once
    assert rows[0]["raw_answers"][0] == "woman, black hair, red dress"


def test_key_is_read_from_environment_and_not_stored(workspace, server, monkeypatch):
    server.needs_key = True
    with pytest.raises(UserError, match="AUTHFACE_API_KEY"):
        caption(workspace, server, count=1)
    monkeypatch.setenv("AUTHFACE_API_KEY", KEY)
    _, rows = caption(workspace, server, count=1)
    assert len(rows) == 1
    files = [path for path in workspace.local_path("").rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_key_is_not_sent_unencrypted(workspace, monkeypatch):
    monkeypatch.setenv("AUTHFACE_API_KEY", KEY)
    settings = Server(base_url="http://captions.example.com/v1", model="m")
    stage = ServerStage(Captions(server=settings), workspace)
    with pytest.raises(UserError, match="unencrypted; use an https address"):
        _ = stage._client


def test_model_is_the_configured_or_the_only_one(workspace, server):
    assert make_stage(workspace, server).model_name == "tiny-vlm"
    assert make_stage(workspace, server, model="other").model_name == "other"
    server.models = ["a", "b"]
    with pytest.raises(UserError, match="serves a, b; choose a model with --model"):
        _ = make_stage(workspace, server).model_name
    with pytest.raises(UserError, match="no such model"):
        caption(workspace, server, count=1, model="c")


def test_unreachable_server_is_reported_in_one_line(workspace, short_waits):
    with CaptionServer() as stopped_server:
        pass
    with pytest.raises(PartialFailureError, match=r"cannot connect to 127\.0\.0\.1"):
        caption(workspace, stopped_server, count=1, model="m")


IMPATIENT = {"model": "m", "attempts": 1, "timeout_s": 0.4}
FAILURES = (RetryableError, ValueError, AuthfaceError)


def ask(workspace, server, **settings):
    """Caption one face without the engine."""
    stage = make_stage(workspace, server, **{**IMPATIENT, **settings})
    ((key, row),) = make_inputs(1)
    return stage.process([Item(key, row, open_crop(row))], workspace.write_bytes)


@pytest.mark.parametrize("name", [*TYPICAL_REPLIES, *TYPICAL_ANSWERS])
def test_broken_server_is_a_failed_row_in_bounded_time(workspace, name):
    start_s = time.monotonic()
    replies = {**broken_replies("application/json"), **broken_answers()}
    with BrokenServer(replies[name]) as server, pytest.raises(FAILURES) as error:
        ask(workspace, server)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
    assert time.monotonic() - start_s < 4
    assert workspace.list_names(ANSWERS_FOLDER) == []


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_answer_of_another_form_is_a_failed_row(workspace, value):
    with BrokenServer(body(value)) as server:
        with pytest.raises(FAILURES) as error:
            ask(workspace, server, timeout_s=5)
        assert str(error.value).isprintable()
        with pytest.raises(UserError, match=r"does not list its models|choose a model"):
            _ = make_stage(workspace, server, attempts=1).model_name


@pytest.mark.parametrize("name", ["nested", "gzip bomb", "one byte at a time"])
def test_broken_list_of_models_is_one_line(workspace, name):
    replies = {**broken_replies("application/json"), **broken_answers()}
    with (
        BrokenServer(replies[name]) as server,
        pytest.raises(UserError, match=r"does not list its models \(.*choose one with") as error,
    ):
        _ = make_stage(workspace, server, attempts=1, timeout_s=0.4).model_name
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x" * 100_000, "an answer of 100,000 characters"),
        ("[" * 7000, r"^'\["),
        ('{"tags": ' * 800, r"tags"),
    ],
)
def test_hostile_content_is_a_failed_row(workspace, short_waits, content, message):
    with CaptionServer() as server:
        server.semantic = server.photographic = content
        server.supports_schemas = True
        with pytest.raises(FAILURES, match=message):
            ask(workspace, server, model="tiny-vlm", timeout_s=5)


@pytest.mark.parametrize("stored", [b"", b"[]", b'{"content": 7}', b"\xff", b"[" * 100_000])
def test_damaged_stored_answer_is_requested_again(workspace, server, stored):
    caption(workspace, server, count=1)
    rows = Store(workspace, CAPTIONS).read().to_pylist()
    for name in workspace.list_names(ANSWERS_FOLDER):
        workspace.write_bytes(f"{ANSWERS_FOLDER}/{name}", stored)
    (result,) = ask(workspace, server, model="tiny-vlm", timeout_s=5)
    assert result.rows[0]["caption"] == rows[0]["caption"]
    assert len(server.requests) == 4


@pytest.mark.parametrize("url", ["http://[::1", "http://xn--/v1", "http://127.0.0.1:99999/v1"])
def test_malformed_address_is_one_line(workspace, url):
    settings = Server(base_url=url, model="m", attempts=1)
    stage = ServerStage(Captions(server=settings), workspace)
    with pytest.raises(UserError, match=r"captions\.server\.base_url is not a URL"):
        stage._request("GET", "models")
