"""``fedlas.report`` and the verdict: whatever a headline says, the table under it supports."""

import contextlib
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fedlas
from fedlas import Predictions, TopLabel, report
from fedlas.calibrators import IsotonicCalibration
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.predictions.tables.outputs import check_report_files
from fedlas.present import stages
from fedlas.present.page import OOD_PAGE, check_page_output, write_page
from fedlas.present.verdict import StageSummary, Verdict, effect_sentence, make_verdict
from fedlas.stats import Estimate, EstimateTable, spiegelhalter_test


def drawn(samples=1000, classes=4, sharpness=1.0, seed=0, shift=0.0):
    """Predictions that are too sharp by a factor, or shifted toward class 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    moved = logits - shift * torch.eye(classes)[1]
    target = torch.multinomial(moved.softmax(1), 1, generator=generator)[:, 0]
    return Predictions(sharpness * logits, target)


SEED = 4


@pytest.fixture(scope="module")
def sharp():
    return report(
        drawn(sharpness=3, seed=SEED),
        on=drawn(sharpness=3, seed=1),
        method="temperature",
        replicates=99,
        name="<test>",
    )


def test_an_over_confident_model_and_its_temperature(sharp):
    first, second = sharp.verdict
    values = sharp.measured["as predicted"]
    confidence = values["accuracy"] + values["o_ece"] - values["u_ece"]
    claim = f"claims {100 * confidence:.1f} % on average and is right in {100 * values['accuracy']:.1f} %"
    assert first == f"Over-confident: it {claim} (1,000 samples; joint p ≤ 0.01)."
    temperature = sharp.outcome.fitted["temperature"].temperature
    after = sharp.measured["after temperature"]
    assert second.startswith(f"After temperature {temperature:.3g}: it claims ")
    assert f"; this repairs it: NLL {values['nll']:.4f} -> {after['nll']:.4f}, ECE " in second
    assert f"(joint p = {sharp.verdicts['after temperature'].joint_p:.2g})" in second


def test_evaluation_prints_and_converts_to_all_formats(sharp):
    assert "repairs it" in repr(sharp)
    assert str(sharp) == sharp.text() != sharp.text(details=True)
    content = json.loads(sharp.json())
    assert content["verdict"] == sharp.verdict
    expected = fedlas.evaluate(drawn(sharpness=3, seed=SEED))
    assert content["as predicted"] == expected
    page, notebook = sharp.html(), sharp._repr_html_()
    assert "&lt;test&gt;" in page
    assert "<test>" not in page + notebook
    assert page.count("<figure>") == notebook.count("<img") == 2
    frame = sharp.to_frame()
    assert list(frame.columns) == ["stage", "metric", "value", "low", "high", "floor", "p"]
    assert len(frame) == 2 * (len(content["as predicted"]) + 1)
    z = spiegelhalter_test(drawn(sharpness=3, seed=SEED))
    assert content["spiegelhalter"]["as predicted"] == z._asdict()
    (row,) = [line for line in sharp.text(details=True).split("\n") if "Spiegelhalter's z" in line]
    assert f"{z.z:.2f}" in row
    ece = sharp.estimates["after temperature"]["ece"]
    assert f"[{100 * ece.low:.2f}, {100 * ece.high:.2f}]" in sharp.to_latex()
    assert content["joint_p"] == {stage: each.joint_p for stage, each in sharp.estimates.items()}


def test_two_classes_are_judged_by_the_event():
    """The ECE of the top label is within noise, and the probability of class 1 is too high by a third."""
    found = report(drawn(2000, 2, shift=0.5), replicates=199, classes=("no", "yes"))
    assert found.estimates["as predicted"]["top_label_ece"].p > 0.05
    assert re.match(
        r"Expects 'yes' in [\d.]+ % and [\d.]+ % occur: over-predicted", found.verdict[0]
    )
    other = report(drawn(2000, 2, shift=0.5), replicates=199, top_label=True)
    assert "it claims " in other.verdict[0]
    assert other.positive == {}
    frame = found.to_frame()
    (ratio,) = frame[frame.metric == "observed_to_expected"].to_dict("records")
    assert ratio["low"] < ratio["value"] < ratio["high"] < 1
    assert "observed / expected" in found.to_latex()
    assert len(frame[["stage", "metric"]].drop_duplicates()) == len(frame)


def test_groups_of_an_event_are_ranked_by_evidence():
    """The group whose risk is far too low is under-predicted; its top label is not over-confident."""
    test = drawn(3000, 2)
    group = torch.arange(3000) % 3
    worse = torch.where((group == 1) & (torch.arange(3000) % 2 == 0), 1, test.tensors().target)
    found = report(
        Predictions(test.tensors().logits, worse), groups=["abc"[k] for k in group], replicates=39
    )
    assert next(iter(found.groups["as predicted"])) == "b"
    assert found.verdict[-1].startswith(
        "Groups: 'b' is under-predicted most clearly: expects class 1 in "
    )
    assert list(json.loads(found.json())["groups"]["as predicted"]["b"])[:2] == [
        "num_samples",
        "events",
    ]
    assert "pooled slope" in found.text(details=True)


@pytest.mark.parametrize(("classes", "measure"), [(2, "ICI"), (4, "ECE")])
@pytest.mark.parametrize(
    ("nll", "error", "verb"), [(-1, -1, "helps"), (-1, 1, ""), (1, -1, ""), (1, 1, "")]
)
def test_a_verb_needs_both_numbers_to_fall(classes, measure, nll, error, verb):
    """The stages are made up: equal predictions have no paired difference, so the sums decide."""
    test = drawn(classes=classes)
    judged = Verdict("", {}, "over-confident", joint_p=0.01)
    before = StageSummary(test, judged, measure, 0.1, 1.0)
    after = StageSummary(test, judged, measure, 0.1 + 0.05 * error, 1.0 + 0.2 * nll)
    text = effect_sentence("temperature", None, before, after, replicates=0)
    assert (" helps: " in text) == bool(verb)
    assert "repairs" not in text
    assert f"NLL 1.0000 -> {1.0 + 0.2 * nll:.4f}, {measure} 10.00 -> " in text


@st.composite
def tables(draw):
    """Estimates of metrics with p-values of any size, and a joint one."""
    share = st.floats(0, 1)
    names = draw(
        st.sets(st.sampled_from(["ece", "adaptive_ece", "classwise_ece", "smooth_ece"]), min_size=1)
    )
    values = dict.fromkeys(METRICS, 0.0) | {"accuracy": draw(share), "o_ece": 0.0, "u_ece": 0.0}
    p = draw(st.floats(1e-3, 1))
    known = {name: Estimate(0.1, 0.0, 0.2, 0.05, p, 1e-3, 999) for name in names}
    table = EstimateTable(known)
    table.tests = {"confidence": draw(st.floats(1e-3, 1))}
    table.joint_p = draw(st.floats(1e-3, 1))
    table.least_joint_p = 1e-3
    return values, table


@given(tables())
def test_the_headline_is_never_weaker_than_its_table(made):
    values, table = made
    found = make_verdict(values, table, None, TopLabel([0.5], [1]))
    assert found.rejects_calibration == (table.joint_p <= 0.05)
    assert found.joint in found.text
    if found.rejects_calibration or table.tests["confidence"] <= 0.05:
        assert re.match("Over-confident|Under-confident|Miscalibrated", found.text)
        assert ("do not reject" in found.text) == (not found.rejects_calibration)
        return
    alone = [each.text for each in found.tests.values() if each.p <= 0.05]
    assert found.text.startswith("No miscalibration shows in the" if alone else "No miscalibration")
    assert any(text in found.text for text in alone) == bool(alone)
    assert "by :" not in found.text
    assert f"joint p {'≤' if table.joint_p < 1.001e-3 else '='} " in found.text


@st.composite
def events(draw):
    """An event whose log-odds are shifted and stretched a little: single tests and the joint one often disagree."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    samples = draw(st.integers(40, 300))
    log_odds = random.normal(-1.0, 1.0, samples)
    claimed = draw(st.floats(-0.4, 0.4)) + draw(st.floats(0.7, 1.4)) * log_odds
    happened = random.random(samples) < 1 / (1 + np.exp(-log_odds))
    scores = np.stack([0 * claimed, claimed], axis=1)
    return Predictions(scores, happened.astype(int)), draw(st.sampled_from([0, 99]))


