"""One self-contained HTML of an evaluation: the table, the worst and the best pictures, groups and response curves."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from authface_train.evaluation import groups, summary
from authface_train.evaluation.evaluate import DEGRADED, Evaluation
from authface_train.evaluation.image_pairs import read
from authface_train.evaluation.metrics import known

SHOWN, SIDE_PX = 4, 256
BY = (
    "lpips",
    "musiq",
    "psnr",
    "ssim",
)  # what pictures are ordered by: the first of these that was measured


def order_by(found: Evaluation) -> str | None:
    """The metric that says which pictures are worst; None where none of single pictures was measured."""
    single = [name for name in found.metrics if name != "fid"]
    return next((name for name in (*BY, *single) if name in single), None)


def page(
    found: Evaluation,
    made: summary.Summary,
    title: str,
    of_groups: list[groups.Group],
    curves: Image.Image | None,
) -> str:
    import jinja2

    by = order_by(found)
    shown = (
        []
        if by is None
        else [_extremes(found, method, by) for method in found.methods if method != DEGRADED]
    )
    template = resources.files("authface_train.evaluation").joinpath("page.html.jinja").read_text()
    return (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            summary=made,
            heading=summary.heading,
            words=summary.words,
            by=None if by is None else known(by).heading,
            shown=shown,
            groups=of_groups,
            few=groups.FEW,
            curves=None if curves is None else _uri(curves, "PNG"),
            found=found,
        )
    )


def _extremes(found: Evaluation, method: str, by: str) -> dict[str, Any]:
    """The worst and the best few of a method."""
    own = found.scores[found.scores["method"] == method].dropna(subset=[by])
    worst_first = own.sort_values(by, ascending=known(by).more)
    few = min(SHOWN, -(-len(own) // 2))
    degraded = found.scores[found.scores["method"] == DEGRADED].set_index("name")["path"]
    return {
        "method": method,
        "worst": [_shown(row, degraded, by) for row in worst_first.head(few).to_dict("records")],
        "best": [
            _shown(row, degraded, by) for row in worst_first.tail(few)[::-1].to_dict("records")
        ],
    }


def _shown(row: dict[str, Any], degraded: pd.Series, by: str) -> dict[str, str]:
    """A picture between what was given and what it should be, where those are there."""
    paths = [degraded.get(row["name"]), row["path"], row["reference"]]
    tiles = [_tile(read(Path(path))[0]) for path in paths if path]
    strip = Image.new("RGB", (SIDE_PX * len(tiles), SIDE_PX))
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * SIDE_PX, 0))
    return {
        "name": row["name"],
        "value": f"{row[by]:.{summary.digits(by)}f}",
        "uri": _uri(strip, "JPEG"),
    }


def _tile(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (SIDE_PX, SIDE_PX), "black")
    tile.paste(image, ((SIDE_PX - image.width) // 2, (SIDE_PX - image.height) // 2))
    return tile


def _uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write(
    found: Evaluation,
    made: summary.Summary,
    folder: Path,
    title: str,
    json_text: str,
    draws: pd.DataFrame | None,
) -> None:
    """Everything an evaluation leaves in its folder."""
    from authface_train.evaluation import response

    folder.mkdir(parents=True, exist_ok=True)
    found.scores.to_parquet(folder / "scores.parquet", index=False)
    (folder / "summary.json").write_text(json_text)
    of_groups = groups.groups(found)
    text = [f"# {title}", summary.markdown(made)]
    if found.fid_reference is not None:
        text.append(f"FID against {found.fid_reference.words}.")
    if of_groups:
        text += ["## Skin tone and pose", groups.markdown(of_groups)]
    (folder / "table.md").write_text("\n\n".join(text) + "\n")
    (folder / "table.tex").write_text(summary.latex(made) + "\n")
    (folder / "table.csv").write_text(summary.as_csv(made))
    picture = None
    if draws is not None:
        table = response.curves(found, draws)
        table.to_csv(folder / "curves.csv", index=False)
        if not table.empty:
            picture = response.draw(table)
            picture.save(folder / "curves.png")
    (folder / "report.html").write_text(page(found, made, title, of_groups, picture))
