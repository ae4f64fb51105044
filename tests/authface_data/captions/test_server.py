"""The server captioner against a real local server: slow, refusing, broken, killed in the middle."""

import time

import numpy as np
import pytest
from caption_server import KEY, CaptionServer

from authface_data.captions import server as module
from authface_data.captions.server import ANSWERS, ServerStage, forget_answers
from authface_data.engine import local
from authface_data.engine.stage import Chain
from authface_data.images.encode import encode_lossless
from authface_data.images.open import Photo
from manifests.schema import CAPTIONS, VERDICTS
from manifests.settings import Captions, Server
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError


@pytest.fixture
def served(monkeypatch):
    monkeypatch.delenv("AUTHFACE_API_KEY", raising=False)
    monkeypatch.setattr("authface_data.http.retry.backoff_s", lambda state: 0.01)
    with CaptionServer() as server:
        yield server


def inputs(count):
    return [
        (f"f{n}", {"face_id": f"f{n}", "crop_sha256": f"{n:064x}", "measurements": None})
        for n in range(count)
    ]


def opened(row):
    level = int(row["crop_sha256"], 16)
    data = encode_lossless(np.full((96, 96, 3), level, np.uint8), "png")
    return Photo(lambda: data)


def stage_of(workspace, server, **settings):
    own = {"base_url": server.url, "attempts": 4, "timeout_s": 5, **settings}
    return ServerStage(Captions(server=Server(**own)), workspace)


def caption(workspace, server, count=6, retry=False, **settings):
    stage = stage_of(workspace, server, **settings)
    outcomes = local.run_chain(
        workspace,
        Chain([stage], opened),
        inputs(count),
        title="caption",
        workers=1,
        retry_failed=retry,
    )
    return outcomes, Store(workspace, CAPTIONS).read().to_pylist()


def test_faces_are_captioned_by_two_questions_each(workspace, served):
    outcomes, rows = caption(workspace, served)
    assert outcomes.processed["server"] == len(rows) == 6
    assert len(served.requests) == 12
    row = rows[0]
    assert row["caption"] == "woman, black hair, red dress, smile, soft light, blurred background"
    assert (row["captioner"], row["model"], row["model_revision"]) == ("server", "tiny-vlm", "fp_1")
    assert row["raw_answers"][0].startswith('{"tags"')
    body = served.requests[0]
    assert body["max_tokens"] == 160
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True
    assert served.keys[0] == ""


def test_as_many_requests_at_once_as_the_setting_says(workspace, served):
    served.delay_s = 0.1
    started = time.monotonic()
    caption(workspace, served, count=8, concurrency=4)
    assert 2 <= served.most_at_once <= 4
    assert time.monotonic() - started < 16 * 0.1 * 0.8  # not one after the other


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "broken", "empty", "cut", "html", "slow"])
def test_a_server_with_a_bad_moment_is_asked_again(workspace, served, fault):
    served.faults = [fault, fault]
    outcomes, rows = caption(workspace, served, count=3)
    assert outcomes.failed["server"] == 0
    captions = {row["caption"] for row in rows}
    assert len(rows) == 3
    whole = "woman, black hair, red dress, smile, soft light, blurred background"
    assert whole in captions
    if fault != "broken":  # JSON that was cut off is read as far as it goes
        assert captions == {whole}


def test_a_server_that_asks_to_be_left_alone_is(workspace, served, monkeypatch):
    monkeypatch.undo()
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    served.faults, served.retry_after = [429], "7"
    caption(workspace, served, count=1)
    assert max(waits) >= 7


def test_one_that_fails_fails_alone_and_can_be_retried(workspace, served):
    served.faults = ["empty"] * 4  # all four tries of the first request
    outcomes, rows = caption(workspace, served, count=4, concurrency=1)
    assert (outcomes.processed["server"], outcomes.failed["server"]) == (3, 1)
    failed = [
        row for row in Store(workspace, VERDICTS).read().to_pylist() if row["verdict"] == "failed"
    ]
    assert [row["reason"] for row in failed] == ["ValueError: an empty answer"]
    asked = len(served.requests)
    outcomes, rows = caption(workspace, served, count=4, retry=True)
    assert len(rows) == 4
    assert len(served.requests) - asked <= 2  # what was answered is not asked again


def test_an_answer_without_tags_is_asked_for_again_by_a_retry(workspace, served):
    served.semantic = served.photographic = '{"tags": ["image", "none"]}'
    outcomes, _ = caption(workspace, served, count=2)
    assert outcomes.failed["server"] == 2
    served.semantic, served.photographic = '{"tags": ["woman"]}', '{"tags": ["smile"]}'
    _, rows = caption(workspace, served, count=2, retry=True)
    assert [row["caption"] for row in rows] == ["woman, smile"] * 2


def test_a_restart_pays_for_nothing_twice(workspace, served):
    stage = stage_of(workspace, served)
    items = [
        type("Item", (), {"key": key, "row": row, "picture": opened(row)}) for key, row in inputs(5)
    ]
    stage.process(
        items[:3], workspace.write_bytes
    )  # answered, and killed before any row was committed
    assert len(workspace.list(ANSWERS)) == 6
    asked = len(served.requests)
    _, rows = caption(workspace, served, count=5)
    assert len(rows) == 5
    assert len(served.requests) - asked == 4
    forget_answers(workspace)
    assert workspace.list(ANSWERS) == []


def test_an_answer_is_named_by_the_crop_so_that_it_can_be_forgotten(workspace, served):
    caption(workspace, served, count=1)
    assert all(name.startswith(f"{0:064x}.") for name in workspace.list(ANSWERS))


def test_where_schemas_are_not_known_it_is_asked_in_words(workspace, served):
    served.knows_schemas = False
    _, rows = caption(workspace, served, count=5, concurrency=1)
    assert {row["caption"] for row in rows} == {
        "woman, black hair, red dress, smile, soft light, blurred background"
    }
    assert sum("response_format" in body for body in served.requests) == 1  # tried once
    assert rows[0]["raw_answers"][0] == "woman, black hair, red dress"


def test_the_key_comes_from_the_environment_and_stays_out_of_everything(
    workspace, served, monkeypatch
):
    served.needs_key = True
    with pytest.raises(UserError, match="AUTHFACE_API_KEY"):
        caption(workspace, served, count=1)
    monkeypatch.setenv("AUTHFACE_API_KEY", KEY)
    _, rows = caption(workspace, served, count=1)
    assert len(rows) == 1
    kept = [
        path
        for path in workspace.local("").rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert kept == []


def test_a_key_does_not_travel_in_the_clear(workspace, monkeypatch):
    monkeypatch.setenv("AUTHFACE_API_KEY", KEY)
    stage = ServerStage(
        Captions(server=Server(base_url="http://captions.example.com/v1", model="m")), workspace
    )
    with pytest.raises(UserError, match="in the clear: use https"):
        _ = stage._client


def test_which_model(workspace, served):
    assert stage_of(workspace, served).model == "tiny-vlm"
    assert stage_of(workspace, served, model="other").model == "other"
    served.models = ["a", "b"]
    with pytest.raises(UserError, match="serves a, b: name one with --model"):
        _ = stage_of(workspace, served).model
    with pytest.raises(UserError, match="no such model"):
        caption(workspace, served, count=1, model="c")


def test_a_server_that_is_not_there_is_said_in_a_line(workspace, monkeypatch):
    monkeypatch.setattr("authface_data.http.retry.backoff_s", lambda state: 0.01)
    with CaptionServer() as gone:
        pass
    with pytest.raises(PartialFailureError, match="does not answer"):
        caption(workspace, gone, count=1, model="m")
