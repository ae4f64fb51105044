"""Training curves as SVG coordinates."""

import pytest

from authface_data.report import curves

METRICS = b"step,gradient_norm,loss,loss_t0\n1,,4,1\n2,3,2,1\n3,3,2,1\n"


def parse_points(points: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_loss_comes_first_and_losses_by_timestep_are_left_out():
    loss, gradient_norm = curves.metric_curves(METRICS)
    assert loss.name == "loss"
    assert gradient_norm.name == "gradient_norm"
    assert (gradient_norm.first_step, gradient_norm.last_step) == (2, 3)
    assert loss.last == 2


def test_points_span_the_plot_and_larger_values_are_higher():
    loss = curves.metric_curves(METRICS)[0]
    points = parse_points(loss.points)
    assert [x for x, _ in points] == [curves.LEFT, 304, curves.WIDTH - curves.RIGHT]
    heights = [y for _, y in points]
    assert curves.TOP < heights[0] < heights[1] == heights[2] < curves.HEIGHT - curves.BOTTOM


def test_smoothed_line_is_an_exponential_average():
    loss = curves.metric_curves(METRICS)[0]
    scale = (parse_points(loss.points)[1][1] - parse_points(loss.points)[0][1]) / -2
    smooth = parse_points(loss.smooth)
    values = [4 + (y - smooth[0][1]) / scale for _, y in smooth]
    assert values == pytest.approx([4, 3.8, 3.62], abs=0.01)


def test_single_values_and_empty_files_give_no_curve():
    assert curves.metric_curves(b"") == []
    assert curves.metric_curves(b"step,loss\n1,4\n") == []


def test_constant_metric_has_finite_coordinates():
    (loss,) = curves.metric_curves(b"step,loss\n1,0\n2,0\n")
    assert "nan" not in loss.points


def test_audit_shows_both_losses_unsmoothed():
    audit = b"step,held_out_loss,training_loss\n1,3,3\n2,2,1\n"
    held_out, training = curves.audit_curves(audit)
    assert [held_out.name, training.name] == ["held_out_loss", "training_loss"]
    assert training.smooth == training.points
