"""All that takes the name of a measure knows every one: it uses it, or refuses it in words. A new one needs no line."""

import inspect
import math
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel, binary
from fedlas.cli import main
from fedlas.deploy import Monitor, fit_calibration, make_card
from fedlas.errors import InputError
from fedlas.integrations.engines import estimates_of_sums, sums_of_batch
from fedlas.integrations.sklearn import CalibrationScorer
from fedlas.lab import BenchResult
from fedlas.lab.report import result_table
from fedlas.lab.results import build_result
from fedlas.lab.runs import FinishedRun, RunFolder, Summary
from fedlas.lab.train import check_selection_metric
from fedlas.metrics import METRICS, StreamingMetrics
from fedlas.plots import training_curves
from fedlas.predictions import Columns
from fedlas.stats import bootstrap_interval, noise_floor, optimism, paired_bootstrap

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
MEASURED = {**EVALUATION.estimates["as predicted"], **EVALUATION.positive["as predicted"]}


SEEDS = [drawn(), drawn(scale=1.1)]
OTHER_SEEDS = [drawn(scale=1.6), drawn(scale=1.7)]
BATCHES = [
    {"p": batch.tensors().probs[:, 1].tolist(), "y": batch.target.tolist()}
    for batch in (RAW, OTHER, RAW)
]
RISKS = RAW.tensors().probs[:, 1].numpy()


@cache
def card_of(name):
    """A card that holds this measure alone."""
    row = {name: {"value": 0.25, "low": 0.2, "high": 0.3}}
    stages = dict.fromkeys(("as predicted", "calibrated"), row)
    return make_card(
        RAW, OTHER, fit_calibration("none", RAW), model={"run": "mine"}, data={"name": "drawn"},
        metrics=stages,
    )  # fmt: skip


def hub_card(name):
    pytest.importorskip("huggingface_hub")
    from fedlas.integrations.huggingface_hub import model_card

    return str(model_card(card_of(name)))


def summary_of(name):
    """Runs of two methods that measured this alone."""
    return Summary(
        Path(),
        tuple(
            FinishedRun(
                RunFolder(Path(f"{method}-s{seed}")), "made", method, seed,
                {"test": {name: 0.2 + 0.01 * seed + 0.1 * (method == "a")}, "test_calibrated": {}},
            )
            for method in "ab"
            for seed in range(3)
        ),
    )  # fmt: skip


@cache
def result_of(name):
    """What a report shows of these runs."""
    return build_result(summary_of(name))


@cache
def bench_of(name):
    """The same on two data sets."""
    return BenchResult("drawn", {data: result_of(name) for data in ("one", "two")})


def card_in_a_file(name):
    """Path of a card that holds this measure alone."""
    path = Path(tempfile.mkdtemp()) / "card.json"
    card_of(name).save(path)
    return path


def figure_of(name):
    pytest.importorskip("matplotlib")
    return bench_of(name).figure(name)


def curves_of(name):
    pytest.importorskip("matplotlib")
    log = [{"epoch": epoch, "val": {name: 0.1 * epoch}} for epoch in (1, 2, 3)]
    return training_curves({"a": log}, metric=f"val.{name}")


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
    "engines of tables": lambda name: estimates_of_sums(
        [sums_of_batch(each, Columns(probs="p", target="y"), metrics=[name]) for each in BATCHES], groups=2
    )[name],
    "seeds": lambda name: fedlas.compare(SEEDS, OTHER_SEEDS, [name])[name],
    "optimism": lambda name: optimism(
        lambda x, y: lambda rows: rows, RISKS, RAW.target, metrics=[name],
        confidence_level=0.8, replicates=9,
    )[name],
    "card": lambda name: card_of(name).metrics["calibrated"].get(name),
    "card of the Hub": hub_card,
    "monitor": lambda name: Monitor(card_in_a_file(name)),
    "a bench's table": lambda name: str(bench_of(name).table(name)),
    "a bench's tables of all metrics": lambda name: result_table(result_of(name)),
    "a bench's pairs": lambda name: bench_of(name).pairs_table(["a:b"], name),
    "a bench's ranks": lambda name: bench_of(name).ranks(name),
    "a bench's figure": figure_of,
    "train.select": check_selection_metric,
    "a plot of training": curves_of,
}  # fmt: skip


def has_no_interval(record):
    return not record.has_interval


def has_no_direction(record):
    return record.higher_is_better is None


def has_no_sums(record):
    return record.statistic is None and record.quantity is None


def is_not_ranked(record):
    return not record.ranked


def is_not_measured(record):
    return record.name.removeprefix("event_") not in MEASURED


REFUSE = {
    "evaluate --require": (has_no_interval, is_not_measured),
    "compare": (has_no_interval,),
    "compare --fail-if-worse": (has_no_interval, has_no_direction),
    "compare of groups": (has_no_interval,),
    "paired_bootstrap": (has_no_interval,),
    "streaming": (has_no_sums,),
    "engines of tables": (has_no_sums,),
    "a scorer": (has_no_direction,),
    "a bench's ranks": (has_no_direction, is_not_ranked),
    "a bench's figure": (has_no_direction, is_not_ranked),
    "train.select": (lambda record: not record.default,),
}
"""What a use cannot take: only these measures does it refuse, and those whose arrays are not there."""
OF_NUMBERS = {use for use in USES if use.startswith(("a ", "card", "monitor"))} | {"streaming"}
"""Uses that take what was measured elsewhere, for which no array has to be there."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("use", USES)
def test_everything_uses_a_measure_or_refuses_it_in_words(use, name):
    record = METRICS[name]
    lacks = bool(record.needs) and (use not in OF_NUMBERS or use == "a scorer")
    must_refuse = lacks or any(refuses(record) for refuses in REFUSE.get(use, ()))
    if not must_refuse:
        USES[use](name)
        return
    with pytest.raises(InputError, match=r"; got .*\. [A-Z].*"):
        USES[use](name)


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
