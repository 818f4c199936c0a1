"""Weights of samples: what every metric makes of them, and that none ignores them."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics
import torch

from fedlas import Predictions, estimates, metrics
from fedlas.errors import InputError
from fedlas.metrics import (
    METRICS,
    Statistic,
    StreamingClasses,
    StreamingGroups,
    StreamingMetrics,
    adaptive_ece,
    aurc,
    brier_decomposition,
    calibration_by_class,
    calibration_by_group,
    classwise_ece,
    debiased_ece2,
    ece,
    evaluate,
    reliability_bins,
    smooth_ece,
)

COUNTED = {"adaptive_ece", "ace", "aurc", "e_aurc", "debiased_ece2"}
"""Metrics that depend on how many samples there are, and not on their shares alone."""
ENTRIES = [e for e in METRICS.entries() if e.subject != "event"]


def rows_of(predictions, index):
    fields = ("logits", "target", "label_probs", "weights")
    return Predictions(
        **{name: None if (v := getattr(predictions, name)) is None else v[index] for name in fields}
    )


def drawn(samples, classes, *, ties=False, seed=0):
    """Predictions with label distributions, and whole weights from 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    logits = logits.round() if ties else logits
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    known = torch.rand(samples, classes, generator=generator, dtype=torch.float64).softmax(1)
    weights = torch.randint(4, (samples,), generator=generator).clamp(min=1 if samples < 8 else 0)
    return Predictions(logits, target, label_probs=known, weights=weights)


CASES = [
    drawn(6, 3),
    drawn(200, 4),
    drawn(200, 4, ties=True),
    drawn(501, 10),
    drawn(60, 2, ties=True),
]


def values(predictions):
    return {entry.name: entry.value(predictions) for entry in ENTRIES}


@pytest.mark.parametrize("case", range(len(CASES)))
def test_whole_weights_are_repeated_rows(case):
    p = CASES[case]
    repeated = rows_of(
        replace(p, weights=None),
        torch.arange(p.num_samples).repeat_interleave(p.tensors().weights.long()),
    )
    weighted, expected = values(p), values(repeated)
    for name in weighted.keys() - COUNTED:
        assert weighted[name] == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize("case", range(len(CASES)))
def test_only_ratios_of_weights_matter(case):
    p = CASES[case]
    expected = pytest.approx(values(p), abs=1e-9)
    for scale in (1e-12, 1 / 7, 1e9):
        assert values(replace(p, weights=p.tensors().weights * scale)) == expected


@pytest.mark.parametrize("case", range(len(CASES)))
def test_equal_weights_are_no_weights(case):
    p = CASES[case]
    expected = pytest.approx(values(replace(p, weights=None)), abs=1e-9)
    assert values(replace(p, weights=torch.full((p.num_samples,), 0.3))) == expected


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_sample_of_weight_0_is_not_there(case):
    p = CASES[case]
    assert values(p) == pytest.approx(values(rows_of(p, p.tensors().weights > 0)), abs=1e-9)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_metric_heeds_weights(entry):
    """So that the tests above cannot pass by ignoring them."""
    p = CASES[3]
    assert entry.value(p) != entry.value(replace(p, weights=None))
    if entry.name in (together := evaluate(p)):
        assert entry.value(p) == pytest.approx(together[entry.name], abs=1e-12)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_streaming_adds_up(case):
    p = CASES[case]
    names = [entry.name for entry in ENTRIES if not entry.several_labels]
    parts = [StreamingMetrics(p.num_classes, metrics=names, weighted=True) for _ in range(2)]
    for streaming, rows in zip(parts, (slice(0, 5), slice(5, None)), strict=True):
        streaming.update(
            p.tensors().logits[rows],
            p.tensors().target[rows],
            label_probs=p.tensors().label_probs[rows],
            weights=p.tensors().weights[rows],
        )
    parts[0].merge(parts[1])
    whole = parts[0].sum_across_ranks()
    bounds, expected = whole.error_bounds(), values(p)
    for name, value in whole.compute().items():
        assert value == pytest.approx(expected[name], abs=bounds[name] + 1e-9), name
    restored = StreamingMetrics(p.num_classes, metrics=names, weighted=True)
    restored.load_state_dict(whole.state_dict())
    assert restored.compute() == whole.compute()
    assert restored.num_samples == p.num_samples


