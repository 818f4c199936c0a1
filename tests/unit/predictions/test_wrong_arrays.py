"""Arrays, tensors and names of a kind that labels, clusters and times cannot have are refused in words."""

import numpy as np
import pytest
import torch

import fedlas
from fedlas import MultiLabel, Predictions, metrics, stats
from fedlas.errors import InputError

RAGGED = [[1.0], [2.0, 3.0]]
SCORES = np.array([[0.2, 0.8], [0.7, 0.3]])


@pytest.mark.parametrize("name", ["target", "clusters", "time", "weights", "features"])
@pytest.mark.parametrize(
    "value",
    [RAGGED, torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), "text", object()],
    ids=["ragged", "meta", "sparse", "text", "object"],
)
def test_value_that_no_array_holds_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        Predictions(SCORES, **{"target": [0, 1], name: value})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_times_and_clusters_in_half_precision_are_numbers(dtype):
    values = torch.tensor([2.0, 1.0], dtype=dtype)
    made = Predictions(SCORES, [0, 1], time=values, clusters=values)
    assert made.time.tolist() == [1, 0]
    assert made.clusters.tolist() == [2, 1]


@pytest.mark.parametrize("arrays", [(RAGGED, [0, 1]), ([0.2, 0.8], RAGGED)])
def test_ragged_arrays_of_a_metric_are_refused(arrays):
    with pytest.raises(InputError, match="array can hold"):
        metrics.ece(*arrays)


@pytest.mark.parametrize("names", [3, "ab", np.array("a"), {"a": 1, "b": 2}, torch.zeros(2)])
def test_names_that_are_no_sequence_are_refused(names):
    with pytest.raises(InputError, match="2 different names"):
        MultiLabel(SCORES, names=names)
    with pytest.raises(InputError, match="2 different names"):
        Predictions(SCORES, classes=names)


def test_names_may_be_those_of_a_frame():
    pandas = pytest.importorskip("pandas")
    names = pandas.DataFrame(columns=["a", "b"]).columns
    assert MultiLabel(SCORES, names=names).names == ("a", "b")
    assert Predictions(SCORES, classes=names).classes == ("a", "b")


def test_clusters_are_the_same_in_statistics_and_predictions():
    confidence, correct = [0.9, 0.8, 0.7], [True, True, False]
    for clusters in ([0.5, 1.5, 1.5], [None, "a", "b"], RAGGED):
        with pytest.raises(InputError, match="cluster"):
            stats.risk_threshold(confidence, correct, risk=0.5, num_classes=2, clusters=clusters)
        with pytest.raises(InputError, match="cluster"):
            Predictions(np.eye(3), [0, 1, 2], clusters=clusters)


def test_objective_refuses_a_model_that_is_no_copy():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    objective = fedlas.Objective(model, fedlas.losses.FedLAS(num_classes=2), head="1")
    with pytest.raises(InputError, match="copy of the model"):
        objective.find_classifier(torch.nn.Linear(4, 2))
