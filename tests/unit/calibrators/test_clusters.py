"""Samples of one cluster are held out together, wherever a fit judges by samples that it did not see."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fedlas
from fedlas import MultiLabel, Predictions, TopLabel
from fedlas.calibrated.tables.cross_fit import cross_fit
from fedlas.calibrators import (
    CALIBRATORS,
    AutoCalibration,
    Multicalibration,
    MultiLabelCalibration,
    TemperatureScaling,
)
from fedlas.calibrators._fit import folds
from fedlas.calibrators._fit.folds import make_folds
from fedlas.errors import CalibrationWarning
from fedlas.resample.folds import stratified_folds

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


def patients(count, seed, *, effect=0.0, visits=25):
    """Logits, labels, three features of each patient and his number; ``effect`` is what the features do."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, 3)).repeat(visits, axis=0)
    unseen = draw.normal(size=count).repeat(visits)
    score = draw.normal(size=count * visits)
    log_odds = score + unseen + effect * features @ [1.0, -0.7, 0.5]
    target = draw.random(len(score)) < 1 / (1 + np.exp(-log_odds))
    logits = 0.8 * np.stack([-score, score], axis=1)
    return logits, target.astype(int), features, np.arange(count).repeat(visits)


def nll_of_new_patients(seed, *, effect=0.0, features=True, clusters=True):
    logits, target, columns, number = patients(40, seed, effect=effect)
    side = columns if features else None
    val = Predictions(logits, target, features=side, clusters=number if clusters else None)
    logits, target, columns, _ = patients(400, 1000 + seed, effect=effect)
    test = Predictions(logits, target, features=columns if features else None)
    return fedlas.evaluate(AutoCalibration().fit(val).transform(test))["nll"]


@pytest.mark.parametrize("seed", [0, 1])
def test_uninformative_features_do_no_harm_on_new_patients(seed):
    alone = nll_of_new_patients(seed, features=False)
    assert nll_of_new_patients(seed) <= 1.005 * alone
    assert nll_of_new_patients(seed, clusters=False) > 1.02 * alone


@pytest.mark.parametrize("seed", [0, 1])
def test_features_that_matter_are_used_on_new_patients(seed):
    assert nll_of_new_patients(seed, effect=1.0) < 0.95 * nll_of_new_patients(
        seed, effect=1.0, features=False
    )


def copied_patients(seed, count, visits, *, features):
    """Predictions of visits with whole weights, and the same with each visit repeated as often."""
    logits, target, _, number = patients(count, seed, visits=visits)
    draw = np.random.default_rng(seed)
    times = draw.integers(1, 4, size=len(target))
    copies = np.arange(len(target)).repeat(times)
    side = draw.normal(size=(len(target), 2)) if features else None
    weighted = Predictions(3 * logits, target, features=side, clusters=number, weights=times)
    repeated = Predictions(
        weighted.tensors().logits[copies],
        target[copies],
        features=None if side is None else side[copies],
        clusters=number[copies],
    )
    return weighted, repeated


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(("count", "visits"), [(60, 1), (60, 4), (30, 10)])
def test_weights_are_copies_with_clusters_too(count, visits, features):
    for seed in range(2):
        weighted, repeated = copied_patients(seed, count, visits, features=features)
        ours, theirs = (
            AutoCalibration()
            .fit(each)
            .transform(weighted._replace_fields(target=None))
            .tensors()
            .probs
            for each in (weighted, repeated)
        )
        assert float((ours - theirs).abs().max()) < 1e-5, seed


@pytest.mark.parametrize("seed", [0, 1])
def test_duplicates_in_their_own_cluster_are_one_sample(seed):
    """Their design effect was five, of residuals that were five times the same."""
    logits, target, _, _ = patients(200, seed, visits=1)
    bent = np.where(logits > 0, 0.3 * logits, 3 * logits)
    copies = np.arange(200).repeat(5)
    once, clustered = (
        AutoCalibration().fit(each).transform(Predictions(bent)).tensors().probs
        for each in (
            Predictions(bent, target),
            Predictions(bent[copies], target[copies], clusters=copies),
        )
    )
    assert float((once - clustered).abs().max()) < 1e-5