def test_streaming_tables_equal_those_of_all_samples():
    p = CASES[3]
    groups = np.array(["a", "b", "c"])[p.target % 3]
    classes, by_group = (
        StreamingClasses(10, weighted=True),
        StreamingGroups(["a", "b", "c"], weighted=True),
    )
    for rows in (slice(0, 100), slice(100, None)):
        classes.update(
            p.tensors().logits[rows], p.tensors().target[rows], weights=p.tensors().weights[rows]
        )
        by_group.update(
            p.tensors().logits[rows],
            p.tensors().target[rows],
            groups=groups[rows],
            weights=p.tensors().weights[rows],
        )
    for found, expected in (
        (classes.compute(), calibration_by_class(p)),
        (by_group.compute(), calibration_by_group(p, groups)),
    ):
        assert found.keys() == expected.keys()
        for name, row in found.items():
            assert vars(row) == pytest.approx(vars(expected[name]), abs=1e-12)


def test_weighted_tables_equal_tables_of_repeated_rows():
    p = CASES[3]
    index = torch.arange(p.num_samples).repeat_interleave(p.tensors().weights.long())
    repeated = rows_of(replace(p, weights=None), index)
    groups = (p.tensors().target % 3).numpy()
    for found, expected in (
        (calibration_by_class(p), calibration_by_class(repeated)),
        (calibration_by_group(p, groups), calibration_by_group(repeated, groups[index])),
    ):
        for name, row in found.items():
            for field in vars(row).keys() - {"num_labels", "num_samples"}:
                assert getattr(row, field) == pytest.approx(
                    getattr(expected[name], field), abs=1e-9
                )
    kept = p.tensors().weights > 0
    assert calibration_by_class(p)[2].num_labels == int((p.tensors().target[kept] == 2).sum())
    assert calibration_by_group(p, groups)[2].num_samples == int((groups[kept.numpy()] == 2).sum())
    nobody = replace(p, weights=(p.tensors().target % 3 != 1).double())
    assert list(calibration_by_group(nobody, groups)) == [0, 2]


def test_against_scikit_learn():
    p = drawn(500, 2, seed=1)
    p = replace(p, weights=torch.rand(500, generator=torch.Generator().manual_seed(2)))
    target, probs, weights = p.target, p.probs, p.weights
    found = evaluate(p)
    options = {"sample_weight": weights}
    assert found["accuracy"] == pytest.approx(
        sklearn.metrics.accuracy_score(target, probs.argmax(1), **options)
    )
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(target, probs, **options))
    assert found["brier"] == pytest.approx(
        sklearn.metrics.brier_score_loss(target, probs[:, 1], **options)
    )
    augrc, r = METRICS["augrc"].value(p), 1 - found["accuracy"]
    auroc = sklearn.metrics.roc_auc_score(p.correct, p.confidence, **options)
    assert augrc == pytest.approx((1 - auroc) * r * (1 - r) + r**2 / 2)


def log(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_ece_by_hand():
    # In the bin of 0.9, weights 3 and 1 of right and wrong: accuracy 3/4; in that of 0.6 one right sample of weight 4.
    p = Predictions(log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]), [0, 1, 0], weights=[3, 1, 4])
    assert ece(p, num_bins=10) == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)
    bins = reliability_bins(p, num_bins=10)
    assert bins.count.tolist() == pytest.approx([0, 0, 0, 0, 0, 1.5, 0, 0, 1.5, 0])
    assert bins.accuracy[8].item() == pytest.approx(0.75)


def test_aurc_by_hand():
    """Groups of weights ``w`` count as ``w`` samples: with weights 2, 1, 1 (averaging 1 as 3/2, 3/4, 3/4)."""
    p = Predictions(log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), [0, 1, 0], weights=[2, 1, 1])
    psi = torch.special.digamma(torch.tensor([2.5, 3.25, 4.0], dtype=torch.float64))
    second = 0.75 - 1.5 * (psi[1] - psi[0])
    third = 0.75 * (psi[2] - psi[1])
    assert aurc(p) == pytest.approx(float(second + third) / 3)


