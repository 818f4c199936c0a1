"""Tables of several labels a sample: which columns belong together, and what their cells say."""

import pytest
import torch

import fedlas
from fedlas import MultiLabel, read_predictions
from fedlas.errors import InputError
from fedlas.predictions import Columns

SCORES = {"p_cat": [0.2, 0.7, 0.4], "p_dog": [0.9, 0.1, 0.5]}


def read(labels, probs="p_*", named="y_*", **more):
    return read_predictions({**SCORES, **labels}, probs=probs, labels=named, **more)


def test_scores_and_labels_pair_by_name_suffix():
    table = read({"y_dog": [1, 0, 1], "y_cat": [0, 1, 0]})
    assert isinstance(table.predictions, MultiLabel)
    assert table.predictions.names == ("cat", "dog")
    assert table.predictions.target.tolist() == [[0, 1], [1, 0], [0, 1]]
    torch.testing.assert_close(
        table.predictions.tensors().probs[:, 0], torch.tensor(SCORES["p_cat"], dtype=torch.float64)
    )


def test_listed_columns_pair_by_name_then_order():
    by_name = read({"y_dog": [1, 0, 1], "y_cat": [0, 1, 0]}, "p_cat,p_dog", ["y_dog", "y_cat"])
    assert by_name.predictions.names == ("cat", "dog")
    by_order = read({"a": [1, 0, 1], "b": [0, 1, 0]}, "p_cat,p_dog", "a,b")
    assert by_order.predictions.names == ("a", "b")
    assert by_order.predictions.tensors().target[:, 0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (("p_Edema", "p_Mass"), ("y_mass", "y_edema")),
        (("p_pleural_effusion", "p_lung-mass"), ("y_Lung Mass", "y_Pleural Effusion")),
        (("EDEMA_prob", "MASS_prob"), ("mass true", "edema true")),
        (("p-edema", "p-mass"), ("y_mass", "y_edema")),
    ],
)
def test_names_pair_without_case_and_separators(scores, labels):
    """Names that differ by case were paired by position, without a note."""
    frame = {scores[0]: [0.9, 0.1], scores[1]: [0.2, 0.3], labels[0]: [0, 0], labels[1]: [1, 0]}
    table = read_predictions(frame, probs=list(scores), labels=list(labels))
    assert table.predictions.target.tolist() == [[1, 0], [0, 0]]
    assert not any("order" in note for note in table.notes)


def test_names_that_differ_by_case_alone_pair_exactly():
    frame = {"p_a": [0.9, 0.1], "p_A": [0.2, 0.3], "y_A": [0, 1], "y_a": [1, 0]}
    table = read_predictions(frame, probs="p_*", labels="y_*")
    assert table.predictions.names == ("a", "A")
    assert table.predictions.target.tolist() == [[1, 0], [0, 1]]


def test_pairs_that_order_decides_are_named():
    notes = read({"a": [1, 0, 1], "b": [0, 1, 0]}, "p_cat,p_dog", "a,b").notes
    expected = "p_cat with a, p_dog with b"
    assert [note for note in notes if expected in note and "order" in note]


def test_common_prefix_and_suffix_are_stripped():
    frame = {"edema_prob": [0.1, 0.2], "mass_prob": [0.3, 0.2], "mass_true": [0, 1], "edema_true": [1, 0]}  # fmt: skip
    table = read_predictions(frame, probs="*_prob", labels="edema_true,mass_true")
    assert table.predictions.names == ("edema", "mass")


@pytest.mark.parametrize(
    ("labels", "named", "said"),
    [
        ({"y_cat": [0, 1, 0], "y_fox": [0, 1, 0]}, "y_*", "no label of dog and no score of fox"),
        ({"y_cat": [0, 1, 0]}, "y_*", "no label of dog"),
        ({"a": [0, 1, 0]}, "a", "one label column per score column"),
        ({"y_cat": [0, 1, 0], "y_dog": [0, 2, 0]}, "y_*", "2 in row 2"),
        ({"y_cat": [1, -1, 1], "y_dog": [1, 1, -1]}, "y_*", "only 1 and -1 in"),
        ({"y_cat": [1, 0, 1], "y_dog": [1, 1, 0]}, "p_cat,y_dog", "named once"),
    ],
)
def test_unpaired_scores_and_labels_are_refused(labels, named, said):
    with pytest.raises(InputError, match=said):
        read(labels, named=named)


def test_empty_cells_and_minus_one_are_unknown_labels():
    table = read({"y_cat": [None, "yes", -1], "y_dog": ["0", "NA", "1.0"]}, drop_missing=True)
    assert table.predictions.target.tolist() == [[-100, 0], [1, -100], [-100, 1]]
    assert table.dropped == 0
    assert "3 of 6 labels are unknown and ignored." in table.notes


@pytest.mark.parametrize("name", ["target", "event", "classes", "label_probs", "covariates"])  # fmt: skip
def test_roles_of_one_label_are_refused(name):
    with pytest.raises(InputError, match="for one label per sample"):
        Columns(probs="p_*", labels="y_*", **{name: ("a", "b") if name == "classes" else "a"})


def test_one_label_is_named_as_the_target():
    with pytest.raises(InputError, match="target="):
        read_predictions({"p": [0.1], "y": [1]}, probs="p", labels="y")


def test_weights_clusters_and_time_are_read():
    more = {"w": [1, 2, 3], "patient": ["a", "a", "b"], "day": [3, 1, 2]}
    labels = {"y_cat": [0, 1, 0], "y_dog": [1, 1, 0]}
    table = read({**labels, **more}, weights="w", clusters="patient", time="day").predictions
    assert table.weights.tolist() == [1, 2, 3]
    assert table.clusters.tolist() == [0, 0, 1]
    assert table.time.tolist() == [2, 0, 1]


def test_probabilities_outside_their_range_name_row_and_column():
    with pytest.raises(InputError, match=r"row 2.*'p_dog'"):
        read_predictions(
            {"p_cat": [0.1, 0.2], "p_dog": [0.3, 1.4], "y_cat": [0, 1], "y_dog": [0, 1]},
            probs="p_*", labels="y_*",
        )  # fmt: skip


def test_predictions_without_labels_and_rows_of_them():
    several = MultiLabel.from_probs([[0.5, 0.9], [0.0, 1.0]])
    assert not several.has_target
    assert bool(several.tensors().logits.isfinite().all())
    assert several.rows(torch.tensor([1])).probs.tolist() == [pytest.approx([0.0, 1.0], abs=1e-15)]
    with pytest.raises(InputError, match="must have a target"):
        several.pooled()
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        MultiLabel.from_probs([[0.5, 1.9]])
    kept = MultiLabel([[0.0, 1.0], [2.0, 3.0]], [[float("nan"), -1.0], [1.0, 0.0]], weights=[0, 1])
    assert kept.target.tolist() == [[-100, -100], [1, 0]]
    assert kept.rows(kept.tensors().weights > 0).without_target().num_samples == 1
    assert fedlas.report(kept, replicates=0).stages["as predicted"].num_samples == 1
