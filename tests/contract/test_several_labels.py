"""Several labels a sample: each role is used or refused, and so is each command and function."""

import inspect
from dataclasses import fields

import pytest
import torch

import fedlas
from fedlas import MultiLabel
from fedlas.calibrators import MultiLabelCalibration
from fedlas.cli import main
from fedlas.deploy import Monitor, fit_calibration, make_card
from fedlas.errors import InputError
from fedlas.predictions import Columns

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(240, 3, generator=RANDOM, dtype=torch.float64) - 1
TARGET = torch.bernoulli((0.5 * LOGITS).sigmoid(), generator=RANDOM).long()
FRAME = {
    **{f"p_{name}": LOGITS[:, place].sigmoid().tolist() for place, name in enumerate("abc")},
    **{f"y_{name}": TARGET[:, place].tolist() for place, name in enumerate("abc")},
    "w": [1.0 + row % 3 for row in range(240)],
    "who": [f"s{int(TARGET[row].sum()) * 10 + row % 10}" for row in range(240)],
    "day": [float(row) for row in range(240)],
}
USED = {"weights": "w", "clusters": "who", "time": "day"}
"""Roles of samples that several labels use, with a column of each."""
MEASURED = {"groups": "who"}
"""Roles that a report uses; a fit and a comparison refuse them."""
REFUSED = {"target": "y_a", "classes": ("a", "b", "c"), "event": "a", "normalize": True, "label_probs": "p_*",
           "covariates": "w", "confidence": "w", "correct": "w", "predicted": "w",
           "confidence_as": "words", "words": "high=.9"}  # fmt: skip
READING = {
    "probs",
    "logits",
    "labels",
    "percent",
    "drop_missing",
    "separator",
    "format",
    "one_per_cluster",
}


def test_every_role_has_a_line_here():
    assert {*USED, *MEASURED, *REFUSED, *READING} == {field.name for field in fields(Columns)}


@pytest.mark.parametrize("name", USED)
def test_a_role_of_samples_is_used(name):
    options = {"probs": "p_*", "labels": "y_*"}
    plain = fedlas.calibrate(FRAME, **options)
    other = fedlas.calibrate(FRAME, **options, **{name: USED[name]})
    assert str(plain.cross_fitted) != str(other.cross_fitted)
    if name != "time":
        live = {column: FRAME[column] for column in ("p_a", "p_b", "p_c")}
        one, two = (each.apply(live)["calibrated_p_a"] for each in (plain, other))
        assert (one != two).any()
        shown = [
            fedlas.report(FRAME, replicates=99, **options, **more).estimates["as predicted"]
            for more in ({}, {name: USED[name]})
        ]
        assert shown[0]["macro_nll"].low != shown[1]["macro_nll"].low


@pytest.mark.parametrize("name", MEASURED)
def test_a_role_that_is_measured_is_refused_by_a_fit(name):
    options = {"probs": "p_*", "labels": "y_*", name: MEASURED[name]}
    evaluation = fedlas.report(FRAME, replicates=0, **options)
    assert set(evaluation.groups["as predicted"]) == set(FRAME["who"])
    with pytest.raises(
        InputError, match=r"groups cannot be used with several labels.* fedlas\.report"
    ):
        fedlas.calibrate(FRAME, **options)
    table = fedlas.read_predictions(FRAME, **options)
    with pytest.raises(InputError, match="groups requires one label"):
        fedlas.compare(table, table)


@pytest.mark.parametrize("name", REFUSED)
def test_other_roles_are_refused(name):
    with pytest.raises(InputError):
        fedlas.read_predictions(FRAME, probs="p_*", labels="y_*", **{name: REFUSED[name]})


SEVERAL = MultiLabel(LOGITS, TARGET)
ONE = SEVERAL.label(0)
HALVES = [SEVERAL.rows(torch.arange(120)), SEVERAL.rows(torch.arange(120, 240))]


def card_of(val, test):
    facts = {"model": {"run": "drawn"}, "data": {"name": "drawn"}}
    return make_card(val, test, fit_calibration("none", val), **facts)


CARD_OF_ONE = card_of(*(half.label(0) for half in HALVES))


@pytest.mark.parametrize(
    "function",
    [
        lambda: fedlas.estimates(SEVERAL),
        lambda: fedlas.metrics.ece(SEVERAL),
        lambda: fedlas.calibrators.TemperatureScaling().fit(SEVERAL),
        lambda: fedlas.plots.reliability_diagram(SEVERAL),
        lambda: fedlas.card(SEVERAL, SEVERAL),
        lambda: fedlas.card(SEVERAL, ONE),
        lambda: make_card(SEVERAL, ONE, fit_calibration("none", ONE), model={"run": "a"}, data={"name": "x"}),
        lambda: Monitor(CARD_OF_ONE).update(SEVERAL),
        lambda: MultiLabelCalibration().fit(ONE),
    ],
)  # fmt: skip
def test_functions_of_one_label_refuse_several_in_words(function):
    with pytest.raises(InputError, match="; got"):
        function()


