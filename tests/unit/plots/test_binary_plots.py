"""The diagrams of a model of two outcomes show the numbers that ``fedlas.binary`` computes."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fedlas import Predictions, binary
from fedlas.plots import DARK, decision_curve, positive_reliability_diagram, risk_distribution


def predictions(samples=300, sharp=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 2, generator=generator)
    return Predictions(
        sharp * logits, torch.bernoulli(logits.softmax(1)[:, 1], generator=generator).long()
    )


def test_points_curve_band_and_strip():
    p = predictions()
    axes = positive_reliability_diagram(p, num_bins=7, replicates=39)
    bins, curve = (
        binary.positive_bins(p, num_bins=7),
        binary.integrated_calibration(p, replicates=39),
    )
    _, intervals, points = axes.collections
    np.testing.assert_allclose(
        points.get_offsets(), np.stack([bins.probability, bins.frequency], 1)
    )
    ends = np.array(intervals.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, np.stack([bins.low, bins.high], 1))
    solid, dotted = axes.lines[1:3]
    drawn = np.isin(curve.probability, solid.get_xdata())
    np.testing.assert_allclose(solid.get_ydata(), curve.frequency[drawn])
    assert dotted.get_linestyle() == ":"
    slope = binary.logistic_recalibration(p).slope.value
    assert (
        axes.texts[0].get_text()
        == f"slope {slope:.2f}  ·  ICI {100 * curve.ici.value:.2f} %  ·  n = 300"
    )
    positives, others = (
        np.array([bar.get_height() for bar in c]) for c in axes.child_axes[0].containers
    )
    assert (positives**2).sum() == pytest.approx(p.tensors().target.sum())
    assert (others**2).sum() == pytest.approx(300 - p.tensors().target.sum())
    assert (others <= 0).all()


def test_a_model_without_a_slope_draws(tmp_path):
    p = Predictions([[0.0, -1.0]] * 10 + [[0.0, 1.0]] * 10, [0] * 10 + [1] * 10)
    axes = positive_reliability_diagram(p, replicates=0)
    assert axes.texts[0].get_text().startswith("ICI")
    assert len(axes.collections) == 2  # no band
    axes.figure.savefig(tmp_path / "a.svg")


def test_decision_curves_are_net_benefits():
    models = {"one": predictions(), "two": predictions(sharp=-1.0)}
    axes = decision_curve(models, thresholds=[0.1, 0.2, 0.6])
    for line, p in zip(axes.lines, models.values(), strict=False):
        np.testing.assert_array_equal(
            line.get_ydata(), binary.net_benefit(p, thresholds=[0.1, 0.2, 0.6]).model
        )
    np.testing.assert_array_equal(
        axes.lines[2].get_ydata(),
        binary.net_benefit(models["one"], thresholds=[0.1, 0.2, 0.6]).treat_all,
    )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "one",
        "two",
        "act on all",
        "act on none",
    ]
    assert not axes.collections  # intervals of several models would hide each other
    assert len(decision_curve(models["one"]).collections) == 1


def test_default_axis_ends_at_three_times_prevalence():
    rare_events = Predictions([[0.0, -2.0]] * 18 + [[0.0, 4.0]] * 2, [0] * 18 + [1] * 2)
    low, high = decision_curve(rare_events).get_xlim()
    assert (low, high) == pytest.approx((0.003, 0.3))


def test_models_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"decision_curve: models .*same samples; got 2"):
        decision_curve({"one": predictions(), "two": predictions(seed=1)})
    with pytest.raises(ValueError, match="same samples; got 0 model"):
        decision_curve({})
    with pytest.raises(ValueError, match="decision_curve: thresholds"):
        decision_curve(predictions(), thresholds=[2.0])


@pytest.mark.parametrize("draw", [decision_curve, positive_reliability_diagram])
def test_plots_draw_only_on_given_axes(draw):
    before, figure = dict(matplotlib.rcParams), Figure(facecolor="#123456")
    axes = figure.subplots()
    assert draw(predictions(), ax=axes, theme="dark", title="$x$") is axes
    assert matplotlib.colors.to_hex(axes.get_facecolor()) == DARK.background
    assert axes.get_title(loc="left") == "$x$"
    assert dict(matplotlib.rcParams) == before


def rare(shift, samples=4000):
    generator = torch.Generator().manual_seed(0)
    log_odds = 1.2 * torch.randn(samples, generator=generator) + shift
    happened = torch.bernoulli(log_odds.sigmoid(), generator=generator).long()
    return Predictions(torch.stack([torch.zeros(samples), log_odds], dim=1), happened)


@pytest.mark.parametrize(
    ("shift", "scale", "most"), [(0.0, "linear", 1.0), (-3.0, "linear", 0.8), (-6.0, "logit", 0.7)]
)
def test_the_diagram_zooms_to_the_data(shift, scale, most):
    p = rare(shift)
    axes = positive_reliability_diagram(p, replicates=0, scale="auto")
    assert axes.get_xscale() == scale
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[1] <= most
    inside = (p.tensors().probs[:, 1] <= axes.get_xlim()[1]).double().mean()
    assert inside > 0.99
    strip = axes.child_axes[0]
    assert sum(bar.get_height() ** 2 for bars in strip.containers for bar in bars) == pytest.approx(
        4000
    )
    # The line of text stands above the axes, where there is no point.
    assert axes.texts[0].get_position()[1] > 1


def test_rare_event_curve_ends_at_largest_probability():
    axes = decision_curve(rare(-6.0), thresholds="data", marks=[0.01])
    assert axes.get_xlim()[1] < 0.2
    assert axes.get_ylabel() == "net benefit per 1,000"
    assert 0.01 in [line.get_xdata()[0] for line in axes.lines]


@pytest.mark.parametrize("scale", ["zoom", "logit", "auto"])
def test_diagrams_before_and_after_share_their_axes(scale):
    both = [predictions(sharp=sharp) for sharp in (1.5, 0.4)]
    options = {"scale": scale, "axes_for": both, "replicates": 0}
    before, after = (positive_reliability_diagram(each, **options) for each in both)
    for name in ("xlim", "ylim", "xscale"):
        assert getattr(before, f"get_{name}")() == getattr(after, f"get_{name}")()


def test_the_smoother_is_drawn_and_named():
    p = predictions()
    curve = binary.spline_curve(p)
    axes = positive_reliability_diagram(p, replicates=0, smoother="spline")
    dotted = axes.lines[2]
    np.testing.assert_allclose(dotted.get_ydata(), curve.frequency)
    assert axes.get_ylabel() == "frequency of the event (spline)"
    assert positive_reliability_diagram(p, replicates=0).get_ylabel().endswith("(loess)")


@pytest.mark.parametrize("scale", ["auto", "zoom", "linear", "logit"])
@pytest.mark.parametrize("factor", [1.0, 0.3], ids=["calibrated", "too low"])
def test_rare_event_curve_stays_in_frame(scale, factor):
    p = rare(-4.0)
    log_odds = p.tensors().logits[:, 1] + np.log(factor)
    p = Predictions(torch.stack([0 * log_odds, log_odds], dim=1), p.tensors().target)
    axes = positive_reliability_diagram(p, scale=scale, replicates=39)
    low, high = axes.get_ylim()
    solid, dotted = (np.array([line.get_xdata(), line.get_ydata()]) for line in axes.lines[1:3])
    drawn = dotted[:, ~np.isnan(dotted[1])]
    for curve in (solid, drawn):
        assert ((curve[1] > 0) & (curve[1] < 1)).all()
        assert ((curve >= low) & (curve <= high)).all()
    # Solid where there are data: all but a few samples at either end.
    ends = np.quantile(p.tensors().probs[:, 1], [0.005, 0.995])
    assert solid[0].min() >= ends[0]
    assert solid[0].max() <= ends[1]
    points = axes.collections[-1].get_offsets()
    assert ((points[:, 1] >= low) & (points[:, 1] <= high)).all()
    # The line does not end before the data do.
    curve = binary.integrated_calibration(p, replicates=0)
    known = (curve.probability >= ends[0]) & (curve.probability <= ends[1])
    if scale != "linear":
        assert np.isin(curve.probability[known & (curve.frequency > 0)], solid[0]).all()


@pytest.mark.parametrize("shift", [0.0, -3.0, -6.0])
def test_risks_by_outcome_are_shares_of_each(shift):
    p = rare(shift)
    axes = risk_distribution(p, num_bins=20)
    events, others = axes.patches[1::2]
    for stairs, outcome in ((events, 1), (others, 0)):
        values, edges, _ = stairs.get_data()
        assert values.sum() == pytest.approx(100)
        inside = (
            p.tensors().probs[p.tensors().target == outcome][:, 1].numpy().clip(edges[0], edges[-1])
        )
        np.testing.assert_allclose(values, 100 * np.histogram(inside, edges)[0] / len(inside))
    medians = [
        float(np.median(p.tensors().probs[p.tensors().target == outcome][:, 1]))
        for outcome in (1, 0)
    ]
    drawn = [line.get_xdata()[0] for line in axes.lines]
    assert drawn == pytest.approx(medians, rel=0.02)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["events", "others"]
    with pytest.raises(ValueError, match="class 1 and other classes must both occur as labels"):
        risk_distribution(p.rows(p.tensors().target == 0))
