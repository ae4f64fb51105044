"""JSON and TOML of unknown origin: every fault is one line, and none takes long."""

import pytest

from manifests.support.errors import UserError
from manifests.support.parsing import (
    MAX_DEPTH,
    MAX_TOML_BYTES,
    parse_json,
    parse_toml,
    read_json_object,
)

DAMAGED_JSON = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "just too deep": "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
    "10,000 digits": "[" + "1" * 10_000 + "]",
    "400 digits": "1" * 400,
    "1e999": "[1e999]",
    "NaN": '{"a": NaN}',
    "-Infinity": '{"a": -Infinity}',
    "invalid UTF-8": b'"\xff\xfe\xfa"',
    "NUL bytes": b"\0" * 20,
    "empty": b"",
    "cut off": b'{"a": [1, 2',
    "two values": b"{} {}",
}
DAMAGED_TOML = {
    "nested lists": "a = " + "[" * 3000 + "]" * 3000,
    "nested tables": "a = " + "{a = " * 3000 + "1" + "}" * 3000,
    "dotted key": "a" + ".a" * 400_000 + " = 1",
    "dotted table": "[a" + ".a" * 150 + "]",
    "10,000 digits": "a = " + "1" * 10_000,
    "hexadecimal number": "a = 0x" + "f" * 10_000,
    "invalid UTF-8": b"a = '\xff'",
    "UTF-16": "a = 1".encode("utf-16"),
    "NUL bytes": b"\0" * 20,
    "escape codes": b"a = \x1b[31m",
    "too large": b"#" * (MAX_TOML_BYTES + 1),
}


@pytest.mark.parametrize("case", DAMAGED_JSON)
def test_damaged_json_is_a_value_error_of_one_line(case):
    with pytest.raises(ValueError, match=r".") as error:
        parse_json(DAMAGED_JSON[case])
    assert "\n" not in str(error.value)


def test_valid_json_is_parsed():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(f'{{"a": [1, -2.5, null], "b": {deep}}}')["a"] == [1, -2.5, None]
    assert parse_json('"\\ud83d"') == "\ud83d"
    assert parse_json("9" * 300) == int("9" * 300)


@pytest.mark.parametrize("case", DAMAGED_TOML)
def test_damaged_toml_is_one_line_with_the_path(case):
    with pytest.raises(UserError) as error:
        parse_toml(DAMAGED_TOML[case], "ws/authface.toml")
    message = str(error.value)
    assert message.startswith("ws/authface.toml is not valid TOML: ")
    assert message.isprintable()
    assert len(message) < 250


def test_toml_may_start_with_a_byte_order_mark():
    assert parse_toml(b"\xef\xbb\xbfa = 1", "x") == {"a": 1}


@pytest.mark.parametrize("content", [*DAMAGED_JSON.values(), b"[1, 2]", b'"text"', b"null"])
def test_damaged_json_file_is_one_line_with_path_and_advice(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as error:
        read_json_object(path, "remove it")
    message = str(error.value)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith("; remove it")
    assert message.isprintable()


def test_folder_in_place_of_a_json_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); remove it"):
        read_json_object(tmp_path, "remove it")
