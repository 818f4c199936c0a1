"""Plots show the numbers they are given and leave the rest of matplotlib alone."""

import gc
import io
import sys
import weakref
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

from fedlas.errors import InputError
from fedlas.metrics import METRICS, reliability_bins
from fedlas.plots import (
    DARK,
    LIGHT,
    PAPER,
    new_axes,
    paper_axes,
    reliability_diagram,
    training_curves,
)
from fedlas.plots.theme import legend_height, set_title, without_pyplot
from fedlas.predictions import Predictions


def predictions(scale=2.0, samples=300, classes=4, truth=1.0):
    """Logits of standard deviation ``scale``, for labels drawn as if it had been ``truth``."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(samples, classes, generator=generator)
    return Predictions(
        logits, torch.multinomial((truth / scale * logits).softmax(1), 1, generator=generator)[:, 0]
    )


def png(axes):
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_global_state_is_touched(theme):
    before = dict(matplotlib.rcParams)
    png(reliability_diagram(predictions(), theme=theme))
    png(training_curves({"ce": [{"epoch": 1, "lr": 0.1}]}, metric="lr", theme=theme))
    assert dict(matplotlib.rcParams) == before


def test_without_pyplot_a_dropped_figure_is_freed(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    figure = weakref.ref(reliability_diagram(predictions()).figure)
    assert not _pylab_helpers.Gcf.figs  # pyplot would have kept it
    gc.collect()
    assert figure() is None


def test_plot_draws_on_given_axes_only():
    figure = Figure(facecolor="#123456")
    left, right = figure.subplots(1, 2)
    assert reliability_diagram(predictions(), ax=left, theme="dark") is left
    assert training_curves({"ce": [{"epoch": 1, "lr": 1.0}]}, metric="lr", ax=right) is right
    assert matplotlib.colors.to_hex(figure.get_facecolor()) == "#123456"
    assert matplotlib.colors.to_hex(left.get_facecolor()) == DARK.background


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_marks_show_accuracy_gap_and_share(num_bins):
    p = predictions(scale=5.0)
    axes = reliability_diagram(p, num_bins=num_bins)
    bins = reliability_bins(p, num_bins=num_bins)
    filled = bins.count > 0
    accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
    intervals, gaps, points = axes.collections
    np.testing.assert_allclose(points.get_offsets(), np.stack([confidence, accuracy], 1))
    ends = np.array(gaps.get_segments())
    np.testing.assert_allclose(
        ends[:, 0], np.stack([confidence, np.minimum(confidence, accuracy)], 1)
    )
    np.testing.assert_allclose(
        ends[:, 1], np.stack([confidence, np.maximum(confidence, accuracy)], 1)
    )
    low, high = np.array(intervals.get_segments())[:, :, 1].T
    assert (low <= accuracy + 1e-12).all()
    assert (accuracy <= high + 1e-12).all()
    count = bins.count[filled]
    assert (np.argsort(points.get_sizes(), kind="stable") == np.argsort(count, kind="stable")).all()
    strip = [b.get_height() for b in axes.child_axes[0].patches]
    np.testing.assert_allclose(strip, bins.count / bins.count.sum())
    ece = METRICS["ece"].value(p, num_bins=num_bins)
    assert f"ECE {100 * ece:.2f} %" in axes.texts[0].get_text()


def test_the_interval_of_the_accuracy_is_wilsons():
    """Of 9 right predictions in 10: 0.596 to 0.982 (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    p = Predictions([[2.0, 0.0]] * 10, [0] * 9 + [1])
    ((low, high),) = np.array(reliability_diagram(p, num_bins=1).collections[0].get_segments())[
        :, :, 1
    ]
    assert (low, high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


def test_a_diagram_without_shares_has_no_strip():
    assert reliability_diagram(predictions(), shares=False).child_axes == []


def test_over_and_under_colors_differ_in_lightness():
    def kind(scale):
        axes = reliability_diagram(predictions(scale, samples=3000, truth=2.0), num_bins=1)
        return matplotlib.colors.to_hex(axes.collections[1].get_color()[0])

    assert kind(8.0) == LIGHT.over
    assert kind(0.5) == LIGHT.under
    for theme in (LIGHT, DARK):
        gray = [
            np.dot(matplotlib.colors.to_rgb(c), (0.299, 0.587, 0.114))
            for c in (theme.over, theme.under)
        ]
        assert abs(gray[0] - gray[1]) > 0.15


def test_extreme_predictions_draw():
    png(reliability_diagram(Predictions([[1e4, -1e4]], [1])))
    png(reliability_diagram(Predictions([[0.0]], [0]), num_bins=1, title="one class", legend=False))


@pytest.mark.parametrize(
    "bad", [{"theme": "drak"}, {"num_bins": 0}, {"num_bins": 2.5}, {"num_bins": True}], ids=str
)
def test_diagram_refuses(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        reliability_diagram(predictions(), **bad)


def test_diagram_refuses_raw_logits():
    with pytest.raises(InputError, match="from_probs"):
        reliability_diagram(torch.zeros(3, 2))


def log(values, metric="ece"):
    return [{"epoch": e, "val": {metric: v}} for e, v in enumerate(values, start=1)]


def test_curve_is_mean_and_band_is_range():
    axes = training_curves({"ce": log([0.4, 0.2]) + log([0.2, 0.1]) + log([0.3])}, metric="val.ece")
    x, y = axes.lines[0].get_data()
    assert list(x) == [1, 2]
    np.testing.assert_allclose(y, [30, 15])  # percent, and the third seed counts where it is
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [10, 40])
    assert axes.get_ylabel() == "Validation ECE (%)"


def test_single_run_band_is_its_interval():
    values = (0.5, 0.6, None)
    lines = [
        {"epoch": e, "nci": {"rho": v, "rho_low": v and v - 0.1, "rho_high": v and v + 0.2}}
        for e, v in enumerate(values, 1)
    ]

    def ends(history):
        (band,) = training_curves(history, metric="nci.rho").collections
        vertical = band.get_paths()[0].vertices[:, 1]
        return pytest.approx((vertical.min(), vertical.max()))

    assert ends({"one": lines}) == (0.4, 0.8)
    assert ends({"two": lines + lines}) == (0.5, 0.6)
    assert ends(
        {"no interval": [{"epoch": 1, "nci": {"rho": 0.5}}, {"epoch": 2, "nci": {"rho": 0.6}}]}
    ) == (0.5, 0.6)


def test_units_follow_the_registry():
    assert (
        training_curves({"ce": log([0.5], "nll")}, metric="val.nll").get_ylabel()
        == "Validation NLL"
    )
    assert training_curves({"ce": [{"epoch": 1, "lr": 0.1}]}, metric="lr").get_ylabel() == "lr"


def test_holes_in_a_log_are_left_out():
    lines = [*log([0.4, None, float("nan"), 0.1]), {"epoch": 9}, {"val": {"ece": 1.0}}]
    axes = training_curves({"ce": lines, "not started": []}, metric="val.ece")
    assert list(axes.lines[0].get_xdata()) == [1, 4]
    assert len(axes.lines) == 1


def test_the_last_epochs_set_the_scale():
    axes = training_curves(
        {"ce": log([9.0] + [0.1 + 0.001 * i for i in range(20)], "nll")}, metric="val.nll"
    )
    assert axes.get_ylim()[1] < 0.2
    flat = training_curves({"ce": log([0.0] * 5)}, metric="val.ece")
    assert flat.get_ylim() == (0.0, 0.5)


def test_many_methods_look_different():
    axes = training_curves({f"m{i}": log([0.1, 0.2]) for i in range(20)}, metric="val.ece")
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in axes.lines}
    assert len(looks) == 20
    png(axes)


def test_an_unknown_metric_names_those_in_the_log():
    with pytest.raises(InputError, match=r"records with val\.ece"):
        training_curves({"ce": log([0.1])}, metric="val.eec")
    with pytest.raises(InputError, match="records with nothing"):
        training_curves({}, metric="val.ece")


def test_only_long_titles_wrap():
    long = "cross-entropy-without-label-smoothing"
    narrow, wide = (new_axes(LIGHT, size=(width, 3.0)) for width in (3.1, 6.0))
    set_title(narrow, long, LIGHT)
    set_title(wide, long, LIGHT)
    assert narrow.get_title(loc="left") == "cross-entropy-without-\nlabel-smoothing"
    assert wide.get_title(loc="left") == long


@pytest.mark.parametrize("width", [3.7, 5.6])
@pytest.mark.parametrize("methods", [1, 2, 8, 28])
def test_figure_has_room_for_its_legend(methods, width):
    names = [f"method number {i}" for i in range(methods)]
    axes = new_axes(LIGHT, size=(width, 2.7 + legend_height(names, width)))
    training_curves({name: log([0.1, 0.2]) for name in names}, metric="val.ece", ax=axes)
    axes.figure.draw_without_rendering()
    legend, across, up = (
        part.get_window_extent() for part in (axes.get_legend(), axes.xaxis.label, axes.yaxis.label)
    )
    whole = axes.figure.bbox
    assert legend.y1 < across.y0
    assert legend.y0 >= 0
    assert 0 <= legend.x0 < legend.x1 <= whole.x1
    assert 0 <= up.y0 < up.y1 <= whole.y1


def test_pyplot_uses_only_an_empty_current_figure():
    first, second = (reliability_diagram(predictions()).figure for _ in range(2))
    assert plt.get_fignums() == [first.number, second.number]
    sized = plt.figure(figsize=(6, 6))
    assert reliability_diagram(predictions()).figure is sized
    assert sized.get_layout_engine() is not None
    left, right = plt.subplots(1, 2)[1]
    plt.sca(left)
    assert reliability_diagram(predictions()) is left
    assert not right.has_data()


def test_page_figures_do_not_use_pyplot():
    with without_pyplot():
        reliability_diagram(predictions())
    assert not plt.get_fignums()


def test_paper_figure_has_column_width_and_font():
    p = Predictions([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0])
    serif = replace(PAPER, font="serif", size=7.0)
    ax = reliability_diagram(p, ax=paper_axes("single"), theme=serif, title="a")
    assert ax.figure.get_figwidth() == 3.35
    texts = [ax.yaxis.label, ax.texts[0], *ax.get_yticklabels()]
    texts += ax.child_axes[0].get_legend().get_texts()
    assert {text.get_fontfamily()[0] for text in texts} == {"serif"}
    assert ax.yaxis.label.get_fontsize() == 7.0
    with pytest.raises(InputError, match="single, double"):
        paper_axes("triple")


def _seen(color, matrix):
    """Lab of a color as someone sees it who lacks a kind of cones (Machado, Oliveira and Fernandes 2009)."""
    linear = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    rgb = np.clip(matrix @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt((to_xyz @ rgb) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [LIGHT, DARK, PAPER], ids=["light", "dark", "paper"])
@pytest.mark.parametrize(
    "matrix",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["protanopia", "deuteranopia"],
)  # fmt: skip
def test_colors_differ_for_color_blind_readers(theme, matrix):
    for one, other in ((theme.over, theme.under), (theme.lines[2], theme.lines[1])):
        assert np.linalg.norm(_seen(one, matrix) - _seen(other, matrix)) > 20
