"""Damaged files of model folders are named in one line, without loading any library."""

import json
import struct

import pytest

from manifests.support.errors import UserError
from manifests.support.model_folder import check_model_files, explain_loading

HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"x": "y"}}


def safetensors(header: object, content: bytes = bytes(8)) -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + content


@pytest.fixture
def folder(tmp_path):
    """A model folder in which every file is as it should be."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "X", "unet": ["diffusers", "Y"], "other": [None, None]})
    )
    (tmp_path / "unet/config.json").write_text('{"layers_per_block": [1, 2], "nothing": null}')
    (tmp_path / "unet/tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    (tmp_path / "unet/model.safetensors").write_bytes(safetensors(HEADER))
    check_model_files(tmp_path)
    return tmp_path


DAMAGED_FILES = {
    "unet/config.json": [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": NaN}',
        b'{"a": ' + b"1" * 10_000 + b"}",
        b'{"layers_per_block": 100000}',
        b'{"text_config": {"num_hidden_layers": 1e9, "hidden_size": 999999999999}}',
        b'{"block_out_channels": [32, 1000000000000]}',
    ],
    "model_index.json": [
        b"[]",
        b'{"unet": ["os", "system"]}',
        b'{"unet": ["my_module", "Model"]}',
        b'{"unet": ["diffusers"]}',
        b'{"unet": [["diffusers"], "X"]}',
        b'{"unet": [1, 2]}',
    ],
    "unet/model.safetensors": [
        b"",
        b"\0" * 7,
        safetensors(HEADER)[:20],
        safetensors(HEADER, bytes(7)),
        safetensors(HEADER, bytes(9)),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8) + b"{}",
        safetensors([]),
        safetensors(b"\xff" * 100),
        safetensors(b"[" * 10_000),
        safetensors({"a": 1}),
        safetensors({"a": {"data_offsets": "0"}}),
        safetensors({"a": {"data_offsets": [0, "8"]}}),
        b"\x80\x04pickle" + bytes(100),
    ],
}
CASES = [
    pytest.param(name, content, id=f"{name}-{number}")
    for name, contents in DAMAGED_FILES.items()
    for number, content in enumerate(contents)
]


@pytest.mark.parametrize(("name", "content"), CASES)
def test_damaged_file_is_named_in_one_line(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        check_model_files(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / name} is damaged (")
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("name", DAMAGED_FILES)
def test_folder_in_place_of_a_file_is_one_line(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        check_model_files(folder)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("a\n  b\x1b"), r"^m cannot be loaded \(a b\\x1b\); get the original"),
        (AssertionError(), r"m cannot be loaded \(AssertionError\)"),
    ],
)
def test_errors_of_libraries_become_one_line(error, message):
    with pytest.raises(UserError, match=message), explain_loading("m"):
        raise error


def test_missing_files_keep_their_error():
    with pytest.raises(FileNotFoundError), explain_loading("m"):
        raise FileNotFoundError
