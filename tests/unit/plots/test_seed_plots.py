import math

import pytest

from fedlas.errors import InputError
from fedlas.plots import LIGHT, new_axes, seed_values
from fedlas.stats import mean_interval


def lines(ax, label):
    """What is drawn of each row under this label, the first one named in the legend."""
    first = next(i for i, line in enumerate(ax.lines) if line.get_label() == label)
    return ax.lines[first]


def test_dots_mean_and_interval_of_each_row():
    values = {
        "fedlas": [1.7, 1.2, 2.1],
        "ls": [3.9, math.nan, 4.1],
        "one": [2.0],
        "none": [math.nan],
    }
    ax = seed_values(values, label="ECE %", floors={"fedlas": 0.7})
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(values)
    assert [dots.get_offsets()[:, 0].tolist() for dots in ax.collections] == [
        [1.7, 1.2, 2.1],
        [3.9, 4.1],
        [2.0],
    ]
    assert tuple(lines(ax, "95 % interval").get_xdata()) == mean_interval(values["fedlas"])
    assert lines(ax, "mean").get_xdata()[0] == pytest.approx(5 / 3)
    assert list(lines(ax, "noise floor").get_xdata()) == [0.7]
    intervals = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(intervals) == 2  # one seed has none
    low, high = ax.get_ylim()
    assert low > 3 > 0 > high  # the first row is at the top
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == [
        "a seed",
        "95 % interval",
        "mean",
        "noise floor",
    ]


def test_differences_with_interval_excluding_zero_are_colored():
    ax = seed_values(
        {"up": [1.0, 1.1], "down": [-1.0, -1.1], "confidence_level": [-1.0, 1.0]},
        label="A - B",
        zero=True,
    )
    means = [line for line in ax.lines if line.get_marker() == "D"]
    assert [line.get_color() for line in means] == [LIGHT.lines[1], LIGHT.lines[2], LIGHT.ink]
    assert list(ax.lines[0].get_xdata()) == [0, 0]


def test_given_axes_are_used_and_keep_their_figure():
    ax = new_axes(LIGHT, size=(4, 3))
    assert seed_values({"a": [1.0, 2.0]}, label="NLL", ax=ax) is ax
    assert not ax.figure.legends
    assert ax.get_legend() is not None
    assert seed_values({"a": [1.0, 2.0]}, label="NLL", legend=False).get_legend() is None
    assert len(new_axes(LIGHT, size=(4, 3), panels=2)) == 2


@pytest.mark.parametrize(
    ("values", "floors", "message"),
    [
        ({}, {}, "one name must have a finite value"),
        ({"a": [math.nan]}, {}, "one name must have a finite value"),
        ({"a": [math.inf, 1.0]}, {}, "values must be finite"),
        ({"a": [1.0]}, {"b": 1.0}, "names in floors must occur in values"),
    ],
)
def test_what_cannot_be_drawn(values, floors, message):
    with pytest.raises(InputError, match=message):
        seed_values(values, floors=floors, label="ECE %")
