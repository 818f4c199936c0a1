import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError

pytest.importorskip("mapie")
from fedlas.integrations.mapie import controlled_threshold, prediction_sets

REAL = Path(__file__).parents[4] / "shared" / "real" / "resnet20-cifar10-test.npz"


def drawn(samples, classes=5, seed=0, scale=2.0):
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    return Predictions(logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0])


def by_hand(val, test, coverage, scores):
    """Split conformal prediction: what scores at most the right quantile of validation."""
    own = scores(val).gather(1, val.tensors().target[:, None])[:, 0].sort().values
    return scores(test) <= own[int(np.ceil((len(own) + 1) * coverage)) - 1]


def rank(predictions):
    return predictions.tensors().probs.argsort(dim=1, descending=True).argsort(dim=1)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(
    ("score", "scores"), [("lac", lambda p: 1 - p.tensors().probs), ("top_k", rank)]
)
def test_sets_are_those_of_split_conformal_prediction(coverage, score, scores):
    val, test = drawn(999), drawn(500, seed=1)
    found = prediction_sets(val, test, coverage=coverage, score=score)
    assert torch.equal(found.sets, by_hand(val, test, coverage, scores))
    hit = [bool(row[label]) for row, label in zip(found.sets, test.target.tolist(), strict=True)]
    assert found.coverage == sum(hit) / 500
    assert found.mean_size == found.sizes.sum().item() / 500


@pytest.mark.parametrize("score", ["aps", "raps"])
def test_randomized_sets_have_exact_coverage_others_more(score):
    val, test = drawn(4000), drawn(4000, seed=1)
    exact = prediction_sets(val, test, score=score, randomized=True)
    assert exact.coverage == pytest.approx(0.9, abs=0.02)
    above = prediction_sets(val, test, score=score)
    assert above.coverage > 0.92
    assert above.mean_size > exact.mean_size
    again = prediction_sets(val, test, score=score, randomized=True, seed=1)
    assert not torch.equal(again.sets, exact.sets)


def test_half_precision_two_classes_and_missing_classes():
    val, test = drawn(300, classes=2), drawn(100, classes=2, seed=1)
    narrow = Predictions(100 * val.tensors().logits.float(), val.tensors().target)
    assert prediction_sets(narrow, narrow).coverage > 0.85
    wide = Predictions(
        torch.cat([val.tensors().logits, torch.full((300, 1), -5.0).double()], 1),
        val.tensors().target,
    )
    other = Predictions(
        torch.cat([test.tensors().logits, torch.full((100, 1), -5.0).double()], 1),
        test.tensors().target,
    )
    assert prediction_sets(wide, other).sets.shape == (100, 3)


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/real")
def test_temperature_widens_aps_sets_of_published_network():
    arrays = np.load(REAL)
    half = np.random.default_rng(0).permutation(10_000)
    val, test = (
        Predictions(arrays["logits"][h], arrays["target"][h].astype(int))
        for h in (half[:5000], half[5000:])
    )
    scaling = TemperatureScaling().fit(val)
    for score, least in (("lac", -0.05), ("aps", 0.2)):
        sizes = [
            prediction_sets(*pair, coverage=0.95, score=score, randomized=score == "aps").mean_size
            for pair in ((val, test), (scaling.transform(val), scaling.transform(test)))
        ]
        assert sizes[1] - sizes[0] > least
    assert prediction_sets(val, test, coverage=0.95).coverage == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("val", "options", "message"),
    [
        (drawn(50), {"coverage": 1.0}, r"coverage must be a finite number in \(0, 1\)"),
        (drawn(50), {"score": "apps"}, "Did you mean 'aps'"),
        (
            drawn(50, classes=4),
            {},
            "val and test must have the same number of classes; got 4 and 5",
        ),
        (
            drawn(18),
            {"coverage": 0.95},
            "val must have enough samples for a coverage of 0.95; got 18",
        ),
        (
            Predictions(torch.zeros(30, 5), [0] * 29 + [1]),
            {"score": "raps"},
            "labels of at least three classes for score='raps'; got 2",
        ),
        (
            Predictions(torch.zeros(30, 5), [0, 1] * 14 + [2, 3]),
            {"score": "raps"},
            "10 of each class",
        ),
        ("val.npz", {}, "val must be Predictions"),
    ],
)
def test_what_cannot_be_meant_is_said(val, options, message):
    with pytest.raises(InputError, match=message):
        prediction_sets(val, drawn(10), **options)


