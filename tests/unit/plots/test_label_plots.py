"""Small reliability diagrams of the worst of several labels."""

import matplotlib.pyplot as plt
import pytest
import torch

from fedlas import MultiLabel
from fedlas.binary import label_measures
from fedlas.errors import InputError
from fedlas.plots import label_reliability_diagrams

NAMES = tuple("abcdefgh")
RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(300, 8, generator=RANDOM, dtype=torch.float64) - 1
TARGET = torch.bernoulli((torch.linspace(0.2, 1.0, 8) * LOGITS).sigmoid(), generator=RANDOM).long()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_the_worst_six_with_bands_and_names():
    several = MultiLabel(LOGITS, TARGET, names=NAMES)
    worst = list(label_measures(several, replicates=0))[:6]
    axes = label_reliability_diagrams(several, replicates=39)
    assert [ax.get_title(loc="left") for ax in axes] == worst
    assert all(len(ax.collections) == 3 for ax in axes)  # band, intervals, points
    assert axes[0].figure.get_size_inches().tolist() == pytest.approx([9.3, 7.4])


def test_labels_without_a_curve_are_skipped():
    target = TARGET.clone()
    target[:, 0] = 0
    target[:, 1] = 1
    target[5:, 2] = -100
    several = MultiLabel(LOGITS, target, names=NAMES)
    axes = label_reliability_diagrams(several, replicates=0)
    worst = [name for name in label_measures(several, replicates=0) if name in "defgh"]
    assert [ax.get_title(loc="left") for ax in axes] == worst


def test_named_labels_on_axes_of_the_caller():
    several = MultiLabel(LOGITS, TARGET, names=NAMES)
    _, axes = plt.subplots(1, 2)
    options = {"axes": axes, "title": "after", "replicates": 0}
    before = several.with_logits(3 * LOGITS)
    found = label_reliability_diagrams(several, ["h", "b"], axes_for=[several, before], **options)
    assert found == list(axes)
    assert [ax.get_title(loc="left") for ax in axes] == ["h, after", "b, after"]
    with pytest.raises(InputError, match="3 labels, 2 Axes"):
        label_reliability_diagrams(several, ["h", "b", "c"], **options)
    with pytest.raises(InputError, match="one of the names; got str 'z'"):
        label_reliability_diagrams(several, ["z"], **options)
    with pytest.raises(InputError, match="0 labels"):
        label_reliability_diagrams(several.rows(torch.arange(5)))
