"""Each example of the gallery runs, draws, and what its first sentence says is so."""

import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest

import fedlas
from fedlas.calibrators import CALIBRATORS

FOLDER = Path(__file__).parents[2] / "examples" / "gallery"


def churn(names):
    expected = [
        fedlas.Predictions.from_frame(names["after"], probs=prefix + "p_*", target="leaves")
        .probs[:, 1]
        .mean()
        for prefix in ("", "calibrated_")
    ]
    observed = names["after"].leaves.mean()
    assert 0.02 < observed < 0.04
    assert expected[0] > 5 * observed
    assert expected[1] == pytest.approx(observed, rel=0.15)


def clinical_risk(names):
    fitted, calibrated = (line.get_ydata() for line in names["ax"].lines[:2])
    assert (calibrated >= fitted - 0.01).all()
    assert (calibrated > fitted + 0.01).any()


def several_labels(names):
    before, after = (each["macro_ece"] for each in names["evaluation"].measured.values())
    assert after < before / 3
    assert all(table["9"].prevalence.value < 0.1 for table in names["evaluation"].labels.values())
    deployed = names["evaluation"].stages["after partial-pooling"].logits
    assert names["stages"][1].logits == pytest.approx(deployed, abs=1e-6)
    assert [ax.get_title(loc="left") for ax in names["axes"][1]] == [
        f"{name}, after" for name in names["worst"]
    ]


def image_to_onnx(names):
    measured = names["calibrated"].before_after(names["test"])
    assert 0.88 < measured.before.accuracy < 0.92
    assert measured.after.ece < measured.before.ece
    exported = fedlas.evaluate(fedlas.predict(names["session"], names["test"]))
    assert exported["ece"] == pytest.approx(measured.after.ece, abs=1e-4)


def text_model(names):
    measured = names["calibrated"].before_after(names["test"])
    assert measured.before.ece > 0.1
    assert measured.after.ece < measured.before.ece / 2


def language_model_logs(names):
    answers = names["log"].predictions
    is_long = np.array(names["log"].groups) == "long"
    error = {long: fedlas.evaluate(answers.rows(is_long == long))["ece"] for long in (False, True)}
    assert error[True] > 1.5 * error[False] > 0.1
    assert fedlas.evaluate(names["calibrated"])["ece"] < fedlas.evaluate(names["test"])["ece"] / 2


def segmentation(names):
    for metric in names["metrics"]:
        widths = [each[metric].high - each[metric].low for each in names["measured"].values()]
        assert widths[1] > 2 * widths[0]


def own_calibrator(names):
    assert names["differences"]["softened-labels"].high < 0


def own_loss(names):
    compared = names["result"].models["network"].comparisons["ece", "test"]
    assert {"ce", "squeezed"} <= {compared.best, *compared.not_distinguishable}


def month_of_drift(names):
    assert 15 < names["date"] <= 22
    assert names["monitor"].status == 3


CLAIMS = [
    churn,
    clinical_risk,
    several_labels,
    image_to_onnx,
    text_model,
    language_model_logs,
    segmentation,
    own_calibrator,
    own_loss,
    month_of_drift,
]


def test_every_example_is_checked():
    assert {path.stem for path in FOLDER.glob("*.py")} == {claim.__name__ for claim in CLAIMS}


@pytest.mark.system
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_it_draws_and_says_the_truth(claim, tmp_path, monkeypatch, changeable):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    changeable(CALIBRATORS)  # the own one goes again
    monkeypatch.setattr(pyplot, "show", lambda: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fedlas.errors.CalibrationWarning)
            names = runpy.run_path(str(FOLDER / f"{claim.__name__}.py"))
        assert pyplot.get_fignums() or "ax" in names
        claim(names)
    finally:
        pyplot.close("all")