@given(events())
@settings(max_examples=25)
def test_the_headline_of_an_event_is_never_weaker(made):
    predictions, replicates = made
    evaluation = report(predictions, replicates=replicates)
    found = evaluation.verdicts["as predicted"]
    text = evaluation.verdict[0]
    alone = {name: each for name, each in found.tests.items() if each.p <= 0.05}
    if not alone or found.rejects_calibration or found.is_reversed:
        assert "alone" not in text
        return
    assert "miscalibration shows (" not in text
    if not replicates:
        assert any(each.text in text for each in alone.values())
        return
    assert "tests together" in text
    for name in ("observed_to_expected", "slope"):
        if name in alone:
            assert "do not reject (joint p" in text
            assert alone[name].text.rpartition("(")[2].rstrip(")") in text
            return
    assert min(alone.values(), key=lambda each: each.p).text in text


def test_too_few_events_contradict_the_joint_test():
    """15.7 % are expected and 11.9 % occur: O/E rejects by itself, and seven tests together do not."""
    random = np.random.default_rng(27)
    log_odds = random.normal(-1.9, 0.8, 420)
    happened = random.random(420) < 1 / (1 + np.exp(0.3 - log_odds))
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    evaluation = report(Predictions(scores, happened.astype(int)), replicates=199)
    found = evaluation.verdicts["as predicted"]
    assert found.rejects_alone == "observed_to_expected"
    assert found.joint_p > 0.05
    assert re.fullmatch(
        r"Expects class 1 in [\d.]+ % and [\d.]+ % occur \(p = 0\.0\d+; 420 samples\); the 7 tests together do not "
        r"reject \(joint p = 0\.\d+\)\.",
        evaluation.verdict[0],
    )
    assert str(evaluation.require("calibrated")).count("alone, observed / expected") == 1


