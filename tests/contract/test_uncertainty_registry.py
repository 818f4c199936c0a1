"""What every registered method for uncertainty must keep to. A new one is tested by being registered."""

import inspect
import json

import numpy as np
import pytest
import torch

from fedlas.cli import main
from fedlas.errors import InputError, MissingExtraError
from fedlas.lab.runs import collect_runs, default_metrics
from fedlas.lab.studies.uncertainty import UNCERTAINTY, apply_method, plan_method
from fedlas.predictions import Predictions

QUICK = {"epochs": 2, "members": 2, "samples": 3}
GIVEN = ("runs", "folder")


@pytest.fixture(params=list(UNCERTAINTY), scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def bench(runs):
    return runs("shared")


def options_of(name):
    parameters = inspect.signature(UNCERTAINTY[name].value).parameters
    return {key: parameter for key, parameter in parameters.items() if key not in GIVEN}


def members_of(name, bench):
    return [bench / f"ce-s{seed}" for seed in range(UNCERTAINTY[name].metadata["least"])]


def planned(name, bench, out):
    options = {key: value for key, value in QUICK.items() if key in options_of(name)}
    return plan_method(name, members_of(name, bench), out=out, options=options)


@pytest.fixture(scope="module")
def made(name, bench, tmp_path_factory):
    derived = planned(name, bench, tmp_path_factory.mktemp("made") / "first")
    try:
        return derived, apply_method(derived)
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_its_source_is_named(name):
    entry = UNCERTAINTY[name]
    assert set(entry.metadata) == {"title", "paper", "year", "url", "least", "most"}
    assert entry.metadata["url"].startswith("https://")
    assert 1990 < entry.metadata["year"] < 2100
    assert 1 <= entry.metadata["least"] <= (entry.metadata["most"] or 99)


def test_options_are_keywords_with_plain_defaults(name):
    first, *_ = inspect.signature(UNCERTAINTY[name].value).parameters
    assert first == "runs"
    for option in options_of(name).values():
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert json.loads(json.dumps(option.default)) == option.default
        assert f"\n    {option.name}: " in inspect.getdoc(UNCERTAINTY[name].value)


def test_a_misspelt_option_is_a_clear_error(name, bench, tmp_path):
    with pytest.raises(InputError, match=rf"options .*{name}.*'no_option'"):
        plan_method(name, members_of(name, bench), out=tmp_path / "x", options={"no_option": 1})


@pytest.mark.system
def test_leaves_a_folder_like_any_run(made, bench):
    derived, metrics = made
    for part in ("val", "test"):
        found = Predictions.load(derived.folder / "predictions" / f"{part}.npz")
        source = Predictions.load(bench / "ce-s0" / "predictions" / f"{part}.npz")
        assert np.array_equal(found.target, source.target)
        assert np.array_equal(found.label_probs, source.label_probs)
        assert metrics[part] == default_metrics(found)
    reference = json.loads((bench / "ce-s0" / "metrics.json").read_text())
    assert reference.keys() <= metrics.keys()
    assert metrics["test_calibrated"].keys() == reference["test_calibrated"].keys()
    assert metrics["parameters"] > 0
    assert json.loads((derived.folder / "metrics.json").read_text()) == metrics


def test_finished_is_not_done_again(made, name, bench):
    derived, metrics = made
    before = {path: path.stat().st_mtime_ns for path in derived.folder.rglob("*")}
    assert apply_method(planned(name, bench, derived.folder)) == metrics
    assert {path: path.stat().st_mtime_ns for path in derived.folder.rglob("*")} == before


def test_the_same_again_elsewhere(made, name, bench, tmp_path):
    derived, metrics = made
    torch.rand(5)  # whatever was drawn before
    again = apply_method(planned(name, bench, tmp_path / "again"))
    assert again["test"] == metrics["test"]
    a, b = (
        Predictions.load(f / "predictions" / "val.npz")
        for f in (derived.folder, tmp_path / "again")
    )
    assert torch.equal(a.tensors().logits, b.tensors().logits)


@pytest.mark.system
def test_report_and_evaluation_take_it(made, name, capsys):
    derived, _ = made
    (run,) = [
        run for run in collect_runs(derived.folder.parent).runs if run.name == derived.folder.name
    ]
    assert (run.loss, run.made_by) == (f"{name}(ce)", name)
    if name == "deep-ensemble":  # its folder is like that of the others
        assert main(["evaluate", str(derived.folder), "--method", "temperature", "--json"]) == 0
        assert "after temperature" in json.loads(capsys.readouterr().out)
