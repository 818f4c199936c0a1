"""Probabilities of exactly 0 and 1 have no log-odds: what is measured on these leaves such samples out, and says so."""

import json

import numpy as np
import pytest

import fedlas
from fedlas import MultiLabel, Predictions, binary
from fedlas.errors import InputError

N = 900
OPTIONS = {"replicates": 39}


def draw(**options):
    """Return probabilities and outcomes; one more sample is certain and wrong."""
    random = np.random.default_rng(0)
    probs = 1 / (1 + np.exp(1.0 - 1.5 * random.normal(size=N)))
    happened = (random.random(N) < probs).astype(int)
    return probs, happened


@pytest.fixture(scope="module")
def without():
    return Predictions.from_probs(*draw())


@pytest.fixture(scope="module")
def certain():
    probs, happened = draw()
    return Predictions.from_probs(np.append(probs, 1.0), np.append(happened, 0))


def numbers(line):
    return [
        each
        for of in (line.slope, line.intercept, line.in_the_large)
        for each in (of.value, of.low, of.high)
    ] + [line.p_value]


@pytest.mark.parametrize("ends", [[1.0], [0.0], [0.0, 1.0, 1.0]])
@pytest.mark.parametrize("roles", ["", "weights", "clusters"])
def test_line_is_that_of_other_samples(ends, roles):
    """One such row of 901 made a slope of 1.02 one of 0.55: the number was that of the floor of 1e-38."""
    probs, happened = draw()
    count = N + len(ends)
    random = np.random.default_rng(1)
    values = {"weights": random.exponential(size=count), "clusters": np.arange(count) // 4}
    options = {roles: values[roles]} if roles else {}
    least = {name: each[:N] for name, each in options.items()}
    alone = Predictions.from_probs(probs, happened, **least)
    wrong = [int(end == 0.0) for end in ends]
    whole = Predictions.from_probs(np.append(probs, ends), np.append(happened, wrong), **options)
    line = binary.logistic_recalibration(whole)
    assert numbers(line) == pytest.approx(numbers(binary.logistic_recalibration(alone)), rel=1e-9)
    assert line.left_out == len(ends)
    ratio = whole.tensors().weights if roles == "weights" else np.ones(count)
    outcome, expected = np.append(happened, wrong), np.append(probs, ends)
    assert line.observed_to_expected.value == pytest.approx(
        np.average(outcome, weights=ratio) / np.average(expected, weights=ratio)
    )
    assert vars(binary.likelihood_indices(whole)) == pytest.approx(
        vars(binary.likelihood_indices(alone)), rel=1e-9
    )


def test_curve_and_joint_score_leave_them_out(without, certain):
    curve, alone = (binary.spline_curve(each) for each in (certain, without))
    np.testing.assert_allclose(curve.frequency, alone.frequency, rtol=1e-9)
    found = binary.measures(certain, replicates=199)
    assert found.tests["slope"] > 0.1  # it was 0.005
    counted = {name for name, each in found.items() if each.left_out}
    assert counted == {"in_the_large", "slope", "intercept", "r2", "d", "u", "q"}
    assert found["slope"].left_out == 1


@pytest.mark.parametrize("name", ["slope", "intercept", "in_the_large"])
def test_influences_of_left_out_samples_are_zero(name, without, certain):
    measure = fedlas.metrics.METRICS[name]
    whole, alone = measure.influence(certain), measure.influence(without)
    assert whole[-1] == 0.0
    np.testing.assert_allclose(whole[:-1], alone, rtol=1e-9)


def test_saved_logits_are_recognized(certain, tmp_path):
    loaded = Predictions.load(certain.save(tmp_path / "p.npz"))
    assert binary.logistic_recalibration(loaded).left_out == 1


def test_event_of_three_classes_leaves_them_out():
    probs, happened = draw()
    three = np.stack([1 - probs, 0.4 * probs, 0.6 * probs], axis=1)
    for last in ([0, 0, 1], [0.3, 0.7, 0]):
        both = [
            binary.logistic_recalibration(Predictions.from_probs(scores, target), event=2)
            for scores, target in (
                (three, 2 * happened),
                (np.vstack([three, last]), np.append(2 * happened, 2 - 2 * last[2])),
            )
        ]
        assert both[1].left_out == 1
        assert numbers(both[1]) == pytest.approx(numbers(both[0]), rel=1e-9)


def test_groups_and_hospitals_leave_them_out(without, certain):
    groups = np.arange(N + 1) % 3
    by_group, alone = (
        binary.group_measures(each, groups[: each.num_samples]) for each in (certain, without)
    )
    for name, each in by_group.items():
        assert each.slope.value == pytest.approx(alone[name].slope.value, rel=1e-9)
        assert each.shift.low == pytest.approx(alone[name].shift.low, rel=1e-9)
        assert each.slope.left_out == each.shift.left_out == (1 if name == 0 else None)
    hospitals = Predictions.from_probs(
        certain.tensors().probs[:, 1], certain.tensors().target, clusters=groups
    )
    slopes = {name: each.slope for name, each in binary.heterogeneity(hospitals).clusters.items()}
    assert slopes[0].left_out == 1
    assert slopes[0].value == pytest.approx(alone[0].slope.value, rel=1e-9)


def test_group_of_certain_samples_has_no_slope(certain):
    """All of one group are 0 or 1; another has both outcomes only there."""
    probs = np.append(certain.tensors().probs[:, 1], [0.0, 1.0, 0.5, 0.25, 1.0])
    target = np.append(certain.target, [0, 1, 0, 0, 1])
    groups = ["rest"] * (N + 1) + ["all"] * 2 + ["other"] * 3
    table = binary.group_measures(Predictions.from_probs(probs, target), groups)
    assert table["all"].slope is table["other"].slope is None
    assert table["rest"].slope.left_out == 1
    assert table["all"].ratio.value == 1.0


@pytest.mark.parametrize(
    ("probs", "target", "match"),
    [
        ([0.0, 1.0] * 10, [0, 1, 1, 0] * 5, "neither 0 nor 1.*all 20 samples"),
        ([0.5, 0.25, 1.0], [0, 0, 1], "other than 0 and 1.*got 0 events and 2 others"),
    ],
)
def test_certain_samples_alone_have_no_line(probs, target, match):
    predictions = Predictions.from_probs(np.array(probs), target)
    with pytest.raises(InputError, match=match):
        binary.logistic_recalibration(predictions)
    assert binary.observed_to_expected(predictions).value > 0
    with pytest.raises(InputError, match=match):
        binary.slope(predictions)


def test_hard_labels_keep_observed_to_expected():
    found = binary.measures(
        Predictions.from_probs(np.array([0.0, 1.0] * 10), [0, 1, 1, 0] * 5), **OPTIONS
    )
    assert found["observed_to_expected"].value == 1.0
    assert "slope" not in found


def test_labels_leave_them_out(without, certain):
    probs = certain.tensors().probs[:, 1].numpy()
    target = certain.target
    several = MultiLabel.from_probs(
        np.stack([probs, 1 - probs], axis=1), np.stack([target, 1 - target], axis=1)
    )
    line = binary.logistic_recalibration(without)
    for each in binary.label_measures(several, replicates=0).values():
        assert each.slope.value == pytest.approx(line.slope.value, rel=1e-6)
        assert each.slope.left_out == 1
    text = fedlas.report(several, **OPTIONS).text(details=True)
    assert "Slopes leave out 2 samples with a probability of exactly 0 or 1." in " ".join(
        text.split()
    )


def test_report_says_what_slope_leaves_out(certain):
    """The headline was "too extreme, slope 0.55" by the one sample."""
    report = fedlas.report(certain, groups=np.arange(N + 1) % 3, **OPTIONS)
    assert (
        "901 samples, of which 1 with probability 1 is left out of the slope" in report.verdict[0]
    )
    text = " ".join(report.text(details=True).split())
    assert "1 sample with a probability of exactly 0 or 1 is left out of in the large" in text
    assert text.count("Slopes leave out 1 sample with a probability of exactly 0 or 1.") >= 1
    content = json.loads(report.json())
    assert content["positive class"]["as predicted"]["slope"]["left_out"] == 1
    assert "left_out" not in content["positive class"]["as predicted"]["auroc"]
    assert content["groups"]["as predicted"]["0"]["slope"]["left_out"] == 1
    gate = report.require("slope<=2")
    assert "without 1 sample with a probability of exactly 0 or 1" in str(gate)
    assert "leave out 1 sample" in report.tripod()


def test_fit_says_what_certain_probabilities_become():
    probs, happened = draw()
    probs = np.where(probs < 0.1, 0.0, probs)
    fit = fedlas.calibrate({"p": probs, "y": happened}, probs="p", target="y", method="temperature")
    note = next(each for each in fit.fitted.notes if "hides how sure" in each)
    become = fit.apply({"p": np.zeros(1)})["calibrated_p"][0]
    assert f"({100 * (probs == 0).mean():.0f} %)" in note
    assert f"0 becomes {become:.3g}." in note
    probs[np.flatnonzero(probs == 0)[1:]] = 0.05
    fit = fedlas.calibrate({"p": probs, "y": happened}, probs="p", target="y", method="temperature")
    assert not any("hides how sure" in each for each in fit.fitted.notes)