def test_cuts_of_equal_mass_by_hand():
    # Weights 3, 1, 1, 1 of 6: two bins of 3 each, so the first sample is alone.
    p = Predictions(
        log([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]]), [1, 0, 0, 1], weights=[3, 1, 1, 1]
    )
    bins = reliability_bins(p, num_bins=2, scheme="equal-mass")
    assert bins.count.tolist() == pytest.approx([2, 2])
    assert bins.confidence.tolist() == pytest.approx([0.6, 0.8])
    assert adaptive_ece(p, num_bins=2) == pytest.approx(0.5 * 0.6 + 0.5 * abs(0.8 - 2 / 3))


def test_debiased_square_is_unbiased_with_weights():
    """Over many sets of ten outcomes of unequal weights: the mean is the true square within four standard errors."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([5.0, 3, 2, 2, 1, 1, 1, 1, 0.5, 0.5])
    logits = log([[0.9, 0.1]] * 10)
    sets = [
        Predictions(logits, (torch.rand(10, generator=generator) > 0.7).long(), weights=weights)
        for _ in range(1500)
    ]
    found = torch.tensor([debiased_ece2(p) for p in sets])
    assert float(found.mean()) == pytest.approx(0.04, abs=4 * float(found.std()) / 1500**0.5)
    plain = torch.tensor([ece(p) ** 2 for p in sets])
    assert float(plain.mean()) > 0.06


def test_weighted_brier_decomposition_sums_to_score():
    p = CASES[1]
    parts = brier_decomposition(p)
    repeated = rows_of(
        replace(p, weights=None), torch.arange(200).repeat_interleave(p.tensors().weights.long())
    )
    expected = brier_decomposition(repeated)
    for name in ("brier", "calibration", "refinement", "within_bins"):
        assert getattr(parts, name) == pytest.approx(getattr(expected, name), abs=1e-9)
    assert parts.calibration_bias > expected.calibration_bias
    equal = brier_decomposition(replace(p, weights=torch.full((200,), 2.5)))
    plain = brier_decomposition(replace(p, weights=None))
    assert equal.calibration_bias == pytest.approx(plain.calibration_bias, abs=1e-9)


@pytest.mark.parametrize("metric", [adaptive_ece, classwise_ece, smooth_ece])
def test_published_conventions_know_of_no_weights(metric):
    with pytest.raises(InputError, match='no weights with variant="reference"'):
        metric(CASES[1], variant="reference")
    assert metric(replace(CASES[1], weights=None), variant="reference") > 0


class _Ignorant(Statistic):
    def update(self, chunk):
        pass

    def table(self):
        return 0.5


def test_a_metric_that_ignores_weights_refuses_them(changeable):
    p, plain = CASES[0], replace(CASES[0], weights=None)
    with pytest.raises(InputError, match="no weights"):
        _Ignorant.from_predictions(p)
    assert _Ignorant.from_predictions(plain).table() == 0.5
    changeable(METRICS)
    options = {
        "title": "t",
        "higher_is_better": False,
        "percent": False,
        "paper": "none",
        "default": False,
    }
    METRICS.register("ignorant", **options)(lambda predictions: 0.25)
    METRICS.register("heedful", weighted=True, **options)(
        lambda predictions: float(predictions.tensors().weights.sum())
    )
    with pytest.raises(InputError, match="no weights"):
        estimates(p, ["ignorant"], replicates=39)
    assert estimates(plain, ["ignorant"], replicates=39)["ignorant"].value == 0.25
    assert estimates(p, ["heedful"], replicates=39)["heedful"].value == float(
        p.tensors().weights.sum()
    )


@pytest.mark.parametrize("make", [StreamingMetrics, StreamingClasses])
def test_streaming_takes_weights_from_all_batches_or_none(make):
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"no batch .*got weights"):
        make(3).update(logits, target, weights=torch.ones(2))
    weighted = make(3, weighted=True)
    with pytest.raises(InputError, match=r"every batch .*got none"):
        weighted.update(logits, target)
    assert weighted.num_samples == 0
    with pytest.raises(InputError, match="must have the same class"):
        weighted.merge(make(3))


def test_weighted_share_of_all_samples_is_exactly_one():
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.rand(200, generator=generator, dtype=torch.float64)
        target = torch.randint(4, (200,), generator=generator)
        made = Predictions(9.0 * torch.nn.functional.one_hot(target, 4), target, weights=weights)
        assert max(metrics.top5(made), metrics.accuracy(made)) <= 1.0
        assert evaluate(made)["accuracy"] <= 1.0
