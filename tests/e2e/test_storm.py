"""A short storm: hostile files and SIGKILLs over the commands of the data half.

`make storm` runs the full one; docs/reliability.md has its figures.
"""

import pytest
from hostile_files import write_hostile_files
from hostile_kinds import KINDS
from storm import Storm, corpus_digest

pytestmark = pytest.mark.slow

NUM_FILES = 68
NUM_KILLS = 4
SEED = 20
STEPS = ("init", "collect", "filter", "caption")


@pytest.fixture(scope="module")
def storm(tmp_path_factory, weights):
    """A short storm that is over."""
    storm = Storm(
        tmp_path_factory.mktemp("storm") / "files",
        num_files=NUM_FILES,
        num_kills=NUM_KILLS,
        seed=SEED,
        deadline_s=240,
        show=print,
        only=STEPS,
        kills_workers=False,
    )
    storm.run()
    return storm


@pytest.fixture(scope="module")
def figures(storm):
    """Its counts."""
    return storm.figures


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
    assert figures.rows > 50
    assert figures.dropped > 20


def test_corpus_is_deterministic_and_has_every_kind(storm, tmp_path):
    files = write_hostile_files(tmp_path / "again", NUM_FILES, SEED, storm.marker)
    assert {kind.name for kind in KINDS.values()} <= {file.kind for file in files}
    assert len(files) == NUM_FILES
    corpus = storm.folder / "corpus"
    assert set(corpus_digest(tmp_path / "again")) == set(corpus_digest(corpus))
    for file in files:
        other = corpus / file.path.relative_to(tmp_path / "again")
        if file.path.is_file():
            assert file.path.read_bytes() == other.read_bytes(), file