def test_without_tests_nothing_is_claimed():
    found = report(drawn(sharpness=3), replicates=0)
    assert found.verdict == [found.verdicts["as predicted"].text]
    assert "No calibration test was run" in found.verdict[0]


def test_a_calibrator_that_makes_it_worse_is_named():
    found = report(drawn(), on=drawn(sharpness=0.3, seed=1), method="temperature", replicates=99)
    assert re.search(r"makes it worse \(NLL .*omit the calibrator", found.verdict[1])


def test_errors_name_arguments_or_options():
    with pytest.raises(
        InputError,
        match=r"^report: method='temperature' requires held-out predictions; got no on=\. Pass on=",
    ):
        report(drawn(), method="temperature")
    with pytest.raises(InputError, match=r"got 'clases'\. Did you mean 'classes'"):
        report(drawn(), clases=["a"])


def test_held_out_training_data_gets_a_note():
    training = Predictions(drawn().tensors().logits, drawn().tensors().predicted)
    found = report(drawn(seed=2), on=training, replicates=0)
    assert any("if the held-out samples were trained on" in note for note in found.notes)
    assert report(drawn(seed=2), on=drawn(), replicates=0).notes == ()
    # what is wrong does not count
    mixed = replace(drawn(seed=2), weights=drawn(seed=2).tensors().correct.double())
    (note,) = report(mixed, on=training, replicates=0).notes
    assert note.endswith("rows of weight 0 are ignored.")


def test_the_same_predictions_twice_are_refused():
    with pytest.raises(InputError, match="must differ from the evaluated predictions"):
        report(drawn(), on=drawn())
    with pytest.raises(InputError, match="different predictions"):
        fedlas.card(drawn(), drawn())


