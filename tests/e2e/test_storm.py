"""A short storm: hostile files and SIGKILLs over the commands of the data half.

`make storm` runs the full one; docs/reliability.md has its figures.
"""

import pytest
from hostile_files import write_hostile_files
from hostile_kinds import KINDS
from storm import Storm, corpus_digest

from manifests.support.text import strip_control

pytestmark = pytest.mark.slow

NUM_FILES = 150
NUM_KILLS = 8
STEPS = ("init", "collect", "filter", "caption", "review export", "review import", "status")


@pytest.fixture(scope="module")
def figures(tmp_path_factory, weights):
    """The counts of a short storm."""
    storm = Storm(
        tmp_path_factory.mktemp("storm") / "files",
        num_files=NUM_FILES,
        num_kills=NUM_KILLS,
        seed=20,
        deadline_s=240,
        show=print,
        only=STEPS,
    )
    return storm.run()


def test_nothing_is_lost_or_doubled(figures):
    assert figures.lost == []
    assert figures.doubled == []
    assert figures.inputs == (figures.rows + figures.dropped + figures.failed + figures.skipped)
    assert figures.kills >= NUM_KILLS


def test_outputs_have_neither_tracebacks_nor_escape_codes(figures):
    assert figures.tracebacks == []
    assert figures.escapes == []


def test_no_file_is_executed_or_hangs(figures):
    assert figures.executed == []
    assert figures.hangs == []


def test_killed_commands_give_the_result_of_undisturbed_ones(figures):
    assert figures.differences == []
    assert figures.errors == []


def test_files_end_as_their_kinds_require(figures):
    assert figures.wrong == []
    assert figures.rows > 40
    assert figures.dropped > 20


def test_corpus_is_deterministic_and_has_every_kind(tmp_path):
    files = write_hostile_files(tmp_path / "one", 80, 3, tmp_path / "marker")
    again = write_hostile_files(tmp_path / "two", 80, 3, tmp_path / "marker")
    kinds = {kind.name for kind in KINDS.values() if not kind.is_slow}
    assert kinds <= {file.kind for file in files}
    assert len(files) == 80
    assert len({strip_control(str(file.path)) for file in files}) == 80
    for file, other in zip(files, again, strict=True):
        if file.path.is_file() and file.kind not in ("endless-device", "unreadable"):
            assert file.path.read_bytes() == other.path.read_bytes(), file
    assert set(corpus_digest(tmp_path / "one")) == set(corpus_digest(tmp_path / "two"))
