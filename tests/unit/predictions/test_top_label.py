import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel, read_predictions


@pytest.mark.parametrize(
    "correct", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1], np.uint8)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_it_takes(correct, dtype):
    given = np.array([0.9, 0.5, 1.0], dtype)
    top = TopLabel(given, correct)
    assert top.tensors().confidence.dtype == (
        torch.float64 if dtype == np.float64 else torch.float32
    )
    assert top.confidence.tolist() == given.tolist()
    assert top.correct.tolist() == [True, False, True]
    assert top.num_samples == 3
    assert repr(top) == "TopLabel(3 samples)"


def test_arrays_of_other_kinds():
    swapped = np.array([0.5, 0.25], ">f4")[::-1]
    swapped.flags.writeable = False
    assert TopLabel(swapped, (True, True)).confidence.tolist() == [0.25, 0.5]
    live = torch.tensor([0.5, 0.25], dtype=torch.bfloat16, requires_grad=True)
    assert TopLabel(live, torch.tensor([1, 0])).tensors().confidence.requires_grad is False
    assert TopLabel([1, 0], [True, False]).confidence.tolist() == [1.0, 0.0]
    assert TopLabel([1.0000001], [True]).confidence.tolist() == [1.0]


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([97.2, 50.0], [True, False], r"must be in \[0, 1\]; got values from 50 to 97.2. .*divide by 100"),
        ([97, 50], [1, 0], "percentages: divide by 100"),
        ([-0.5, 3.0], [1, 0], r"must be in \[0, 1\]; got values from -0.5 to 3. Pass the probability of the predicted"),
        ([0.5, float("nan")], [1, 0], r"confidence must be finite; got 1 NaN"),
        ([0.5, 0.6], [3, 7], r"bool, or hold only 0 and 1; got values from 3 to 7. .*pass predicted == target"),
        ([0.5, 0.6], [0.5, 1.0], r"bool, or hold only 0 and 1"),
        ([0.5, 0.6], [True], r"have equal length; got 2 and 1"),
        ([[0.5, 0.5]], [True], r"confidence must have shape \(N,\) .*; got \(1, 2\) .*probs.max\(1\) instead of probs"),
        ([], [], r"at least one sample"),
        (["a"], [True], r"confidence must be numbers"),
        ([0.5], ["cat"], r"correct must be numbers; .* pass correct=\(predicted == target\)"),
        (torch.zeros(2).to_sparse(), [True, True], "dense tensor"),
    ],
)  # fmt: skip
def test_what_it_refuses(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        TopLabel(confidence, correct)


def test_weights():
    assert TopLabel([0.9, 0.5], [1, 0], [2, 0]).weights.tolist() == [2.0, 0.0]
    for wrong in ([1, -1], [1], [0, 0], [float("nan"), 1]):
        with pytest.raises(ValueError, match=r"TopLabel: .*weight"):
            TopLabel([0.9, 0.5], [1, 0], wrong)


def test_plots_take_it():
    pytest.importorskip("matplotlib")
    from fedlas import plots

    generator = torch.Generator().manual_seed(0)
    p = Predictions(torch.randn(200, 4, generator=generator), torch.arange(200) % 4)
    top = TopLabel(p.tensors().confidence, p.tensors().correct)
    for draw in (plots.reliability_diagram, plots.risk_coverage_curve):
        pairs = zip(draw(top).lines, draw(p).lines, strict=True)
        assert all(np.array_equal(one.get_xydata(), other.get_xydata()) for one, other in pairs)


def test_features_and_clusters_survive_indexing_and_saving(tmp_path):
    top = TopLabel([0.9, 0.5], [1, 0], [1, 2], features=[[1.0], [2.0]], clusters=["b", "a"])
    assert repr(top) == "TopLabel(2 samples with weights, features, clusters)"
    second = top.rows(torch.tensor([False, True]))
    assert second.features.tolist() == [[2.0]]
    assert second.clusters.tolist() == [0]
    back = TopLabel.load(top.save(tmp_path / "top.npz"))
    assert back.weights.tolist() == [1.0, 2.0]
    assert back.features.tolist() == [[1.0], [2.0]]
    assert back.clusters.tolist() == [1, 0]
    assert read_predictions(tmp_path / "top.npz").predictions.features.tolist() == [[1.0], [2.0]]
    np.savez(tmp_path / "other.npz", logits=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"arrays named 'confidence' and 'correct'; got .*logits"):
        TopLabel.load(tmp_path / "other.npz")


def test_features_are_a_row_a_sample():
    with pytest.raises(
        ValueError, match=r"TopLabel: features must have shape \(2, D\); got list \[\[1.0\]\]"
    ):
        TopLabel([0.9, 0.5], [1, 0], features=[[1.0]])
