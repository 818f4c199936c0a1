"""Sample sizes of a validation study against the published examples.

Sources: Riley et al., Statistics in Medicine 40 (2021), abstract (9,835 participants, 177 events) and the code that
accompanies it, which names the distributions; the tests of the R package pmvalsampsize 0.1.0 (905, 4,252); and what
``pmvalsampsize`` 0.2.1 for Python prints with its million draws, at most 1 % off by chance.
"""

import numpy as np
import pytest

from fedlas import Predictions
from fedlas.binary import validation_size
from fedlas.errors import InputError

PMVALSAMPSIZE = {  # observed / expected, slope, C statistic, net benefit
    "normal": ({"prevalence": 0.018, "auroc": 0.8, "lp_normal": (-5, 2.5), "width_observed_to_expected": 1},
               (905, 4544, 4252)),
    "beta": ({"prevalence": 0.018, "auroc": 0.8, "risk_beta": (0.5, 0.5), "width_observed_to_expected": 1},
             (905, 1644, 4252)),
    "auroc alone": ({"prevalence": 0.018, "auroc": 0.8, "width_observed_to_expected": 1}, (905, 16925, 4252)),
    "net benefit": ({"prevalence": 0.43, "auroc": 0.8, "risk_beta": (1.33, 1.75), "threshold": 0.3},
                    (510, 2136, 308, 281)),
    "rarer": ({"prevalence": 0.15, "auroc": 0.75, "lp_normal": (-2.0, 0.9), "threshold": 0.1}, (2179, 5105, 712, 752)),
    "widths": ({"prevalence": 0.5, "auroc": 0.8, "risk_beta": (0.5, 0.5), "width_observed_to_expected": 0.3,
                "width_slope": 0.3, "width_auroc": 0.05, "threshold": 0.6}, (172, 731, 1204, 387)),
}  # fmt: skip


@pytest.mark.parametrize("case", list(PMVALSAMPSIZE))
def test_pmvalsampsize_has_the_same_numbers(case):
    options, expected = PMVALSAMPSIZE[case]
    size = validation_size(**options)
    assert list(size.by_measure.values()) == pytest.approx(expected, rel=0.012)
    # What is not simulated differs by the step of its search alone, 0.0001 of a standard error.
    assert size.by_measure["observed_to_expected"] == pytest.approx(expected[0], rel=4e-3, abs=1)
    assert size.by_measure["auroc"] == expected[2]
    assert size.samples == max(size.by_measure.values())
    assert size.events == pytest.approx(options["prevalence"] * size.samples)


def pearson(mean, variance, skewness, kurtosis):
    """Log-odds at equal steps of the distribution function of Pearson's family, by its differential equation."""
    denominator = 10 * kurtosis - 12 * skewness**2 - 18
    b0 = variance * (4 * kurtosis - 3 * skewness**2) / denominator
    b1 = np.sqrt(variance) * skewness * (kurtosis + 3) / denominator
    b2 = (2 * kurtosis - 3 * skewness**2 - 6) / denominator
    x = np.linspace(-60, 60, 400_001)
    slope = -(x + b1) / (b0 + b1 * x + b2 * x**2)
    logs = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(x))])
    density = np.exp(logs - logs.max())
    shares = np.cumsum(density) / density.sum()
    return mean + np.interp((np.arange(200_000) + 0.5) / 200_000, shares, x)


def test_the_example_of_heart_valves():
    """Its log-odds are known by four moments. Two families with them need 10,250 and 10,540; the paper says 9,835."""
    log_odds = pearson(-5.8, 5, -0.5, 4)
    assert (log_odds.mean(), log_odds.var()) == pytest.approx((-5.8, 5), rel=2e-3)
    p = Predictions(np.stack([0 * log_odds, log_odds], axis=1), np.arange(200_000) % 2)
    size = validation_size(0.018, 0.8, predictions=p, width_observed_to_expected=1)
    assert size.samples == pytest.approx(9835, rel=0.08)
    assert max(size.by_measure, key=size.by_measure.get) == "slope"
    assert size.mean_risk == pytest.approx(0.018, rel=0.02)


def test_net_benefit_with_shares_that_are_anticipated():
    """The accompanying code rounds the standard error of a width of 0.2 to 0.051."""
    for prevalence, threshold, shares in ((0.72, 0.8, (0.6, 0.88)), (0.018, 0.08, (0.2, 0.99))):
        hits, passes = shares
        w = (1 - prevalence) / prevalence * threshold / (1 - threshold)
        variance = hits * (1 - hits) / prevalence + w**2 * passes * (1 - passes) / (1 - prevalence)
        variance += w**2 * (1 - passes) ** 2 / (prevalence * (1 - prevalence))
        size = validation_size(
            prevalence, 0.8, threshold=threshold, sensitivity=hits, specificity=passes
        )
        assert size.by_measure["net_benefit"] == pytest.approx(variance / 0.051**2, rel=0.002)