def test_weights_keep_the_event():
    weighted = Predictions(
        drawn(classes=2).tensors().logits,
        drawn(classes=2).tensors().target,
        weights=torch.ones(1000),
    )
    found = report(weighted, replicates=0)
    assert found.positive["as predicted"]["slope"].value > 0
    assert found.notes == ()


def test_confidences_alone_and_groups():
    top = TopLabel(drawn().tensors().confidence, drawn().tensors().correct)
    found = report(top, groups=["a", "b"] * 500, replicates=99)
    assert found.text().count("Groups, ") == 1
    assert "Groups" in found.verdict[-1]


@pytest.mark.parametrize("calibrator", ["temperature", "isotonic", "none"])
def test_top_label_card_is_saved_and_monitored(tmp_path, calibrator):
    val, test, live, worse = (
        TopLabel(each.tensors().confidence, each.tensors().correct)
        for each in (
            drawn(sharpness=3, seed=seed) if seed < 3 else drawn(4000, sharpness=9)
            for seed in range(4)
        )
    )
    card = fedlas.card(val, test, calibrator, replicates=0, name="net")
    card.save(tmp_path / "net.json")
    assert "confidences of the predicted class only" in (tmp_path / "net.html").read_text()
    stages = card.card.metrics
    assert "nll" not in stages["calibrated"]
    assert (stages["calibrated"]["ece"]["value"] < stages["as predicted"]["ece"]["value"]) == (
        calibrator != "none"
    )
    monitor = fedlas.deploy.Monitor(tmp_path / "net.json")
    assert not monitor.update(live, raw=True)
    assert monitor.update(worse, raw=True)
    with pytest.raises(InputError, match="must be confidences"):
        monitor.update(drawn())
    with pytest.raises(InputError, match="the same number of classes"):
        fedlas.card(val, drawn())


def test_confidences_alone_are_calibrated():
    test, val = (
        TopLabel(each.tensors().confidence, each.tensors().correct)
        for each in (drawn(sharpness=3), drawn(sharpness=3, seed=1))
    )
    found = report(test, on=val, method="isotonic", reject=[0.2], replicates=99)
    expected = IsotonicCalibration().fit(val).transform(test)
    assert torch.equal(
        found.stages["after isotonic"].tensors().confidence, expected.tensors().confidence
    )
    assert found.measured["after isotonic"] == fedlas.evaluate(expected)
    assert re.match("After isotonic: it claims .*; this repairs it: NLL ", found.verdict[1])
    assert set(found.rejected) == set(found.stages)
    assert "repairs it" in found.html()
    (worse,) = report(
        TopLabel(drawn().tensors().confidence, drawn().tensors().correct),
        on=val,
        method="platt",
        replicates=99,
    ).verdict[1:]
    assert "makes it worse (NLL" in worse
    with pytest.raises(InputError, match="must differ from the evaluated predictions"):
        report(test, on=test)


