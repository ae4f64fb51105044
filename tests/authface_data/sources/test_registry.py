"""The options of each source: which are accepted, and the messages about the others."""

import inspect
from pathlib import Path
from typing import get_args

import pytest

from authface_data.commands.collect import GENERAL_OPTIONS, SourceName, collect
from authface_data.sources.registry import _LOADERS, create_source, source_class
from authface_data.sources.unsplash.client import Listing
from manifests.support.errors import UserError


def test_command_line_offers_every_source():
    assert set(get_args(SourceName)) == set(_LOADERS)
    for name in _LOADERS:
        assert source_class(name).name == name


def test_command_line_has_the_options_of_all_sources():
    fields = {field for name in _LOADERS for field in source_class(name).options_model.model_fields}
    parameters = set(inspect.signature(collect).parameters)
    assert parameters - {"context", *GENERAL_OPTIONS} == fields


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("folder", {"query": ["face"]}, "--query is only valid with --source unsplash"),
        (
            "folder",
            {"plan": True},
            "--plan is only valid with --source unsplash or unsplash-dataset",
        ),
        (
            "unsplash",
            {"files": "copy"},
            "--files is only valid with --source folder or authface-hq",
        ),
        ("folder", {}, "--path is required for --source folder"),
        ("unsplash-dataset", {}, "--path is required for --source unsplash-dataset"),
        ("folder", {"path": Path("x"), "licence_basis": " "}, "--licence-basis is empty; give own"),
        ("unsplash", {}, "give at least one of --query, --topic, --collection and --user"),
        ("unsplash", {"topic": [".."]}, "--topic '..' is not a valid name"),
        ("flickr", {}, "unknown source 'flickr'; choose from: folder, unsplash"),
    ],
)
def test_wrong_options_are_refused_in_one_line(workspace, source, options, message):
    with pytest.raises(UserError) as error:
        create_source(source, workspace, options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_reach_the_source_as_typed_values(workspace):
    options = {"query": ["face \udce9", "face ?"], "user": ["@jane"], "order_by": "latest"}
    source = create_source("unsplash", workspace, options)
    assert source.listings == [
        Listing("query", "face ?", order_by="latest"),
        Listing("user", "@jane", order_by="latest"),
    ]


def test_path_that_is_not_utf8_is_kept(workspace):
    path = Path("/photos \udce9")
    assert create_source("folder", workspace, {"path": path}).options.path == path


@pytest.mark.slow
def test_collect_refuses_options_of_other_sources(tmp_path, authface_here):
    root = tmp_path / "ws"
    assert authface_here("init", root, "--preset", "embedded").returncode == 0
    collect = ("collect", "-w", root, "--source", "folder", "--path", tmp_path)
    for options, message in (
        (("--query", "face", "--licence-basis", "own"), "--query is only valid with"),
        (("--plan", "--licence-basis", "own"), "--plan is only valid with"),
        (("--no-face-gate", "--licence-basis", "own"), "--face-gate is only valid with"),
        (("--licence-basis", "  "), "--licence-basis is empty"),
        (("--refresh",), "--refresh cannot be combined with --path"),
    ):
        refused = authface_here(*collect, *options)
        assert refused.returncode == 2
        assert message in refused.stderr