def test_intervals_are_as_wide_as_planned():
    """Validation sets of that size: the mean width of the intervals that the library computes."""
    from fedlas.binary import auroc, logistic_recalibration

    size = validation_size(0.15, 0.75, lp_normal=(-2.0, 0.9))
    random = np.random.default_rng(0)
    widths = {"slope": [], "auroc": [], "observed_to_expected": []}
    for _ in range(5):
        for name, samples in size.by_measure.items():
            log_odds = random.normal(-2, 0.9, samples)
            y = (random.random(samples) < 1 / (1 + np.exp(-log_odds))).astype(int)
            p = Predictions(np.stack([0 * log_odds, log_odds], axis=1), y)
            each = auroc(p) if name == "auroc" else getattr(logistic_recalibration(p), name)
            widths[name].append(each.high - each.low)
    for name, drawn in widths.items():
        assert np.mean(drawn) == pytest.approx(size.widths[name], rel=0.1), name


def test_predictions_give_prevalence_and_auroc():
    log_odds = np.random.default_rng(0).normal(-1, 1, 5000)
    y = (np.random.default_rng(1).random(5000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    p = Predictions(np.stack([0 * log_odds, log_odds], axis=1), y)
    size = validation_size(predictions=p)
    other = validation_size(size.prevalence, size.values["auroc"], lp_normal=(-1, 1))
    assert list(size.by_measure.values()) == pytest.approx(
        list(other.by_measure.values()), rel=0.05
    )


def test_narrow_and_extreme_distributions_are_integrated_accurately():
    """Log-odds of Beta(a, b) have the variance psi'(a) + psi'(b); at steps of 0.002 a narrow one was missed."""
    z = 1.959964 / 0.1
    for a in (1e4, 1e7):
        size = validation_size(0.5, 0.8, risk_beta=(a, a))
        assert size.by_measure["slope"] == pytest.approx(z**2 / (0.25 * 2 / a), rel=1e-3)
    # Beside 0 and 1 the density of the log-odds is a / 2 for a near 0: the information is a / 2 times that of x.
    size = validation_size(0.5, 0.8, risk_beta=(1e-5, 1e-5))
    assert size.by_measure["slope"] == pytest.approx(z**2 / (1e-5 / 2 * np.pi**2 / 3), rel=1e-3)
    size = validation_size(0.1, 0.8, risk_beta=(1e-5, 1e-4))
    assert size.mean_risk == pytest.approx(1 / 11, rel=1e-3)
    size = validation_size(0.1, 0.8, lp_normal=(-2, 1e-4))
    p = 1 / (1 + np.exp(2))
    assert size.by_measure["slope"] == pytest.approx(z**2 / (p * (1 - p) * 1e-8), rel=1e-6)


TOO_MANY = "width_{} must be attainable with at most 1,000,000,000,000 samples"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auroc": 0.8}, "prevalence is required: the value that you expect"),
        ({"prevalence": 0.1}, "auroc is required: the value that you expect"),
        ({"prevalence": 1.1, "auroc": 0.8}, r"prevalence .*\(0, 1\)"),
        ({"prevalence": 0.1, "auroc": 0.4}, r"auroc .*\(0\.5, 1\)"),
        (
            {"prevalence": 0.1, "auroc": 0.8, "lp_normal": (1, 2), "risk_beta": (1, 2)},
            "at most one of lp_normal",
        ),
        ({"prevalence": 0.1, "auroc": 0.8, "lp_normal": (1,)}, "lp_normal must be mean and"),
        (
            {"prevalence": 0.1, "auroc": 0.8, "sensitivity": 0.5},
            "sensitivity requires threshold",
        ),
        (
            {"prevalence": 0.1, "auroc": 0.8, "specificity": 0.5},
            "specificity requires threshold",
        ),
        (
            {"prevalence": 0.1, "auroc": 0.8, "width_net_benefit": 0.1},
            "width_net_benefit requires threshold",
        ),
        ({"prevalence": 0.1, "auroc": 0.8, "event": 1}, "event requires predictions"),
        ({"prevalence": 0.1, "auroc": 0.8, "lp_normal": (-2, 1e-9)}, TOO_MANY.format("slope")),
        ({"prevalence": 0.1, "auroc": 0.8, "lp_normal": (-900, 1)}, TOO_MANY.format("slope")),
        ({"prevalence": 0.1, "auroc": 0.8, "risk_beta": (1e-12, 1e-12)}, TOO_MANY.format("slope")),
        ({"prevalence": 0.1, "auroc": 0.5 + 1e-12}, TOO_MANY.format("slope")),
        (
            {"prevalence": 1e-12, "auroc": 0.8, "lp_normal": (-2, 1)},
            TOO_MANY.format("observed_to_expected"),
        ),
        ({"prevalence": 0.1, "auroc": 0.8, "width_auroc": 1e-9}, TOO_MANY.format("auroc")),
        (
            {"prevalence": 0.1, "auroc": 0.8, "threshold": 0.5, "width_net_benefit": 1e-200},
            TOO_MANY.format("net_benefit"),
        ),
        ({"prevalence": 0.1, "auroc": 0.8, "width_slope": 0}, "width_slope"),
    ],
)
def test_what_cannot_be_planned_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        validation_size(**options)


def test_size_includes_an_event_and_a_non_event():
    """One sample was enough for an AUROC of 0.9999, and for a slope of any width."""
    for prevalence in (0.01, 0.99):
        size = validation_size(prevalence, 0.9999, width_slope=50, width_observed_to_expected=50)
        assert min(size.by_measure.values()) >= 100


def test_a_percentage_is_asked_about():
    with pytest.raises(InputError, match=r"Pass 0\.3 for 30 %"):
        validation_size(prevalence=30, auroc=0.8)
