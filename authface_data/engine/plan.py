"""Which inputs a stage still has to process, and which of its results are outdated afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.engine.stage import Stage, expected_fingerprints, verdict_gate
from manifests.missing_files import PATH_COLUMNS, find_missing_keys
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePlan:
    """The inputs of one stage that are not done.

    Attributes:
        stage: The stage.
        fingerprints: Key -> fingerprint that a result has when made with the present settings, for
            every input.
        new: Keys without a result, or with a result whose file is missing.
        stale: Keys with a result that was made with other settings or from another input.
        failed: Keys that failed with the present settings.
    """

    stage: Stage
    fingerprints: dict[str, str]
    new: list[str]
    stale: list[str]
    failed: list[str]


def plan_stage(
    workspace: Workspace, stage: Stage, inputs: Sequence[tuple[str, Mapping[str, Any]]]
) -> StagePlan:
    """Compare the inputs of a stage with its rows and verdicts.

    Args:
        workspace: The workspace to read.
        stage: The stage.
        inputs: Pairs of key and input row.
    """
    expected = expected_fingerprints(stage, inputs)
    rows = _read_stage_rows(workspace, stage)
    row_keys = rows[stage.manifest.input_column].to_pylist()
    present = dict(zip(row_keys, rows["fingerprint"].to_pylist(), strict=True))

    verdicts = _read_stage_verdicts(workspace, stage)
    lost_keys = _keys_of_missing_files(workspace, stage, rows) & expected.keys()
    if lost_keys:
        logger.warning(
            "files of %d %ss are missing in %s/; they are made again",
            len(lost_keys),
            stage.subject,
            stage.manifest.name,
        )
    failed_keys = set()
    for key, fingerprint, verdict in zip(
        verdicts["id"].to_pylist(),
        verdicts["fingerprint"].to_pylist(),
        verdicts["verdict"].to_pylist(),
        strict=True,
    ):
        is_done = present.get(key) == expected.get(key)
        if is_done:
            continue
        present[key] = fingerprint
        if fingerprint == expected.get(key) and verdict == "failed":
            failed_keys.add(key)

    new, stale, failed = [], [], []
    for key, fingerprint in expected.items():
        if key not in present or key in lost_keys:
            new.append(key)
        elif present[key] != fingerprint:
            stale.append(key)
        elif key in failed_keys:
            failed.append(key)
    return StagePlan(stage, expected, new, stale, failed)


def remove_outdated(workspace: Workspace, plan: StagePlan) -> None:
    """Compact the manifests of a stage and remove outdated results of the plan's inputs.

    A result with another fingerprint is outdated once the input has a row or a refusal with the
    expected one. An input that failed keeps its earlier result. A row whose file is missing does
    not count, so that the reason why the file could not be made again is kept. The function is safe
    to repeat, so a run after a kill removes what the killed run left behind.

    Args:
        workspace: The workspace to write.
        plan: The plan of the finished run.
    """
    stage = plan.stage
    expected = plan.fingerprints
    input_column = stage.manifest.input_column
    rows = _read_stage_rows(workspace, stage)
    has_row = _up_to_date_keys(rows, input_column, expected)
    has_row -= _keys_of_missing_files(workspace, stage, rows)
    verdicts = _read_stage_verdicts(workspace, stage)
    refusals = verdicts.filter(pc.equal(verdicts["verdict"], "dropped"))
    is_refused = _up_to_date_keys(refusals, "id", expected)

    def is_outdated_row(key: str, fingerprint: str) -> bool:
        if key not in expected:
            return False
        return key in is_refused or (key in has_row and fingerprint != expected[key])

    def is_outdated_verdict(key: str, fingerprint: str) -> bool:
        if key not in expected:
            return False
        # If the input has a row, any verdict is outdated: a retry succeeded.
        return key in has_row or (key in is_refused and fingerprint != expected[key])

    def outdated_rows(part: pa.Table) -> pa.Array:
        return _mask(part, input_column, _is_of_stage(part, stage), is_outdated_row)

    def outdated_verdicts(part: pa.Table) -> pa.Array:
        return _mask(part, "id", _is_verdict_of_stage(part, stage), is_outdated_verdict)

    Store(workspace, stage.manifest).compact(outdated_rows)
    Store(workspace, VERDICTS).compact(outdated_verdicts)


def _mask(
    part: pa.Table,
    key_column: str,
    is_of_stage: pa.Array | pa.ChunkedArray,
    is_outdated: Callable[[str, str], bool],
) -> pa.Array:
    """Mask of the outdated rows of a stage; `is_outdated` gets the key and the fingerprint."""
    mask = [
        of_stage and is_outdated(key, fingerprint)
        for of_stage, key, fingerprint in zip(
            is_of_stage.to_pylist(),
            part[key_column].to_pylist(),
            part["fingerprint"].to_pylist(),
            strict=True,
        )
    ]
    return pa.array(mask, pa.bool_())


def _up_to_date_keys(table: pa.Table, key_column: str, expected: Mapping[str, str]) -> set[str]:
    """Keys of the inputs that have a row with the expected fingerprint."""
    keys = table[key_column].to_pylist()
    fingerprints = table["fingerprint"].to_pylist()
    return {
        key
        for key, fingerprint in zip(keys, fingerprints, strict=True)
        if expected.get(key) == fingerprint
    }


def _read_stage_rows(workspace: Workspace, stage: Stage) -> pa.Table:
    columns = [*stage.manifest.key, stage.manifest.input_column, "fingerprint"]
    path_column = PATH_COLUMNS.get(stage.manifest.name)
    if path_column is not None:
        columns.append(path_column)
    table = Store(workspace, stage.manifest).read(columns)
    return table.filter(_is_of_stage(table, stage))


def _keys_of_missing_files(workspace: Workspace, stage: Stage, rows: pa.Table) -> set[str]:
    """Keys of the inputs with a row whose file is missing. Links are not followed."""
    path_column = PATH_COLUMNS.get(stage.manifest.name)
    if path_column is None:
        return set()
    paths = dict(zip(range(rows.num_rows), rows[path_column].to_pylist(), strict=True))
    missing_rows = sorted(find_missing_keys(workspace, paths))
    return set(
        rows[stage.manifest.input_column].take(pa.array(missing_rows, pa.int64())).to_pylist()
    )


def _is_of_stage(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    """Mask of the stage's rows: all, or those with its name in the second key column."""
    if len(stage.manifest.key) < 2:
        return pa.array([True] * table.num_rows, pa.bool_())
    return pc.equal(table[stage.manifest.key[1]], stage.name)


def _read_stage_verdicts(workspace: Workspace, stage: Stage) -> pa.Table:
    table = Store(workspace, VERDICTS).read()
    return table.filter(_is_verdict_of_stage(table, stage))


def _is_verdict_of_stage(table: pa.Table, stage: Stage) -> pa.Array | pa.ChunkedArray:
    is_gate = pc.equal(table["gate"], verdict_gate(stage))
    return pc.and_(is_gate, pc.equal(table["subject"], stage.subject))