def test_a_card_and_a_monitor_in_python(tmp_path):
    card = fedlas.card(
        drawn(sharpness=3),
        drawn(sharpness=3, seed=1),
        replicates=0,
        name="net",
        classes=list("abcd"),
    )
    assert repr(card) == card.text()
    assert "What may be accepted" in card._repr_html_()
    assert list(card.to_frame()["risk"]) == [
        row["risk"] for row in card.card.selective["thresholds"]
    ]
    assert card.save(tmp_path / "net.json").name == "net.html"
    monitor = fedlas.deploy.Monitor(tmp_path / "net.json")
    assert "no samples yet" in repr(monitor)
    assert fedlas.deploy.Monitor(card).card is card.card
    assert card.card.to_dict() == fedlas.deploy.Card.read(tmp_path / "net.json").to_dict()
    assert not monitor.update(drawn(sharpness=3, seed=2), raw=True)
    assert monitor.update(drawn(4000, sharpness=3, seed=3), raw=False)
    assert "ALARM" in repr(monitor)
    assert "predicted as class a" in {
        each["name"] for each in monitor.content["watches"]["classes"]["statistics"]
    }


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize("value", [None, -1, "", [1, "a"], {}, torch.zeros(2), object, b"x"])
def test_wrong_types_give_an_error_or_a_result(value):
    options = {"method": "none", "replicates": 0}
    test, val = drawn(50), drawn(50, seed=1)
    calls = [
        partial(report, value),
        partial(fedlas.card, value, val),
        partial(fedlas.deploy.Card.read, value),
    ]
    reported = ("on", "method", "reject", "groups", "num_bins", "replicates", "name")
    calls += [
        partial(report, test, **{"on": val, "replicates": 0, name: value}) for name in reported
    ]
    carded = ("method", "name", "data", "risks", "replicates", "classes", "num_bins")
    calls += [partial(fedlas.card, test, val, **{**options, name: value}) for name in carded]
    for call in calls:
        with contextlib.suppress(InputError):
            repr(call())


def test_a_page_bears_its_title_date_and_period():
    page = report(drawn(), replicates=0, title="Sales <b>", period="May 2026").html()
    assert "<h1>Sales &lt;b&gt;</h1>" in page
    assert re.search(r"Made on \d{4}-\d\d-\d\d by fedlas \S+; samples of May 2026\.", page)
    assert page.index("It claims") < page.index("<table")


def test_pdf_without_browser_is_rejected_first(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(InputError, match=r"requires Chromium.*Write x\.html, open it and print"):
        check_page_output(Path("x.pdf"))


@pytest.mark.system
def test_a_browser_prints_the_page(tmp_path):
    if not any(map(shutil.which, ("chromium", "google-chrome", "chrome"))):
        pytest.skip("no browser")
    path = write_page(tmp_path / "x.pdf", report(drawn(), replicates=0).html())
    assert path.read_bytes()[:5] == b"%PDF-"
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho no display >&2\n")
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda _name: str(script))
        with pytest.raises(InputError, match=r"no display.*print the page"):
            write_page(tmp_path / "y.pdf", "<p>")
    assert not (tmp_path / "y.pdf").exists()


def test_tripod_paragraph_has_numbers_and_interval_methods():
    random = np.random.default_rng(0)
    p = 1 / (1 + np.exp(1 - random.normal(size=900)))
    y = (random.random(900) < p).astype(int)
    evaluation = fedlas.report(y, p, event="death", replicates=0)
    (text,) = evaluation.tripod().split("\n")
    measures = evaluation.positive["as predicted"]
    assert f"900 samples, of which {y.sum()} ({100 * y.mean():.1f}%) had the event 'death'" in text
    for name, words in (("slope", "calibration slope"), ("auroc", "C statistic")):
        each = measures[name]
        places = 3 if name == "auroc" else 2
        value, low, high = (f"{n:.{places}f}" for n in (each.value, each.low, each.high))
        assert f"the {words} was {value} ({low} to {high})" in text
    assert "DeLong's" in text
    assert text.count("confidence interval") == 1  # the level is said once
    shown = " ".join(evaluation.text(details=True).split())
    assert f"To paste, by TRIPOD+AI: {text}" in shown
    clusters = np.arange(900) // 9
    patients = fedlas.Predictions.from_probs(p, y, clusters=clusters)
    assert "900 samples of 100 clusters" in fedlas.report(patients, replicates=0).tripod()
    assert "Student's t distribution" in fedlas.report(patients, replicates=0).tripod()
    weights = np.arange(900) % 3  # 0: no sample of this population
    weighted = fedlas.Predictions.from_probs(p, y, weights=weights)
    text = fedlas.report(weighted, replicates=0).tripod()
    assert f"600 samples, of which {y[weights > 0].sum()}" in text
    assert "cluster" not in text
    alone = fedlas.Predictions.from_probs(p, y, clusters=np.zeros(900, dtype=int))
    text = fedlas.report(alone, replicates=0).tripod()
    assert text.endswith(
        "All samples were of one cluster; confidence intervals were not calculated."
    )


