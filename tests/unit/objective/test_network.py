"""Which output of an ONNX file holds the logits; a session is whatever has the methods of onnxruntime's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fedlas
from fedlas.errors import InputError

LABEL, SCORES, OTHER = ("label", ["N"]), ("scores", ["N", 3]), ("hidden", ["N", 8])


def session(*outputs):
    """A session whose outputs ``(name, shape)`` are filled with the number of their place."""

    def run(names, _):
        places = [[each for each, _ in outputs].index(name) for name in names]
        return [np.full((2, 3), float(place), dtype=np.float32) for place in places]

    return SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="x", type="tensor(float)")],
        get_outputs=lambda: [SimpleNamespace(name=name, shape=shape) for name, shape in outputs],
        run=run,
    )


def predict(*outputs):
    return (
        fedlas.predict(session(*outputs), [(torch.zeros(2, 4), torch.zeros(2).long())])
        .tensors()
        .logits
    )


@pytest.mark.parametrize(
    ("outputs", "place"),
    [
        ([LABEL, SCORES], 1),
        ([("unknown", None), SCORES], 1),
        ([SCORES, OTHER, ("logits", ["N", 3])], 2),
    ],
)
def test_the_output_of_the_logits_is_found(outputs, place):
    assert predict(*outputs).tolist() == [[place] * 3] * 2


def test_probabilities_become_logits():
    assert predict(LABEL, ("probs", ["N", 3])).unique() == 0.0


@pytest.mark.parametrize("outputs", [[LABEL], [SCORES, OTHER]])
def test_an_unclear_output_must_be_named(outputs):
    with pytest.raises(InputError, match="one output of two or more axes; got "):
        predict(*outputs)
