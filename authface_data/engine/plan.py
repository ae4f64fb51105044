"""What is left to do: new, stale and failed inputs of a stage, from what its manifests hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.engine.stage import Stage, fingerprints, ledger_gate
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The inputs of one stage that are not done, sorted into what became of them; and the fingerprint that each should have."""

    stage: Stage
    fingerprints: dict[str, str]
    new: list[str]
    stale: list[str]
    failed: list[str]


def plan(
    workspace: Workspace, stage: Stage, inputs: Sequence[tuple[str, Mapping[str, Any]]]
) -> Plan:
    """Sort the inputs (key, row). One whose rows or verdict carry another fingerprint than it should have is stale."""
    wanted = fingerprints(stage, inputs)
    rows = _own_rows(
        Store(workspace, stage.gives).read([*stage.gives.key, stage.gives.source, "fingerprint"]),
        stage,
    )
    seen = dict(
        zip(rows[stage.gives.source].to_pylist(), rows["fingerprint"].to_pylist(), strict=True)
    )
    verdicts = _own_verdicts(Store(workspace, VERDICTS).read(), stage)
    failed_now = set()
    for key, mark, verdict in zip(
        *(verdicts[c].to_pylist() for c in ("id", "fingerprint", "verdict")), strict=True
    ):
        if seen.get(key) == wanted.get(key):
            continue
        seen[key] = mark
        if mark == wanted.get(key) and verdict == "failed":
            failed_now.add(key)
    new = [key for key in wanted if key not in seen]
    stale = [key for key in wanted if key in seen and seen[key] != wanted[key]]
    failed = [key for key in wanted if seen.get(key) == wanted[key] and key in failed_now]
    return Plan(stage, wanted, new, stale, failed)


def settle(workspace: Workspace, plan: Plan) -> None:
    """After a run: compact, and remove what is outdated of the plan's inputs.

    Outdated is what a stage made of an input otherwise, once it has made or refused it as it should: an input that failed
    keeps what was made of it before. Done again after a kill, it finishes what was left.
    """
    stage, wanted = plan.stage, plan.fingerprints
    source, gives, verdicts = (
        stage.gives.source,
        Store(workspace, stage.gives),
        Store(workspace, VERDICTS),
    )
    made = _current(
        _own_rows(gives.read([*stage.gives.key, source, "fingerprint"]), stage), source, wanted
    )
    told = _own_verdicts(verdicts.read(), stage)
    dropped = _current(told.filter(pc.equal(told["verdict"], "dropped")), "id", wanted)

    def outdated_row(part: pa.Table) -> pa.Array:
        keys, marks = part[source].to_pylist(), part["fingerprint"].to_pylist()
        own = _is_own(part, stage).to_pylist()
        return pa.array(
            [
                mine and key in wanted and (key in dropped or (key in made and mark != wanted[key]))
                for mine, key, mark in zip(own, keys, marks, strict=True)
            ],
            pa.bool_(),
        )

    def outdated_verdict(part: pa.Table) -> pa.Array:
        # A refusal as it should be is outdated too where a row was made since: by a retry.
        keys, marks = part["id"].to_pylist(), part["fingerprint"].to_pylist()
        own = _is_own_verdict(part, stage).to_pylist()
        return pa.array(
            [
                mine and key in wanted and (key in made or (key in dropped and mark != wanted[key]))
                for mine, key, mark in zip(own, keys, marks, strict=True)
            ],
            pa.bool_(),
        )

    gives.compact(outdated_row)
    verdicts.compact(outdated_verdict)


def _current(table: pa.Table, column: str, wanted: dict[str, str]) -> set[str]:
    """The inputs, named by a column, that have a row with the fingerprint they should have."""
    pairs = zip(table[column].to_pylist(), table["fingerprint"].to_pylist(), strict=True)
    return {key for key, mark in pairs if wanted.get(key) == mark}


def _is_own(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    """Which rows of a shared manifest this stage makes: all, or those with its name in the second key column."""
    if len(stage.gives.key) < 2:
        return pa.array([True] * table.num_rows, pa.bool_())
    return pc.equal(table[stage.gives.key[1]], stage.name)


def _own_rows(table: pa.Table, stage: Stage) -> pa.Table:
    return table.filter(_is_own(table, stage))


def _is_own_verdict(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    return pc.and_(
        pc.equal(table["gate"], ledger_gate(stage)), pc.equal(table["subject"], stage.subject)
    )


def _own_verdicts(table: pa.Table, stage: Stage) -> pa.Table:
    return table.filter(_is_own_verdict(table, stage))
