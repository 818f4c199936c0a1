"""Bootstrap optimism: a model of noise has no skill left, and a model that learns nothing has no optimism."""

import numpy as np
import pandas
import pytest
from sklearn.linear_model import LogisticRegression

from fedlas.stats import optimism


def noise(samples=80, columns=15):
    random = np.random.default_rng(0)
    return random.standard_normal((samples, columns)), random.integers(0, 2, samples)


def test_noise_model_is_corrected_to_chance():
    inputs, labels = noise()
    found = optimism(LogisticRegression(C=1e3).fit, inputs, labels, replicates=60)
    assert found["auroc"].apparent > 0.7
    assert abs(found["auroc"].corrected - 0.5) < 0.12
    assert found["nll"].optimism < 0
    assert found["nll"].low < found["nll"].corrected < found["nll"].high


def test_a_constant_has_none():
    inputs, labels = noise()
    found = optimism(
        lambda X, y: lambda X: np.full(len(X), 0.5),
        inputs,
        labels,
        metrics=["brier"],
        replicates=39,
    )
    assert found["brier"].optimism == 0
    assert found["brier"].corrected == found["brier"].apparent == 0.25


def test_clusters_are_drawn_whole_and_frames_are_rows():
    inputs, labels = noise()
    frame = pandas.DataFrame(inputs[:, :2], columns=["a", "b"])
    frame["patient"] = np.arange(80) // 4
    sizes = []

    def fit(part, y):
        sizes.append(part.groupby("patient").size())
        return lambda X: np.full(len(X), y.mean())

    optimism(fit, frame, labels, metrics=["nll"], clusters=frame["patient"], replicates=39)
    assert all((size % 4 == 0).all() for size in sizes)
    assert len({len(size) for size in sizes}) > 1


@pytest.mark.parametrize(
    "change", [{"y": [0.5] * 80}, {"y": [0] * 79}, {"clusters": [1] * 5}, {"replicates": 5}]
)
def test_invalid_input_raises(change):
    inputs, labels = noise()
    with pytest.raises(ValueError, match=r"^optimism: "):
        optimism(**{"fit": LogisticRegression().fit, "X": inputs, "y": labels} | change)
