import pytest

from fedlas._core.check import InputError
from fedlas.plots import LIGHT, best_so_far, new_axes, parameter_effect


def test_the_best_so_far_steps_and_skips_what_failed():
    ax = best_so_far({"ls": [0.4, 0.5, None, 0.3], "ce": [None, 0.2], "mbls": [None]}, label="NLL")
    assert [line.get_label() for line in ax.lines] == ["ls", "ce", "mbls"]
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.4, 0.4, 0.4, 0.3], [0.2], []]
    assert list(ax.lines[1].get_xdata()) == [1]
    assert ax.get_ylabel() == "NLL, best so far"
    up = best_so_far({"ls": [0.4, 0.5, 0.1]}, label="accuracy", maximize=True)
    assert list(up.lines[0].get_ydata()) == [0.4, 0.5, 0.5]


def test_without_a_value_there_is_nothing_to_draw():
    with pytest.raises(InputError, match="a trial must have a value"):
        best_so_far({"ls": [None]}, label="NLL")


def test_the_preset_the_best_and_what_failed_are_marked():
    ax = parameter_effect([0.05, 0.1, 0.2, 0.01], [0.3, 0.2, None, 0.5], name="alpha", label="NLL", best=1, log=True,
                          limits=(0.005, 0.3))  # fmt: skip
    assert ax.get_xscale() == "log"
    points = {c.get_label(): c.get_offsets().tolist() for c in ax.collections}
    assert points == {"trial": [[0.01, 0.5]], "preset": [[0.05, 0.3]], "best": [[0.1, 0.2]]}
    assert list(ax.lines[0].get_xdata()) == [0.2]
    assert sorted(line.get_xdata()[0] for line in ax.lines[1:]) == [0.005, 0.3]


def test_words_get_a_place_each_and_a_preset_may_be_the_best():
    ax = parameter_effect([True, False, True], [0.3, 0.4, 0.5], name="nesterov", label="NLL", best=0, legend=False)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["True", "False"]
    assert {c.get_label() for c in ax.collections} == {"trial", "preset", "best"}
    assert ax.get_legend() is None
    ax = parameter_effect([None, 1.0], [0.3, 0.4], name="concentration", label="NLL")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["None", "1.0"]


def test_given_axes_are_used_and_one_value_has_a_scale():
    ax = new_axes(LIGHT, size=(3, 3))
    assert parameter_effect([0.0, 1.0], [0.5, 0.5], name="beta", label="NLL", ax=ax, log=True) is ax
    assert ax.get_xscale() == "linear"  # 0 has no logarithm
    low, high = ax.get_ylim()
    assert low < 0.5 < high
    with pytest.raises(InputError, match="one value for each setting"):
        parameter_effect([1.0], [], name="beta", label="NLL")
