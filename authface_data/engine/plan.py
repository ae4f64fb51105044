"""What is left to do: new, stale and failed inputs of a stage, from what its manifests hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.engine.stage import Stage, ledger_gate, stage_fingerprint
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The inputs of one stage that are not done, sorted into what became of them."""

    stage: Stage
    fingerprint: str
    new: list[str]
    stale: list[str]
    failed: list[str]


def plan(workspace: Workspace, stage: Stage, keys: Sequence[str]) -> Plan:
    """Sort the keys of all inputs. A key whose rows or verdict carry another fingerprint is stale."""
    current = stage_fingerprint(stage)
    rows = _own_rows(Store(workspace, stage.gives).read([*stage.gives.key, stage.gives.source, "fingerprint"]), stage)
    seen = dict(zip(rows[stage.gives.source].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
    verdicts = _own_verdicts(Store(workspace, VERDICTS).read(), stage)
    failed_now = set()
    for key, mark, verdict in zip(*(verdicts[c].to_pylist() for c in ("id", "fingerprint", "verdict")), strict=True):
        if seen.get(key) == current:
            continue
        seen[key] = mark
        if mark == current and verdict == "failed":
            failed_now.add(key)
    new = [key for key in keys if key not in seen]
    stale = [key for key in keys if key in seen and seen[key] != current]
    failed = [key for key in keys if seen.get(key) == current and key in failed_now]
    return Plan(stage, current, new, stale, failed)


def settle(workspace: Workspace, stage: Stage) -> None:
    """After a run: compact, and remove what a stage made with other settings for inputs that are done with the present ones.

    Done again after a kill, it finishes what was left.
    """
    current = stage_fingerprint(stage)
    source, gives = stage.gives.source, Store(workspace, stage.gives)
    verdicts = Store(workspace, VERDICTS)
    rows = _own_rows(gives.read([*stage.gives.key, source, "fingerprint"]), stage)
    made = pc.unique(rows.filter(pc.equal(rows["fingerprint"], current))[source])
    refused = _own_verdicts(verdicts.read(), stage)
    refused_ids = refused.filter(pc.equal(refused["fingerprint"], current))["id"]
    done = pa.chunked_array([made, *refused_ids.chunks], pa.string())

    def outdated_row(part: pa.Table) -> pa.Array:
        old = pc.and_(_is_own(part, stage), pc.not_equal(part["fingerprint"], current))
        return pc.and_(old, pc.is_in(part[source], done))

    def outdated_verdict(part: pa.Table) -> pa.Array:
        # A refusal with the present settings is outdated too where a row was made since: by a retry.
        old = pc.or_(pc.not_equal(part["fingerprint"], current), pc.is_in(part["id"], made))
        return pc.and_(pc.and_(_is_own_verdict(part, stage), old), pc.is_in(part["id"], done))

    gives.compact(outdated_row)
    verdicts.compact(outdated_verdict)


def _is_own(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    """Which rows of a shared manifest this stage makes: all, or those with its name in the second key column."""
    if len(stage.gives.key) < 2:
        return pa.array([True] * table.num_rows, pa.bool_())
    return pc.equal(table[stage.gives.key[1]], stage.name)


def _own_rows(table: pa.Table, stage: Stage) -> pa.Table:
    return table.filter(_is_own(table, stage))


def _is_own_verdict(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    return pc.and_(pc.equal(table["gate"], ledger_gate(stage)), pc.equal(table["subject"], stage.subject))


def _own_verdicts(table: pa.Table, stage: Stage) -> pa.Table:
    return table.filter(_is_own_verdict(table, stage))
