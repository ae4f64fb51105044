"""Writes the report of an evaluation: scores, tables, response curves and an offline HTML page.

The page shows the table, the worst and best pictures of each method, groups of faces and response
curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.images.encode import data_uri
from authface_train.evaluation import groups, response, summary
from authface_train.evaluation.evaluate import DEGRADED, Evaluation
from authface_train.evaluation.image_pairs import read_picture
from authface_train.evaluation.metrics import get_metric
from authface_train.evaluation.summary import Summary
from authface_train.evaluation.test_sets import TEST_SETS, SetName
from manifests.support import html_page
from manifests.support.files import atomic_path, write_atomic, write_json

PAGE_FILE = "report.html"
SCORES_FILE = "scores.parquet"
SUMMARY_FILE = "summary.json"

EXAMPLES = 4
"""Maximum number of worst and of best pictures per method."""
TILE_PX = 256
JPEG_QUALITY = 88
PICTURE_COLUMNS = ("degraded", "restored", "clean")
SORT_METRICS = ("lpips", "musiq", "psnr", "ssim")
"""Pictures are sorted by the first of these that was measured."""


@dataclass(frozen=True)
class Example:
    """A row of the table of examples.

    Attributes:
        place: Such as "worst 1" or "best 2".
        name: Name of the picture.
        value: Its value of the sort metric, formatted.
        pictures: Column in `PICTURE_COLUMNS` -> data URI, for the pictures that exist.
    """

    place: str
    name: str
    value: str
    pictures: dict[str, str]


@dataclass(frozen=True)
class MethodExamples:
    """The worst and then the best pictures of a method, most extreme first.

    Attributes:
        method: Name of the method.
        columns: The ones of `PICTURE_COLUMNS` that any example has.
        rows: The examples.
    """

    method: str
    columns: list[str]
    rows: list[Example]


def write_report(
    evaluation: Evaluation,
    table: Summary,
    folder: Path,
    *,
    test_set: SetName | None,
    degradations: pd.DataFrame | None,
) -> None:
    """Write scores, tables, response curves and the page.

    Args:
        evaluation: The measurements.
        table: Their summary.
        folder: Folder for the files. It is created if necessary.
        test_set: Test set of the paper.
        degradations: Strength of the degradations, as `read_degradations` returns it, for response
            curves.
    """
    title = "Evaluation"
    if test_set is not None:
        title += f" on {TEST_SETS[test_set].title}"
    with atomic_path(folder / SCORES_FILE) as temporary:
        evaluation.scores.to_parquet(temporary, index=False)
    write_json(folder / SUMMARY_FILE, summary.as_json(evaluation, table, test_set))

    compared_groups = groups.compare_groups(evaluation)
    paragraphs = [f"# {title}", summary.format_markdown(table)]
    if evaluation.fid_reference is not None:
        paragraphs.append(f"FID against {evaluation.fid_reference.description}.")
    if compared_groups:
        paragraphs += ["## Skin tone and pose", groups.format_markdown(compared_groups)]
    write_atomic(folder / "table.md", "\n\n".join(paragraphs) + "\n")
    write_atomic(folder / "table.tex", summary.format_latex(table) + "\n")
    write_atomic(folder / "table.csv", summary.format_csv(table))

    curves_image = None
    if degradations is not None:
        curves = response.response_curves(evaluation, degradations)
        curves.to_csv(folder / "curves.csv", index=False)
        curves_image = response.draw_curves(curves)
        if curves_image is not None:
            curves_image.save(folder / "curves.png")
    page = render_page(
        evaluation, table, title=title, compared_groups=compared_groups, curves=curves_image
    )
    write_atomic(folder / PAGE_FILE, page)


def render_page(
    evaluation: Evaluation,
    table: Summary,
    *,
    title: str,
    compared_groups: Sequence[groups.Group],
    curves: Image.Image | None,
) -> str:
    """Render the HTML page.

    Args:
        evaluation: The measurements.
        table: Their summary.
        title: Heading of the page.
        compared_groups: Groups of faces; may be empty.
        curves: Picture of the response curves, if there are any.
    """
    sort_metric = choose_sort_metric(evaluation)
    examples = []
    if sort_metric is not None:
        examples = [
            _choose_examples(evaluation, method, sort_metric)
            for method in evaluation.methods
            if method != DEGRADED
        ]
    return html_page.render_page(
        "authface_train.evaluation",
        "page.html.jinja",
        title=title,
        evaluation=evaluation,
        table=table,
        heading=summary.heading,
        format_cell=summary.format_cell,
        sort_heading=None if sort_metric is None else get_metric(sort_metric).heading,
        examples=examples,
        groups=compared_groups,
        min_faces=groups.MIN_FACES,
        curves=None if curves is None else data_uri(curves, "PNG"),
    )


def choose_sort_metric(evaluation: Evaluation) -> str | None:
    """The metric that pictures are sorted by; None if no metric of single pictures was measured."""
    measured = [name for name in evaluation.metrics if name != "fid"]
    return next((name for name in (*SORT_METRICS, *measured) if name in measured), None)


def _choose_examples(evaluation: Evaluation, method: str, metric: str) -> MethodExamples:
    """The worst and the best pictures of a method by a metric."""
    scores = evaluation.scores
    method_scores = scores[scores["method"] == method].dropna(subset=[metric])
    worst_first = method_scores.sort_values(metric, ascending=get_metric(metric).higher_is_better)
    # With few pictures, each one is shown once.
    count = min(EXAMPLES, -(-len(worst_first) // 2))
    degraded = scores[scores["method"] == DEGRADED].set_index("name")["path"].to_dict()
    rows = []
    for place, chosen in (
        ("worst", worst_first.head(count)),
        ("best", worst_first.tail(count)[::-1]),
    ):
        for rank, row in enumerate(chosen.to_dict("records"), 1):
            paths = (degraded.get(row["name"]), row["path"], row["reference"])
            rows.append(
                Example(
                    place=f"{place} {rank}",
                    name=row["name"],
                    value=f"{row[metric]:.{summary.decimals(metric)}f}",
                    pictures={
                        column: _encode_tile(path)
                        for column, path in zip(PICTURE_COLUMNS, paths, strict=True)
                        if path
                    },
                )
            )
    columns = [name for name in PICTURE_COLUMNS if any(name in row.pictures for row in rows)]
    return MethodExamples(method, columns, rows)


def _encode_tile(path: str) -> str:
    """A picture in a square tile as a data URI."""
    picture, _ = read_picture(Path(path))
    return data_uri(_fit_tile(picture), "JPEG", JPEG_QUALITY)


def _fit_tile(picture: np.ndarray) -> Image.Image:
    """Reduce a picture to fit into a black square tile, centred."""
    image = Image.fromarray(picture)
    image.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), "black")
    tile.paste(image, ((TILE_PX - image.width) // 2, (TILE_PX - image.height) // 2))
    return tile
