"""The tests' own server against Unsplash's official description, by plain requests.

The client of the package takes no part: these tests show that the server is a fair stand-in.
"""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import referencing
import referencing.jsonschema
from unsplash_server import KEY, Photo, UnsplashServer, make_jpeg

DESCRIPTION = json.loads(
    (Path(__file__).parents[3] / "support" / "unsplash_openapi.json").read_text()
)
# An error in the description: a tag is "one of" two kinds, but every tag with a title is both.
TAG_SCHEMA = DESCRIPTION["components"]["schemas"]["SmartTag"]
TAG_SCHEMA["anyOf"] = TAG_SCHEMA.pop("oneOf")
REGISTRY = referencing.Registry().with_resource(
    "api:",
    referencing.Resource(contents=DESCRIPTION, specification=referencing.jsonschema.DRAFT202012),
)


def resolve(node):
    """A node of the description, with its references followed."""
    while "$ref" in node:
        target = DESCRIPTION
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def absolute_references(schema):
    """A schema whose references are resolved from the root of the description."""
    if isinstance(schema, list):
        return [absolute_references(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"api:{value}" if key == "$ref" else absolute_references(value)
        for key, value in schema.items()
    }


def check_response(path: str, status: int, body: object, headers) -> None:
    """Check a response against the description of that path and status."""
    responses = DESCRIPTION["paths"][path]["get"]["responses"]
    description = resolve(responses.get(str(status), responses["default"]))
    schema = absolute_references(description["content"]["application/json"]["schema"])
    validator = jsonschema.Draft202012Validator(
        schema, registry=REGISTRY, format_checker=jsonschema.FormatChecker()
    )
    validator.validate(body)
    for name, header in description.get("headers", {}).items():
        rule = resolve(header)["schema"]
        value = headers.get(name)
        if name == "Link" and value is None:
            continue  # a single page has no links
        assert value is not None, name
        if rule["type"] == "integer":
            assert int(value) >= rule["minimum"]
        else:
            assert re.fullmatch(rule["format"], value)


def get(url: str, key: str = KEY):
    """Status, body and headers of a request."""
    headers = {"Authorization": f"Client-ID {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.fixture
def server():
    photos = [Photo(f"ph_{n:03d}", make_jpeg(n), 6000, 4000) for n in range(65)]
    photos[3].is_plus = True
    photos[4].last_name = None
    with UnsplashServer(photos) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "request_path"),
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
def test_responses_match_the_description(server, path, request_path):
    status, body, headers = get(server.url + request_path)
    assert status == (404 if "gone" in request_path else 200)
    check_response(path, status, json.loads(body), headers)


def test_check_notices_a_response_without_a_required_field(server):
    _, body, headers = get(f"{server.url}/photos/ph_007")
    incomplete = json.loads(body)
    del incomplete["links"]["download_location"]
    with pytest.raises(jsonschema.ValidationError):
        check_response("/photos/{assetSlug}", 200, incomplete, headers)


def test_refusals_match_the_description(server):
    server.spam = {"buy now"}
    status, body, headers = get(f"{server.url}/search/photos?query=buy%20now")
    assert status == 410
    check_response("/search/photos", 410, json.loads(body), headers)
    status, body, headers = get(f"{server.url}/photos/ph_001", key="")
    assert status == 401
    check_response("/photos/{assetSlug}", 401, json.loads(body), headers)


def test_rate_limit_is_plain_text_and_images_do_not_count(server):
    server.limit = 2
    for remaining in ("1", "0"):
        status, _, headers = get(f"{server.url}/photos/ph_001")
        assert (status, headers["X-Ratelimit-Remaining"]) == (200, remaining)
    status, body, headers = get(f"{server.url}/photos/ph_001")
    assert (status, body, headers["X-Ratelimit-Remaining"]) == (403, b"Rate Limit Exceeded", "0")
    assert "Retry-After" not in headers
    assert get(f"{server.url}/img/photo-ph_001?ixid=1", key="")[0] == 200


def test_pages_shift_when_photographs_are_added(server):
    server.new_photos = [Photo("fresh", make_jpeg(999), 6000, 4000)]
    url = f"{server.url}/topics/people/photos?per_page=30"
    first_page = json.loads(get(f"{url}&order_by=latest")[1])
    second_page = json.loads(get(f"{url}&order_by=latest&page=2")[1])
    assert first_page[-1]["id"] == second_page[0]["id"]
    assert json.loads(get(f"{url}&page=9")[1]) == []


def test_ranges_are_served(server):
    request = urllib.request.Request(
        f"{server.url}/img/photo-ph_001?ixid=1", headers={"Range": "bytes=10-"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 206
        assert response.read() == server.by_id("ph_001").data[10:]
