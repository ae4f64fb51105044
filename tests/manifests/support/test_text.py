"""Cleaning of text from outside."""

from manifests.support.text import (
    did_you_mean,
    escape_markdown,
    nearest_name,
    normal_name,
    strip_control,
    to_storable,
    to_utf8,
)


def test_lone_surrogates_become_question_marks():
    assert to_utf8(" caf\udce9 ") == "caf?"
    assert to_utf8("Müller") == "Müller"


def test_markdown_is_escaped_onto_one_line():
    assert escape_markdown("# a\n[b](c) <d>") == "\\# a \\[b\\](c) \\<d\\>"


def test_control_characters_are_made_visible():
    assert strip_control("a\x1b[31mb\u202ec\x00") == "a\\x1b[31mb\\u202ec\\x00"
    assert strip_control("naïve 漢字 👩\u200d👧\n") == "naïve 漢字 👩\u200d👧\n"
    assert strip_control("\udcff") == "\\udcff"


def test_stored_texts_hold_no_control_characters():
    assert to_utf8(" a\x00b\x1b[31m\x85 ") == "ab[31m"
    assert to_utf8("two\nlines\t") == "two\nlines"
    assert to_storable("a\udcff.png") == "a\\udcff.png"


def test_names_match_in_any_unicode_form_and_case():
    assert normal_name("Zoe\u0301.JPG") == normal_name("zoé.jpg")


def test_nearest_name_is_suggested_only_if_it_is_similar():
    assert nearest_name("MUSIC", ["niqe", "musiq"]) == "musiq"
    assert did_you_mean("lava", ["server", "llava"]) == "; did you mean llava?"
    assert did_you_mean("xyz", ["server", "llava"]) == ""
