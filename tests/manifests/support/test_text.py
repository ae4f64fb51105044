"""Cleaning of text from outside."""

from manifests.support.text import escape_markdown, to_utf8


def test_lone_surrogates_become_question_marks():
    assert to_utf8(" caf\udce9 ") == "caf?"
    assert to_utf8("Müller") == "Müller"


def test_markdown_is_escaped_onto_one_line():
    assert escape_markdown("# a\n[b](c) <d>") == "\\# a \\[b\\](c) \\<d\\>"