@pytest.mark.parametrize(("classes", "each"), [(2, 40), (3, 6), (3, 10), (10, 10)])
def test_auto_score_depends_on_sample_count(classes, each):
    target = torch.arange(classes).repeat(each)
    val = Predictions(
        torch.randn(len(target), classes, generator=torch.Generator().manual_seed(0)), target
    )
    assert prediction_sets(val, val, coverage=0.8, score="auto").coverage >= 0.8


def test_sets_by_class_cover_each_class():
    """Samples of the last class are rare and hard: sets of all together miss them."""

    def unequal(seed):
        random = torch.Generator().manual_seed(seed)
        target = torch.multinomial(
            torch.tensor([0.45, 0.45, 0.1]), 6000, replacement=True, generator=random
        )
        logits = torch.randn(6000, 3, generator=random, dtype=torch.float64)
        logits[torch.arange(6000), target] += torch.tensor([3.0, 3.0, 0.5]).double()[target]
        return Predictions(logits, target)

    val, test = unequal(0), unequal(1)
    rare = test.tensors().target == 2
    together, by_class = (prediction_sets(val, test, by_class=each) for each in (False, True))
    assert together.sets[rare, 2].double().mean() < 0.8
    for label in range(3):
        assert by_class.sets[
            test.tensors().target == label, label
        ].double().mean() == pytest.approx(0.9, abs=0.03)
    absent = Predictions(
        val.tensors().logits[val.tensors().target != 2],
        val.tensors().target[val.tensors().target != 2],
    )
    assert bool(prediction_sets(absent, test, by_class=True).sets[:, 2].all())
    with pytest.raises(InputError, match="by_class"):
        prediction_sets(val, test, by_class=True, score="aps")


def test_a_threshold_keeps_its_target():
    val, test = drawn(3000, scale=3.0), drawn(20_000, scale=3.0, seed=1)
    threshold = controlled_threshold(val, target=0.9)
    answered = test.tensors().confidence >= threshold
    assert test.tensors().correct[answered].double().mean() > 0.9
    assert answered.double().mean() > 0.3
    two = drawn(3000, classes=2)
    assert (
        float(
            (
                two.tensors().target[
                    two.tensors().probs[:, 1]
                    >= controlled_threshold(two, risk="recall", target=0.5)
                ]
                == 1
            )
            .double()
            .mean()
        )
        > 0.5
    )
    assert controlled_threshold(drawn(60), target=0.999) is None
    with pytest.raises(InputError, match="risk"):
        controlled_threshold(val, risk="f1", target=0.9)


def test_auto_raises_nothing_raw():
    random = np.random.default_rng(0)
    for seed in range(40):
        classes, samples = int(random.integers(2, 8)), int(random.integers(1, 90))
        shares = torch.from_numpy(random.dirichlet(np.full(classes, 0.5)))
        logits = torch.from_numpy(random.normal(size=(samples, classes)))
        val = Predictions(logits, torch.multinomial(shares, samples, replacement=True))
        coverage = float(random.uniform(0.05, 0.99))
        with contextlib.suppress(InputError):
            assert (
                prediction_sets(val, val, score="auto", coverage=coverage, seed=seed).mean_size >= 0
            )


def test_weights_of_confidences_are_refused_too():
    val = TopLabel([0.9, 0.8, 0.7], [True, True, False], weights=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="no weights"):
        controlled_threshold(val, target=0.5)
