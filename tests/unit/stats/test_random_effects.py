"""Random-effects means against metafor 4.8.0, which metamisc calls."""

import numpy as np
import pytest
from scipy.stats import chi2

from fedlas.errors import InputError
from fedlas.stats import random_effects

BCG_VALUES = [
    -0.88931133392, -1.5853886572, -1.3480731483, -1.44155119002, -0.217547322211, -0.786115585819, -1.6208982236,
    0.0119523335238, -0.469417648738, -1.37134480347, -0.339358828338, 0.445913400571, -0.0173139482169,
]  # fmt: skip
BCG_VARIANCES = [
    0.325584765004, 0.194581121398, 0.415367965368, 0.0200100319022, 0.0512101721696, 0.00690561845591, 0.223017247572,
    0.00396157929782, 0.0564342104632, 0.073024793613, 0.0124122139716, 0.5325058452, 0.071404659684,
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        # r <- rma(yi, sei=sei, method="REML", test="knha", control=list(threshold=1e-13)); predict(r, pi.type="riley"):
        # mean, ends, tau2, I2 in percent, p of Q, ends of the prediction interval
        (BCG_VALUES, np.sqrt(BCG_VARIANCES), (
            -0.714532342158, -1.10844371369, -0.320620970631, 0.313243258136, 92.2213845213, 1.99676459085e-26,
            -2.00905765037, 0.579992966055,
        )),
        ([0.2, 1.0, 1.1, 0.9], [0.6, 0.1, 0.1, 0.1], (
            0.992559142687, 0.787116856002, 1.19800142937, 0.000143507171555, 0.964868458073, 0.288399986397,
            0.71006013909, 1.27505814628,
        )),
        ([0.1, 0.5, -0.3], [0.1, 0.1, 0.2], (
            0.124882735021, -0.850263070729, 1.10002854077, 0.13075403273, 89.7086895511, 0.000335462627903,
            -5.2975404443, 5.54730591435,
        )),
        ([0.1, 0.11, 0.12, 0.1], [0.1, 0.1, 0.2, 0.3], (
            0.106352941176, 0.0941172703276, 0.118588612025, 0.0, 0.0, 0.999715938981, 0.0898103706103, 0.122895511743,
        )),
    ],
)  # fmt: skip
def test_metafor_has_the_same_numbers(values, errors, expected):
    found = random_effects(np.array(values), np.array(errors))
    assert (
        found.mean, found.low, found.high, found.tau**2, 100 * found.i_squared, found.p, found.prediction_low,
        found.prediction_high,
    ) == pytest.approx(expected, rel=1e-7, abs=1e-9)  # fmt: skip
    assert found.count == len(values)


def test_two_clusters_have_no_prediction_interval():
    """metafor: 0.48125 [-4.59564504245, 5.55814504245], tau2 0.295."""
    found = random_effects(np.array([0.1, 0.9]), np.array([0.1, 0.2]))
    assert (found.mean, found.low, found.high) == pytest.approx((0.48125, -4.595645, 5.558145))
    assert found.tau**2 == pytest.approx(0.295)
    assert np.isnan(found.prediction_low)


def test_intervals_hold_mean_and_further_clusters():
    """Of 3,000 sets 0.935 and 0.881: with 10 clusters a prediction interval is too short, as tau is uncertain."""
    draw = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        errors = draw.uniform(0.1, 0.5, 10)
        truths = draw.normal(1.0, 0.3, 11)
        found = random_effects(truths[:10] + errors * draw.normal(size=10), errors)
        further = found.prediction_low <= truths[10] <= found.prediction_high
        held.append((found.low <= 1.0 <= found.high, further))
    assert np.mean(held, axis=0) == pytest.approx([0.935, 0.881], abs=0.025)


@pytest.mark.parametrize(
    ("values", "errors", "tau2"),
    [
        ([0.33, 2.21, -4.62, 0.28], [0.186, 1.004, 1.83, 0.13], 0.0),
        ([0.23, 15.78, -0.26], [0.228, 6.203, 0.048], 0.1015),
    ],
)
def test_of_two_maxima_the_higher_one_is_taken(values, errors, tau2):
    """Ascents from the moments end at 3.85 and 35.7, where the restricted likelihood is lower by 0.5 and 0.9."""
    assert random_effects(np.array(values), np.array(errors)).tau ** 2 == pytest.approx(
        tau2, abs=1e-4
    )


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_unit_of_the_values_does_not_matter(scale):
    one = random_effects(np.array(BCG_VALUES), np.sqrt(BCG_VARIANCES))
    other = random_effects(scale * np.array(BCG_VALUES), scale * np.sqrt(BCG_VARIANCES))
    assert other.tau == pytest.approx(scale * one.tau, rel=1e-9)
    assert other.low == pytest.approx(scale * one.low, rel=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4, 11, 502])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_cochrans_p_is_chi_squared_of_scipy(count, spread):
    values = spread * np.random.default_rng(0).normal(size=count)
    found = random_effects(values, np.full(count, 1.0))
    expected = chi2.sf(((values - values.mean()) ** 2).sum(), count - 1)
    assert found.p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "errors"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 0.0]), ([1.0, np.nan], [1.0, 1.0])]
)
def test_other_numbers_are_refused(values, errors):
    with pytest.raises(InputError, match="K at least 2"):
        random_effects(np.array(values), np.array(errors))
