"""Names are drawn as they are written: a dollar sign begins no formula, a control character breaks no picture."""

import io
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from fedlas.plots import (
    reliability_diagram,
    risk_coverage_curve,
    roc_curves,
    score_histogram,
    seed_values,
    training_curves,
)
from fedlas.predictions import Predictions

NAMES = ["cost $5 to $9", "a_$^{", "$\\frac{1}$", "\\$x$ \x1b[2J\x0b\nb"]
SEEN = [*NAMES[:3], "\\$x$ \\x1b[2J\\x0b\\nb"]
PREDICTIONS = Predictions(torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5))
STEPS = {name: [0.4, 0.3] for name in NAMES}
RATES = {name: ([0.0, 1.0], [0.0, 1.0]) for name in NAMES}
LOG = [{"epoch": 1, "a $^{ b": 1.0}]
TITLED = {
    "reliability": lambda title: reliability_diagram(PREDICTIONS, title=title),
    "risk": lambda title: risk_coverage_curve(PREDICTIONS, title=title),
    "roc": lambda title: roc_curves(RATES, title=title),
    "scores": lambda title: score_histogram([0.0, 1.0], [1.0, 2.0], title=title),
}
LABELED = {
    "seeds": lambda text: seed_values({"ls": [0.3, 0.4]}, label=text).xaxis.label,
    "log": lambda text: training_curves({"ls": [{"epoch": 1, text: 1.0}]}, metric=text).yaxis.label,
}
LEGENDS = {
    "log": lambda: training_curves(
        {name: [{"epoch": 1, "lr": 1.0}] for name in NAMES}, metric="lr"
    ),
    "roc": lambda: roc_curves(RATES),
}


def drawn(text):
    """What is drawn of a text artist, once its figure is drawn, as a formula or not."""
    buffer = io.BytesIO()
    text.figure.savefig(buffer, format="svg")
    ElementTree.fromstring(buffer.getvalue())  # a page that holds it can show it
    shown, is_formula = text._preprocess_math(text.get_text())
    assert is_formula is False
    return shown


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("plot", TITLED)
def test_titles(plot, name):
    axes = TITLED[plot](name)
    # the artist: there is no getter for the left one
    title = axes.set_title(axes.get_title(loc="left"), loc="left")
    assert " ".join(drawn(title).split()) == name


@pytest.mark.parametrize(("name", "seen"), list(zip(NAMES, SEEN, strict=True)))
@pytest.mark.parametrize("plot", LABELED)
def test_labels(plot, name, seen):
    assert drawn(LABELED[plot](name)).startswith(seen)


@pytest.mark.parametrize("plot", LEGENDS)
def test_legends(plot):
    found = [drawn(text) for text in LEGENDS[plot]().get_legend().get_texts()]
    assert [name for name in found if name != "chance"] == SEEN


def test_ticks():
    axis = seed_values({name: [0.3, 0.4] for name in NAMES}, label="x").yaxis
    assert [drawn(text) for text in axis.get_ticklabels()] == SEEN
