"""The class that two-class measures are about: checked once, carried by predictions, saved and read."""

import numpy as np
import pytest
import torch

from fedlas import Predictions, read_predictions
from fedlas.errors import InputError

LOGITS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])


@pytest.mark.parametrize("event", ["churned", 0, np.int64(0)])
def test_event_by_name_or_index_is_kept(event, tmp_path):
    given = Predictions(LOGITS, [0, 1, 0], classes=["churned", "stayed"], event=event)
    saved = Predictions.load(given.save(tmp_path / "p.npz"))
    probs = Predictions.from_probs(
        given.tensors().probs, given.tensors().target, classes=None, event=0
    )
    for each in (given, given.rows(torch.tensor([0, 2])), given.with_logits(LOGITS), saved):
        assert each.event == 0
        assert each.classes == ("churned", "stayed")
    assert probs.rows(torch.tensor([1])).event == 0


def test_labels_may_be_names_of_the_classes():
    given = Predictions(LOGITS, ["stayed", "stayed", "churned"], classes=("churned", "stayed"))
    assert given.target.tolist() == [1, 1, 0]


@pytest.mark.parametrize("event", [True, 2, "left", "1"])
def test_another_event_is_refused(event):
    with pytest.raises(InputError, match="event must be one of the classes"):
        Predictions(LOGITS, [0, 1, 0], classes=["churned", "stayed"], event=event)


def test_invalid_events_are_refused():
    three = torch.eye(3)
    with pytest.raises(InputError, match="two classes"):
        Predictions(2 * three, [0, 1, 2], event=1)
    for names in (["a"], ["a", "a", "b"], "abc"):
        with pytest.raises(InputError, match="3 different names"):
            Predictions(2 * three, [0, 1, 2], classes=names)


def test_a_table_names_the_classes_and_the_event():
    frame = {"churned": [0.9, 0.2], "stayed": [0.1, 0.8], "y": ["churned", "stayed"]}
    read = read_predictions(frame, probs="churned,stayed", target="y", event="churned").predictions
    assert read.event == 0
    assert read.classes == ("churned", "stayed")
    with pytest.raises(InputError, match="event does not apply to these score columns"):
        read_predictions({"c": [0.5], "ok": [1]}, confidence="c", correct="ok", event=0)


def test_an_event_is_named_whatever_its_case():
    assert Predictions(LOGITS, [0, 1, 0], classes=["False", "True"], event="false").event == 0
    with pytest.raises(InputError, match="must be one of the classes, a or A"):
        Predictions(LOGITS, [0, 1, 0], classes=["a", "A"], event="b")


def test_event_word_names_unnamed_classes():
    named = Predictions(LOGITS, [0, 1, 0], event="sepsis")
    assert (named.classes, named.event) == (("not sepsis", "sepsis"), 1)
    for number in (0, "0", 1, "1"):
        assert Predictions(LOGITS, [0, 1, 0], event=number).classes is None
    for word in ("2", "no", "true", ""):
        with pytest.raises(InputError, match=r"must be one of the classes, 0 or 1"):
            Predictions(LOGITS, [0, 1, 0], event=word)