def test_groups_may_include_rows_of_zero_weight():
    probs = torch.linspace(0.1, 0.9, 60)
    weights = torch.ones(60)
    weights[:10] = 0
    pair = torch.stack([1 - probs, probs], dim=1)
    rows = fedlas.Predictions.from_probs(pair, torch.arange(60) % 2, weights=weights)
    with pytest.raises(InputError, match="60"):
        fedlas.report(rows, groups=["a", "b"] * 25, replicates=60)


@pytest.mark.parametrize("event", [True, False])
def test_rows_of_weight_0_are_not_counted(event):
    """They are as if they were not there, and a note says how many."""
    draw = torch.Generator().manual_seed(0)
    probs = torch.rand(300, generator=draw)
    frame = {"p": probs.tolist(), "y": (torch.rand(300, generator=draw) < probs).int().tolist()}
    frame |= {"w": [float(row % 3 > 0) for row in range(300)], "g": [row % 2 for row in range(300)]}
    there = {
        name: [v for v, w in zip(values, frame["w"], strict=True) if w]
        for name, values in frame.items()
    }
    options = {"probs": "p", "target": "y", "weights": "w", "groups": "g", "top_label": not event}
    one, other = (fedlas.report(each, **options, replicates=60) for each in (frame, there))
    assert "300" not in one.title
    assert one.title == other.title
    assert "200 samples" in one.title
    one_model = fedlas.read_predictions(frame, probs="p", target="y", weights="w")
    other_model = fedlas.read_predictions(frame, probs="p", target="y", weights="w")
    assert fedlas.compare(one_model, other_model, replicates=60).samples == 200
    assert [note for note in one.notes if note not in other.notes] == [
        "100 rows of weight 0 are ignored."
    ]
    assert one.text(details=True).replace("100 rows of weight 0 are ignored.", "") == other.text(
        details=True
    )


@pytest.mark.parametrize("outcomes", [[0, 0], [1, 1], [0, 1]])
def test_event_page_shows_risk_distribution_by_outcome(outcomes):
    p = torch.linspace(0.1, 0.9, 60)
    page = report(Predictions.from_probs(p, outcomes * 30), replicates=0).html()
    assert ("Distribution of the probability of class 1 by outcome" in page) == (
        0 < sum(outcomes) < 2
    )
    assert "Decision curve of class 1" in page


def test_report_files_are_replaced_only_beside_page(tmp_path):
    (tmp_path / "ood.csv").write_text("mine")
    with pytest.raises(InputError, match=r"ood\.csv must be new"):
        check_report_files(tmp_path, "ood.html", OOD_PAGE, ("ood.csv",))
    (tmp_path / "ood.html").write_text('<meta name="generator" content="fedlas ood">')
    check_report_files(tmp_path, "ood.html", OOD_PAGE, ("ood.csv",))
    (tmp_path / "ood.html").write_text("mine")
    with pytest.raises(InputError, match=r"ood\.html must be new"):
        check_report_files(tmp_path, "ood.html", OOD_PAGE, ("ood.csv",))


def test_event_text_resamples_only_two_metrics(monkeypatch):
    """The others wait to be looked up, and agree with the measures of the event then."""
    asked = []
    whole = stages.metric_and_class_estimates
    monkeypatch.setattr(
        stages,
        "metric_and_class_estimates",
        lambda p, names, **o: asked.append(names) or whole(p, names, **o),
    )
    event = report(drawn(classes=2), replicates=99)
    assert "Brier scaled" in event.text()
    assert asked == [["ece", "nll"]]
    table, shown = event.estimates["as predicted"], event.positive["as predicted"]
    assert len(asked) == 2
    assert set(table) == set(event.measured["as predicted"])
    assert all(table[name].to_dict() == shown[name].to_dict() for name in ("ece", "nll", "brier"))
