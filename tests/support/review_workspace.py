"""A workspace with four faces to review, and review tables as spreadsheets save them."""

import csv
import io
from collections.abc import Sequence

from authface_data import gates
from manifests.schema import CAPTIONS, FACES, PHOTOS, SCORES
from manifests.settings import Gate
from manifests.store import Store
from manifests.workspace import Workspace

GATES = [
    Gate(name="size", metric="qsize_px", op=">=", threshold=300),
    Gate(name="skin", metric="skin", op=">=", threshold=0.5),
]


def fill_review_workspace(workspace: Workspace) -> Workspace:
    """Add four faces with captions; fs_2_a and fs_3_a are dropped, the last one by two gates.

    Their drop reasons contain a semicolon and their tags contain commas, so that a spreadsheet
    with any separator splits some texts.
    """
    workspace.settings.gates[:] = GATES
    for number, size in enumerate((500.0, 310.0, 290.0, 100.0)):
        face_id = f"fs_{number}_a"
        photo = {"photo_id": f"fs_{number}", "description": f"Photo, {number}"}
        Store(workspace, PHOTOS).append([{**photo, "licence_basis": "own", "fingerprint": "f"}])
        path = f"faces/{face_id}.png"
        workspace.write_bytes(path, b"")
        box = [0.0, 0.0, 9.0, 9.0]
        face = {
            "face_id": face_id,
            "photo_id": f"fs_{number}",
            "box_px": [0.0, 0.0, 100.0, 100.0],
            "qsize_px": size,
            "crop_path": path,
            "crop_sha256": f"{number}" * 64,
            "crop_size_px": 512,
        }
        boxes = ("left_eye_box_crop_px", "right_eye_box_crop_px", "mouth_box_crop_px")
        Store(workspace, FACES).append([{**face, **dict.fromkeys(boxes, box), "fingerprint": "f"}])
        score = {"face_id": face_id, "metric": "skin", "value": 0.9 if number < 3 else 0.1}
        Store(workspace, SCORES).append([{**score, "fingerprint": "f"}])
        tags = {"photographic_tags": ["front view", "soft light"], "measured_tags": []}
        row = {"face_id": face_id, "captioner": "measured", "caption": "front view, soft light"}
        Store(workspace, CAPTIONS).append([{**row, **tags, "fingerprint": "f"}])
    gates.apply_gates(workspace, GATES)
    return workspace


def open_in_spreadsheet(data: bytes, separator: str) -> list[list[str]]:
    """The cells of a CSV file as a spreadsheet shows them that separates by `separator`.

    As in Excel, a quotation mark that does not begin a cell is a character of the text.
    """
    text = data.decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def save_in_spreadsheet(
    rows: Sequence[Sequence[str]],
    separator: str,
    *,
    line_end: str = "\r\n",
    pad: bool = True,
    quoting: int = csv.QUOTE_MINIMAL,
) -> str:
    """The text of a CSV file that a spreadsheet saves.

    Args:
        rows: The cells.
        separator: Character between cells.
        line_end: End of the lines.
        pad: Give every row as many cells as the longest, as Excel does.
        quoting: `csv.QUOTE_ALL` for LibreOffice's option to quote all text cells.
    """
    width = max(len(row) for row in rows) if pad else 0
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator=line_end, quoting=quoting)
    for row in rows:
        writer.writerow([*row, *[""] * (width - len(row))])
    return buffer.getvalue()