PLOTS_OF_PREDICTIONS = {
    name: function
    for name, function in inspect.getmembers(fedlas.plots, inspect.isfunction)
    if "Predictions" in str(next(iter(inspect.signature(function).parameters.values())).annotation)
}


@pytest.mark.parametrize("name", PLOTS_OF_PREDICTIONS)
def test_a_plot_of_one_label_says_how_to_draw_one_of_several(name):
    assert len(PLOTS_OF_PREDICTIONS) >= 8
    with pytest.raises(InputError, match=r"got MultiLabel .* several\.label\(name\)"):
        PLOTS_OF_PREDICTIONS[name](SEVERAL)


def test_the_plot_of_several_labels_refuses_one():
    with pytest.raises(InputError, match="predictions must be MultiLabel; got Predictions"):
        fedlas.plots.label_reliability_diagrams(ONE)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["card", "{val}", "{test}", "--risks", "0.3"], "--risks requires one label"),
        (
            ["card", "{val}", "{test}", "--threshold", "recall=0.8"],
            "--threshold recall requires one label",
        ),
        (["card", "{val}", "{test}", "--top-label"], "--top-label requires one label"),
        (["card", "{val}", "{test}", "--weights", "w"], "must have no weights"),
        (["card", "{val}", "{test}", "--clusters", "who"], "must be independent"),
        (["monitor", "{card}", "{test}", "--weights", "w"], "must have no weights"),
        (["monitor", "{card}", "{test}", "--clusters", "who"], "must be independent"),
        (["evaluate", "{val}", "--heterogeneity"], "--heterogeneity requires one label"),
        (["evaluate", "{val}", "--top-label"], "--top-label requires one label"),
        (
            ["evaluate", "{val}", "--threshold", "recall=0.8", "--on", "{test}"],
            "--threshold recall requires one label",
        ),
        (["compare", "{val}", "{test}", "--top-label"], "--top-label requires one label"),
    ],
)
def test_commands_use_several_labels_or_refuse_them(command, said, tmp_path, capsys):
    paths = {"card": card_of(*HALVES).save(tmp_path / "card.json")}
    for name, rows in (("val", slice(0, 120)), ("test", slice(120, 240))):
        paths[name] = tmp_path / f"{name}.csv"
        columns = {key: FRAME[key][rows] for key in FRAME}
        lines = zip(*columns.values(), strict=True)
        paths[name].write_text("\n".join(",".join(map(str, row)) for row in (columns, *lines)))
    words = [word.format(**paths) for word in command]
    assert main([*words, "--probs", "p_*", "--labels", "y_*"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_every_command_reads_saved_labels(tmp_path, capsys):
    val, test = (
        half.save(tmp_path / f"{name}.npz") for name, half in zip("ab", HALVES, strict=True)
    )
    card = tmp_path / "card.json"
    assert main(["evaluate", str(test), "--on", str(val), "--replicates", "0"]) == 0
    assert main(["card", str(val), str(test), "--out", str(card), "--replicates", "0"]) == 0
    assert main(["monitor", str(card), str(test)]) == 0
    assert "120 live samples, with labels" in " ".join(capsys.readouterr().out.split())


def test_init_guesses_the_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = {key: FRAME[key] for key in FRAME if key not in ("w", "day", "who")}
    lines = zip(*columns.values(), strict=True)
    text = "\n".join(",".join(map(str, row)) for row in (columns, *lines))
    (tmp_path / "cxr.csv").write_text(text)
    assert main(["init", "cxr.csv"]) == 0
    assert "3 labels" in capsys.readouterr().out
    script = (tmp_path / "cxr.sh").read_text()
    assert "fedlas evaluate cxr.csv --probs 'p_*' --labels 'y_*'" in script


def test_two_arrays_are_several_labels_by_their_rows():
    values = fedlas.evaluate(TARGET, LOGITS.sigmoid())
    assert values == pytest.approx(fedlas.evaluate(LOGITS, TARGET))
    assert values == pytest.approx(fedlas.evaluate(SEVERAL))
    shown = fedlas.report(TARGET.numpy(), LOGITS.numpy(), replicates=0).measured["as predicted"]
    assert shown == pytest.approx(values)
    one_hot = torch.nn.functional.one_hot(torch.arange(240) % 3)
    with pytest.raises(InputError, match="MultiLabel"):
        fedlas.evaluate(one_hot, LOGITS)
