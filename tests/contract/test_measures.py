"""All that takes the name of a measure knows every one: it uses it, or refuses it in words. A new one needs no line."""

import inspect
import math

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel, binary
from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.integrations.sklearn import CalibrationScorer
from fedlas.metrics import METRICS, StreamingMetrics
from fedlas.stats import bootstrap_interval, noise_floor, paired_bootstrap

NAMES = list(METRICS)
OF_EVENTS = [entry.name for entry in METRICS.entries() if entry.subject == "event"]


def drawn(samples=120, scale=1.0, seed=0, **roles):
    generator = torch.Generator().manual_seed(seed)
    log_odds = 2 * torch.randn(samples, generator=generator, dtype=torch.float64)
    happened = torch.bernoulli(log_odds.sigmoid(), generator=generator).long()
    return Predictions(torch.stack([0 * log_odds, scale * log_odds], dim=1), happened, **roles)


RAW, OTHER = drawn(), drawn(scale=1.6)
MANY = Predictions(
    torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 4
)
EVALUATION = fedlas.report(RAW, replicates=39)


def required(name):
    return EVALUATION.require(f"{name}{'>=' if METRICS[name].higher_is_better else '<='}0.5")


USES = {
    "the function": lambda name: METRICS[name].value(RAW),
    "evaluate --require": required,
    "estimates": lambda name: fedlas.estimates(RAW, [name], replicates=39)[name],
    "compare": lambda name: fedlas.compare(RAW, OTHER, [name], replicates=39)[name],
    "compare --fail-if-worse": lambda name: (
        fedlas.compare(RAW, OTHER, [name], replicates=39).fail_if_worse(name)
    ),
    "compare of groups": lambda name: fedlas.compare(
        RAW, OTHER, [name], replicates=39, groups=["a", "b", "b"] * 40
    ).groups["a"],
    "paired_bootstrap": lambda name: paired_bootstrap(RAW, OTHER, metric=name, replicates=39),
    "bootstrap_interval": lambda name: bootstrap_interval(RAW, metric=name, replicates=39),
    "noise_floor": lambda name: noise_floor(RAW, metric=name, replicates=5),
    "streaming": lambda name: StreamingMetrics(2, metrics=[name]),
    "a scorer": CalibrationScorer,
}  # fmt: skip


MAY_REFUSE = ("streaming", "a scorer", "evaluate --require")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("use", USES)
def test_everything_uses_a_measure_or_refuses_it_in_words(use, name):
    refusal = ""
    try:
        USES[use](name)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert "; got" in refusal
        assert use in MAY_REFUSE or name not in OF_EVENTS or not is_measured(name), refusal


def is_measured(name):
    return METRICS[name].has_interval and METRICS[name].higher_is_better is not None


@pytest.mark.parametrize("name", OF_EVENTS)
def test_each_measure_of_an_event_can_be_required_and_compared_alike(name):
    key = name.removeprefix("event_")
    record = METRICS[name]
    if not record.has_interval:
        with pytest.raises(InputError, match="interval"):
            fedlas.compare(RAW, OTHER, [name], replicates=39)
        return
    compared = fedlas.compare(RAW, OTHER, [name], replicates=39)[name]
    low, high = record.between
    bound = min(max(compared.a, low + 1e-3), high - 1e-3)
    sign = "<=" if record.higher_is_better is False else ">="
    assert EVALUATION.require(f"{name}{sign}{bound}").checks[0].name.startswith(key)
    stage = {**EVALUATION.estimates["as predicted"], **EVALUATION.positive["as predicted"]}
    assert compared.a == pytest.approx(stage[key].value, abs=1e-7)
    assert math.isfinite(compared.low + compared.high)
    assert compared.low <= compared.a - compared.b <= compared.high or name in (
        "emax",
        "e50",
        "e90",
    )


@pytest.mark.parametrize("name", OF_EVENTS)
def test_a_measure_of_an_event_refuses_what_has_none(name):
    with pytest.raises(InputError, match="two classes"):
        fedlas.compare(MANY, MANY.rows(torch.arange(60)), [name])
    with pytest.raises(InputError, match="all classes"):
        fedlas.estimates(TopLabel([0.5, 0.7], [True, False]), [name])


@pytest.mark.parametrize("name", [name for name in OF_EVENTS if METRICS[name].influence])
def test_influence_is_the_derivative_by_the_weights(name):
    """For AUROC that of the other outcome's samples is drawn alike; the rest to rounding."""
    weights = torch.rand(120, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    weights = weights / weights.mean()
    entry, base = METRICS[name], drawn(scale=1.4, weights=weights)
    influence = entry.influence(base)
    step = 1e-5
    for row in range(0, 120, 17):
        moved = []
        for sign in (1, -1):
            changed = weights.clone()
            changed[row] += sign * step
            moved.append(entry.value(drawn(scale=1.4, weights=changed)))
        slope = weights[row].item() * (moved[0] - moved[1]) / (2 * step)
        assert influence[row] == pytest.approx(slope, rel=0.03, abs=1e-6), row


@pytest.mark.parametrize("name", ["ici", "e50", "e90", "emax"])
def test_replicates_of_distances_are_those_of_the_rows(name):
    found = bootstrap_interval(RAW, metric=name, replicates=199)
    own = binary.integrated_calibration(RAW, replicates=999)
    expected = getattr(own, name)
    assert found.value == expected.value
    assert found.standard_error == pytest.approx((expected.high - expected.low) / 3.92, rel=0.5)
    floor = noise_floor(RAW, metric=name, replicates=199)
    assert floor.mean == pytest.approx(expected.floor, rel=0.15)


@pytest.mark.parametrize("name", OF_EVENTS)
def test_functions_of_measures_agree_with_their_table(name):
    key = name.removeprefix("event_")
    table = binary.measures(RAW, replicates=39)
    if key in table:
        assert METRICS[name].value(RAW) == pytest.approx(table[key].value, abs=1e-7)
    function = getattr(binary, key, None)
    if function is not None and "confidence_level" in inspect.signature(function).parameters:
        wide, narrow = (function(RAW, confidence_level=level) for level in (0.95, 0.5))
        assert wide.high - wide.low > narrow.high - narrow.low or np.isnan(wide.low)


def test_another_name_is_known_wherever_the_first_is():
    assert EVALUATION.require("o_e<=1.5").checks[0].name == "observed_to_expected<=1.5"
    assert list(fedlas.compare(RAW, OTHER, ["o_e"], replicates=39)) == ["observed_to_expected"]


def test_models_whose_slopes_differ_are_no_tie(tmp_path, capsys):
    for name, each in {"a": drawn(600), "b": drawn(600, scale=1.6)}.items():
        each.save(tmp_path / f"{name}.npz")
    paths = [str(tmp_path / f"{name}.npz") for name in "ab"]
    assert main(["compare", *paths, "--metrics", "slope", "ece", "--replicates", "99"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "They differ in calibration slope by" in text
    assert "distinguishable in calibration slope" not in text
