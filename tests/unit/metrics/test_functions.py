"""Every metric is a function of its name, of predictions and of two arrays: ``fedlas.metrics.ece(probs, target)``."""

import importlib
import inspect
import pkgutil
import pydoc

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel, binary, metrics
from fedlas.errors import InputError
from fedlas.metrics import METRICS

GENERATOR = torch.Generator().manual_seed(0)
PROBS = torch.randn(80, 12, generator=GENERATOR, dtype=torch.float64).softmax(1)
LABELS = torch.multinomial(PROBS, 1, generator=GENERATOR).squeeze(1)
RISKS = torch.rand(80, generator=GENERATOR, dtype=torch.float64)
HAPPENED = torch.bernoulli(RISKS, generator=GENERATOR).long()
FUNCTIONS = {
    f"{package.__name__}.{entry.name.removeprefix('event_')}": (
        getattr(package, entry.name.removeprefix("event_")),
        entry,
    )
    for entry in METRICS.entries()
    for package in [binary if entry.subject == "event" else metrics]
}
NEEDS_LABEL_PROBS = {name for name, (_, entry) in FUNCTIONS.items() if "label_probs" in entry.needs}


def few_replicates(function):
    return {"replicates": 39} if "replicates" in inspect.signature(function).parameters else {}


def number(result):
    return getattr(result, "value", result)


def arrays_of(entry):
    two = entry.subject == "event" or entry.name in {"auroc", "average_precision"}
    return (RISKS, HAPPENED) if two else (PROBS, LABELS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_match_their_metric_records(name):
    function, entry = FUNCTIONS[name]
    assert function.__name__ == name.rpartition(".")[2]
    scores, target = arrays_of(entry)
    roles = {"label_probs": PROBS} if name in NEEDS_LABEL_PROBS else {}
    predictions = Predictions.from_probs(scores, target, **roles)
    options = few_replicates(function)
    assert number(function(predictions, **options)) == pytest.approx(
        entry.value(predictions), abs=1e-9
    )


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - NEEDS_LABEL_PROBS))
def test_arrays_give_what_predictions_give(name):
    function, entry = FUNCTIONS[name]
    scores, target = arrays_of(entry)
    options = few_replicates(function)
    expected = number(function(Predictions.from_probs(scores, target), **options))
    for kind in (torch.as_tensor, np.asarray, lambda array: array.tolist()):
        assert number(function(kind(scores), kind(target), **options)) == pytest.approx(
            expected, abs=1e-6
        )
    by_name = function(predictions=scores, target=target, **options)
    assert number(by_name) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_swapped_arrays_raise_with_correct_call(name):
    function, entry = FUNCTIONS[name]
    scores, target = arrays_of(entry)
    short = function.__name__
    with pytest.raises(InputError, match=rf"^{short}: .*; got .*Write {short}\(probs, target\)\."):
        function(target, scores)
    with pytest.raises(InputError, match=rf"^{short}: .*; got .*Write {short}\(probs, target\)\."):
        function(scores)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((PROBS, LABELS[:7]), "same number of rows"),
        ((PROBS, ["cat"] * 80), "with the classes in column order"),
        ((Predictions.from_probs(PROBS, LABELS), LABELS), "next to a predictions object"),
        ((TopLabel([0.5], [True]), [1]), "next to a predictions object"),
        (([0.2, 0.4], [0.1, 0.3]), "labels 0 and 1"),
        ((PROBS.log(), torch.eye(12)[LABELS]), r"labels must have shape \(N,\)"),
    ],
)
def test_arrays_other_than_scores_and_labels_raise(arrays, message):
    with pytest.raises(InputError, match=f"^ece: .*{message}"):
        metrics.ece(*arrays)


def test_logits_options_and_log_odds_work_as_arrays():
    logits = PROBS.log()
    assert metrics.ece(logits, LABELS, num_bins=3) == pytest.approx(
        metrics.ece(Predictions(logits, LABELS), num_bins=3)
    )
    assert binary.slope(RISKS.logit(), HAPPENED, confidence_level=0.5).low == pytest.approx(
        binary.slope(RISKS, HAPPENED, confidence_level=0.5).low
    )
    of_many = binary.brier(PROBS, LABELS, event=3).value
    assert of_many == pytest.approx(float(((PROBS[:, 3] - (LABELS == 3).double()) ** 2).mean()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_shows_signature_target_and_example(name):
    function, _ = FUNCTIONS[name]
    shown = pydoc.plain(pydoc.render_doc(function))
    words = "".join(shown.split())  # from Python 3.13 on a help has one argument a line
    assert f"{function.__name__}(predictions" in words
    assert shown.count(" target: Labels ``(N,)``") == 1
    assert ">>> " in shown
    assert list(inspect.signature(function).parameters)[:2] == ["predictions", "target"]


@pytest.mark.parametrize("package", [metrics, binary], ids=lambda package: package.__name__)
def test_no_module_hides_a_function_of_its_package(package):
    modules = [name for _, name, _ in pkgutil.iter_modules(package.__path__)]
    for name in modules:
        importlib.import_module(f"{package.__name__}.{name}")
    assert {name for name in package.__all__ if inspect.ismodule(getattr(package, name))} == set()
    assert set(package.__all__) <= set(dir(package))


def test_package_exports_every_metric_name():
    own = {entry.name for entry in METRICS.entries() if entry.value.__module__.startswith("fedlas")}
    of_all = {name for name in own if METRICS[name].subject == "prediction"}
    assert of_all <= set(metrics.__all__)
    of_events = {name.removeprefix("event_") for name in own - of_all}
    assert of_events <= set(binary.__all__)


def test_failed_registration_leaves_name_free(changeable):
    registry = changeable(METRICS)
    with pytest.raises(TypeError, match="shiny"):
        registry.add("share_of_right", metrics.accuracy, shiny=True)
    assert "share_of_right" not in registry


def test_a_users_metric_takes_arrays_too(changeable):
    changeable(METRICS)

    @METRICS.register("share_of_right", top_label=True)
    def share_of_right(predictions):
        """Share of right predictions."""
        return predictions.tensors().correct.double().mean().item()

    assert share_of_right(PROBS, LABELS) == metrics.accuracy(PROBS, LABELS)
    assert METRICS["share_of_right"].value is share_of_right


def test_user_metric_cannot_take_built_in_name():
    def slope(predictions):
        return 0.0

    with pytest.raises(ValueError, match="not yet registered"):
        METRICS.register("slope")(slope)
