"""Lists of tags in arrays: the same results as with lists of Python."""

import numpy as np
import pyarrow as pa

from manifests.tag_lists import TagLists

LISTS = [["a", "b"], [], ["b"], ["c", "a", "c"]]
OTHERS = [["d"], ["a"], [], ["a", "d", "b"]]


def test_column_with_null_and_several_chunks():
    column = pa.chunked_array([[["a", "b"], None], [], [["b"], ["c", "a", "c"]]])
    lists = TagLists.from_column(column)
    assert list(lists) == LISTS
    assert [lists[row] for row in range(4)] == LISTS
    assert list(TagLists.from_lists([])) == []


def test_rows_are_taken_and_appended():
    lists = TagLists.from_lists(LISTS)
    assert list(lists.take(np.array([3, -1, 0, 0]))) == [LISTS[3], [], LISTS[0], LISTS[0]]
    assert list(lists.append(TagLists.from_lists(OTHERS))) == LISTS + OTHERS
    assert list(lists.replace({1: ["x", "a"], 3: []})) == [LISTS[0], ["x", "a"], LISTS[2], []]


def test_families_are_joined_and_separated():
    lists, others = TagLists.from_lists(LISTS), TagLists.from_lists(OTHERS)
    joined = [first + second for first, second in zip(LISTS, OTHERS, strict=True)]
    assert list(lists.join(others)) == joined
    assert list(lists.without(others)) == [["a", "b"], [], ["b"], ["c", "c"]]
    assert list(others.without(lists)) == [["d"], ["a"], [], ["d", "b"]]


def test_renamed_tags_are_not_repeated():
    lists = TagLists.from_lists(LISTS)
    assert list(lists.rename({"b": "a"})) == [["a"], [], ["a"], LISTS[3]]
    assert list(lists.rename({"a": None})) == [["b"], [], ["b"], ["c"]]
    assert list(lists.rename({"x": "y"})) == LISTS


def test_texts_of_several_batches(monkeypatch):
    monkeypatch.setattr("manifests.tag_lists.ROWS_PER_BATCH", 2)
    texts = TagLists.from_lists(LISTS).texts(", ")
    assert texts.to_pylist() == ["a, b", "", "b", "c, a, c"]
    assert TagLists.from_lists([]).texts(", ").to_pylist() == []
