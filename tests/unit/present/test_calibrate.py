import io
import warnings

import pytest
import torch
from rich.console import Console
from torch import nn

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas.calibrators import CALIBRATORS, CalibrationWarning, TemperatureScaling
from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execute import execute
from fedlas.lab.studies import run_parts
from fedlas.lab.studies.run_parts import run_held_out
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.present.ranking import SELECTION, TRADES, WITHIN, rank_stages, ranking_table, signs
from fedlas.present.stages import ALL, Calibrated, HeldOut, calibrated
from fedlas.present.table import terminal

# Fits on tiny runs have much to warn of; the notes are what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
TINY = [
    "train.epochs=12", "train.batch_size=50", "data.train_size=300", "data.val_size=200", "data.test_size=100",
    "model.hidden=[12]", "train.select=accuracy",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = plan(
        load_recipe("synthetic", TINY),
        losses=["ce"],
        seeds=[0],
        out=tmp_path_factory.mktemp("bench"),
    )[0]
    execute(run)
    return run.folder


@pytest.fixture
def test(folder):
    return Predictions.load(folder / "predictions" / "test.npz")


@pytest.fixture(scope="module")
def everything(folder):
    """All calibrators on the run."""
    return calibrated(
        ALL, Predictions.load(folder / "predictions" / "test.npz"), run_held_out(folder)
    )


@pytest.fixture
def registry(monkeypatch):
    """A registry that a test may add to and take from."""
    monkeypatch.setattr(CALIBRATORS, "_entries", dict(CALIBRATORS._entries))
    return CALIBRATORS


def add(registry, name, **changes):
    metadata = {"title": name, "paper": "none", **changes.pop("metadata", {})}
    registry.register(name, **metadata)(type(name.title(), (TemperatureScaling,), changes))


class Unchanged(nn.Module):
    """Logits as they are, with or without features."""

    def forward(self, rows, features=None):
        return rows


def part_of(entry):
    return entry.metadata.get("part", "val")


def made_entries():
    return [entry for entry in CALIBRATORS.entries() if part_of(entry) != "val"]


def test_there_is_something_to_make():
    assert made_entries()
    assert {part_of(entry) for entry in made_entries()} <= {run_parts.DRIFT}


@pytest.mark.parametrize("entry", made_entries(), ids=lambda entry: entry.name)
def test_a_part_is_made_once_saved_and_used(folder, test, entry, monkeypatch):
    path = folder / "predictions" / f"{part_of(entry)}.npz"
    path.unlink(missing_ok=True)
    shown = []
    outcome = calibrated(entry.name, test, run_held_out(folder, show=shown.append))
    assert path.is_file()
    assert any(path.name in text for text in shown)
    assert outcome.parts == {entry.name: part_of(entry)}
    assert outcome.remarks() == [f"{entry.name} is fitted on {path.name}, not on val.npz."]
    val = Predictions.load(folder / "predictions" / "val.npz")
    made = Predictions.load(path)
    assert torch.equal(made.logits[: val.num_samples], val.logits)
    expected = entry.value().fit(made).transform(test)
    assert torch.equal(outcome.predictions[entry.name].logits, expected.logits)
    monkeypatch.setattr(run_parts, "load_trained", None)  # from here on no model is needed
    again = calibrated(entry.name, test, run_held_out(folder))
    assert torch.equal(again.predictions[entry.name].logits, expected.logits)


def test_a_made_part_without_what_is_needed_is_made_again(folder, test, registry):
    part = part_of(made_entries()[0])
    path = folder / "predictions" / f"{part}.npz"
    calibrated(made_entries()[0].name, test, run_held_out(folder))
    assert Predictions.load(path).features is None
    add(
        registry,
        "needy",
        needs=frozenset({"features"}),
        _fit=lambda self, val: setattr(self, "_map", Unchanged()),
        metadata={"part": part},
    )
    calibrated("needy", test, run_held_out(folder))
    assert Predictions.load(path).features.shape[1] == 12
    before = path.stat().st_mtime_ns
    calibrated(made_entries()[0].name, test, run_held_out(folder))
    assert path.stat().st_mtime_ns == before


def test_a_named_file_is_for_the_one_calibrator(folder, test):
    given = folder / "predictions" / "val.npz"
    for entry in made_entries():
        outcome = calibrated(entry.name, test, run_held_out(folder, val=Predictions.load(given)))
        assert outcome.parts == {}
        expected = entry.value().fit(Predictions.load(given)).transform(test)
        assert torch.equal(outcome.predictions[entry.name].logits, expected.logits)


def test_all_of_a_run_folder_equal_each_alone(folder, test, everything):
    outcome = everything
    assert set(outcome.predictions) | set(outcome.errors) == set(CALIBRATORS)
    assert not outcome.errors
    assert list(outcome.predictions) == list(CALIBRATORS)
    for name in ("temperature", *(entry.name for entry in made_entries())):
        alone = calibrated(name, test, run_held_out(folder)).predictions[name]
        assert torch.equal(outcome.predictions[name].logits, alone.logits)


def test_those_that_cannot_run_are_named_with_the_reason(folder, test, registry):
    val = folder / "predictions" / "val.npz"
    bare = Predictions(test.logits, test.target)
    add(
        registry,
        "lacking",
        _fit=lambda self, val: (_ for _ in ()).throw(MissingExtraError("fedlas[x]: needs y")),
    )
    outcome = calibrated(ALL, bare, HeldOut(Predictions.load(val)))
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


def test_if_none_can_run_the_first_reason_is_the_error(folder, test):
    seven = Predictions(torch.randn(50, 7), torch.zeros(50, dtype=torch.long))
    with pytest.raises(InputError, match="of the same model"):
        calibrated(ALL, seven, HeldOut(Predictions.load(folder / "predictions" / "val.npz")))


def test_a_fault_of_ours_is_not_taken_for_a_reason(folder, test, registry):
    add(registry, "broken", _fit=lambda self, val: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibrated(ALL, test, HeldOut(Predictions.load(folder / "predictions" / "val.npz")))


def test_names(folder, test):
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        calibrated("temprature", test, run_held_out(folder))
    with pytest.raises(InputError, match=r"calibrator drift.*'val-drift'"):
        calibrated(made_entries()[0].name, test, HeldOut(None, named=False))


def test_warnings_become_notes(folder, test, registry):
    add(
        registry,
        "doubtful",
        _fit=lambda self, val: setattr(self, "_map", Unchanged()) or "look at it.",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", CalibrationWarning)
        outcome = calibrated("doubtful", test, run_held_out(folder))
    assert outcome.notes == ["Doubtful: look at it."]


def table_of(measured, stages, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal(ranking_table(measured, stages, title="x"), arrows=False))
    return console.file.getvalue()


def test_the_table_has_a_row_for_each_and_fits_a_terminal(test, everything):
    stages = {"as predicted": test} | {
        f"after {name}": each for name, each in everything.predictions.items()
    }
    measured = {stage: evaluate(predictions) for stage, predictions in stages.items()}
    lines = table_of(measured, stages).splitlines()
    assert max(map(len, lines)) <= 80
    for stage, predictions in stages.items():
        name, scores = stage.removeprefix("after "), measured[stage]
        (row,) = [line for line in lines if line.strip().startswith(f"{name} ")]
        new = 100 * float((predictions.predicted != test.predicted).double().mean())
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
    assert signs(measured, stages, {}) == "! lower ECE, but higher NLL than as predicted."
    assert max(len(f"{WITHIN}. {TRADES}."), len(SELECTION)) <= 80  # a line each
    assert (
        signs({stage: measured[stage] for stage in ("as predicted", "after better")}, stages, {})
        == ""
    )


def test_nothing_to_remark():
    assert Calibrated().remarks() == []
