"""Models of Keras and JAX: the three documented lines on the arrays that they return."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import fedlas
from fedlas.errors import InputError

PAGE = Path(__file__).parents[3] / "docs" / "predictions.md"
random = np.random.default_rng(0)
X = random.normal(size=(400, 6)).astype(np.float32)
Y = (X[:, :3] + random.normal(size=(400, 3))).argmax(1)


class Arrays:
    """A model of which only ``predict`` is known."""

    def predict(self, inputs):
        scores = np.exp(3 * inputs[:, :3])
        return scores / scores.sum(axis=1, keepdims=True)


def of_keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    return keras.Sequential(layers)


class OfJax:
    def predict(self, inputs):
        jax = pytest.importorskip("jax")
        return jax.nn.softmax(3 * jax.numpy.asarray(inputs)[:, :3])


@pytest.mark.filterwarnings("ignore")  # of the packages themselves
@pytest.mark.parametrize("build", [Arrays, of_keras, OfJax])
def test_the_documented_lines(build, capsys):
    (block,) = re.findall(
        r"<!-- not run: .*test_arrays_of_others.*-->\n```python\n(.*?)```", PAGE.read_text(), re.S
    )
    names = {
        "model": build(),
        "x_val": X[:200],
        "y_val": Y[:200],
        "x_test": X[200:],
        "y_test": Y[200:],
    }
    exec(block, names)
    after = names["calibrated"]
    assert after.num_samples == 200
    assert after.num_classes == 3
    assert fedlas.evaluate(after)["nll"] < 1.2


def test_model_of_another_library_gets_helpful_error():
    with pytest.raises(
        InputError, match=r"Predictions\.from_probs\(model\.predict\(inputs\), target\)"
    ):
        fedlas.predict(Arrays(), [X])
