"""What people type first, and what they are told: each message says what to write instead."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedlas
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError
from fedlas.predictions import read_predictions

LOGITS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(20) % 3
PREDICTIONS = fedlas.Predictions(LOGITS, TARGET)
LOADER = DataLoader(TensorDataset(torch.ones(20, 4), TARGET), batch_size=5)
ABC = {"p_a": [0.7, 0.1, 0.1], "p_b": [0.2, 0.8, 0.1], "p_c": [0.1, 0.1, 0.8]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # Labels.
        (lambda: read_predictions(ABC | {"y": [1, 2, 3]}, probs="p_*", target="y"),
         r"got 3 in row 3.*subtract 1.*classes='1,2,3'"),
        (lambda: fedlas.Predictions(LOGITS[:3], [1, 2, 3]), r"from 1 to 3.*[Ss]ubtract 1"),
        (lambda: read_predictions(ABC | {"y": ["A", "b", "c"]}, probs="p_*", target="y"), "Did you mean 'a'"),
        (lambda: fedlas.Predictions.from_probs([[0.2, 0.8]], ["CAT"], classes=["cat", "dog"]), "Did you mean 'cat'"),
        (lambda: read_predictions({"p": [0.7, 0.1], "y": ["spam", "ham"]}, probs="p", target="y"),
         r"which class a single score column is for, 'spam' or 'ham'.*classes='ham,spam' or classes='spam,ham'"),
        # Columns.
        (lambda: read_predictions({"class1": [0.2], "class10": [0.3], "class2": [0.5], "y": [1]},
                                  probs=["class1", "class10", "class2"], target="y"), "1, 10, 2.*sorted as text"),
        # Functions.
        (lambda: fedlas.evaluate(PREDICTIONS, ["ece"]), r"estimates\(predictions, metrics=\['ece'\]\)"),
        (lambda: fedlas.report(PREDICTIONS, TARGET),
         r"labels must not be passed.*fedlas\.Predictions\(logits, target\)"),
        (lambda: fedlas.report(PREDICTIONS, probs="p_*"), "probs= names columns"),
        (lambda: fedlas.calibrate(nn.Linear(4, 3), LOADER, TemperatureScaling), r"Pass TemperatureScaling\(\)"),
        (lambda: fedlas.calibrate(nn.Linear, LOADER), r"Pass an instance, Linear\(\.\.\.\)"),
        (lambda: fedlas.evaluate(fedlas.Predictions), r"fedlas\.Predictions\(logits, target\)"),
    ],
)  # fmt: skip
def test_the_message_says_what_to_write(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_labels_yes_and_no_are_truth_values():
    frame = {"p": [0.7, 0.1], "y": ["yes", "No"]}
    assert read_predictions(frame, probs="p", target="y").predictions.tensors().correct.all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("call", [fedlas.predict, fedlas.calibrate])
def test_a_device_that_is_not_there(call):
    with pytest.raises(InputError, match=r"device must be available; got 'cuda'.*Pass 'cpu'"):
        call(nn.Linear(4, 3), LOADER, device="cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("export", r"fedlas\.deploy\.model_files"),
        ("temperature", "fedlas has no"),
        ("evalute", "Did you mean 'evaluate'"),
    ],
)
def test_a_name_that_is_not_there(name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(fedlas, name)
