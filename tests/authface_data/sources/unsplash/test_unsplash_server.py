"""The tests' own server against Unsplash's official description, by plain requests: the client under test has no part in it."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import referencing
import referencing.jsonschema
from unsplash_server import KEY, Photo, UnsplashServer, picture

DESCRIPTION = json.loads(
    (Path(__file__).parents[3] / "support" / "unsplash_openapi.json").read_text()
)
# One slip of the description: a tag is "one of" two kinds, and every tag with a title is both.
TAG = DESCRIPTION["components"]["schemas"]["SmartTag"]
TAG["anyOf"] = TAG.pop("oneOf")
REGISTRY = referencing.Registry().with_resource(
    "api:",
    referencing.Resource(contents=DESCRIPTION, specification=referencing.jsonschema.DRAFT202012),
)


def resolved(node):
    """A description's node, a reference followed."""
    while "$ref" in node:
        found = DESCRIPTION
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def pointed(schema):
    """A schema whose references begin at the description."""
    if isinstance(schema, dict):
        return {
            key: f"api:{value}" if key == "$ref" else pointed(value)
            for key, value in schema.items()
        }
    return [pointed(item) for item in schema] if isinstance(schema, list) else schema


def check(path: str, status: int, body: object, headers) -> None:
    """An answer against what the description says of that path and status."""
    responses = DESCRIPTION["paths"][path]["get"]["responses"]
    said = resolved(responses.get(str(status), responses["default"]))
    schema = pointed(said["content"]["application/json"]["schema"])
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(schema, registry=REGISTRY, format_checker=checker).validate(
        body
    )
    for name, header in said.get("headers", {}).items():
        rule = resolved(header)["schema"]
        value = headers.get(name)
        if name == "Link" and value is None:
            continue  # a single page has none
        assert value is not None, name
        if rule["type"] == "integer":
            assert int(value) >= rule["minimum"]
        else:
            assert re.fullmatch(rule["format"], value)


def ask(url: str, key: str = KEY):
    request = urllib.request.Request(
        url, headers={"Authorization": f"Client-ID {key}"} if key else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.fixture
def server():
    photos = [Photo(f"ph_{n:03d}", picture(n), 6000, 4000) for n in range(65)]
    photos[3].plus = True
    photos[4].last_name = None
    with UnsplashServer(photos) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/search/photos", "/search/photos?query=portrait&per_page=30&page=2"),
        ("/topics/{topicSlug}/photos", "/topics/people/photos?per_page=30"),
        ("/collections/{collectionId}/photos", "/collections/123/photos?page=3&per_page=30"),
        ("/users/{username}/photos", "/users/jane/photos?per_page=30"),
        ("/photos/{assetSlug}", "/photos/ph_007"),
        ("/photos/{assetSlug}", "/photos/gone"),
        ("/photos/{id}/download", "/photos/ph_007/download?ixid=M3w"),
    ],
)
def test_answers_are_as_described(server, path, asked):
    status, body, headers = ask(server.url + asked)
    assert status == (404 if "gone" in asked else 200)
    check(path, status, json.loads(body), headers)


def test_a_description_that_is_broken_is_noticed(server):
    """The check itself: an answer that lacks what the description requires does not pass."""
    _, body, headers = ask(f"{server.url}/photos/ph_007")
    spoiled = json.loads(body)
    del spoiled["links"]["download_location"]
    with pytest.raises(jsonschema.ValidationError):
        check("/photos/{assetSlug}", 200, spoiled, headers)


def test_refusals(server):
    server.spam = {"buy now"}
    status, body, headers = ask(f"{server.url}/search/photos?query=buy%20now")
    assert status == 410
    check("/search/photos", 410, json.loads(body), headers)
    status, body, headers = ask(f"{server.url}/photos/ph_001", key="")
    assert status == 401
    check("/photos/{assetSlug}", 401, json.loads(body), headers)


def test_the_limit_is_plain_text_and_images_are_not_counted(server):
    server.limit = 2
    for left in ("1", "0"):
        status, _, headers = ask(f"{server.url}/photos/ph_001")
        assert (status, headers["X-Ratelimit-Remaining"]) == (200, left)
    status, body, headers = ask(f"{server.url}/photos/ph_001")
    assert (status, body, headers["X-Ratelimit-Remaining"]) == (403, b"Rate Limit Exceeded", "0")
    assert "Retry-After" not in headers
    assert ask(f"{server.url}/img/photo-ph_001?ixid=1", key="")[0] == 200


def test_pages_shift_and_end(server):
    server.shift = [Photo("fresh", picture(999), 6000, 4000)]
    first = json.loads(ask(f"{server.url}/topics/people/photos?order_by=latest&per_page=30")[1])
    second = json.loads(
        ask(f"{server.url}/topics/people/photos?order_by=latest&per_page=30&page=2")[1]
    )
    assert first[-1]["id"] == second[0]["id"]  # the one that was pushed down is seen twice
    assert json.loads(ask(f"{server.url}/topics/people/photos?per_page=30&page=9")[1]) == []


def test_ranges(server):
    request = urllib.request.Request(
        f"{server.url}/img/photo-ph_001?ixid=1", headers={"Range": "bytes=10-"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 206
        assert answer.read() == server.by_id("ph_001").data[10:]
