"""What another threshold would change: the gates judged twice, nothing written but a picture."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from authface_data import gates
from authface_data.gates import Judgement
from authface_data.report.contact_sheet import Section, contact_sheet
from manifests.schema import FACES
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.workspace import Workspace

SAID = re.compile(r"\s*([\w.-]+?)\s*(>=|<=|==|>|<)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE)
PICTURE, SHOWN = "reports/what-if.jpg", 16


@dataclass(frozen=True)
class Change:
    """kept_now, kept_then: faces in the set; gained, lost: ids, nearest to the threshold first.

    replaced: names of the gates whose threshold was tried, empty where a gate was added. picture: path in the workspace, None
    where nothing changes.
    """

    asked: str
    replaced: list[str]
    kept_now: int
    kept_then: int
    gained: list[str]
    lost: list[str]
    picture: str | None


def what_if(workspace: Workspace, asked: str, metrics: list[str]) -> Change:
    """Compare the set as the gates stand with what it would be. Raises UserError for what cannot be read as a gate."""
    now = workspace.settings.gates
    tried = parse(asked)
    same = [
        gate
        for gate in now
        if gate.metric == tried.metric and gate.op[0] == tried.op[0] and gate.best is None
    ]
    changed = [
        gate.model_copy(update={"op": tried.op, "threshold": tried.threshold})
        if gate in same
        else gate
        for gate in now
    ]
    then = changed if same else [*now, tried]
    gates.check(then, metrics)
    before, after = gates.judge(workspace, now), gates.judge(workspace, then)
    gained, lost = (
        _nearest(after, tried, chosen)
        for chosen in (after.in_the_set & ~before.in_the_set, before.in_the_set & ~after.in_the_set)
    )
    picture = _draw(workspace, after, tried, gained, lost) if gained or lost else None
    return Change(
        asked=f"{tried.metric} {tried.op} {tried.threshold:g}",
        replaced=[gate.name for gate in same],
        kept_now=int(before.in_the_set.sum()),
        kept_then=int(after.in_the_set.sum()),
        gained=gained,
        lost=lost,
        picture=picture,
    )


def parse(asked: str) -> Gate:
    """A gate from its words: `musiq >= 65`."""
    match = SAID.fullmatch(asked)
    try:
        if match is None:
            raise ValueError
        return Gate.model_validate(
            {"name": "--what-if", "metric": match[1], "op": match[2], "threshold": float(match[3])}
        )
    except ValueError as error:
        raise UserError(
            f'--what-if {asked!r}: say a measurement, a comparison and a number, as in "musiq>=65"'
        ) from error


def _nearest(judgement: Judgement, gate: Gate, chosen: np.ndarray) -> list[str]:
    """face_ids of the chosen, those first whose value is nearest to the threshold."""
    rows = np.flatnonzero(chosen)
    distance = np.nan_to_num(
        np.abs(judgement.measured.of(gate.metric)[rows] - float(gate.threshold or 0)), nan=np.inf
    )
    return judgement.measured.face_ids.take(
        pa.array(rows[np.argsort(distance, kind="stable")])
    ).to_pylist()


def _draw(
    workspace: Workspace, judgement: Judgement, gate: Gate, gained: list[str], lost: list[str]
) -> str:
    table = Store(workspace, FACES).read(["face_id", "crop_path"])
    paths = dict(zip(table["face_id"].to_pylist(), table["crop_path"].to_pylist(), strict=True))
    values = dict(
        zip(
            judgement.measured.face_ids.to_pylist(), judgement.measured.of(gate.metric), strict=True
        )
    )

    def section(title: str, ids: list[str]) -> Section:
        some = f", the {SHOWN} nearest to the threshold" if len(ids) > SHOWN else ""
        shown = [
            (paths[one], f"{gate.metric} {values[one]:.4g}")
            for one in ids[:SHOWN]
            if workspace.exists(paths[one])
        ]
        return Section(f"{title}: {len(ids)}{some}", shown)

    asked = f"{gate.metric} {gate.op} {gate.threshold:g}"
    sheet = contact_sheet(
        workspace,
        [section(f"{asked} would drop", lost), section(f"{asked} would keep again", gained)],
    )
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=90)
    workspace.write_bytes(PICTURE, out.getvalue())
    return PICTURE
