"""Calibrators on the predictions of a run: parts that its model makes, and all of them at once."""

import pytest
import torch

from fakes_calibrators import Unchanged, add, made_entries, part_of
from fedlas.calibrators import CALIBRATORS
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import execute
from fedlas.lab.studies import load_held_out, run_parts
from fedlas.predictions import Predictions
from fedlas.present.stages import ALL_CALIBRATORS, apply_calibrators

# Fits on tiny runs have much to warn of; the notes are what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
TINY = [
    "train.epochs=12", "train.batch_size=50", "data.train_size=300", "data.val_size=200", "data.test_size=100",
    "model.hidden=[12]", "train.select=accuracy",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = plan_runs(
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
    return apply_calibrators(
        ALL_CALIBRATORS,
        Predictions.load(folder / "predictions" / "test.npz"),
        load_held_out(folder),
    )


@pytest.fixture
def registry(changeable):
    """A registry that a test may add to and take from."""
    return changeable(CALIBRATORS)


def test_there_is_something_to_make():
    assert made_entries()
    assert {part_of(entry) for entry in made_entries()} <= {run_parts.DRIFT_PART}


@pytest.mark.parametrize("entry", made_entries(), ids=lambda entry: entry.name)
def test_a_part_is_made_once_saved_and_used(folder, test, entry, monkeypatch):
    path = folder / "predictions" / f"{part_of(entry)}.npz"
    path.unlink(missing_ok=True)
    shown = []
    outcome = apply_calibrators(entry.name, test, load_held_out(folder, show=shown.append))
    assert path.is_file()
    assert any(path.name in text for text in shown)
    assert outcome.fitted[entry.name].fitted_on == path.name
    assert outcome.remarks() == [f"{entry.name} is fitted on {path.name}, not on val.npz."]
    val = Predictions.load(folder / "predictions" / "val.npz")
    made = Predictions.load(path)
    assert torch.equal(made.tensors().logits[: val.num_samples], val.tensors().logits)
    expected = entry.value().fit(made).transform(test)
    assert torch.equal(outcome.predictions[entry.name].tensors().logits, expected.tensors().logits)
    monkeypatch.setattr(run_parts, "load_trained_run", None)  # from here on no model is needed
    again = apply_calibrators(entry.name, test, load_held_out(folder))
    assert torch.equal(again.predictions[entry.name].tensors().logits, expected.tensors().logits)


def test_saved_part_without_needed_fields_is_recomputed(folder, test, registry):
    part = part_of(made_entries()[0])
    path = folder / "predictions" / f"{part}.npz"
    apply_calibrators(made_entries()[0].name, test, load_held_out(folder))
    assert Predictions.load(path).features is None
    add(
        registry,
        "needy",
        needs=frozenset({"features"}),
        fit_map=lambda self, *_: Unchanged(),
        metadata={"part": part},
    )
    apply_calibrators("needy", test, load_held_out(folder))
    assert Predictions.load(path).features.shape[1] == 12
    before = path.stat().st_mtime_ns
    apply_calibrators(made_entries()[0].name, test, load_held_out(folder))
    assert path.stat().st_mtime_ns == before


def test_a_named_file_is_for_the_one_calibrator(folder, test):
    given = folder / "predictions" / "val.npz"
    for entry in made_entries():
        outcome = apply_calibrators(
            entry.name, test, load_held_out(folder, val=Predictions.load(given))
        )
        assert outcome.remarks() == []
        expected = entry.value().fit(Predictions.load(given)).transform(test)
        assert torch.equal(
            outcome.predictions[entry.name].tensors().logits, expected.tensors().logits
        )


def test_all_of_a_run_folder_equal_each_alone(folder, test, everything):
    outcome = everything
    assert set(outcome.predictions) | set(outcome.errors) == set(CALIBRATORS)
    assert not outcome.errors
    assert list(outcome.predictions) == list(CALIBRATORS)
    for name in ("temperature", *(entry.name for entry in made_entries())):
        alone = apply_calibrators(name, test, load_held_out(folder)).predictions[name]
        assert torch.equal(outcome.predictions[name].tensors().logits, alone.tensors().logits)