def images(count, seed):
    """Images ``(N, 6, 8, 8)``: three channels hold the logits of a position, three say which image it is."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 3, 8, 8, generator=draw)
    shift = 0.5 * torch.randn(count, 3, 1, 1, generator=draw)
    probs = (scores + shift).softmax(dim=1).movedim(1, -1).reshape(-1, 3)
    target = torch.multinomial(probs, 1, generator=draw).reshape(count, 8, 8)
    image = torch.randn(count, 3, 1, 1, generator=draw).expand(count, 3, 8, 8)
    return torch.cat([scores, image], dim=1), target


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(6, 3, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[:, :3, 0, 0] = 2 * torch.eye(3)
            self.head.bias.zero_()

    def forward(self, inputs):
        return self.head(inputs)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_image_is_the_cluster_of_its_positions(seed):
    val, test = images(40, seed), images(200, 1000 + seed)
    nll = {}
    for method in ("auto", "temperature"):
        calibrated = fedlas.calibrate(Segmenter(), [val], method)
        predictions = fedlas.predict(calibrated, [test])
        nll[method] = fedlas.evaluate(predictions)["nll"]
    assert nll["auto"] <= 1.005 * nll["temperature"]


def test_folds_hold_whole_clusters_and_copies_join_them():
    logits, target, _, number = patients(23, 0)
    logits = torch.tensor(logits)
    logits[30] = logits[0]  # a copy of a visit of patient 0, filed under patient 1
    target = torch.tensor(target)
    target[30] = target[0]
    folds = make_folds(Predictions(logits, target, clusters=number), 5).number
    assert folds.unique().tolist() == [0, 1, 2, 3, 4]
    for patient in range(23):
        assert len(folds[torch.tensor(number) == patient].unique()) == 1
    assert folds[0] == folds[30]
    sizes = torch.bincount(folds)
    assert int(sizes.max() - sizes.min()) <= 50
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    names = torch.tensor(number)[order] * 7 + 3
    again = make_folds(Predictions(logits[order], target[order], clusters=names), 5).number
    assert torch.equal(again, folds[order])


COPIED = ("bcts", "beta", "confusion", "partial-pooling", "platt", "pooled-spline", "spline", "structured", "vector",
    "venn-abers")  # fmt: skip


@pytest.mark.parametrize("name", COPIED)
def test_four_copies_in_clusters_count_as_rows_once(name):
    """Penalties of a fit to four copies were a quarter as strong: probabilities .01 to .2 apart."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=random, dtype=torch.float64) + torch.arange(4)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    test = Predictions(2 * torch.randn(1000, 4, generator=random, dtype=torch.float64))
    once = Predictions(2 * logits, target)
    four = Predictions(
        2 * logits.repeat(4, 1), target.repeat(4), clusters=torch.arange(300).repeat(4)
    )
    one, other = (
        CALIBRATORS[name].value().fit(val).transform(test).tensors().probs for val in (once, four)
    )
    assert float((one - other).abs().max()) < 0.005


def test_four_copies_of_a_label_count_as_rows_once():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 1, generator=random, dtype=torch.float64)
    target = torch.bernoulli((0.3 * logits - 2).sigmoid(), generator=random)
    test = torch.linspace(-4, 4, 50, dtype=torch.float64).unsqueeze(1)
    once = MultiLabel(logits, target)
    clusters = torch.arange(60).repeat(4)
    four = MultiLabel(logits.repeat(4, 1), target.repeat(4, 1), clusters=clusters)
    one, other = (
        MultiLabelCalibration().fit(val).transform(MultiLabel(test)) for val in (once, four)
    )
    assert float((one.tensors().probs - other.tensors().probs).abs().max()) < 1e-6


def test_clusters_of_one_sample_change_nothing():
    logits, target, features, _ = patients(40, 3)
    plain = Predictions(logits, target, features=features[:, :1] * np.arange(1, 1001)[:, None])
    single = Predictions(
        logits, target, features=plain.tensors().features, clusters=np.arange(1000)
    )
    maps = [
        AutoCalibration().fit(each).transform(plain).tensors().logits for each in (plain, single)
    ]
    assert torch.equal(*maps)


def test_one_cluster_is_said():
    logits, target, _, _ = patients(4, 0)
    with pytest.warns(CalibrationWarning, match="one cluster"):
        AutoCalibration().fit(Predictions(logits, target, clusters=np.zeros(100)))


