"""Figures of OOD scores show the numbers they are given."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fedlas.errors import InputError
from fedlas.plots import LIGHT, new_axes, roc_curves, score_histogram
from fedlas.zoo.ood import roc_points

KNOWN, UNKNOWN = np.random.default_rng(0).normal([[0.0], [1.5]], 1.0, size=(2, 400))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_global_state_is_touched(theme):
    before = dict(matplotlib.rcParams)
    for axes in (
        roc_curves({"a": roc_points(KNOWN, UNKNOWN)}, theme=theme, title="t"),
        score_histogram(KNOWN, UNKNOWN, theme=theme),
    ):
        axes.figure.savefig(io.BytesIO(), format="png")
    assert dict(matplotlib.rcParams) == before


def test_curves_are_the_points():
    points = roc_points(KNOWN, UNKNOWN)
    axes = roc_curves({"a": points, "b": ([0, 1], [0, 1])}, title="both")
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), points[0])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), points[1])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chance", "a", "b"]


def test_histogram_shares_include_outliers():
    wild = np.concatenate((UNKNOWN, [1e9]))
    axes = score_histogram(KNOWN, wild, num_bins=10)
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(2, 10)
    np.testing.assert_allclose(heights.sum(axis=1), 1)
    assert axes.get_xlim()[1] < 100
    left = axes.patches[0].get_x()
    right = axes.patches[9].get_x() + axes.patches[9].get_width()
    np.testing.assert_allclose(
        heights[0], np.histogram(KNOWN.clip(left, right), 10, (left, right))[0] / 400
    )


def test_threshold_line_is_95_percent_quantile():
    axes = score_histogram(np.arange(20.0), np.arange(20.0))
    assert axes.lines[0].get_xdata()[0] == 18


def test_it_draws_on_the_axes_it_is_given():
    left, right = Figure().subplots(1, 2)
    assert roc_curves({"a": ([0, 1], [0, 1])}, ax=left, legend=False) is left
    assert score_histogram([1.0], [1.0], ax=right, legend=False) is right


def test_refuses():
    for bad in (
        {},
        {"a": ([0, 2], [0, 1])},
        {"a": ([0, 1], [1, 0])},
        {"a": ([0, 1], [0, 0.5, 1])},
        {"a": ([0], [0])},
    ):
        with pytest.raises(InputError, match="roc_curves"):
            roc_curves(bad)
    for bad in (([], [1.0]), ([1.0], [np.inf])):
        with pytest.raises(InputError, match="finite scores"):
            score_histogram(*bad)
    with pytest.raises(InputError, match="num_bins"):
        score_histogram([1.0], [2.0], num_bins=0)


@pytest.mark.parametrize(("size", "below"), [((3.7, 5.0), True), ((6.2, 4.0), False)])
def test_curves_are_named_where_there_is_room(size, below):
    axes = new_axes(LIGHT, size=size)
    roc_curves({f"score {i}": roc_points(KNOWN, UNKNOWN) for i in range(3)}, ax=axes)
    axes.figure.draw_without_rendering()
    legend, frame, whole = (
        axes.get_legend().get_window_extent(),
        axes.get_window_extent(),
        axes.figure.bbox,
    )
    assert (legend.y1 < frame.y0) == below
    assert (legend.x0 > frame.x1) != below
    assert 0 <= legend.x0 < legend.x1 <= whole.x1
    assert 0 <= legend.y0 < legend.y1 <= whole.y1
