import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS, evaluate


def predictions(samples=333, classes=7, dtype=torch.float32):
    torch.manual_seed(1)
    logits = (torch.randn(samples, classes) * 3).to(dtype)
    probs = (logits.double() / 2).softmax(1)
    return Predictions(logits, torch.multinomial(probs, 1).squeeze(1), label_probs=probs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 2), (333, 7), (5000, 100)])
def test_evaluate_equals_each_metric_bit_for_bit(shape, dtype):
    p = predictions(*shape, dtype=dtype)
    for name, value in evaluate(p).items():
        assert value == METRICS[name].value(p), name


def test_num_bins_reaches_the_binned_metrics():
    p = predictions()
    scores = evaluate(p, num_bins=4)
    for name in (
        "ece",
        "adaptive_ece",
        "classwise_ece",
        "mce",
        "o_ece",
        "u_ece",
        "debiased_ece2",
        "true_ece",
    ):
        assert scores[name] == METRICS[name].value(p, num_bins=4), name
    assert scores["mce"] != evaluate(p)["mce"]


def test_names_and_order():
    assert list(evaluate(predictions(classes=10))) == [
        "accuracy", "top5", "nll", "brier", "ece", "adaptive_ece", "mce", "classwise_ece", "smooth_ece", "o_ece",
        "u_ece", "debiased_ece2", "true_ece",
    ]  # fmt: skip


@pytest.mark.parametrize("num_classes", [3, 9, 10])
def test_five_of_few_classes_say_nothing(num_classes):
    few = Predictions(torch.eye(num_classes), torch.arange(num_classes))
    assert ("top5" in evaluate(few)) == (num_classes >= 10)


def test_leaves_no_large_arrays_on_the_predictions():
    p = predictions()
    evaluate(p)
    assert "probs" not in vars(p)


def test_evaluate_computes_user_metrics_but_not_optional_ones(changeable):
    changeable(METRICS)

    @METRICS.register("samples", title="N", higher_is_better=True, percent=False, paper="none")
    def count(predictions):
        """Number of samples."""
        return predictions.num_samples

    @METRICS.register(
        "slow", title="slow", higher_is_better=True, percent=False, paper="none", default=False
    )
    def slow(predictions):
        """Never called."""
        raise AssertionError

    scores = evaluate(predictions())
    assert scores["samples"] == 333.0
    assert "slow" not in scores


@pytest.mark.parametrize("num_bins", [0, 1.5, None, False])
def test_num_bins_must_be_a_count(num_bins):
    with pytest.raises(ValueError, match=r"evaluate: num_bins .*whole number"):
        evaluate(predictions(), num_bins=num_bins)


def test_arrays_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"evaluate: .*Predictions; got \(2, 2\)"):
        evaluate(torch.zeros(2, 2))


def test_another_default_device_or_inference_mode_changes_nothing():
    p = predictions()
    expected = evaluate(p)
    # stands for an accelerator made the default: tensors without a device land there
    with torch.device("meta"):
        assert evaluate(p) == expected
    with torch.inference_mode():
        assert evaluate(predictions()) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_gives_the_same_numbers():
    p = predictions()
    there = Predictions(p.logits.cuda(), p.target, label_probs=p.label_probs)
    assert evaluate(there) == pytest.approx(evaluate(p), rel=1e-4, abs=1e-6)