HOLD_OUT = sorted(
    entry.name
    for entry in CALIBRATORS.entries()
    if "num_folds" in vars(entry.value()) and entry.name != "auto"
)


@pytest.mark.parametrize("name", HOLD_OUT)
def test_who_holds_samples_out_asks_for_whole_clusters(name, monkeypatch):
    """Every calibrator with folds passes its clusters to them."""
    logits, target, _, number = patients(40, 5)
    seen = []
    kind = CALIBRATORS[name].value

    def spy(*args):
        seen.append(args[-1])
        return stratified_folds(*args)

    monkeypatch.setattr(folds, "stratified_folds", spy)
    kind().fit(Predictions(logits, target, clusters=number))
    assert seen
    assert all(each is not None for each in seen)


def test_the_printed_check_leaves_out_whole_clusters():
    logits, target, features, number = patients(40, 0)
    val = Predictions(logits, target, features=features, clusters=number)
    plain = Predictions(logits, target, features=features)
    checked, unchecked = (cross_fit(AutoCalibration(), each) for each in (val, plain))
    assert "whole clusters" in str(checked)
    assert checked.clusters == 40
    assert type(checked).from_dict(checked.to_dict()) == checked
    # Rows of the same patients promise a gain that new patients do not see.
    assert unchecked.after.nll < 0.97 * unchecked.before.nll
    assert checked.after.nll > 1.02 * unchecked.after.nll


def test_confidences_and_labels_keep_their_clusters():
    logits, target, features, number = patients(40, 0)
    probs = torch.tensor(logits).softmax(dim=1)
    top = TopLabel(probs[:, 1].numpy(), target, features=features, clusters=number)
    assert cross_fit(TemperatureScaling(), top).clusters == 40
    columns = torch.tensor(2 * logits[:, 1:])
    labels = torch.tensor(target[:, None])
    whole, torn = (
        MultiLabelCalibration("auto").fit(columns, labels, torch.tensor(features), clusters=each)
        for each in (torch.tensor(number), None)
    )
    carried = [each.calibrators[0].weights["features"] for each in (whole, torn)]
    assert 2 * carried[0] < carried[1]
    assert MultiLabel(columns, labels, clusters=number).label(0).clusters.tolist() == [*number]


def test_columns_that_repeat_together_deserve_a_word():
    logits, target, features, number = patients(40, 0, effect=1.0)
    with pytest.warns(CalibrationWarning, match="repeat together: 40 combinations in 1,000 rows"):
        AutoCalibration().fit(Predictions(logits, target, features=features))
    named = Predictions(logits, target, features=features, clusters=number)
    draw = np.random.default_rng(0)
    apart = draw.integers(0, 30, size=(1000, 3)) / 3.0  # repeats, but not together
    for quiet in (named, Predictions(logits, target, features=apart + features[:, :1])):
        with warnings.catch_warnings(record=True) as caught:
            AutoCalibration().fit(quiet)
        assert not any("repeat together" in str(each.message) for each in caught)


def test_a_loader_names_the_cluster_of_each_sample():
    logits, target, features, number = patients(40, 0)
    inputs = torch.tensor(np.concatenate([logits, features], axis=1), dtype=torch.float32)
    model = nn.Linear(5, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2, 5))
    batch = (inputs, torch.tensor(target), torch.tensor(number))
    assert "features" in fedlas.calibrate(model, [batch]).calibrator.weights
    whole = fedlas.calibrate(model, [batch], clusters=2)
    assert "features" not in whole.calibrator.weights


def test_multicalibration_judges_by_whole_clusters():
    """A correction that one patient alone asks for is none."""
    draw = np.random.default_rng(0)
    score = draw.normal(size=3000)
    number = np.arange(3000) // 300
    odd = number == 4
    log_odds = np.where(odd, 0.0, 2 * score)
    target = (draw.random(3000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    logits = np.stack([-score, score], axis=1)
    groups = Multicalibration(groups=lambda _: torch.tensor(odd).unsqueeze(1))
    counts = [
        len(groups.fit(Predictions(logits, target, clusters=each)).updates)
        for each in (np.arange(3000), number)
    ]
    assert counts[0] > counts[1] == 0
