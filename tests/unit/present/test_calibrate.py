"""Calibrators on predictions: those that run, those that cannot, and their table."""

import io
import warnings

import pytest
import torch
from rich.console import Console

from fakes_calibrators import Unchanged, add, made_entries
from fedlas.calibrators import CALIBRATORS, CalibrationWarning
from fedlas.errors import InputError, MissingExtraError
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.present.ranking import (
    ECE_WITHIN_NOISE_NOTE,
    SELECTION_NOTE,
    TRADE_OFF_NOTE,
    rank_stages,
    ranking_table,
    sign_legend,
)
from fedlas.present.stages import ALL_CALIBRATORS, CalibratedStages, HeldOut, apply_calibrators
from fedlas.present.table import terminal_table

# Fits on few samples have much to warn of; the notes are what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")


def drawn(samples, seed):
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 4, generator=random)
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=random)[:, 0]
    return Predictions(logits, target)


@pytest.fixture(scope="module")
def val():
    return drawn(200, 0)


@pytest.fixture(scope="module")
def test():
    return drawn(100, 1)


@pytest.fixture(scope="module")
def everything(val, test):
    """All calibrators that run without features and without a model."""
    return apply_calibrators(ALL_CALIBRATORS, test, HeldOut(val))


@pytest.fixture
def registry(changeable):
    """A registry that a test may add to and take from."""
    return changeable(CALIBRATORS)


class Doubtful(Unchanged):
    doubts = ("look at it.",)


def test_failing_calibrators_are_listed_with_reasons(val, test, registry):
    add(
        registry,
        "lacking",
        fit_map=lambda self, *_: (_ for _ in ()).throw(MissingExtraError("fedlas[x]: needs y")),
    )
    outcome = apply_calibrators(ALL_CALIBRATORS, test, HeldOut(val))
    needy = {entry.name for entry in CALIBRATORS.entries() if entry.value.needs}
    assert set(outcome.errors) == needy | {entry.name for entry in made_entries()} | {"lacking"}
    assert needy
    for name in needy:
        assert "must hold features" in str(outcome.errors[name])
    for entry in made_entries():
        assert "predictions of the part 'val-drift'" in str(outcome.errors[entry.name])
    assert str(outcome.errors["lacking"]) == "fedlas[x]: needs y"
    lines = outcome.remarks()
    assert all(
        any(line.startswith(f"{name} did not run. ") for line in lines) for name in outcome.errors
    )


def test_all_calibrators_failing_raises_the_first_error(val):
    seven = Predictions(torch.randn(50, 7), torch.zeros(50, dtype=torch.long))
    with pytest.raises(InputError, match="of the same model"):
        apply_calibrators(ALL_CALIBRATORS, seven, HeldOut(val))


def test_unexpected_calibrator_error_is_raised(val, test, registry):
    add(registry, "broken", fit_map=lambda self, *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        apply_calibrators(ALL_CALIBRATORS, test, HeldOut(val))


def test_names(val, test):
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        apply_calibrators("temprature", test, HeldOut(val))
    with pytest.raises(InputError, match=r"calibrator drift.*'val-drift'"):
        apply_calibrators(made_entries()[0].name, test, HeldOut(None, named=False))


def test_warnings_become_notes(val, test, registry):
    add(
        registry,
        "doubtful",
        fit_map=lambda self, *_: Doubtful(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", CalibrationWarning)
        outcome = apply_calibrators("doubtful", test, HeldOut(val))
    assert outcome.notes[0].startswith("Doubtful: look at it.")
    assert outcome.fitted["doubtful"].notes == tuple(outcome.notes)


def table_of(measured, stages, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_table(ranking_table(measured, stages, title="x"), arrows=False))
    return console.file.getvalue()


def test_ranking_table_fits_a_terminal(test, everything):
    stages = {"as predicted": test} | {
        f"after {name}": each for name, each in everything.predictions.items()
    }
    measured = {stage: evaluate(predictions) for stage, predictions in stages.items()}
    lines = table_of(measured, stages).splitlines()
    assert max(map(len, lines)) <= 80
    for stage, predictions in stages.items():
        name, scores = stage.removeprefix("after "), measured[stage]
        (row,) = [line for line in lines if line.strip().startswith(f"{name} ")]
        new = 100 * float(
            (predictions.tensors().predicted != test.tensors().predicted).double().mean()
        )
        shown = [
            f"{100 * scores['accuracy']:.2f}",
            f"{scores['nll']:.4f}",
            f"{scores['brier']:.4f}",
        ]
        shown += [f"{100 * scores['ece']:.2f}", f"{new:.2f}" if new else "kept"]
        assert [word for word in row.removeprefix(f" {name}").split() if word != "!"] == shown
    nll = {stage: scores["nll"] for stage, scores in measured.items()}
    # the best first
    assert [place.stage for place in rank_stages(measured, stages)] == sorted(nll, key=nll.get)


def test_lower_ece_with_higher_nll_is_marked(test):
    measured = {
        "as predicted": {"nll": 0.3, "ece": 0.05},
        "after better": {"nll": 0.2, "ece": 0.01},
        "after trade": {"nll": 0.4, "ece": 0.01},
        "after worse": {"nll": 0.4, "ece": 0.06},
    }
    stages = dict.fromkeys(measured, test)
    places = rank_stages(measured, stages)
    assert [(place.name, place.lower_ece_higher_nll) for place in places] == [
        ("better", False), ("as predicted", False), ("trade", True), ("worse", False),
    ]  # fmt: skip
    table = ranking_table(measured, stages, title="x")
    assert [row[0].extra for row in table.rows] == ["", "", "!", ""]
    assert sign_legend(measured, stages, {}) == "! lower ECE, but higher NLL than as predicted."
    assert (
        max(len(f"{ECE_WITHIN_NOISE_NOTE}. {TRADE_OFF_NOTE}."), len(SELECTION_NOTE)) <= 80
    )  # a line each
    assert (
        sign_legend(
            {stage: measured[stage] for stage in ("as predicted", "after better")}, stages, {}
        )
        == ""
    )


def test_nothing_to_remark():
    assert CalibratedStages().remarks() == []
